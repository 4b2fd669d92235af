"""From a STAR file, micrographs with borders and a template to a refined table."""

import re
import shutil

import numpy as np
import pandas as pd
import pytest
import starfile

from jaxrefine.app.cli import main
from jaxrefine.app.interchange.flat_maps import write_flat_maps
from jaxrefine.data import InputError
from jaxrefine.io.mrc import (
    image_shape,
    read_image,
    read_volume,
    write_image,
    write_volume,
)

pytestmark = pytest.mark.usefixtures("compiled_to_run_fast")

BORDER_PX = 8


def lay_out(demo, folder):
    """No match table, no maps, zero borders, and a template of inverted contrast."""
    (folder / "MotionCorr").mkdir(parents=True)
    match = pd.read_csv(demo / "match_results.csv")
    for name in match.micrograph_path.unique():
        image = read_image(demo / name)
        image = image + 6 * image.std()
        image[:BORDER_PX], image[:, -BORDER_PX:] = 0, 0
        write_image(folder / "MotionCorr" / name, image)
    volume, voxel_size = read_volume(demo / "template.mrc")
    write_volume(folder / "template.mrc", -volume, voxel_size)
    first, half = match.iloc[0], len(volume) // 2
    optics = {
        "rlnOpticsGroupName": "opticsGroup1",
        "rlnOpticsGroup": 1,
        "rlnMicrographPixelSize": first.pixel_size,
        "rlnVoltage": first.voltage,
        "rlnSphericalAberration": first.spherical_aberration,
        "rlnAmplitudeContrast": first.amplitude_contrast_ratio,
    }
    particles = {
        "rlnMicrographName": "MotionCorr/" + match.micrograph_path,
        "rlnCoordinateX": match.pos_x + float(half),
        "rlnCoordinateY": match.pos_y + float(half),
        "rlnAngleRot": match.phi,
        "rlnAngleTilt": match.theta,
        "rlnAnglePsi": match.psi,
        "rlnDefocusU": match.defocus_u + match.relative_defocus,
        "rlnDefocusV": match.defocus_v + match.relative_defocus,
        "rlnDefocusAngle": match.astigmatism_angle,
        "rlnOpticsGroup": 1,
        "rlnOriginXAngst": 0.0,
        "rlnOriginYAngst": 0.0,
    }
    blocks = {"optics": pd.DataFrame([optics]), "particles": pd.DataFrame(particles)}
    starfile.write(blocks, folder / "particles.star")
    return match


def search_coarsely(path):
    """The two searches are only compared with each other, so few orientations suffice."""
    text = path.read_text()
    for name, step in (("psi_step_fine", 0.5), ("theta_step_fine", 1.25)):
        text = re.sub(rf"{name}: [\d.]+", f"{name}: {step}", text)
    path.write_text(text)


@pytest.mark.nightly
def test_the_words_on_the_way_lead_to_the_result(
    demo_folder, tmp_path, monkeypatch, capsys
):
    shutil.copytree(demo_folder, tmp_path / "demo")
    search_coarsely(tmp_path / "demo" / "config.yaml")
    match = lay_out(tmp_path / "demo", tmp_path / "user")
    monkeypatch.chdir(tmp_path / "user")

    def run(line, code=0):
        assert main(line.split()) == code
        out, err = capsys.readouterr()
        return out + err

    brought = "import particles.star --output table.csv --template-size 96"
    assert "with --flat-maps" in run(brought)
    said = run("init table.csv --template template.mrc", 2)
    assert "correlation_average_path" in said and "--flat-maps" in said
    assert "init table.csv --template" in run(f"{brought} --flat-maps --overwrite")
    assert "give one with --template" in run("init table.csv", 2)
    assert "statistics: standard_deviation" in run("init table.csv --template template.mrc")
    said = run("check config.yaml", 1)
    assert "pixels are defective" in said
    assert "set `invert_contrast: true`" in said
    with open("config.yaml", "a", encoding="utf-8") as file:
        file.write("invert_contrast: true\n")
    assert "conventions of the table are right" in run("check config.yaml")
    search_coarsely(tmp_path / "user" / "config.yaml")
    run("config.yaml")
    # Beside the same search in images without borders, with the maps of the match. These
    # rise at the particles, so that z is compared over the background.
    refined = pd.read_csv("table_refined.csv")
    monkeypatch.chdir(tmp_path / "demo")
    run("config.yaml --output best.csv")
    best = pd.read_csv("best.csv")
    assert (refined.refined_filled_fraction < 0.2).all()
    np.testing.assert_allclose(
        refined.refined_snr.mean(), best.refined_snr.mean(), rtol=0.03
    )
    moved = np.abs(refined.refined_pos_x - match.pos_x).max()
    assert moved <= 3


def test_flat_maps_serve_all_micrographs_of_one_shape(tmp_path):
    for name, shape in (("a", (80, 90)), ("b", (80, 90)), ("c", (70, 70))):
        write_image(tmp_path / f"{name}.mrc", np.ones(shape, np.float32))
    names = ["a.mrc", "b.mrc", "c.mrc", "a.mrc"]
    table = tmp_path / "t.csv"
    maps = write_flat_maps(table, names, tmp_path, 64, overwrite=False)
    assert maps[0] == maps[1] == maps[3] != maps[2]
    assert image_shape(maps[0][0]) == (17, 27)
    assert np.all(read_image(maps[2][0]) == 0) and np.all(read_image(maps[2][1]) == 1)
    with pytest.raises(InputError, match="overwrite"):
        write_flat_maps(table, names, tmp_path, 64, overwrite=False)
    with pytest.raises(InputError, match="at least as large as the template, 72 px"):
        write_flat_maps(table, names[2:], tmp_path, 72, overwrite=True)
