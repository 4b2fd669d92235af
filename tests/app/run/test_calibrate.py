"""A calibration from files to files: the shipped example, and invalid input."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from jaxrefine.app.cli import main
from jaxrefine.app.config import Config
from jaxrefine.app.config.optimize_template import load_optimize_template
from jaxrefine.app.console.exit_codes import EXIT_INVALID_INPUT
from jaxrefine.app.run.calibrated_table import write_calibrated_table
from jaxrefine.app.run.calibration import Calibration
from jaxrefine.app.run.calibration_inputs import load_calibration
from jaxrefine.data import InputError
from jaxrefine.io.mrc import read_volume
from jaxrefine.io.table import read_particle_table
from jaxrefine.refine.joint import JointFit
from jaxrefine.refine.shared import SHARED


@pytest.mark.slow
def test_what_the_microscope_did_is_found(example):
    """Each value within three standard errors; z also rises for held-out micrographs."""
    folder, names = example
    assert (folder / "calibrate.png").read_bytes().startswith(b"\x89PNG\r\n")
    page = (folder / "picks_calibration_report" / "report.html").read_text()
    assert "Calibration of picks.csv" in page and page.count("data:image/png") == 6
    found = yaml.safe_load((folder / "picks_calibration.yaml").read_text())
    truth, slope = names["TRUTH"], names["slope"]
    seen = {}
    for entry in found["parameters"]:
        for label, value in entry["values"].items():
            seen.setdefault(label, []).append((value["value"], value["standard_error"]))
    for label, true in {**truth, "defocus_slope_y": slope, "defocus_slope_x": 0.0}.items():
        for value, sigma in seen[label]:
            assert abs(value - true) < 3 * sigma, label
    assert [v for v, _ in seen["defocus"]] == pytest.approx([4000, 4060], abs=100)
    largest = {"pixel_size": 0.01, "beam_tilt_x": 0.2, "defocus_slope_y": 0.2}
    for label, sigma in largest.items():
        assert seen[label][0][1] < sigma
    assert found["converged"] and found["particles"] == 32
    assert found["mean_z_calibrated"] > found["mean_z_poses_refined"]
    held_out = found["held_out"]
    assert held_out["gain"] > 2 * held_out["gain_standard_error"]
    matrix = np.array(found["correlation"]["matrix"])
    assert len(found["correlation"]["values"]) == len(matrix) == 11
    np.testing.assert_allclose(matrix, matrix.T)
    np.testing.assert_allclose(np.diag(matrix), 1)
    tilted = {e["parameter"]: e for e in found["parameters"]}
    assert tilted["beam_tilt"]["p_value"] < 1e-6
    assert tilted["beam_tilt"]["degrees_of_freedom"] == 2
    assert abs(tilted["defocus_plane"]["tilt_deg"] - 20) < 15


@pytest.mark.slow
def test_the_table_can_be_refined_again(example):
    """It has the fitted values in the columns that a refinement reads, and their scores."""
    folder, _ = example
    found = yaml.safe_load((folder / "picks_calibration.yaml").read_text())
    values = {
        label: value["value"]
        for entry in found["parameters"][:3]
        for label, value in entry["values"].items()
    }
    table = read_particle_table(folder / "picks_calibrated.csv")
    start = table.start()
    np.testing.assert_allclose(start.pixel_size_angstrom, values["pixel_size"], atol=1e-5)
    a, b = values["magnification_yy"], values["magnification_yx"]
    expected = [[1 + a, b], [b, 1 - a]]
    np.testing.assert_allclose(start.optics.mag_matrix[0], expected, atol=1e-6)
    tilt = [values["beam_tilt_x"], values["beam_tilt_y"]]
    np.testing.assert_allclose(start.optics.beam_tilt_mrad[5], tilt, atol=1e-5)
    assert start.from_refined.all()
    z = table.numbers("refined_scaled_mip")
    # Its maps are of mean 0 and deviation 1: z is the fit's.
    assert abs(z.mean() - found["mean_z_calibrated"]) < 0.05
    assert (table.numbers("particle_probability") > 0.5).all()
    frame = pd.read_csv(folder / "picks_calibrated.csv")
    assert np.shape(json.loads(frame.mag_matrix[0])) == (4,)
    # A calibration from there starts where the first one has ended.
    config = yaml.safe_load((folder / "config.yaml").read_text())
    config["particle_stack"]["df_path"] = str(folder / "picks_calibrated.csv")
    inputs = load_calibration(Config.from_dict(config, str(folder / "config.yaml")))
    heights = frame.refined_relative_defocus
    np.testing.assert_allclose(inputs.start.own[:, 5], heights)
    np.testing.assert_allclose(inputs.start.own[:, 3], frame.refined_shift_y)
    np.testing.assert_allclose(inputs.run.start.defocus_angstrom, 4000.0)


@pytest.fixture
def changed(example, tmp_path):
    """Makes a configuration in a copy of the example's folder, and its table."""
    copy = tmp_path / "set"
    shutil.copytree(example[0], copy, ignore=shutil.ignore_patterns("picks_calib*"))

    def make(config=None, columns=None, **calibrate):
        data = yaml.safe_load((copy / "config.yaml").read_text())
        data |= {**(config or {}), "calibrate": calibrate}
        (copy / "config.yaml").write_text(yaml.safe_dump(data))
        frame = pd.read_csv(copy / "picks.csv").assign(**(columns or {}))
        frame.to_csv(copy / "picks.csv", index=False)
        return Config.load(copy / "config.yaml")

    return make


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            {"groups": {"pixel_size": "optics"}},
            "calibrate.groups.pixel_size: optics — must be a column of",
        ),
        (
            {"config": {"reproduce": "leopard_em"}},
            "reproduce: leopard_em — calibrate needs reproduce: null",
        ),
        (
            {"config": {"ignore_aberrations": True}},
            "ignore_aberrations: true — must be false where calibrate fits beam_tilt",
        ),
        (
            {"columns": {"odd_zernikes": '{"Z31c": 2.0}'}},
            "column odd_zernikes: holds Z31c or Z31s, which take the place of the beam",
        ),
    ],
)
def test_errors(changed, change, said):
    with pytest.raises(InputError, match=said) as error:
        load_calibration(changed(**change))
    assert len(error.value.errors) == 1


