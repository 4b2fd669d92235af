"""A known structure projected out of images: it is gone, and the rest stays."""

import functools
from dataclasses import replace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrefine as jr
from jaxrefine.refine.differentiable import at_position, feature, image_of
from jaxrefine.refine.project_out import project_out
from tests.refine import test_polish as world
from tests.worlds import single

STRENGTH = 25.0


@functools.cache
def of_unit_length(turned):
    """Images of the template itself at the true poses, or at others, of length 1."""
    start, template = world.particles(), world.template()
    rotation = world.ROTATION[::-1] if turned else world.ROTATION
    defocus = start.alignment.defocus_angstrom + single(world.DEFOCUS)[:, None]
    there = replace(start.alignment, rotation=single(rotation), defocus_angstrom=defocus)
    particles = eqx.tree_at(lambda p: p.alignment, start, there)
    place = single(world.PLACE + np.array([2.0, -1.0]) if turned else world.PLACE)

    def one(both):
        particle, shift = both
        offsets = replace(jr.Offsets.zeros(), shift_px=shift)
        values, _ = feature(offsets, particle, template, world.SCORE)
        image = image_of(values, world.SCORE)
        return image / jnp.linalg.norm(image)

    return jax.jit(lambda batch: jax.lax.map(one, batch))((particles, place))


def holding(images):
    """Particles that start up to 1°, half a pixel and 20 Å from the true poses."""
    return eqx.tree_at(lambda p: p.image, world.particles(), images)


def without(particles, at=None):
    at = particles.alignment if at is None else at
    return project_out(particles, at, world.template(), world.SCORE).image


def along(images, direction):
    return np.asarray(jnp.sum(images * direction, axis=(1, 2)))


@pytest.mark.slow
def test_what_is_known_is_gone_and_the_rest_stays():
    known, partner = of_unit_length(False), of_unit_length(True)
    # The optimisation ends when a step promises less than 2e-4 of the score: at STRENGTH,
    # 0.4 % of the length. The part of this that is linear in the pose is projected out.
    rest = without(holding(STRENGTH * known))
    assert np.all(jnp.linalg.norm(rest, axis=(1, 2)) < 1e-3 * STRENGTH)
    both = STRENGTH * known + 8.0 * partner
    before, after = (along(images, partner) for images in (both, without(holding(both))))
    # Of the partner, all remains that is not in the seven directions. With these two, of
    # one density and nearly one place, a quarter of its score lies in them at most.
    overlap = along(known, partner)
    assert np.all(after < 8.0) and np.all(after > 0.75 * 8.0 * (1 - overlap**2))
    np.testing.assert_allclose(before, 8.0 + STRENGTH * overlap, atol=1e-3)
    assert np.abs(before - 8.0).max() > 3 * np.abs(after - 8.0).max()


@pytest.mark.slow
def test_of_noise_seven_dimensions_are_lost(rng):
    noise = single(rng.standard_normal((world.COUNT, *world.SCORE.padded_box)))
    rest = without(holding(STRENGTH * of_unit_length(False) + noise))
    lost = np.asarray(jnp.sum(noise**2, axis=(1, 2)) - jnp.sum(rest**2, axis=(1, 2)))
    # χ² of seven degrees of freedom: the mean of eight, within three standard errors.
    assert abs(lost.mean() - 7) < 3 * np.sqrt(14 / world.COUNT)
    # and no more of it: what is left is the noise, but for those
    change = np.asarray(jnp.linalg.norm(rest - noise, axis=(1, 2)))
    assert np.all(change < 7)


def test_the_structure_may_lie_beside_the_particle():
    """Its position is apart from the particle's, and not a whole pixel."""
    particles = holding(STRENGTH * of_unit_length(False))
    move = jnp.asarray([3, -2])
    beside = jax.vmap(lambda p: at_position(p, move, world.SCORE))(particles)
    position = beside.alignment.position_px - move + jnp.asarray([0.4, -0.3])
    rest = without(beside, replace(beside.alignment, position_px=position))
    assert np.all(jnp.linalg.norm(rest, axis=(1, 2)) < 1e-3 * STRENGTH)


def test_without_a_pose_nothing_is_changed():
    particles = world.particles()
    rotation = particles.alignment.rotation.at[0].set(jnp.nan)
    image = without(particles, replace(particles.alignment, rotation=rotation))
    np.testing.assert_array_equal(image[0], particles.image[0])
    assert np.all(np.isfinite(image))
    assert np.all(jnp.any(image[1:] != particles.image[1:], axis=(1, 2)))


def test_another_template_is_refused():
    small = jr.make_template(np.ones((16, 16, 16), np.float32) * np.arange(16), "cubic")
    particles = world.particles()
    with pytest.raises(jr.InputError, match="side of 16 px"):
        project_out(particles, particles.alignment, small, world.SCORE)
