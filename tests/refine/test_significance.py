"""p-values of a local search: trials, known limits, and calibration on noise."""

import numpy as np
import pytest
from scipy.special import ndtr

import jaxrefine as jr
from jaxrefine import simulate as sim
from jaxrefine.refine.significance import (
    SearchSpace,
    _seen,
    expected_peaks,
    p_values,
    score_metric,
)
from tests import worlds
from tests.worlds import batch_of, one_particle

SIDE = 16
IMAGING = worlds.Imaging(defocus=(2500.0, 2300.0), pixel_size=2.0, b=0.0)
SCORE = IMAGING.image_ctf((SIDE, SIDE), SIDE, defocus=400.0)
U = np.array([2.6, 3.0, 4.5, 8.0])


def space(**lengths):
    """A search of some axes only, in steps of a tenth."""
    names = ("in_plane", "y", "x", "defocus", "pixel_size")
    length = np.array([float(lengths.get(name, 0.0)) for name in names])
    return SearchSpace(np.zeros((1, 2)), 0.0, length, length / 100)


def test_one_pose_is_one_trial():
    metric = np.broadcast_to(np.eye(7), (4, 7, 7))
    np.testing.assert_allclose(p_values(U, metric, space()), ndtr(-U))


def test_a_line_has_rice_s_upcrossings():
    """Q(u) and T √λ / 2π exp(-u²/2) (Rice 1945), in steps that miss hardly any."""
    metric = np.broadcast_to(4 * np.eye(7), (4, 7, 7))
    found = expected_peaks(U, metric, space(defocus=3.0))
    rice = ndtr(-U) + 3 * 2 / (2 * np.pi) * np.exp(-(U**2) / 2)
    # Steps of 0.06 correlation lengths miss one to ten percent, more where peaks are sharp.
    np.testing.assert_allclose(found, rice, rtol=0.1)
    assert np.all(found < rice)


def test_steps_beyond_the_correlation_are_independent_trials():
    metric = np.broadcast_to(np.eye(7), (4, 7, 7))
    ten_apart = SearchSpace(
        np.zeros((1, 2)), 0.0, np.array([0, 0, 0, 90.0, 0]), np.array([0, 0, 0, 10.0, 0])
    )
    found = expected_peaks(U, metric, ten_apart)
    # P(z > u, z' < u) = Q(u) (1 - Q(u)) of independent neighbours; ten of them.
    tail = ndtr(-U)
    np.testing.assert_allclose(found, tail + 9 * tail * (1 - tail), rtol=1e-3)


def test_what_steps_see_is_the_bivariate_normal_s():
    """Compared with random pairs of given correlation, one above u and the other below."""
    rng = np.random.default_rng(0)
    step, u = 0.8, 1.5
    correlation = np.exp(-(step**2) / 2)
    one, other = rng.standard_normal((2, 400_000))
    other = correlation * one + np.sqrt(1 - correlation**2) * other
    drawn = np.mean((one > u) & (other < u))
    seen = _seen(np.array([step]), np.array([u]))[0]
    expected = seen * step / (2 * np.pi) * np.exp(-(u**2) / 2)
    # 13,000 pairs are counted: 1 %, three times.
    np.testing.assert_allclose(drawn, expected, rtol=0.03)


def test_p_values_fall_from_one_to_nothing():
    z = np.linspace(-5, 15, 400)
    metric = np.broadcast_to(np.diag([0.1, 0.1, 0.2, 1.5, 1.5, 1e-5, 1e3]), (400, 7, 7))
    rings = np.mgrid[-8.0:9:2, -8.0:9:2].reshape(2, -1).T
    lengths = np.array([12.0, 6.0, 6.0, 800.0, 0.1])
    found = p_values(
        z, metric, SearchSpace(rings, 2.0, lengths, np.array([2.0, 1.0, 1.0, 100.0, 0.01]))
    )
    assert np.all(np.diff(found) <= 0) and 1 >= found[0] > 0.999 and 0 < found[-1] < 1e-40


