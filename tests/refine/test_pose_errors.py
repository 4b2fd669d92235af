"""Standard errors of a pose, and its expected score in independent data."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrefine as jr
from jaxrefine.refine import pose_errors, prior
from jaxrefine.refine.information import (
    information_in_rings,
    pose_information,
    pose_rows,
)
from jaxrefine.refine.rings import Rings
from tests.refine import test_polish as world
from tests.worlds import single

NO_PRIOR = jnp.zeros(2)


def rings(*matrices, power=None):
    information = single(matrices)
    power = np.full(len(matrices), 1 / len(matrices)) if power is None else power
    return pose_errors.RingInformation(
        single(power), information, jnp.sum(information, axis=0)
    )


def test_a_pose_that_is_well_known_is_as_well_known_as_the_curvature_says():
    both = rings([[3.0, 1.0], [1.0, 2.0]], [[1.0, 0.0], [0.0, 4.0]])
    known = pose_errors.uncertain(both.total, both, single(1e6), NO_PRIOR)
    np.testing.assert_allclose(known, both.total, rtol=1e-4)


def test_of_one_coordinate_the_gaussian_is_the_nearest():
    """c = 1 / (s² Σ w m (1 + c m)^(-3/2)), solved here by bisection."""
    power, m, strength2 = np.array([0.7, 0.3]), np.array([1.0, 20.0]), 20.0
    one = rings(*(power * m)[:, None, None], power=power)
    known = pose_errors.uncertain(one.total, one, single(strength2), jnp.zeros(1))
    low, high = 1e-3, 1.0
    for _ in range(60):
        c = (low + high) / 2
        curvature = strength2 * np.sum(power * m * (1 + c * m) ** -1.5)
        low, high = (c, high) if c * curvature < 1 else (low, c)
    assert c > 1.2 / (strength2 * np.sum(power * m))  # far from the curvature's
    np.testing.assert_allclose(1 / (strength2 * known[0, 0]), c, rtol=0.02)


def test_units_of_coordinates_do_not_matter():
    one = rings([[3.0, 1.0], [1.0, 2.0]], [[9.0, 0.0], [0.0, 40.0]])
    unit = np.diag([10.0, 0.01])
    other = rings(*(unit @ np.asarray(m) @ unit for m in one.information))
    strength2, precision = single(60.0), single([0.3, 0.2])
    expected = unit @ pose_errors.uncertain(one.total, one, strength2, precision) @ unit
    scaled = precision * jnp.diagonal(unit) ** 2
    known = pose_errors.uncertain(other.total, other, strength2, scaled)
    np.testing.assert_allclose(known, expected, rtol=1e-4)


def test_no_error_is_smaller_than_the_curvature_s():
    """Whatever the particle's own curvature is; the weaker, the larger."""
    both = rings([[3.0, 1.0], [1.0, 2.0]], [[9.0, 0.0], [0.0, 40.0]])
    own = single([[6.0, 0.5], [0.5, 50.0]])
    before = np.sqrt(np.diagonal(np.linalg.inv(own)))
    for strength2 in (100.0, 30.0, 5.0, 1.0):
        known = pose_errors.uncertain(own, both, single(strength2), single([1.0, 1.0]))
        now = np.sqrt(np.diagonal(np.linalg.inv(known)))
        assert np.all(now > before) and np.all(np.isfinite(now))
        before = now


@pytest.mark.slow
def test_rings_add_up_to_the_information():
    batch = world.particles()
    particle = jax.tree.map(lambda x: x[0], batch)
    at = jnp.zeros(6)
    others = (particle, world.template(), world.SCORE, world.FREE.parameters)
    rows, norm = pose_rows(at, *others)
    assert norm == pytest.approx(1, abs=0.01)  # but for signal beyond the padded box
    by_ring = information_in_rings(rows, world.SCORE.padded_box)
    whole = pose_information(at, *others)
    np.testing.assert_allclose(by_ring.total, whole, rtol=2e-3, atol=1e-6)
    assert np.all(np.linalg.eigvalsh(whole - by_ring.information.sum(axis=0)) > -1e-4)
    assert 0.9 < by_ring.power.sum() <= 1.0001
    # Each ring by itself, in float64.
    rows = np.asarray(rows, float)
    ring = Rings().of(world.SCORE.padded_box).ravel()
    for number in (0, 3, Rings().number - 1):
        part = rows[:, :, ring == number]
        expected = np.einsum("ick,jck->ij", part, part)
        atol = 1e-5 * np.abs(expected).max()
        np.testing.assert_allclose(by_ring.power[number], expected[0, 0], rtol=1e-4)
        np.testing.assert_allclose(
            by_ring.information[number], expected[1:, 1:], rtol=1e-4, atol=atol
        )


def test_a_prior_takes_degrees_of_freedom():
    information = single([[4.0, 1.0], [1.0, 9.0]])
    assert prior.fitted_count(information, jnp.zeros(2)) == pytest.approx(2, rel=1e-5)
    some = prior.fitted_count(information, single([4.0, 0.0]))
    total = np.asarray(information) + np.diag([4.0, 0.0])
    expected = np.trace(np.linalg.solve(total, np.asarray(information)))
    assert some == pytest.approx(expected, rel=1e-5)
    assert prior.fitted_count(information, single([1e6, 1e6])) < 1e-4


@eqx.filter_jit
def z_at(particles, found):
    """Scores of images at poses that were found in others."""

    def one(both):
        particle, there = both
        move = there.alignment.position_px - particle.alignment.position_px
        offsets = eqx.tree_at(
            lambda o: o.shift_px, jr.Offsets.zeros(), move - jnp.round(move)
        )
        at_pose = jr.recentred(particle, there, world.SCORE)
        return jr.z_score(offsets, at_pose, world.template(), world.SCORE)

    return jax.lax.map(one, (particles, found))


@pytest.mark.nightly
@pytest.mark.parametrize("held", ["none", "match"])
def test_the_expected_score_is_that_in_other_data(held):
    """Of the same particles in other noise, within counting error; their own is higher."""
    settings = jr.Polish(prior=held)
    own, expected, other = [], [], []
    seeds = range(20, 28)
    batches = [world.particles(snr=10.0, seed=seed) for seed in seeds]
    for batch, next_one in zip(batches, batches[1:] + batches[:1], strict=True):
        result = world.polished(batch, settings=settings)
        own.append(result.refined.z_score)
        expected.append(result.expected_z)
        other.append(z_at(next_one, result.refined))
    own, expected, other = (np.concatenate(each) for each in (own, expected, other))
    gap = other - expected
    error = gap.std(ddof=1) / np.sqrt(len(gap))
    assert abs(gap.mean()) < 3 * error
    assert own.mean() - other.mean() > 2 * error
