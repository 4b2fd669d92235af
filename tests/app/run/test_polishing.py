"""Polishing from the command line: columns, gains, and refining again."""

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import yaml

from jaxrefine.app.cli import main
from jaxrefine.app.config import Config
from jaxrefine.data import POLISH_MEANING, InputError
from jaxrefine.io.table import read_particle_table
from jaxrefine.refine.polish import polish_batch
from tests import subprocess_runs
from tests.reference import reference_set
from tests.test_examples import ROOT

GRID = {
    "orientation_refinement_config": {
        "psi_step_coarse": 1.0,
        "psi_step_fine": 0.5,
        "theta_step_coarse": 1.0,
        "theta_step_fine": 0.5,
    },
    "defocus_refinement_config": {"defocus_step": 50.0},
}


def refine(folder, name, **changes):
    config = yaml.safe_load((folder / "refine.yaml").read_text())
    (folder / f"{name}.yaml").write_text(yaml.safe_dump({**config, **GRID, **changes}))
    assert main([str(folder / f"{name}.yaml"), "-q", "--output", str(folder / name)]) == 0
    return pd.read_csv(folder / name)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return reference_set("basic", tmp_path_factory.mktemp("polish"))


@pytest.fixture(scope="module")
def plain(folder):
    return refine(folder, "plain.csv")


@pytest.fixture(scope="module")
def polished(folder):
    before = polish_batch._cached._cache_size()
    table = refine(folder, "polished.csv", polish={"enabled": True})
    # What was compiled while the micrograph was read is what is used. (Or compiled before.)
    assert polish_batch._cached._cache_size() <= before + 1
    return table


@pytest.mark.nightly
def test_the_same_as_users_compile_it(folder, polished):
    """Tests compile in less time, and hence compute with other roundings."""
    subprocess.run(
        [sys.executable, "-m", "jaxrefine", "polished.csv.yaml", "-q", "--output", "u.csv"],
        cwd=folder,
        env=subprocess_runs.environment_of_a_user(),
        check=True,
    )
    users = pd.read_csv(folder / "u.csv")
    # Roundings of float32; the iteration of the polish amplifies them.
    for column in ("grid_scaled_mip", "refined_scaled_mip"):
        np.testing.assert_allclose(users[column], polished[column], rtol=0, atol=2e-3)
    for column in users.filter(like="_sigma"):
        np.testing.assert_allclose(users[column], polished[column], rtol=0.02)


@pytest.mark.slow
def test_an_adaptive_search_finds_the_same(folder, plain):
    """This grid is small: nothing is interpolated, and the last steps are left out."""
    adaptive = refine(folder, "adaptive.csv", search="adaptive")
    pd.testing.assert_frame_equal(adaptive, plain)


@pytest.mark.slow
def test_the_grid_s_best_is_kept_and_never_beaten(plain, polished):
    for name in ("mip", "scaled_mip", "pos_x", "phi", "theta", "psi", "pixel_size"):
        np.testing.assert_allclose(
            polished[f"grid_{name}"], plain[f"refined_{name}"], rtol=0, atol=1e-5
        )
    gain = polished.refined_scaled_mip - polished.grid_scaled_mip
    assert np.all(gain >= 0) and gain.mean() > 0.2
    assert "grid_mip" not in plain.columns


@pytest.mark.slow
def test_what_fitting_noise_adds_is_told(polished, plain):
    """Six coordinates, each of them one over the strength."""
    added = polished.refined_scaled_mip - polished.refined_scaled_mip_expected
    times_strength = added * polished.refined_snr
    assert times_strength.between(3, 8).all()  # deviations at particles vary
    assert "refined_scaled_mip_expected" not in plain


@pytest.mark.slow
def test_positions_add_up(polished):
    for axis in "xy":
        whole, rest = polished[f"refined_pos_{axis}"], polished[f"refined_shift_{axis}"]
        assert whole.dtype.kind == "i" and np.all(np.abs(rest) <= 0.5) and rest.any()
        centre = (whole + rest + 32) * polished.pixel_size
        np.testing.assert_allclose(
            polished[f"refined_pos_{axis}_img_angstrom"], centre, rtol=0, atol=2e-4
        )