def test_the_space_of_a_grid():
    grid = jr.local_grid(
        jr.uniform_orientations(
            psi_coarse=6.0, psi_fine=2.0, theta_coarse=8.0, theta_fine=2.0
        ),
        np.array([-400.0, 0.0, 400.0]),
    )
    found = SearchSpace.of(grid, IMAGING.image_ctf((20, 20), SIDE, defocus=400.0))
    np.testing.assert_allclose(found.lengths, [12, 4, 4, 800, 0], rtol=1e-5)
    np.testing.assert_allclose(found.steps, [2, 1, 1, 400, 0], rtol=1e-5)
    np.testing.assert_allclose(found.tilt_step_deg, 2, rtol=1e-3)
    # A disk whose outermost ring reaches half a step further has second moments r² / 4.
    np.testing.assert_allclose(
        np.cov(found.tilt_deg.T, bias=True), 9**2 / 4 * np.eye(2), rtol=0.05, atol=0.05
    )


def test_a_disk_of_tilts():
    """Area, half perimeter and one point, of radius 8 (Adler & Taylor 2007)."""
    grid = jr.local_grid(
        jr.uniform_orientations(
            psi_coarse=0.0, psi_fine=1.0, theta_coarse=8.0, theta_fine=0.5
        )
    )
    search = SearchSpace.of(grid, SCORE)
    metric = np.broadcast_to(0.25 * np.eye(7), (4, 7, 7))  # one per two degrees
    found = expected_peaks(U, metric, search)
    hermite = np.pi * 4**2 * U / (2 * np.pi) ** 1.5 + np.pi * 4 / (2 * np.pi)
    # Steps of a quarter of a correlation length miss up to a sixth along either axis.
    euler = ndtr(-U) + hermite * np.exp(-(U**2) / 2)
    assert np.all((0.6 * euler < found) & (found < euler))
    fine = expected_peaks(U, metric / 100, search)
    hermite = np.pi * 0.4**2 * U / (2 * np.pi) ** 1.5 + np.pi * 0.4 / (2 * np.pi)
    euler = ndtr(-U) + hermite * np.exp(-(U**2) / 2)
    np.testing.assert_allclose(fine, euler, rtol=0.06)


@pytest.mark.nightly
def test_p_values_are_right_on_noise():
    grid = jr.local_grid(
        jr.uniform_orientations(
            psi_coarse=20.0, psi_fine=5.0, theta_coarse=20.0, theta_fine=5.0
        )
    )
    atoms = worlds.ball(SIDE, 2.0, b=20.0)
    template = jr.make_template(sim.potential_volume(atoms, SIDE, 2.0))
    rng, p_value, trials = np.random.default_rng(0), [], []
    search = SearchSpace.of(grid, SCORE)
    for _ in range(2):
        made = [
            one_particle(
                SCORE, rng.standard_normal(SCORE.padded_box), IMAGING, rotation=turn
            )
            for turn in sim.random_rotations(150, rng)
        ]
        batch = batch_of(made)
        z = np.asarray(jr.refine_particles(batch, template, grid, SCORE).z_score)
        metric = np.asarray(score_metric(batch, template, SCORE))
        p_value.append(p_values(z, metric, search))
        at_4 = np.full(len(z), 4.0)
        trials.append(expected_peaks(at_4, metric, search) / ndtr(-at_4))
    p_value, trials = np.concatenate(p_value), np.concatenate(trials)
    # 15 of 300 below 0.05, give or take 3.8; without trials it would be half of them.
    assert 4 <= np.sum(p_value < 0.05) <= 27
    assert np.mean(ndtr(-np.asarray(z)) < 0.05) > 0.4
    # Many more orientations than trials: neighbours are nearly the same.
    assert 10 < np.median(trials) < 200 < grid.shape[2]
