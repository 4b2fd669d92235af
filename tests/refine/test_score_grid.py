"""Scores of a whole grid, and the posterior over it."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrefine as jr
from jaxrefine import simulate as sim
from jaxrefine.refine.posterior import grid_posterior
from jaxrefine.refine.score_grid import GridScores
from tests import worlds
from tests.worlds import batch_of, one_particle, signal_in_padded_box

SIDE = 16
IMAGING = worlds.Imaging(defocus=(2500.0, 2300.0), pixel_size=2.0, b=0.0)
SCORE = IMAGING.image_ctf((20, 20), SIDE, defocus=200.0, pixel_size=0.02)
ATOMS = worlds.ball(SIDE, 2.0, b=120.0)


@pytest.fixture(scope="module")
def template():
    return jr.make_template(sim.potential_volume(ATOMS, SIDE, 2.0))


@pytest.fixture(scope="module")
def particles():
    rng = np.random.default_rng(3)
    made = []
    for snr in (12.0, 0.0):
        turn = sim.random_rotations(1, rng)[0]
        signal = signal_in_padded_box(SCORE, ATOMS, IMAGING, turn, 200, (1.0, -2.0))
        noise = rng.standard_normal(SCORE.padded_box)
        made.append(one_particle(SCORE, snr * signal + noise, IMAGING, rotation=turn))
    made.append(replace(made[0], corr_std=made[0].corr_std * jnp.nan))
    filled = replace(made[0], background_mean=jnp.float32(0.5), noise_std=jnp.float32(2.0))
    return batch_of([*made, filled])


GRID = jr.local_grid(
    jr.uniform_orientations(psi_coarse=8.0, psi_fine=4.0, theta_coarse=8.0, theta_fine=4.0),
    np.array([-200.0, 0.0, 200.0]),
    np.array([-0.02, 0.0]),
)


@pytest.mark.slow
def test_the_grid_s_best_is_the_search_s(template, particles):
    scores = jr.score_grid(particles, template, GRID, SCORE)
    refined = jr.refine_particles(particles, template, GRID, SCORE)
    assert scores.z_score.shape == (4, *GRID.shape)
    for i in (0, 1, 3):
        best = np.unravel_index(np.argmax(scores.z_score[i]), GRID.shape)
        assert best == tuple(refined.grid_index[i, :3])
        # The same transforms, compiled into another program.
        np.testing.assert_allclose(scores.z_score[i][best], refined.z_score[i], rtol=1e-5)
        moved = refined.alignment.position_px[i] - particles.alignment.position_px[i]
        np.testing.assert_array_equal(scores.offset_px[i][best], moved)
    assert np.all(np.isneginf(scores.z_score[2]))
    np.testing.assert_allclose(scores.strength[0], scores.z_score[0], rtol=1e-6)
    np.testing.assert_allclose(
        scores.strength[3], (scores.z_score[0] - 0.5) / 2, rtol=1e-5, atol=1e-6
    )


@pytest.mark.slow
def test_the_posterior_of_a_particle(template, particles):
    scores = jr.score_grid(particles, template, GRID, SCORE)
    strong, noise, nothing = (
        grid_posterior(jax.tree.map(lambda leaf, i=i: leaf[i], scores), GRID)
        for i in range(3)
    )
    assert nothing is None
    assert strong is not None and noise is not None
    weight = np.exp(np.maximum(np.float64(scores.strength[0]), 0) ** 2 / 2)
    np.testing.assert_allclose(strong.probability, weight / weight.sum(), rtol=1e-5)
    assert strong.entropy < noise.entropy <= np.log(np.prod(GRID.shape))
    assert np.all(np.linalg.eigvalsh(strong.covariance) > -1e-9)
    assert len(strong.modes) == 1 and strong.shares[0] > 0.9
    # The best of the only mode is the best of the grid.
    best = np.unravel_index(np.argmax(scores.strength[0]), GRID.shape)
    assert tuple(strong.modes[0]) == best


def made_up(grid, *hills):
    """Scores that decay around some poses, (orientation offset in deg, best, width)."""
    vector = np.asarray(jr.matrix_to_euler(np.asarray(grid.rotation, np.float64)))
    in_plane = np.mod(vector[:, 0] + vector[:, 2] + 180, 360) - 180
    tilt = vector[:, 1]
    log = np.full(len(tilt), -np.inf)
    for at, best, width in hills:
        apart = np.hypot(in_plane - at, tilt)
        log = np.logaddexp(log, best**2 / 2 - (apart / width) ** 2 / 2)
    strength = np.sqrt(np.maximum(2 * log, 0)).reshape(grid.shape)
    zero = np.zeros((*grid.shape, 2), np.int32)
    return GridScores(jnp.asarray(strength), jnp.asarray(strength), jnp.asarray(zero))


@pytest.mark.parametrize(("psi_fine", "theta_fine"), [(1.0, 1.0), (0.5, 2.0), (2.0, 0.7)])
def test_modes_are_counted_on_grids_of_any_steps(psi_fine, theta_fine):
    grid = jr.local_grid(
        jr.uniform_orientations(
            psi_coarse=12.0, psi_fine=psi_fine, theta_coarse=4.0, theta_fine=theta_fine
        )
    )
    alone = grid_posterior(made_up(grid, (0.0, 9.0, 2.0)), grid)
    assert len(alone.modes) == 1
    np.testing.assert_allclose(alone.mean, 0, atol=0.02)
    # Two hills 16 degrees apart; the second holds exp(-0.5) of the first.
    two = grid_posterior(made_up(grid, (8.0, 9.0, 2.0), (-8.0, np.sqrt(80.0), 2.0)), grid)
    share = 1 / (1 + np.exp(-0.5))
    np.testing.assert_allclose(two.shares, [share, 1 - share], atol=0.01)
    np.testing.assert_allclose(two.mean[2], 8 * share - 8 * (1 - share), atol=0.2)
    assert np.sqrt(two.covariance[2, 2]) > 7  # of the mixture
    # One that holds less than 5 % does not count; nor do two that are hardly apart.
    low = grid_posterior(made_up(grid, (8.0, 9.0, 2.0), (-8.0, np.sqrt(74), 2.0)), grid)
    assert len(low.modes) == 1
    near = grid_posterior(made_up(grid, (2.5, 9.0, 2.0), (-2.5, 9.0, 2.0)), grid)
    assert len(near.modes) == 1


def test_a_pseudo_symmetric_particle_has_two_modes():
    """Two lobes: an in-plane rotation by 180° leaves almost all atoms in place."""
    rng = np.random.default_rng(1)
    lobe = rng.normal(scale=2.0, size=(60, 3)) + np.array([9.0, 0.0, 0.0])
    odd = np.array([[0.0, 6.0, 0.0]] * 3)
    xyz = np.concatenate([lobe, lobe * [-1, -1, 1], odd])
    atoms = sim.Atoms(xyz, np.full(len(xyz), 7.0), np.full(len(xyz), 120.0))
    grid = jr.local_grid(
        jr.uniform_orientations(
            psi_coarse=180.0, psi_fine=10.0, theta_coarse=0.0, theta_fine=1.0
        )
    )
    signal = signal_in_padded_box(SCORE, atoms, IMAGING, np.eye(3), 200)
    image = 10 * signal + rng.standard_normal(SCORE.padded_box)
    batch = batch_of([one_particle(SCORE, image, IMAGING)])
    found = jr.make_template(sim.potential_volume(atoms, SIDE, 2.0))
    scores = jr.score_grid(batch, found, grid, SCORE)
    posterior = grid_posterior(jax.tree.map(lambda leaf: leaf[0], scores), grid)
    assert len(posterior.modes) == 2
    turn = np.asarray(jr.matrix_to_euler(np.asarray(grid.rotation, np.float64)))
    turn = (turn[:, 0] + turn[:, 2])[posterior.modes[:, 2]]
    assert abs(np.mod(turn[0] - turn[1], 360) - 180) <= 10
