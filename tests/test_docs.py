"""The code in the documentation is run, block after block."""

import re

import numpy as np
import pandas as pd
import pytest
import yaml

import jaxrefine as jr
from jaxrefine import simulate as sim
from tests import worlds
from tests.app.run.test_polishing import GRID
from tests.reference import ROOT, reference_set
from tests.worlds import batch_of, one_particle

pytestmark = pytest.mark.usefixtures("compiled_to_run_fast")

DOCS = ROOT / "docs"


def python_blocks(path):
    return re.findall(r"```python\n(.*?)```", path.read_text(), flags=re.DOTALL)


@pytest.mark.nightly
def test_differentiable(capsys):
    blocks = python_blocks(DOCS / "differentiable.md") + python_blocks(DOCS / "scores.md")
    imaging, side = worlds.Imaging(pixel_size=2.0), 16
    score = imaging.image_ctf((20, 20), side, defocus=200.0)
    atoms = worlds.ball(side, 2.0, b=80.0)
    rng = np.random.default_rng(0)
    volume = sim.potential_volume(atoms, side, 2.0)
    found = []
    for rotation in sim.random_rotations(2, rng):
        image = worlds.signal_in_padded_box(
            score, atoms, imaging, rotation, 200, (0.3, -0.2)
        )
        noise = rng.standard_normal(score.padded_box)
        found.append(one_particle(score, 20 * image + noise, imaging, rotation=rotation))
    grid = jr.local_grid(None, jr.search_offsets(-50.0, 50.0, 25.0))
    particles = batch_of(found)
    refined = jr.refine_particles(particles, jr.make_template(volume), grid, score)
    names = {
        "volume": volume,
        "particles": particles,
        "refined": refined,
        "grid": grid,
        "score": score,
    }
    for block in blocks:
        exec(block, names)
    printed = capsys.readouterr().out
    assert "nan" not in printed and len(printed.splitlines()) >= 5
    assert np.all(names["polished"].refined.z_score > refined.z_score)
    # The prior pulls u and v, which start at 5200 and 4700 Å, and the score is no better.
    assert np.all(names["with_it"].refined.z_score <= names["polished"].refined.z_score)
    by_field = names["by_field"]
    assert not np.any(by_field.alignment.position_px) and by_field.valid is None
    assert np.all(by_field.optics.b_factor_angstrom2 != 0)
    assert names["climbed"][-1] > names["climbed"][0]  # in all four of different units
    assert np.all(names["scaled"].shift_px != 0) and names["scaled"].phase_shift_deg != 0
    assert not np.any(names["scaled"].spherical_aberration_mm)
    assert np.all(names["with_40"].z_score != refined.z_score)
    assert np.all(
        names["z_high"] != jr.score_particles(particles, names["template"], score)[0]
    )
    best, three = refined.alignment, names["best_three"]
    np.testing.assert_allclose(three.defocus_angstrom[0], best.defocus_angstrom[0])
    np.testing.assert_array_equal(three.position_px[0], best.position_px[0])
    assert names["posterior"].shares.sum() == pytest.approx(1.0)
    for leaf in (names["by_volume"], names["by_image"], names["slopes"].rotation_deg):
        assert np.all(np.isfinite(leaf)) and np.any(leaf != 0)


def test_every_public_name_is_on_its_page():
    stub = (ROOT / "jaxrefine" / "__init__.pyi").read_text()
    page = (DOCS / "api.md").read_text()
    public = re.findall(r"import (\w+) as \1\n", stub)
    rooms = {"data", "physics", "refine"}
    assert len(public) > 40
    absent = {n for n in public if not re.search(rf"^::: jaxrefine\.{n}$", page, re.M)}
    assert absent == rooms


@pytest.mark.nightly
def test_library(tmp_path, monkeypatch, capsys):
    blocks = python_blocks(DOCS / "library.md")
    steps, frames, arrays, simulated, compared, shared, two_templates = blocks
    (in_readme,) = python_blocks(ROOT / "README.md")
    assert re.sub(" +#.*", "", in_readme) == steps
    folder = reference_set("basic", tmp_path)
    config = yaml.safe_load((folder / "refine.yaml").read_text())
    config |= GRID | {"polish": {"enabled": True}}
    (folder / "refine.yaml").write_text(yaml.safe_dump(config))
    monkeypatch.chdir(folder)
    names = {}
    exec(steps, names)
    written = pd.read_csv("refined.csv")
    pd.testing.assert_frame_equal(names["table"], written)
    assert len(written) == 7
    assert np.all(written.refined_scaled_mip > written.grid_scaled_mip)
    exec(frames, names)
    printed = capsys.readouterr().out
    assert "phi_deg" in printed and "tilt_x_sigma_deg" in printed

    # From arrays, which the page simulates below.
    exec(simulated, names)
    # The full grid is what other tests run; the words are the same.
    coarser = arrays.replace("psi_fine=0.1", "psi_fine=0.75")
    coarser = coarser.replace("theta_fine=0.25", "theta_fine=1.25")
    assert coarser != arrays
    exec(coarser, names)
    assert np.all(names["refined"].z_score >= names["z"])
    exec(compared, names)
    errors = [
        jr.angle_between_deg(found.rotation, names["rotations"])
        for found in (names["alignment"], names["refined"].alignment)
    ]
    assert np.mean(errors[1]) < np.mean(errors[0])

    # Of one micrograph, with nothing to be found.
    names["micrograph_number"] = np.zeros(len(names["rotations"]), int)
    exec(shared, names)
    assert abs(names["change"]) < 4 * names["standard_error"]

    # The same template a second time, with maps of twice the deviation.
    again = (names["volume"], names["corr_mean"], 2 * names["corr_std"])
    names |= dict(zip(("other_volume", "other_mean", "other_std"), again, strict=True))
    exec(two_templates, names)
    half = (np.asarray(names["z"]) + 0) / 2
    np.testing.assert_allclose(names["z_other"], half, rtol=1e-5)