@pytest.mark.slow
def test_it_is_nearer_the_truth(folder, plain, polished):
    """Most for positions, which the grid has in whole pixels."""
    truth = pd.read_csv(folder / "truth.csv")

    true = truth[["pos_x", "pos_y"]].to_numpy()

    def errors(table):
        whole = table[["refined_pos_x", "refined_pos_y"]].to_numpy(float)
        if "refined_shift_x" in table:
            whole += table[["refined_shift_x", "refined_shift_y"]].to_numpy()
        nearest = np.linalg.norm(whole[:, None] - true, axis=-1).argmin(axis=1)
        # the last is hardly above the noise
        return (whole - true[nearest])[:-1]

    before, after = np.abs(errors(plain)), np.abs(errors(polished))
    assert after.mean() < 0.6 * before.mean()
    sigma = polished[["refined_pos_x_sigma", "refined_pos_y_sigma"]][:-1]
    assert np.all(after < 4 * sigma)


@pytest.mark.slow
def test_columns_of_what_was_free(folder, polished):
    assert set(polished.refined_polish) <= set(POLISH_MEANING)
    sigma = polished.filter(like="_sigma")
    assert "refined_pixel_size_sigma" not in sigma and sigma.shape[1] == 7
    assert np.all(np.isfinite(sigma) & (sigma > 0))
    few = refine(
        folder,
        "few.csv",
        polish={"enabled": True, "parameters": ["astigmatism", "defocus"]},
        orientation_refinement_config={"enabled": False},
    )
    assert list(few.filter(like="_sigma")) == [
        "refined_relative_defocus_sigma",
        "refined_astigmatism_sigma",
    ]
    assert not few.refined_shift_x.any()
    # What is written is what would be started from.
    start = read_particle_table(folder / "few.csv").start()
    np.testing.assert_allclose(
        start.defocus_angstrom,
        few[["refined_defocus_u", "refined_defocus_v"]]
        + few[["refined_relative_defocus"]].to_numpy(),
        rtol=0,
        atol=1e-3,
    )
    np.testing.assert_array_equal(start.astigmatism_deg, few.refined_astigmatism_angle)


@pytest.mark.slow
def test_a_polished_table_can_be_refined_again(folder, polished):
    stack = yaml.safe_load((folder / "refine.yaml").read_text())["particle_stack"]
    again = refine(
        folder,
        "again.csv",
        particle_stack={**stack, "df_path": str(folder / "polished.csv")},
        polish={"enabled": True},
    )
    assert list(again.columns) == list(polished.columns)
    # The same optimum, but for the last, which is hardly above the noise; the polish
    # stops where a step promises less than 1e-4.
    np.testing.assert_allclose(
        again.refined_scaled_mip[:-1], polished.refined_scaled_mip[:-1], rtol=0, atol=0.05
    )


def test_every_word_is_documented():
    document = (ROOT / "docs" / "data_formats.md").read_text(encoding="utf-8")
    for word, meaning in POLISH_MEANING.items():
        assert f"| `{word}` | {meaning} |" in document


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"parameters": ["angle"]}, "a list of orientation, shift, defocus"),
        ({"parameters": ["shift", "shift"]}, "each once"),
        ({"parameters": []}, "must be a list of orientation"),
        ({"max_steps": 0}, "must be 1 or more"),
        ({"method": "newton"}, "must be gauss_newton or adam"),
    ],
)
def test_errors(value, message):
    with pytest.raises(InputError, match=message):
        Config.from_dict(
            {
                "template_volume_path": "t.mrc",
                "particle_stack": {
                    "df_path": "p.csv",
                    "extracted_box_size": [80, 80],
                    "original_template_size": [64, 64],
                },
                "polish": {"enabled": True, **value},
            }
        )