@pytest.mark.slow
def test_groups(changed):
    """One parameter per value of a column, and the positions for the plane."""
    columns = {"optics_group": ["b"] * 20 + ["a"] * 12, "refined_shift_x": 0.25}
    inputs = load_calibration(
        changed(
            columns=columns,
            parameters=["beam_tilt", "b_factor", "defocus", "defocus_plane"],
            groups={"b_factor": "all"},
        )
    )
    assert inputs.groups["beam_tilt"] == ["b", "a"]
    assert inputs.columns == {
        "beam_tilt": "optics_group",
        "b_factor": "all",
        "defocus": "micrograph_path",
        "defocus_plane": "micrograph_path",
    }
    design = inputs.design
    assert len(design.values) == 4 + 1 + 2 + 4
    assert design.members("beam_tilt", 1).tolist() == [False] * 20 + [True] * 12
    assert inputs.start.own[:, 4].tolist() == [0.25] * 32
    # y and x from the middle of the micrograph in Å: the first at (32 + 12, 32 + 12) px.
    assert design.matrix[0, 5, -2:].tolist() == [(44 - 152) * 2.0] * 2


@pytest.mark.slow
def test_all_fitted_optics_are_in_the_table(changed):
    """Added to what the table had, in the columns that a refinement reads."""
    scalars = {
        "spherical_aberration": 0.1,
        "amplitude_contrast": 0.02,
        "phase_shift": 3.0,
        "b_factor": 25.0,
    }
    terms = {"trefoil": [20.0, -30.0], "even_zernikes": [5.0, 6.0, 7.0]}
    columns = {"odd_zernikes": '{"Z33c": 10.0}', "phase_shift": 40.0}
    names = [*scalars, *terms]
    inputs = load_calibration(changed(columns=columns, parameters=names))
    wanted = {name: np.atleast_1d(value) for name, value in {**scalars, **terms}.items()}
    shared = np.zeros(len(inputs.design.values))
    for name, values in wanted.items():
        shared[inputs.design.numbers(name, 0)] = values
    count = len(inputs.run.table)
    one, unit = np.ones(count), np.eye(len(shared))
    fit = JointFit(
        replace(inputs.start, shared=shared),
        covariance=unit,
        determined=unit[0] >= 0,
        curvature=1.0,
        z=one,
        log_likelihood=one,
        own_defocus=np.ones((count, 2)),
        weight=one,
        passes=1,
        converged=True,
    )
    made = Calibration(inputs, fit, fit, np.ones((count, 3)), None, {}, 1.0)
    table = read_particle_table(write_calibrated_table(made))
    before, after = inputs.run.table.start().optics, table.start().optics
    for name, change in scalars.items():
        field = SHARED[name].field
        started = np.asarray(getattr(before, field))
        np.testing.assert_allclose(getattr(after, field), started + change, rtol=1e-5)
    np.testing.assert_allclose(after.odd_zernikes, [[0, 0, 30, -30]] * count)
    np.testing.assert_allclose(after.even_zernikes, [[5, 6, 7]] * count)


PDB = "ATOM  {:>5}  C   ALA A{:>4}    {:8.3f}{:8.3f}{:8.3f}{:6.2f}{:6.2f}           C\n"


