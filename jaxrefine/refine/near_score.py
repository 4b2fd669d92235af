"""The z-score near a pose, for optimisation: with the length of the feature as its norm.

The exact norm includes the signal that the CTF carries beyond the padded box, and takes
most of the time of an evaluation. That signal is weak and almost constant, so that the
ratio of norm and length is that at the start. There the two scores are equal.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Complex, Float

from jaxrefine.data import Particles, Template
from jaxrefine.refine.coordinates import offsets_from
from jaxrefine.refine.differentiable import feature, spectrum
from jaxrefine.refine.scoring import Score


def near_z_score(
    particle: Particles,
    template: Template,
    score: Score,
    parameters: tuple[str, ...],
    norm: Float[Array, ""],
) -> Callable[[Float[Array, " p"]], Float[Array, ""]]:
    """The score as a function of the coordinates of a polish.

    Args:
        particle: One particle, at the start.
        template: From `make_template`.
        score: The score.
        parameters: The free parameters.
        norm: Norm of the feature at the start, relative to its length.
    """
    seen = spectrum(particle, score)
    mean, std = _mean_and_std(particle, score)

    def length(values: Complex[Array, "Qh Qr"]) -> Float[Array, ""]:
        return jnp.sqrt(jnp.sum(values.real**2 + values.imag**2))

    def z(coordinates: Float[Array, " p"]) -> Float[Array, ""]:
        offsets = offsets_from(coordinates, parameters, particle.alignment)
        values, _ = feature(offsets, particle, template, score)
        correlation = jnp.sum((jnp.conj(values) * seen).real) / (length(values) * norm)
        return (correlation - mean) / std

    return z


def near_z_score_at_start(
    rows: Float[Array, "q 2 k"], norm: Float[Array, ""], particle: Particles, score: Score
) -> tuple[Float[Array, ""], Float[Array, " p"]]:
    """Value and gradient of `near_z_score` at the start, from what is known there.

    Args:
        rows: The unit feature and its slopes, from `pose_rows`.
        norm: Norm of the feature relative to its length.
        particle: One particle.
        score: The score.
    """
    seen = spectrum(particle, score)
    parts = jnp.stack([seen.real, seen.imag]).reshape(2, -1)
    high = jax.lax.Precision.HIGHEST
    products = jnp.einsum("qck,ck->q", rows, parts, precision=high) / norm
    mean, std = _mean_and_std(particle, score)
    return (products[0] - mean) / std, products[1:] / std


def _mean_and_std(
    particle: Particles, score: Score
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    y, x = score.margin
    return particle.corr_mean[y, x], particle.corr_std[y, x]
