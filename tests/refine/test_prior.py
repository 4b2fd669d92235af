"""The start as a prior."""

import jax.numpy as jnp
import numpy as np
import pytest

import jaxrefine as jr
from jaxrefine.data import PARAMETERS
from jaxrefine.physics.rotations import rotation_vector_to_matrix
from jaxrefine.refine import prior
from tests.refine import test_polish as polish_world
from tests.worlds import Imaging, one_particle, single

FREE = ("orientation", "shift", "defocus")


def test_a_cell_is_as_wide_as_the_search_reaches():
    grid = jr.local_grid(
        jr.uniform_orientations(
            psi_coarse=3.0, psi_fine=1.0, theta_coarse=4.0, theta_fine=2.0
        ),
        np.array([-200.0, 0.0, 200.0]),
    )
    sigma = 1 / np.sqrt(prior.cell_precision(grid, FREE))
    np.testing.assert_allclose(sigma, [2.0, 2.0, 1.5, 1.0, 1.0, 100.0], rtol=1e-3)
    everything = prior.cell_precision(grid, PARAMETERS)
    assert np.count_nonzero(everything) == 6  # neither astigmatism nor pixel size


def test_where_the_start_lies():
    start = one_particle(
        polish_world.SCORE, np.zeros(polish_world.SCORE.padded_box), Imaging()
    ).alignment
    vector = single([0.6, -0.3, 40.0])
    here = jr.Alignment(
        start.rotation @ rotation_vector_to_matrix(-vector),
        start.position_px - single([1.0, -2.0]),
        start.defocus_angstrom + 30.0,
        start.astigmatism_deg,
        start.pixel_size_angstrom,
    )
    expected = [*np.asarray(vector), 1.0, -2.0, -30.0]
    np.testing.assert_allclose(prior.offset_of(start, here, FREE), expected, atol=2e-3)


def test_the_posterior_mean_weighs_both():
    information = single([[4.0, 1.0], [1.0, 9.0]])
    optimum, start, precision = (single(v) for v in ([1.0, 2.0], [-1.0, 0.0], [2.0, 0.0]))
    mean = np.asarray(prior.posterior_mean(optimum, information, start, precision))
    total = np.asarray(information) + np.diag(np.asarray(precision))
    weighed = np.asarray(information) @ [1.0, 2.0] + np.asarray(precision) * [-1.0, 0.0]
    np.testing.assert_allclose(mean, np.linalg.solve(total, weighed), rtol=1e-5)
    none = prior.posterior_mean(optimum, information, start, jnp.zeros(2))
    np.testing.assert_array_equal(none, optimum)


@pytest.mark.slow
def test_what_an_image_does_not_say_the_start_does():
    """Noise alone: without a prior poses scatter, with it they stay at the start."""
    batch = polish_world.particles(snr=0.0, seed=5)
    start = polish_world.unsearched(batch)
    free = polish_world.polished(batch, start)
    held = polish_world.polished(batch, start, jr.Polish(prior="match"))

    def moved_deg(result):
        turn = np.swapaxes(np.asarray(batch.alignment.rotation), 1, 2)
        cosine = np.trace(turn @ result.refined.alignment.rotation, axis1=1, axis2=2)
        return np.rad2deg(np.arccos(np.clip((cosine - 1) / 2, -1, 1)))

    assert moved_deg(held).mean() < 0.7 * moved_deg(free).mean()
    # Never less known than the cell: half of 2° in a tilt, half of 50 Å.
    assert np.all(held.errors.rotation_deg[:, :2] <= 1.001)
    assert np.all(held.errors.defocus_angstrom <= 25.01)


@pytest.mark.slow
def test_a_strong_particle_hardly_feels_it():
    batch = polish_world.particles()
    free = polish_world.found()
    held = polish_world.polished(batch, None, jr.Polish(prior="match"))
    # The score of the posterior mean is nearly the optimum's.
    np.testing.assert_allclose(held.refined.z_score, free.refined.z_score, atol=1.0)
    assert np.all(held.errors.rotation_deg < free.errors.rotation_deg)
