"""Standard errors of a pose, from what the image says of it.

The score is the product of the image with a feature of unit length, z = f(θ)·x, so that
near the optimum, where the image is z·f and noise, minus its curvature is z·JᵀJ with
J = ∂f/∂θ: Gauss-Newton's choice, known from first derivatives. The same matrix times z is
the Fisher information of the pose, whose inverse is the covariance; or, nearer to the
errors of the particle at hand, the curvature itself takes its place, the observed
information (Efron & Hinkley, Biometrika 65 (1978) 457), but only where it is not sharper.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxrefine.data import PoseErrors
from jaxrefine.refine.coordinates import parameter_slices

# The observed information counts where it is at least this share of the expected in every
# direction; elsewhere the climb has not ended on a summit.
_LEAST_OBSERVED = 0.2


def observed_or_expected(
    z: Callable[[Float[Array, " p"]], Float[Array, ""]],
    coordinates: Float[Array, " p"],
    expected: Float[Array, "p p"],
) -> Float[Array, "p p"]:
    """Minus the curvature of log z at a summit, unless noise has made it.

    `expected` where there is no summit, and where the summit is the sharper of the two: the
    highest of many ripples of noise on a broad hill is sharper than the signal's own.
    """
    _, along = jax.linearize(jax.grad(z), coordinates)  # the gradient itself is about 0
    curvature = -jax.lax.map(along, jnp.eye(coordinates.shape[0]))
    observed = (curvature + curvature.T) / 2 / z(coordinates)
    # Eigenvalues of the observed in units of the expected, both in handy numbers.
    scale = 1 / jnp.sqrt(jnp.diagonal(expected))
    half = jnp.linalg.cholesky(expected * scale[:, None] * scale)
    part = jax.scipy.linalg.solve_triangular(
        half, observed * scale[:, None] * scale, lower=True
    )
    ratio = jax.scipy.linalg.solve_triangular(half, part.T, lower=True)
    shares = jnp.linalg.eigvalsh((ratio + ratio.T) / 2)
    blunter = jnp.sum(jnp.log(jnp.maximum(shares, 1e-9))) < 0
    return jnp.where((shares[0] > _LEAST_OBSERVED) & blunter, observed, expected)


def standard_errors(
    information: Float[Array, "p p"],
    snr: Float[Array, ""],
    parameters: tuple[str, ...],
) -> PoseErrors:
    """Standard errors from the covariance (strength² · JᵀJ)⁻¹.

    Args:
        information: JᵀJ, or what was observed of it, in the coordinates of `parameters`.
        snr: Score of the particle in units of the noise.
        parameters: Which coordinates these are.
    """
    strength2 = strength_squared(snr, information.shape[0])
    return errors_at_strength(information, strength2, parameters)


def strength_squared(snr: Float[Array, ""], free: int) -> Float[Array, ""]:
    """Of a particle, from its score at the maximum over so many coordinates.

    Noise has added `free` + 1 to the score's square on average: one for each coordinate,
    one for the strength.
    """
    return jnp.maximum(snr**2 - (free + 1), 1.0)


def errors_at_strength(
    information: Float[Array, "p p"],
    strength2: Float[Array, ""],
    parameters: tuple[str, ...],
) -> PoseErrors:
    """`standard_errors` where the square of the strength is known: the Cramér-Rao bound."""
    scale = 1 / jnp.sqrt(jnp.diagonal(information))
    inverse = jnp.linalg.inv(information * scale[:, None] * scale)
    covariance = inverse * scale[:, None] * scale / strength2
    sigma = jnp.sqrt(jnp.diagonal(covariance))
    at = parameter_slices(parameters)

    def of(name: str, count: int) -> Float[Array, " c"]:
        return sigma[at[name]] if name in at else jnp.full(count, jnp.nan)

    largest = jnp.asarray(jnp.nan)
    if "orientation" in at:
        angular = covariance[at["orientation"], at["orientation"]]
        largest = jnp.sqrt(jnp.linalg.eigvalsh(angular)[-1])
    return PoseErrors(
        rotation_deg=of("orientation", 3),
        largest_rotation_deg=largest,
        defocus_angstrom=of("defocus", 1)[0],
        astigmatism_angstrom=of("astigmatism", 2),
        shift_px=of("shift", 2),
        pixel_size_angstrom=of("pixel_size", 1)[0],
    )
