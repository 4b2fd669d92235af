"""The trimmed template, and that searching it is sufficient."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrefine as jr
from jaxrefine import simulate as sim
from jaxrefine.physics.support import middle, trim_template

SIDE, MARGIN, DEFOCUS = 96, 8, 8000.0


def globule(share: float, b_angstrom2: float = 80.0) -> np.ndarray:
    """A particle whose diameter is a fraction of the template's side."""
    atoms = sim.random_globule(400, share / 2 * SIDE, np.random.default_rng(3))
    return np.asarray(sim.potential_volume(atoms.blurred(b_angstrom2), SIDE, 1.0))


@pytest.mark.parametrize("share", [0.4, 0.6])
def test_the_cube_is_little_larger_than_the_particle(share):
    trimmed = trim_template(globule(share), 1.0)
    assert share * SIDE <= len(trimmed) <= 1.35 * share * SIDE
    assert len(trimmed) % 2 == 0
    start = (SIDE - len(trimmed)) // 2
    np.testing.assert_array_equal(trimmed[0, 0], globule(share)[start, start, start:-start])


def test_a_volume_full_of_signal_stays_whole():
    noise = np.random.default_rng(0).normal(size=(32, 32, 32)).astype(np.float32)
    assert trim_template(noise, 1.0).shape == noise.shape


def test_a_background_is_no_signal():
    assert len(trim_template(globule(0.4) + 7, 1.0)) == len(
        trim_template(globule(0.4), 1.0)
    )


@pytest.mark.parametrize("gain", [1e-25, 1e25])
def test_any_unit_will_do(gain):
    volume = globule(0.4)
    trimmed = trim_template((volume * gain).astype(np.float32), 1.0)
    assert len(trimmed) == len(trim_template(volume, 1.0)) < SIDE


@pytest.mark.parametrize("value", [0.0, 3.0, np.nan])
def test_what_holds_no_structure_stays_whole(value):
    assert trim_template(np.full((16, 16, 16), value, np.float32), 1.0).shape == (16,) * 3


@pytest.mark.slow
def test_the_middle_has_the_whole_s_scores():
    """At the same positions, although the corner of the trimmed template differs."""
    volume = globule(0.5)
    box, ny = (SIDE + MARGIN,) * 2, 256
    score = jr.ImageCTF.for_particles(
        box,
        SIDE,
        max_defocus_angstrom=DEFOCUS,
        voltage_kv=300.0,
        spherical_aberration_mm=2.7,
        pixel_size_angstrom=1.0,
    )
    image = np.random.default_rng(1).normal(size=(ny, ny)).astype(np.float32)
    maps = (ny - SIDE + 1,) * 2
    micrograph = jr.prepare_micrograph(
        jnp.asarray(image), jnp.zeros(maps), jnp.ones(maps), jr.Filters()
    )

    def one(value: float) -> jax.Array:
        return jnp.full(1, value, jnp.float32)

    def z_of(part: np.ndarray) -> np.ndarray:
        of_part = score.of_middle(len(part))
        particles = jr.cut_particles(
            micrograph,
            jr.Alignment(
                rotation=jnp.eye(3)[None],
                position_px=jnp.asarray([[71.0, 83.0]]),
                defocus_angstrom=jnp.full((1, 2), DEFOCUS),
                astigmatism_deg=one(0.0),
                pixel_size_angstrom=one(1.0),
            ),
            jr.Optics(one(300.0), one(2.7), one(0.07), one(0.0), one(0.0)),
            one(1.0),
            of_part,
        )
        particle = jax.tree.map(lambda leaf: leaf[0], particles)
        # Cubic: trilinear slices are themselves off by some hundredths.
        template = jr.make_template(jnp.asarray(part, jnp.float32), "cubic")
        turns = np.random.default_rng(2).normal(0, 60, (30, 3)).astype(np.float32)

        def z(turn: jax.Array) -> jax.Array:
            offsets = replace(jr.Offsets.zeros(), rotation_deg=turn)
            return jr.z_score(offsets, particle, template, of_part)

        return np.asarray(jax.jit(lambda all: jax.lax.map(z, all))(jnp.asarray(turns)))

    trimmed = trim_template(volume, 1.0)
    assert len(trimmed) < 0.7 * SIDE
    whole = z_of(volume)
    assert whole.std() > 0.5  # of noise, they differ by a deviation of about 1
    # The root of the share that is left out, 1e-4, is 0.01.
    assert np.abs(z_of(trimmed) - whole).max() < 0.02
    assert np.abs(z_of(middle(volume, 24)) - whole).max() > 0.1


def test_maps_of_another_template_are_refused():
    score = jr.TemplateCTF((40, 40), 32)
    maps = jnp.ones((64 - 30 + 1,) * 2)
    micrograph = jr.prepare_micrograph(jnp.ones((64, 64)), maps, maps, jr.Filters())
    alignment = jr.Alignment(
        jnp.eye(3)[None], jnp.ones((1, 2)), jnp.ones((1, 2)), jnp.zeros(1), jnp.ones(1)
    )
    optics = jr.Optics(*(jnp.ones(1) for _ in range(5)))
    with pytest.raises(jr.InputError, match="are of a template of 30 px"):
        jr.cut_particles(micrograph, alignment, optics, jnp.ones(1), score)