@pytest.fixture
def optimize(example, tmp_path, monkeypatch):
    """An optimize_template file of Leopard-EM for the example's particles, changed."""
    folder, names = example
    shutil.copytree(folder, tmp_path / "set")
    monkeypatch.chdir(tmp_path / "set")
    atoms = names["atoms"]
    xyz = atoms.positions_angstrom - atoms.positions_angstrom.mean(axis=0)
    lines = [PDB.format(i, i, *place, 1.0, 30.0) for i, place in enumerate(xyz, 1)]
    Path("model.pdb").write_text("".join(lines) + "END\n")

    def make(**changes):
        data = {
            "particle_stack": {
                "df_path": "picks.csv",
                "extracted_box_size": [32, 32],
                "original_template_size": [24, 24],
            },
            "pixel_size_coarse_search": {
                "enabled": True,
                "pixel_size_min": -0.05,
                "pixel_size_max": 0.05,
                "pixel_size_step": 0.01,
            },
            "pixel_size_fine_search": {
                "enabled": True,
                "pixel_size_min": -0.008,
                "pixel_size_max": 0.008,
                "pixel_size_step": 0.001,
            },
            "preprocessing_filters": {"whitening_filter": {"enabled": True}},
            "computational_config": {"gpu_ids": "cpu", "num_cpus": 1},
            "simulator": {
                "pdb_filepath": "model.pdb",
                "pixel_spacing": 2.0,
                "volume_shape": [24, 24, 24],
                "b_factor_scaling": 1.0,
                "additional_b_factor": 0.0,
                "simulator_config": {
                    "voltage": 300.0,
                    "apply_dose_weighting": False,
                    "apply_dqe": False,
                    "mtf_reference": "k2_300kv",
                },
            },
            "statistics": "standard_deviation",
        }
        Path("optimize.yaml").write_text(yaml.safe_dump(data | changes))
        return "optimize.yaml"

    return make


def pixel_size():
    """As the file of a calibration in the current folder has it, and its error."""
    found = yaml.safe_load(Path("picks_calibration.yaml").read_text())
    value = found["parameters"][0]["values"]["pixel_size"]
    return value["value"], value["standard_error"]


@pytest.mark.slow
def test_optimize_template_file(optimize, capsys):
    """Its template is made, and gives the pixel size that the volume gave."""
    path = optimize()
    config, _ = load_optimize_template(path, Path("made.mrc"))
    assert config.calibrate.parameters == ("pixel_size",)
    # What the example has compiled serves here.
    parameters = ["pixel_size", "magnification", "beam_tilt", "defocus", "defocus_plane"]
    quick = {"held_out": False, "defocus_range": 0.0, "beam_tilt_range": 0.0}
    path = optimize(calibrate={"parameters": parameters, "max_passes": 7, **quick})
    config, simulator = load_optimize_template(path, Path("made.mrc"))
    assert config.calibrate.pixel_size_range == 0.025
    assert config.calibrate.parameters == tuple(parameters)
    assert config.template_pixel_size == simulator.pixel_spacing == 2.0
    with pytest.raises(InputError, match=r"`jaxrefine calibrate optimize.yaml` runs it"):
        Config.load(path)
    of_volume = pixel_size()
    assert main(["calibrate", path, "-q"]) == 0
    value, sigma = pixel_size()
    assert abs(value - 2.01) < 3 * sigma < 0.03
    # The model has other scattering factors than the simulator's particles.
    assert 0 < abs(value - of_volume[0]) < 0.5 * sigma
    assert read_volume("optimize_template.mrc")[0].shape == (24, 24, 24)
    # The same template is used again; another one is not replaced unless that is asked.
    before = Path("optimize_template.mrc").read_bytes()
    data = yaml.safe_load(Path(path).read_text())
    optimize(simulator=data["simulator"] | {"additional_b_factor": 5.0})
    assert main(["calibrate", path, "-q"]) == EXIT_INVALID_INPUT
    said = "optimize_template.mrc: exists already; give another name, or --overwrite"
    assert said in capsys.readouterr().err
    assert Path("optimize_template.mrc").read_bytes() == before


@pytest.mark.slow
def test_errors_of_an_optimize_template_file(optimize):
    simulator = {"pdb_filepath": "model.pdb", "volume_shape": [24, 24, 22]}
    path = optimize(simulator={**simulator, "center_atoms": False}, scoring="image_ctf")
    with pytest.raises(InputError) as error:
        load_optimize_template(path, Path("made.mrc"))
    assert [text.split(" — ")[0] for text in error.value.errors] == [
        "optimize.yaml: scoring: 'image_ctf'",
        "optimize.yaml: simulator.volume_shape: [24, 24, 22]",
        "optimize.yaml: simulator.center_atoms: false",
    ]
