"""Standard errors of a pose, from what the image says of it.

The score is the product of the image with a feature of unit length, z = f(θ)·x, so that
near the optimum, where the image is z·f and noise, minus its curvature is z·JᵀJ with
J = ∂f/∂θ: Gauss-Newton's choice, known from first derivatives. The same matrix times z is
the Fisher information of the pose, whose inverse is the covariance; or, nearer to the
errors of the particle at hand, the curvature itself takes its place, the observed
information (Efron & Hinkley, Biometrika 65 (1978) 457), but only where it is not sharper.
"""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxrefine.data import PoseErrors
from jaxrefine.refine.coordinates import parameter_slices

# The observed information counts where it is at least this share of the expected in every
# direction; elsewhere the climb has not ended on a summit.
_LEAST_OBSERVED = 0.2
# Enough where a pose is known at all; where none is, the covariance would grow for ever.
_ITERATIONS = 5


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


class RingInformation(eqx.Module):
    """What each ring of the Fourier plane says of a pose.

    Attributes:
        power: Share of the expected image's power.
        information: JᵀJ of the expected image of unit length, changes of its length
            projected out.
        total: The same of the whole plane, what lies beyond the rings included.
    """

    power: Float[Array, " b"]
    information: Float[Array, "b p p"]
    total: Float[Array, "p p"]


def uncertain(
    known: Float[Array, "p p"],
    rings: RingInformation,
    strength2: Float[Array, ""],
    precision: Float[Array, " p"],
) -> Float[Array, "p p"]:
    """Information on a pose that is itself not known exactly.

    A ring's share w of the score falls off with the pose as w exp(-δᵀMδ/2), M being its
    information over w, and beyond a radian or so of its phase it says nothing more. The
    curvature at the optimum counts it as if it went on for ever, and promises too much
    where poses are known no better than that. Of all Gaussians the one nearest to the
    posterior has the inverse of the score's mean curvature, taken over that Gaussian, as
    its covariance C (Opper & Archambeau, Neural Comput. 21 (2009) 786): of a ring
    w M (1 + C M)⁻¹ / √det(1 + C M). C is found by iteration, held by the search's reach.

    Args:
        known: Information at a strength of 1, at the optimum.
        rings: The same, as expected, in rings.
        strength2: Square of the strength.
        precision: 1/σ² of the search's cell around the start.

    Returns:
        The inverse of the covariance that `known` gives, and of what C has more than the
        expected information.
    """
    # In units in which each coordinate's expected information is 1.
    scale = 1 / jnp.sqrt(jnp.diagonal(rings.total))
    scales = scale[:, None] * scale
    power = jnp.maximum(rings.power, 1e-9)
    matrix = rings.information * scales / power[:, None, None]
    held, one = jnp.diag(precision * scale**2 / strength2), jnp.eye(len(scale))
    high = jax.lax.Precision.HIGHEST

    def mean_curvature(covariance: Float[Array, "p p"]) -> Float[Array, "p p"]:
        wider = one + jnp.matmul(covariance, matrix, precision=high)
        factors, pivots = jax.scipy.linalg.lu_factor(wider)
        left = jax.scipy.linalg.lu_solve((factors, pivots), matrix, trans=1)
        determinant = jnp.abs(jnp.prod(jnp.diagonal(factors, axis1=1, axis2=2), axis=1))
        share = power / jnp.sqrt(determinant)
        curvature = jnp.sum(share[:, None, None] * left, axis=0)
        return (curvature + curvature.T) / 2

    def again(_, curvature: Float[Array, "p p"]) -> Float[Array, "p p"]:
        return mean_curvature(jnp.linalg.inv(curvature + held) / strength2)

    expected = jnp.sum(rings.information, axis=0) * scales
    curvature = jax.lax.fori_loop(0, _ITERATIONS, again, expected)
    of_all, of_expected, of_known = jnp.linalg.inv(
        jnp.stack([curvature, expected, known * scales])
    )
    return jnp.linalg.inv(of_known + (of_all - of_expected)) / scales


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


def z_in_other_data(
    z_score: Float[Array, ""],
    noise: Float[Array, ""],
    strength2: Float[Array, ""],
    fitted: Float[Array, ""],
) -> Float[Array, ""]:
    """z-score to expect of a fitted pose in data with other noise.

    Each fitted coordinate adds 1/2 to the logarithm of the likelihood, z²/2, where it was
    fitted, and takes as much elsewhere, since the pose is not quite right: the two differ
    by the number of coordinates (Akaike, IEEE Trans. Autom. Control 19 (1974) 716), which
    in z is one over the strength for each.

    Args:
        z_score: Where it was fitted.
        noise: Standard deviation of the noise in units of z.
        strength2: Square of the strength, from `strength_squared`.
        fitted: Number of coordinates; where a prior holds them, the trace of H (H + Λ)⁻¹,
            H the information and Λ the prior's (Ye, J. Am. Stat. Assoc. 93 (1998) 120).
    """
    return jnp.maximum(z_score - noise * fitted / jnp.sqrt(strength2), 0.0)


def errors_at_strength(
    information: Float[Array, "p p"],
    strength2: Float[Array, ""],
    parameters: tuple[str, ...],
) -> PoseErrors:
    """`standard_errors` where the square of the strength is known: the Cramér-Rao bound."""
    return errors_of_covariance(covariance_at_strength(information, strength2), parameters)


def covariance_at_strength(
    information: Float[Array, "p p"], strength2: Float[Array, ""]
) -> Float[Array, "p p"]:
    """(strength² · information)⁻¹."""
    scale = 1 / jnp.sqrt(jnp.diagonal(information))
    inverse = jnp.linalg.inv(information * scale[:, None] * scale)
    return inverse * scale[:, None] * scale / strength2


def errors_of_covariance(
    covariance: Float[Array, "p p"], parameters: tuple[str, ...]
) -> PoseErrors:
    """Standard errors from the covariance of the coordinates of `parameters`."""
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
