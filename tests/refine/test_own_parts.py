"""A CTF and an objective of one's own, another precision, and units of offsets."""

from dataclasses import replace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array, Float

import jaxrefine as jr
from tests.worlds import make_world

WORLD = make_world(places=(1, 2))
PLAIN = WORLD.imaging.image_ctf((24, 24), 16)
GRID = jr.SearchGrid(
    jnp.eye(3)[None], jnp.zeros(1, bool), jnp.asarray([-50.0, 0.0]), jnp.zeros(1)
)
TRACES = []


class Damped(jr.ImageCTF):
    """As docs/library.md has it."""

    extra_b: Float[Array, ""] = eqx.field(default=0.0, converter=jnp.asarray)

    def ctf(self, particle, shape, pixel_size, defocus):
        b = particle.optics.b_factor_angstrom2 + self.extra_b
        damped = eqx.tree_at(lambda p: p.optics.b_factor_angstrom2, particle, b)
        return super().ctf(damped, shape, pixel_size, defocus)


class NearStart(eqx.Module):
    """z with a prior on the defocus, in which its width is a number."""

    width_angstrom: float

    def __call__(self, offsets, particle, template, score):
        TRACES.append(self.width_angstrom)
        z = jr.z_score(offsets, particle, template, score)
        return z - jnp.mean(offsets.defocus_angstrom**2) / self.width_angstrom**2


SCORE = Damped(PLAIN.box, PLAIN.side, PLAIN.padded_shape, PLAIN.norm_side)


@pytest.fixture(scope="module")
def particles():
    micrograph = jr.prepare_micrograph(jnp.asarray(WORLD.image), *WORLD.maps, jr.Filters())
    optics, pixel_size = WORLD.imaging.optics(2), jnp.full(2, 2.0)
    return jr.cut_particles(micrograph, WORLD.alignment(), optics, pixel_size, PLAIN)


@pytest.fixture(scope="module")
def template():
    return jr.make_template(WORLD.volume, "cubic")


@pytest.mark.slow
def test_one_method_changes_the_ctf_of_search_norm_and_polish(particles, template):
    """A score that adds to B is that of particles whose B is as much higher."""
    b = particles.optics.b_factor_angstrom2 + 60.0
    higher = eqx.tree_at(lambda p: p.optics.b_factor_angstrom2, particles, b)
    score = replace(SCORE, extra_b=60.0)
    z_grid = jr.refine_particles(particles, template, GRID, score).z_score
    assert np.array_equal(
        z_grid, jr.refine_particles(higher, template, GRID, SCORE).z_score
    )
    plain = jr.refine_particles(particles, template, GRID, SCORE).z_score
    assert np.all(np.abs(z_grid - plain) > 0.05)

    @jax.jit
    @jax.value_and_grad
    def z_and_slope(extra_b):
        own = replace(SCORE, extra_b=extra_b)
        return jr.z_score(jr.Offsets.zeros(), particles[0], template, own)

    (above, _), (below, _) = (z_and_slope(jnp.asarray(b)) for b in (65.0, 55.0))
    # z of 14 in float32, over a difference of 10 Å²
    slope = z_and_slope(jnp.asarray(60.0))[1]
    assert float(slope) == pytest.approx(float(above - below) / 10, rel=0.01)


@pytest.mark.slow
def test_the_polish_compiles_once_for_all_numbers_and_precisions(particles, template):
    """Another width, another score's number and float64 need no new program."""
    refined = jr.refine_particles(particles, template, GRID, SCORE)

    def polished(width, extra_b=0.0, convert=lambda tree: tree):
        polish = jr.Polish(
            objective=NearStart(width), parameters=("defocus",), errors=False
        )
        score = replace(SCORE, extra_b=extra_b)
        given = convert((particles, refined, template, GRID, score))
        return jr.polish_particles(*given, polish)

    wide, count = polished(1e4), len(TRACES)
    assert count
    narrow = polished(1.0)

    def moved(found):
        there = found.refined.alignment.defocus_angstrom
        return np.abs(there - refined.alignment.defocus_angstrom).max()

    assert moved(narrow) < 1.0 < moved(wide)
    damped = polished(1e4, extra_b=60.0)
    assert np.all(np.abs(damped.refined.z_score - wide.refined.z_score) > 0.01)
    with jax.enable_x64(True):
        double = jax.tree.map(
            lambda x: x.astype(jnp.float64) if eqx.is_inexact_array(x) else x, particles
        )
        assert double.image.dtype == jnp.float64
        again = polished(1e4, convert=lambda given: (double, *given[1:]))
        searched = jr.refine_particles(double, template, GRID, SCORE)
    for leaf, other in zip(
        jax.tree.leaves((again, searched)), jax.tree.leaves((wide, refined)), strict=True
    ):
        assert leaf.dtype == other.dtype
        np.testing.assert_array_equal(leaf, other)
    assert len(TRACES) == count


@pytest.mark.slow
def test_batches_filled_up_give_the_same(particles, template):
    refined = jr.refine_particles(particles, template, GRID, SCORE)
    filled = jr.refine_particles(particles.padded(4), template, GRID, SCORE)
    for leaf, other in zip(
        jax.tree.leaves(filled[:2]), jax.tree.leaves(refined), strict=True
    ):
        np.testing.assert_array_equal(leaf, other)
    assert np.all(np.isnan(filled.z_score[2:]))


@pytest.mark.slow
def test_a_unit_of_each_offset_changes_the_expected_image_as_much(particles, template):
    """By finite differences of the image of unit length; what changes nothing has none."""
    free = ["rotation_deg", "shift_px", "defocus_angstrom", "beam_tilt_mrad"]
    one = eqx.tree_at(  # no astigmatism: its direction changes nothing
        lambda p: p.alignment.defocus_angstrom, particles[0], jnp.full(2, 3000.0)
    )
    units = jr.offset_units(one, template, PLAIN, free=[*free, "astigmatism_deg"])
    assert units.astigmatism_deg == 0 and units.spherical_aberration_mm == 0

    @jax.jit
    def image(offsets):
        values, _ = jr.feature(offsets, one, template, PLAIN)
        return values / jnp.sqrt(jnp.sum(jnp.abs(values) ** 2))

    start = jax.tree.map(jnp.zeros_like, units)
    for name in free:
        unit = getattr(units, name)
        for i in range(unit.size):
            step = jnp.zeros_like(unit).at[i].set(0.02 * unit[i])
            there, back = (replace(start, **{name: s * step}) for s in (1, -1))
            change = jnp.sqrt(jnp.sum(jnp.abs(image(there) - image(back)) ** 2))
            # second order in a step of 0.02, and float32
            assert float(change) == pytest.approx(0.04, rel=0.01), (name, i)
    with pytest.raises(jr.InputError, match="free"):
        jr.offset_units(one, template, PLAIN, free="shift_px")


def test_a_projection_is_the_sum_along_z():
    volume = np.asarray(WORLD.volume, np.float32)
    template = jr.make_template(volume, "trilinear")
    projection = jax.jit(jr.project)(template, jnp.eye(3))
    # float32
    np.testing.assert_allclose(projection, volume.sum(0), atol=1e-4 * volume.sum(0).max())
