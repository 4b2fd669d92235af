"""Several references fitted to the same particles."""

import functools
from dataclasses import replace

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrefine as jr
from jaxrefine import simulate as sim
from jaxrefine.refine.references import Reference, fit_references
from tests.refine import test_polish as world
from tests.worlds import single

SIZES = single([world.IMAGING.pixel_size] * world.COUNT)


@functools.cache
def lacking():
    """The same structure without its right end."""
    x = world.ATOMS.positions_angstrom[:, 0]
    weights = np.where(x > np.quantile(x, 0.9), 0.0, world.ATOMS.weights)
    atoms = replace(world.ATOMS, weights=weights)
    volume = sim.potential_volume(atoms, world.SIDE, world.IMAGING.pixel_size)
    return jr.make_template(volume, "cubic")


def fitted(particles, first, second):
    references = [
        Reference(world.template(), SIZES, first),
        Reference(lacking(), SIZES, second),
    ]
    return fit_references(particles, references, world.GRID, world.SCORE, world.FREE)


@functools.cache
def both():
    particles = world.particles()
    return fitted(particles, particles.alignment, particles.alignment)


@pytest.mark.slow
def test_the_whole_fits_better_by_what_is_lacking():
    fits = both()
    assert np.all(fits.z_score[:, 0] > fits.z_score[:, 1])
    np.testing.assert_allclose(np.diagonal(fits.overlap, axis1=1, axis2=2), 1, atol=1e-4)
    rho = np.asarray(fits.overlap[:, 0, 1])
    assert np.all((rho > 0.8) & (rho < 0.98))
    # Of a particle of strength s the other's score is ρ s on average, with noise of 1 - ρ².
    expected = rho * np.asarray(fits.signal[:, 0])
    apart = np.abs(np.asarray(fits.signal[:, 1]) - expected)
    assert np.all(apart < 4 * np.sqrt(1 - rho**2))
    assert np.all(np.isfinite(fits.log_determinant))


@pytest.mark.slow
def test_the_score_is_that_of_the_polish():
    """z-scores at the optimum, from where the polish starts, too."""
    particles = world.particles()
    polished = jr.polish_particles(
        particles,
        world.unsearched(particles),
        world.template(),
        world.GRID,
        world.SCORE,
        world.FREE,
    )
    # Up to steps that promise less than 1e-4 each.
    np.testing.assert_allclose(both().z_score[:, 0], polished.refined.z_score, atol=0.01)
    there, position = both().alignment, polished.refined.alignment.position_px
    np.testing.assert_allclose(there.position_px[:, 0], position, atol=0.1)


@pytest.mark.slow
def test_an_optimum_that_one_reference_missed_is_found_from_the_other_s():
    """The search with the second one is wrong by 25° and by two pixels."""
    particles = world.particles()
    turn = sim.matrix_from_euler(0.0, 25.0, 0.0).astype(np.float32)
    start = particles.alignment
    moved = start.position_px + 2
    astray = replace(start, rotation=start.rotation @ turn, position_px=moved)
    fits = fitted(particles, start, astray)
    np.testing.assert_allclose(fits.z_score, both().z_score, atol=0.02)


@pytest.mark.slow
def test_what_was_not_refined_is_not_compared():
    particles = world.particles()
    start = particles.alignment
    nowhere = eqx.tree_at(lambda a: a.rotation, start, start.rotation.at[2].set(jnp.nan))
    fits = fitted(particles, start, nowhere)
    assert np.isnan(fits.z_score[2, 1]) and np.isnan(fits.signal[2, 1])
    rest = np.arange(world.COUNT) != 2
    np.testing.assert_allclose(fits.z_score[rest], both().z_score[rest], atol=0.01)
    assert np.isfinite(fits.z_score[2, 0])
