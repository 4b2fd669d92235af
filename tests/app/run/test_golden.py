"""The program against Leopard-EM 1.2's own outputs, and against planted truth."""

import numpy as np
import pandas as pd
import pytest
import yaml

from jaxrefine.app.config import Config
from jaxrefine.app.run.pipeline import run
from jaxrefine.physics.rotations import angle_between_deg, euler_to_matrix
from tests.reference import reference_set

pytestmark = pytest.mark.usefixtures("compiled_to_run_fast")

REFINED_EULER = ["refined_phi", "refined_theta", "refined_psi"]
EULER = ["phi", "theta", "psi"]

NIGHTLY = pytest.mark.nightly
# (set, its configuration, Leopard-EM's output)
PEER_RUNS = [
    ("basic", "refine.yaml", "refined.csv"),
    pytest.param("two_micrographs", "refine.yaml", "refined.csv", marks=NIGHTLY),
    pytest.param(
        *("disabled", "refine_defocus_only.yaml", "refined_defocus_only.csv"), marks=NIGHTLY
    ),
    pytest.param(
        *("disabled", "refine_orientation_only.yaml", "refined_orientation_only.csv"),
        marks=NIGHTLY,
    ),
    ("rerefine", "refine.yaml", "refined.csv"),
]


def refine(folder, yaml_name, **changes):
    """Run a reference set's configuration, with changes; the refined table."""
    data = yaml.safe_load((folder / yaml_name).read_text())
    data.update(changes)
    output = folder / "jaxrefine_out.csv"
    config = Config.from_dict(data, source=str(folder / yaml_name))
    run(config, output=output, quiet=True)
    return pd.read_csv(output)


def truth_errors(table, truth):
    """Angle (deg) to the truth and refined_snr, for each planted particle within 5 px."""
    found, simulated = [], []
    for index, row in table.iterrows():
        there = truth[truth.micrograph_path == row.micrograph_path]
        distance = np.hypot(there.pos_y - row.pos_y, there.pos_x - row.pos_x)
        if distance.min() <= 5:  # else it is the set's false pick
            found.append(index)
            simulated.append(distance.idxmin())
    found, simulated = table.loc[found], truth.loc[simulated]
    angle = angle_between_deg(
        euler_to_matrix(found[REFINED_EULER].to_numpy(float)),
        euler_to_matrix(simulated[EULER].to_numpy(float)),
    )
    return angle, found.refined_snr.to_numpy()


@pytest.mark.parametrize(("name", "config", "peer"), PEER_RUNS)
def test_reproduces_leopard_em(name, config, peer, tmp_path):
    folder = reference_set(name, tmp_path)
    ours = refine(folder, config, reproduce="leopard_em")
    theirs = pd.read_csv(folder / peer)
    # Both are float32 pipelines; 2e-3 is what the peer repeats itself to across its
    # batch sizes, and one grid step changes z by more.
    np.testing.assert_allclose(
        ours.refined_scaled_mip, theirs.refined_scaled_mip, rtol=0, atol=2e-3
    )
    for column in ("refined_pos_x", "refined_pos_y", "refined_relative_defocus"):
        np.testing.assert_array_equal(ours[column], theirs[column])
    for column in ("refined_pos_x_img_angstrom", "refined_pixel_size"):
        np.testing.assert_allclose(ours[column], theirs[column], atol=1e-4)
    angle = angle_between_deg(
        euler_to_matrix(ours[REFINED_EULER].to_numpy(float)),
        euler_to_matrix(theirs[REFINED_EULER].to_numpy(float)),
    )
    assert angle.max() < 1e-3
    # Leopard-EM's refined_mip is the largest correlation of the batch in which the best
    # z lies, ours the one at the best: never larger, and equal for most particles.
    assert np.all(ours.refined_mip <= theirs.refined_mip + 2e-3)
    assert np.mean(np.abs(ours.refined_mip - theirs.refined_mip) <= 2e-3) > 0.5


@pytest.mark.slow
@pytest.mark.parametrize("name", ["basic", pytest.param("two_micrographs", marks=NIGHTLY)])
def test_defaults_come_nearer_the_truth_than_leopard_em(name, tmp_path):
    folder = reference_set(name, tmp_path)
    truth = pd.read_csv(folder / "truth.csv")
    peer = refine(folder, "refine.yaml", reproduce="leopard_em")
    ours = refine(folder, "refine.yaml")
    peer_angle, peer_snr = truth_errors(peer, truth)
    our_angle, our_snr = truth_errors(ours, truth)
    assert len(our_angle) == len(truth)
    print(name, peer_angle.mean(), our_angle.mean(), peer_snr.mean(), our_snr.mean())
    assert our_angle.mean() < 0.75 * peer_angle.mean()
    assert our_snr.mean() > peer_snr.mean()


@pytest.mark.slow
def test_nothing_searched_gives_back_the_match(tmp_path):
    """With every search off and the match's own score, z is the match's.

    What remains is the box: the match normalises a projection in the whole micrograph,
    this program in the box with Leopard-EM's squared area factor; below 2 % for the
    reference set's 80 px box.
    """
    folder = reference_set("basic", tmp_path)
    off = {"enabled": False}
    table = refine(
        folder,
        "refine.yaml",
        scoring="template_ctf",
        template_sampling="trilinear",
        defocus_refinement_config=off,
        orientation_refinement_config=off,
    )
    np.testing.assert_allclose(table.refined_scaled_mip, table.scaled_mip, rtol=0.02)
    for name in EULER:
        np.testing.assert_allclose(table[f"refined_{name}"], table[name], atol=1e-4)
    np.testing.assert_array_equal(table.refined_relative_defocus, table.relative_defocus)
