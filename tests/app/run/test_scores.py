"""`--scores`: the scores of every pose of a run, in a file; and `significance`."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
import yaml

from jaxrefine.app.cli import main
from jaxrefine.app.run import scores as writing
from jaxrefine.io.mrc import read_image
from jaxrefine.physics.rotations import angle_between_deg, euler_to_matrix
from jaxrefine.refine.posterior import GridPosterior
from tests.reference import reference_set

QUICK = {
    "psi_step_coarse": 1.0,
    "psi_step_fine": 0.5,
    "theta_step_coarse": 1.0,
    "theta_step_fine": 0.5,
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Three particles, of which the second is outside, and a small grid."""
    folder = reference_set("basic", tmp_path)
    monkeypatch.chdir(folder)
    config = yaml.safe_load((folder / "refine.yaml").read_text())
    config["orientation_refinement_config"] |= QUICK
    config["defocus_refinement_config"]["defocus_step"] = 100.0
    config["significance"] = True
    (folder / "refine.yaml").write_text(yaml.safe_dump(config))
    table = pd.read_csv("match_results.csv", index_col=0).iloc[:3]
    table.loc[1, "pos_y"] = -4000
    table["particle_index"] = [10, 20, 30]
    table.to_csv("match_results.csv")
    return folder


@pytest.mark.slow
def test_the_scores_of_a_run(folder, capsys):
    command = ["refine.yaml", "--output", "out.csv", "--scores", "scores.npz"]
    assert main(command) == 0
    assert "scores: scores.npz" in capsys.readouterr().out
    table = pd.read_csv("out.csv")
    with np.load("scores.npz") as file:
        found = dict(file)
    assert found["axes"].tolist() == ["particle", "pixel_size", "defocus", "orientation"]
    sizes = (
        3,
        len(found["pixel_size_offsets"]),
        len(found["defocus_offsets"]),
        len(found["euler_angle_offsets"]),
    )
    assert found["scores"].shape == found["strength"].shape == sizes
    assert found["offset_px"].shape == (*sizes, 2)
    assert found["particle_index"].tolist() == ["10", "20", "30"]
    assert np.isnan(found["posterior_entropy"][1]) and found["posterior_modes"][1] == 0
    assert json.loads(str(found["metadata"]))["frame"] == "image"
    p_value, bound = table.refined_p_value, table.refined_false_positives
    assert np.isnan([p_value[1], bound[1]]).all() and np.all(p_value[[0, 2]] < 1e-15)
    # The box has 17 x 17 of the map's positions; total_correlations is set to this number.
    positions = read_image("correlation_average.mrc").size / 17**2
    np.testing.assert_allclose(
        bound[[0, 2]], table.total_correlations[[0, 2]] * positions * p_value[[0, 2]], 1e-5
    )
    for i in (0, 2):  # the highest of all is what the table holds
        at = np.unravel_index(np.argmax(found["scores"][i]), sizes[1:])
        row = table.loc[i]
        np.testing.assert_allclose(found["scores"][i][at], row.refined_scaled_mip, 1e-5)
        position = found["base_position_px"][i] + found["offset_px"][i][at]
        assert position.tolist() == [row.refined_pos_y, row.refined_pos_x]
        rotation = euler_to_matrix(found["base_euler_angles"][i]) @ euler_to_matrix(
            found["euler_angle_offsets"][at[2]]
        )
        there = euler_to_matrix(
            row[["refined_phi", "refined_theta", "refined_psi"]].to_numpy(float)
        )
        # The table's angles have 4 decimals, the grid's are float32.
        assert angle_between_deg(rotation, there) < 1e-3
        relative = row.relative_defocus + found["defocus_offsets"][at[1]]
        np.testing.assert_allclose(relative, row.refined_relative_defocus, atol=0.01)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--scores", "s.npz", "--scores-particles", "10,77"], "no particle_index 77"),
        (["--scores", "s.txt"], "should end in .npz"),
        (["--scores", "none/s.npz"], "its folder does not exist"),
        (["--scores-particles", "10"], "name it with --scores"),
    ],
)
def test_what_cannot_be_is_said_before_the_run(folder, capsys, options, said):
    assert main(["refine.yaml", "--output", "out.csv", *options]) == 2
    assert said in capsys.readouterr().err
    assert not (folder / "out.csv").exists()


def test_scores_that_fit_nowhere_are_refused(folder, capsys, monkeypatch):
    usage = shutil.disk_usage(folder)._replace(free=1000)
    monkeypatch.setattr(writing.shutil, "disk_usage", lambda _: usage)
    monkeypatch.setattr(writing, "free_bytes", lambda _: 1000.0)
    assert main(["refine.yaml", "--scores", "s.npz", "--scores-particles", "10,30"]) == 2
    printed = capsys.readouterr().err
    assert "scores of 2 particles x 1 pixel sizes" in printed
    assert "of which 1 kB are free; name fewer particles" in printed
    assert "one particle's need" in printed


def test_particles_with_two_modes_are_named(caplog):
    def with_shares(*shares):
        of_all = np.zeros((1, 1, 1)), np.zeros(5), np.zeros((5, 5)), 0.0
        return GridPosterior(*of_all, np.zeros((len(shares), 3), int), np.array(shares))

    one, two = with_shares(1.0), with_shares(0.6, 0.3)
    writing._warn_of_modes(["a", "b", "c"], [one, two, None])
    assert (
        "1 of 3 particles have several modes: separate poses that hold at least 5 % of"
        in caplog.text
    )
    assert "particle b (60%, 30%)" in caplog.text
