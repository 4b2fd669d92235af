"""The score as a smooth function of the pose: continuous, sub-pixel, differentiable.

At offsets of zero it equals the score that the search computes at the particle's own
alignment. Functions take one particle; `jax.vmap`, `jax.grad`, `jax.hessian` and `jax.jit`
can be applied to them.
"""

from collections.abc import Iterable
from dataclasses import fields, replace

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Complex, Float, Int

from jaxrefine.data import Alignment, Offsets, Optics, Particles, Template
from jaxrefine.physics.fourier import half_plane_weights, shift_phase
from jaxrefine.physics.rotations import rotation_vector_to_matrix
from jaxrefine.refine.arguments import check_one, check_template
from jaxrefine.refine.scoring import Score


def moved(particle: Particles, offsets: Offsets) -> Particles:
    """Apply offsets to a particle's alignment and optics, except shift and pixel size.

    `matched_filter` and its caller apply these two.
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


# Fields of `Optics` that offsets can change: all that `Offsets` has.
_OF_OPTICS = tuple(f.name for f in fields(Optics) if f.name in Offsets.__dataclass_fields__)


def _sums(
    values: Alignment | Optics, offsets: Offsets, names: Iterable[str]
) -> dict[str, Array]:
    sums = {}
    for name in names:
        value, offset = getattr(values, name), getattr(offsets, name)
        if offset is None:
            continue
        if value is None:  # an absent parameter counts as 0
            value = jnp.eye(2) if name == "mag_matrix" else 0.0
        sums[name] = value + offset
    return sums


def feature(
    offsets: Offsets, particle: Particles, template: Template, score: Score
) -> tuple[Complex[Array, "Qh Qr"], Float[Array, ""]]:
    """The feature: the expected image up to a factor, the strength.

    The shift is applied as a phase ramp, which amounts to trigonometric interpolation of
    the image in its padded box.

    Returns:
        The feature in the coordinates of `spectrum`, and its norm. The correlation is
        Σ Re(conj(feature) · spectrum) / norm.

    Raises:
        InputError: As `z_score`.
    """
    check_template(template, score)
    check_one(particle, score, offsets)
    pixel_size = particle.alignment.pixel_size_angstrom + offsets.pixel_size_angstrom
    there = moved(particle, offsets)
    filtered, norm = score.matched_filter(there, template, pixel_size)
    turn = shift_phase(score.padded_box, offsets.shift_px)
    return _orthonormal(filtered * turn, score.padded_box), norm


def spectrum(particle: Particles, score: Score) -> Complex[Array, "Qh Qr"]:
    """Spectrum of the padded box, scaled so that Σ Re(conj(a) b) is Σ a b over pixels."""
    return _orthonormal(jnp.fft.rfft2(particle.image), score.padded_box)


def image_of(values: Complex[Array, "Qh Qr"], score: Score) -> Float[Array, "Qh Qw"]:
    """The image in the padded box that has this `spectrum`."""
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
    """Correlation and `z_score` of one particle, `offsets` away from its alignment."""
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

    It is (correlation - mean) / standard deviation, with mean and standard deviation at the
    particle's own whole-pixel position, so that the score is smooth in the shift.

    Args:
        offsets: Offsets from the particle's alignment; `Offsets.zeros()` for none.
        particle: One particle; `recentred` moves it to its best grid point.
        template: From `make_template`.
        score: `ImageCTF`, `TemplateCTF`, or another `Score`.

    Raises:
        InputError: `particle` is a batch, or the template or the box does not match the
            score.
    """
    return correlation_and_z(offsets, particle, template, score)[1]


def at_position(particle: Particles, move_px: Int[Array, " 2"], score: Score) -> Particles:
    """Move the position of one particle by whole pixels within its box.

    The image is rolled in its padded box. Pixels that leave on one side reappear on the
    other, where they do not affect the correlation at any position in the box.
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
