"""The score as a smooth function of the pose: continuous, sub-pixel, differentiable.

At offsets of zero it is the score that the search gives to the particle's own alignment.
Written for one particle; use `jax.vmap`, `jax.grad`, `jax.hessian` and `jax.jit` at will.
"""

from collections.abc import Iterable
from dataclasses import fields, replace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float, Int

from jaxrefine.data import Alignment, Offsets, Optics, Particles, Template
from jaxrefine.physics.fourier import frequency_grid, half_plane_weights
from jaxrefine.physics.rotations import rotation_vector_to_matrix
from jaxrefine.refine.arguments import check_one, check_template
from jaxrefine.refine.scoring import Score


def moved(particle: Particles, offsets: Offsets) -> Particles:
    """The particle with alignment and optics changed; shift and pixel size aside.

    These two say how the image is looked at: `matched_filter` and its caller apply them.
    """
    turn = rotation_vector_to_matrix(offsets.rotation_deg)
    high = jax.lax.Precision.HIGHEST
    alignment = replace(
        particle.alignment,
        rotation=jnp.matmul(particle.alignment.rotation, turn, precision=high),
        **_sums(particle.alignment, offsets, ("defocus_angstrom", "astigmatism_deg")),
    )
    optics = replace(particle.optics, **_sums(particle.optics, offsets, _OF_OPTICS))
    return replace(particle, alignment=alignment, optics=optics)


# Optics that may be changed: all that `Offsets` has.
_OF_OPTICS = tuple(f.name for f in fields(Optics) if f.name in Offsets.__dataclass_fields__)


def _sums(
    values: Alignment | Optics, offsets: Offsets, names: Iterable[str]
) -> dict[str, Array]:
    sums = {}
    for name in names:
        value, offset = getattr(values, name), getattr(offsets, name)
        if offset is None:
            continue
        if value is None:  # as if there were none of it
            value = jnp.eye(2) if name == "mag_matrix" else 0.0
        sums[name] = value + offset
    return sums


def feature(
    offsets: Offsets, particle: Particles, template: Template, score: Score
) -> tuple[Complex[Array, "Qh Qr"], Float[Array, ""]]:
    """What the image is multiplied by: the expected image, up to its strength.

    The shift is a phase: trigonometric interpolation of the image on its cut.

    Returns:
        The feature in `spectrum`'s coordinates, and its norm: the correlation is
        Σ Re(conj(feature) · spectrum) / norm.
    """
    pixel_size = particle.alignment.pixel_size_angstrom + offsets.pixel_size_angstrom
    there = moved(particle, offsets)
    filtered, norm = score.matched_filter(there, template, pixel_size)
    ky, kx = frequency_grid(score.padded_box)
    y, x = offsets.shift_px
    phase = -2 * np.pi * (ky * y + kx * x)
    turn = jax.lax.complex(jnp.cos(phase), jnp.sin(phase))
    return _orthonormal(filtered * turn, score.padded_box), norm


def spectrum(particle: Particles, score: Score) -> Complex[Array, "Qh Qr"]:
    """The particle's cut in coordinates in which Σ Re(conj(a) b) is Σ a b over pixels."""
    return _orthonormal(jnp.fft.rfft2(particle.image), score.padded_box)


def image_of(values: Complex[Array, "Qh Qr"], score: Score) -> Float[Array, "Qh Qw"]:
    """The cut whose `spectrum` this is."""
    height, width = score.padded_box
    scale = jnp.sqrt(half_plane_weights((height, width)) / (height * width))
    return jnp.fft.irfft2(values / scale, s=(height, width))


def _orthonormal(
    rfft: Complex[Array, "Qh Qr"], shape: tuple[int, int]
) -> Complex[Array, "Qh Qr"]:
    return rfft * jnp.sqrt(half_plane_weights(shape) / (shape[0] * shape[1]))


def correlation_and_z(
    offsets: Offsets, particle: Particles, template: Template, score: Score
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """`z_score`, and the correlation that it is made of."""
    expected, norm = feature(offsets, particle, template, score)
    seen = spectrum(particle, score)
    correlation = jnp.sum((jnp.conj(expected) * seen).real) / norm
    y, x = score.margin
    z = (correlation - particle.corr_mean[y, x]) / particle.corr_std[y, x]
    return correlation, z


def z_score(
    offsets: Offsets, particle: Particles, template: Template, score: Score
) -> Float[Array, ""]:
    """z-score of one particle, `offsets` away from its alignment.

    (correlation - mean) / standard deviation, both statistics those of the particle's own
    whole-pixel position, so that the score has no kinks where positions round.

    Args:
        offsets: Where to look. `Offsets.zeros()` is the particle's alignment.
        particle: One particle; `recentred` puts a batch at its grid's best.
        template: From `make_template`.
        score: `ImageCTF`, `TemplateCTF`, or another `Score`.

    Raises:
        InputError: A batch in the place of one particle, or a template or a box that is
            not the score's.
    """
    check_template(template, score)
    check_one(particle, score, offsets)
    return correlation_and_z(offsets, particle, template, score)[1]


def at_position(particle: Particles, move_px: Int[Array, " 2"], score: Score) -> Particles:
    """One particle, its position moved by whole pixels within its box.

    The cut is rolled: what leaves it on one side comes back on the other, where no
    correlation at a position of the box reads it.
    """

    def rolled(values: Float[Array, "h w"]) -> Float[Array, "h w"]:
        return jnp.roll(values, -move_px, axis=(0, 1))

    return eqx.tree_at(
        lambda p: (p.alignment.position_px, p.image, p.corr_mean, p.corr_std),
        particle,
        (
            particle.alignment.position_px + move_px.astype(jnp.float32),
            rolled(particle.image),
            rolled(particle.corr_mean),
            rolled(particle.corr_std),
        ),
    )
