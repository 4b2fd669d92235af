"""Several optima are found and included in errors; a single one stays single."""

import functools
from dataclasses import replace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrefine as jr
from jaxrefine import simulate as sim
from jaxrefine.data import Refined, SearchGrid
from jaxrefine.refine import modes
from tests import worlds
from tests.refine import test_polish as world
from tests.worlds import batch_of, one_particle, single

# The polish's own world, so that its program is compiled once.
SIDE, SCORE, IMAGING, COUNT = world.SIDE, world.SCORE, world.IMAGING, world.COUNT
# A cogwheel: a twelfth of a turn, and only a weight tells.
TEETH, TURN_DEG = 12, 30.0


def wheel(odd_one: float) -> sim.Atoms:
    """A gear around z with one different tooth, and a part along z."""
    angle = np.arange(TEETH) * 2 * np.pi / TEETH
    teeth = np.stack([16 * np.cos(angle), 16 * np.sin(angle), 0 * angle], axis=-1)
    hub = np.array([[0.0, 0.0, z] for z in (-8.0, -3.0, 4.0)])
    weights = np.concatenate([np.full(TEETH, 40.0), np.full(3, 25.0)])
    weights[0] *= odd_one
    return sim.Atoms(np.concatenate([teeth, hub]), weights, np.full(TEETH + 3, 30.0))


@functools.cache
def template(atoms_of):
    volume = sim.potential_volume(atoms_of(), SIDE, IMAGING.pixel_size)
    return jr.make_template(volume, "cubic")


def turned(degrees):
    return np.asarray(jr.euler_to_matrix(np.array([0.0, 0.0, degrees])))


# In plane alone, in steps of two standard errors.
OFFSETS = np.stack([turned(degrees) for degrees in np.arange(-20.0, 20.5)])
GRID = SearchGrid(
    single(OFFSETS), jnp.zeros(len(OFFSETS), bool), jnp.zeros(1), jnp.zeros(1)
)


def nearly_round():
    return wheel(1.15)


def ordinary():
    return world.ATOMS


@functools.cache
def searched(atoms_of):
    """Particles, rotated by nearly half a tooth from the starting values."""
    rng = np.random.default_rng(5)
    clean = worlds.signal_in_padded_box(SCORE, atoms_of(), IMAGING, np.eye(3), 200)
    cuts = 14.0 * clean + rng.standard_normal((COUNT, *SCORE.padded_box))
    batch = batch_of(
        [one_particle(SCORE, cut, IMAGING, rotation=turned(-13.0)) for cut in cuts]
    )
    return batch, by_each_orientation(batch, template(atoms_of))


def by_each_orientation(batch, template):
    """The result of a search, without compiling one."""
    turned = np.asarray(batch.alignment.rotation[0]) @ np.asarray(GRID.rotation)
    scores, places = [], []
    for rotation in turned:
        there = jnp.broadcast_to(single(rotation), batch.alignment.rotation.shape)
        moved = eqx.tree_at(lambda p: p.alignment.rotation, batch, there)
        z, place = modes._best_place(moved, template, SCORE)
        scores.append(z)
        places.append(place)
    z, place = np.stack(scores, axis=1), np.stack(places, axis=1)
    best = z.argmax(axis=1)
    n = np.arange(COUNT)
    found = eqx.tree_at(
        lambda a: (a.rotation, a.position_px),
        batch.alignment,
        (
            single(turned[best]),
            batch.alignment.position_px + place[n, best] - np.array(SCORE.margin),
        ),
    )
    top, zero = single(z[n, best]), jnp.zeros(COUNT, jnp.int32)
    index = jnp.zeros((COUNT, 5), jnp.int32)
    return Refined(found, top, top, top, index, zero, 0 * top, single(z))


@functools.cache
def polished(atoms_of, **more):
    settings = replace(world.FREE, **more)
    return jr.polish_particles(
        *searched(atoms_of), template(atoms_of), GRID, SCORE, settings
    )


def in_plane_deg(result):
    rotation = np.asarray(result.refined.alignment.rotation)
    return np.rad2deg(np.arctan2(rotation[:, 1, 0], rotation[:, 0, 0]))


@pytest.mark.nightly
def test_a_tooth_s_turn_is_told_and_covered():
    alone, found = polished(nearly_round, other_optima=False), polished(nearly_round)
    several = np.asarray(found.optima) > 1
    # The odd tooth is worth 0.15 of z on average, and noise as much as that.
    assert several.sum() >= 4 and np.all(alone.optima == 1)
    before, after = (np.asarray(p.errors.rotation_deg[:, 2]) for p in (alone, found))
    assert np.all(before < 1.0)
    # The other is TURN_DEG away, and has up to a half of the posterior; two have more.
    assert np.all(after[several] > 0.2 * TURN_DEG)
    np.testing.assert_array_equal(after[~several], before[~several])
    # The true pose, or one tooth off: within the errors either way.
    off = np.abs(in_plane_deg(found))
    assert np.all(off < np.where(several, 3 * after, 4 * before))
    assert np.all(found.refined.z_score >= alone.refined.z_score)
    diagonal = np.diagonal(found.covariance, axis1=1, axis2=2)
    np.testing.assert_allclose(diagonal[:, :3], found.errors.rotation_deg**2, rtol=1e-4)
    assert np.all(found.evaluations[several] > alone.evaluations[several])


