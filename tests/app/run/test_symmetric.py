"""Particles of high symmetry: positions if their own signal dominates the maps; poses."""

import numpy as np
import pandas as pd
import pytest

from jaxrefine.app.cli import main
from jaxrefine.io.mrc import read_image, write_image
from jaxrefine.physics.rotations import angle_between_deg, euler_to_matrix
from jaxrefine.physics.symmetry import point_group
from tests.app.run.invalid_input import keys
from tests.reference import reference_set

ANGLES = ["refined_phi", "refined_theta", "refined_psi"]
QUICK = {
    "defocus_refinement_config__enabled": False,
    "orientation_refinement_config__enabled": False,
}


def angles(*rotations):
    return angle_between_deg(*np.broadcast_arrays(*rotations))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    folder = reference_set("basic", tmp_path)
    monkeypatch.chdir(folder)
    keys(**QUICK)(folder)
    return folder


def refined(output, *options):
    assert main(["refine.yaml", "-q", "--output", output, *options]) == 0
    return pd.read_csv(output)


def fill_mean_map(folder):
    """Peaks of 0.8 of the correlation at the particles, as wide as correlations are."""
    table = pd.read_csv(folder / "match_results.csv")
    path = folder / "correlation_average.mrc"
    mean = read_image(path)
    y, x = np.indices(mean.shape)
    for row in table.itertuples():
        distance2 = (y - row.pos_y) ** 2 + (x - row.pos_x) ** 2
        mean = mean + 0.8 * row.mip * np.exp(-distance2 / (2 * 1.5**2))
    write_image(path, mean.astype(np.float32))


@pytest.mark.nightly
def test_particles_that_fill_the_mean_map_keep_their_places(folder, capsys):
    plain = refined("plain.csv")
    assert "mean map has peaks" not in capsys.readouterr().err
    fill_mean_map(folder)
    found = refined("found.csv")
    assert "mean map has peaks at 7 of 7 particles" in capsys.readouterr().err
    places = ["refined_pos_x", "refined_pos_y"]
    strong = plain.refined_snr > 8  # one pick of seven is no particle
    assert strong.sum() == 6
    np.testing.assert_array_equal(found.loc[strong, places], plain.loc[strong, places])
    # The same poses: tables hold seven digits.
    mip = plain.refined_mip[strong]
    np.testing.assert_allclose(found.refined_mip[strong], mip, rtol=1e-6)
    # z is by the maps, as for any particle; numbers of the table have 7 digits.
    mean = read_image(folder / "correlation_average.mrc")
    std = read_image(folder / "correlation_variance.mrc")
    at = tuple(found[["refined_pos_y", "refined_pos_x"]].to_numpy(int).T)
    z = (found.refined_mip - mean[at]) / std[at]
    np.testing.assert_allclose(found.refined_scaled_mip, z, atol=1e-4)
    # Leopard-EM goes by z alone, and leaves the places.
    keys(reproduce="leopard_em")(folder)
    left = refined("left.csv")
    assert (left.loc[strong, places] != plain.loc[strong, places]).any(axis=None)


@pytest.mark.slow
def test_poses_are_reported_in_one_asymmetric_unit(folder):
    plain = refined("plain.csv")
    keys(symmetry="O")(folder)
    found = refined("found.csv")
    group = point_group("O")
    before, after = (euler_to_matrix(t[ANGLES].to_numpy()) for t in (plain, found))
    copies = np.einsum("gij,njk->ngik", group, before)
    between = angles(copies, after[:, None])
    # float32 angles hold some 1e-5 degrees.
    assert np.all(between.min(axis=1) < 1e-3)
    turned = angles(np.einsum("gij,njk->ngik", group, after), np.eye(3))
    assert np.all(turned[:, 0] <= turned.min(axis=1) + 1e-3)
    other = [name for name in plain if name not in ANGLES]
    pd.testing.assert_frame_equal(found[other], plain[other])


def test_a_grid_that_reaches_a_copy_is_refused(folder, capsys):
    keys(
        symmetry="C180",
        orientation_refinement_config__enabled=True,
        orientation_refinement_config__psi_step_coarse=1.5,
    )(folder)
    assert main(["refine.yaml"]) == 2
    assert "so that no copy is searched twice" in capsys.readouterr().err