@pytest.mark.slow
def test_of_an_ordinary_particle_nothing_is_said():
    alone, found = (polished(ordinary, other_optima=flag) for flag in (False, True))
    for one, other in zip(jax.tree.leaves(alone), jax.tree.leaves(found), strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(found.optima, 1)


@pytest.mark.slow
def test_within_the_cell_nothing_else_is_looked_for():
    found = polished(nearly_round, bound_to_cell=True)
    np.testing.assert_array_equal(found.optima, 1)


def two(share_of_z=0.0):
    """An optimum, and another one tooth further; `share_of_z` better in z²/2."""
    one = modes._on_host(polished(ordinary, other_optima=False))
    correlation = np.sqrt(one.refined.correlation**2 + 2 * share_of_z)
    other = eqx.tree_at(
        lambda p: (p.refined.alignment.rotation, p.refined.correlation),
        one,
        (one.refined.alignment.rotation @ turned(-TURN_DEG), correlation),
    )
    return one, other


def joined(found, precision=None):
    batch, refined = searched(ordinary)
    free = jr.Polish().parameters
    others = (template(ordinary), GRID, SCORE, free, precision)
    return modes._joined(found, modes.Searched(batch, refined, *others))


@pytest.mark.slow
@pytest.mark.parametrize("gain", [1.5, 0.0, -1.0, -5.0])
def test_an_optimum_counts_by_its_likelihood(gain):
    one, other = two(gain)
    share = np.exp(gain) / (1 + np.exp(gain))
    expected = np.diagonal(one.covariance, axis1=1, axis2=2)[:, 2].astype(float)
    if share > 0.05:
        expected = expected + share * TURN_DEG**2
    result = joined([one, other])
    np.testing.assert_array_equal(result.optima, 1 + (share > 0.05))
    np.testing.assert_allclose(result.covariance[:, 2, 2], expected, rtol=1e-3)
    np.testing.assert_allclose(result.errors.rotation_deg[:, 2] ** 2, expected, rtol=1e-3)


@pytest.mark.slow
def test_the_pose_moves_where_another_is_clearly_better():
    one, other = two(1.9)
    np.testing.assert_array_equal(in_plane_deg(joined([one, other])), in_plane_deg(one))
    one, other = two(2.1)
    result = joined([one, other])
    np.testing.assert_allclose(in_plane_deg(result), in_plane_deg(other), atol=1e-3)
    share = 1 / (1 + np.exp(2.1))
    expected = np.diagonal(one.covariance, axis1=1, axis2=2)[:, 2] + share * TURN_DEG**2
    np.testing.assert_allclose(result.covariance[:, 2, 2], expected, rtol=1e-3)


@pytest.mark.slow
def test_a_prior_weighs_optima():
    """About the start, 13 degrees off: the other tooth is 17 to the other side."""
    one, other = two()
    precision = jnp.zeros(6).at[2].set(1 / 10.0**2)
    angle = in_plane_deg(one) + 13.0
    height = -(np.stack([angle, angle - TURN_DEG]) ** 2) / 200
    assert np.all(height[0] > height[1] - 2)  # so that it stays
    share = np.exp(height[1]) / np.exp(height).sum(axis=0)
    result = joined([one, other], precision)
    expected = share * TURN_DEG**2
    np.testing.assert_allclose(result.covariance[:, 2, 2], expected, rtol=0.1)
    np.testing.assert_array_equal(in_plane_deg(result), in_plane_deg(one))


@pytest.mark.slow
def test_the_same_optimum_twice_is_one():
    one, _ = two()
    result = joined([one, one])
    np.testing.assert_array_equal(result.optima, 1)
    np.testing.assert_allclose(result.covariance, one.covariance, rtol=1e-6)
    np.testing.assert_array_equal(result.evaluations, 2 * one.evaluations)


@pytest.mark.parametrize("steps", [1.5, 0.6])
@pytest.mark.parametrize("seed", range(3))
def test_starts_are_those_of_a_comparison_with_all(seed, steps):
    """Neighbours only exclude what a comparison of all orientations excludes."""
    rng = np.random.default_rng(seed)
    poses = jr.uniform_orientations(
        psi_coarse=2.0, psi_fine=1.0, theta_coarse=8.0, theta_fine=1.0
    )[0]
    # Standard errors in steps of the grid; in the second case few poses have neighbours.
    spread = np.diag((steps * rng.uniform(0.4, 1.2, 3)) ** 2)
    # Three hills, and noise that makes further maxima.
    tops = poses[rng.choice(len(poses), 3)]
    away = np.min([modes._sigmas_apart(top, poses, spread) for top in tops], axis=0)
    z = 10 - 0.05 * away**2 + 0.3 * rng.standard_normal(len(poses))
    known = [(poses[np.argmax(z)], spread)]
    for _ in range(4):
        far = [modes._sigmas_apart(there, poses, c) > 3.0 for there, c in known]
        expected = None
        for at in sorted(np.flatnonzero(np.all(far, axis=0)), key=lambda at: -z[at]):
            apart = modes._sigmas_apart(poses[at], poses[z > z[at]], spread)
            if not np.any(apart < 2.0):
                expected = poses[at]
                break
        found = modes._far_from_all(z, poses, known)
        if expected is None:
            assert found is None
            break
        np.testing.assert_array_equal(found, expected)
        known.append((found, spread))
    assert len(known) > 1
