"""Standard errors of a pose, from the information that the image holds on it.

The score is the product of the image with the unit feature, z = f(θ)·x. Near the optimum
the image is z·f plus noise, and the negative curvature of the score is z·JᵀJ with
J = ∂f/∂θ (the Gauss-Newton approximation, which needs first derivatives only). This matrix
times z is the Fisher information of the pose; its inverse is the covariance. The actual
curvature, the observed information, describes the errors of the individual particle more
closely (Efron & Hinkley, Biometrika 65 (1978) 457) and replaces it where it is not sharper.
"""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxrefine.data import PoseErrors
from jaxrefine.refine.coordinates import ABERRATION_FIELDS, parameter_slices

# The observed information is used if it is at least this fraction of the expected in every
# direction; otherwise the optimisation has not ended at a maximum.
_LEAST_OBSERVED = 0.2
# Sufficient if the pose is determined at all; otherwise the covariance would not converge.
_ITERATIONS = 5


def observed_or_expected(
    z: Callable[[Float[Array, " p"]], Float[Array, ""]],
    coordinates: Float[Array, " p"],
    expected: Float[Array, "p p"],
) -> Float[Array, "p p"]:
    """Minus the curvature of log z at a maximum, unless noise dominates it.

    Returns `expected` if there is no maximum, or if the maximum is sharper than expected:
    the highest ripple of noise on a broad maximum is sharper than the signal itself.
    """
    _, along = jax.linearize(jax.grad(z), coordinates)  # the gradient itself is about 0
    curvature = -jax.lax.map(along, jnp.eye(coordinates.shape[0]))
    observed = (curvature + curvature.T) / 2 / z(coordinates)
    # Eigenvalues of the observed relative to the expected information, both rescaled.
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
    """Information on a pose in each ring of the Fourier plane.

    Attributes:
        power: Fraction of the power of the expected image.
        information: JᵀJ of the unit feature, with changes of its length projected out.
        total: The same for the whole plane, including frequencies beyond the rings.
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
    """Information on a pose, reduced where the pose is too uncertain for the curvature.

    The contribution w of a ring to the score decays with the pose error δ as
    w exp(-δᵀMδ/2), with M its information divided by w; beyond about a radian of phase it
    vanishes. The curvature at the optimum assumes a parabola at all distances, and is too
    optimistic if pose errors reach that far. The Gaussian closest to the posterior has as
    covariance C the inverse of the mean curvature of the score over that Gaussian (Opper &
    Archambeau, Neural Comput. 21 (2009) 786); a ring contributes
    w M (1 + C M)⁻¹ / √det(1 + C M). C is found by iteration, limited by the search range.

    Args:
        known: Information at a strength of 1, at the optimum.
        rings: The expected information, in rings.
        strength2: Square of the strength.
        precision: 1/σ² of the search range around the starting values.

    Returns:
        The inverse of a covariance: that of `known`, plus the excess of C over that of the
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
        information: JᵀJ or the observed information, in the coordinates of `parameters`.
        snr: Score of the particle in units of the noise.
        parameters: The free parameters.
    """
    strength2 = strength_squared(snr, information.shape[0])
    return errors_at_strength(information, strength2, parameters)


def strength_squared(snr: Float[Array, "*n"], free: int) -> Float[Array, "*n"]:
    """Square of a particle's strength, from its score maximised over `free` coordinates.

    On average, noise adds `free` + 1 to the square of the score: one for each coordinate
    and one for the strength.
    """
    return jnp.maximum(snr**2 - (free + 1), 1.0)


def z_in_other_data(
    z_score: Float[Array, ""],
    noise: Float[Array, ""],
    strength2: Float[Array, ""],
    fitted: Float[Array, ""],
) -> Float[Array, ""]:
    """Expected z-score of a fitted pose in data with independent noise.

    Each fitted coordinate adds 1/2 to the log likelihood, z²/2, in the data of the fit, and
    subtracts as much in other data, because the pose is not exact. The two differ by the
    number of coordinates (Akaike, IEEE Trans. Autom. Control 19 (1974) 716), that is in z
    by 1/strength for each coordinate.

    Args:
        z_score: z-score in the data of the fit.
        noise: Standard deviation of the noise in units of z.
        strength2: Square of the strength, from `strength_squared`.
        fitted: Number of coordinates; with a prior, the trace of H (H + Λ)⁻¹, with H the
            information and Λ the precision of the prior (Ye, J. Am. Stat. Assoc. 93 (1998)
            120).
    """
    return jnp.maximum(z_score - noise * fitted / jnp.sqrt(strength2), 0.0)


def errors_at_strength(
    information: Float[Array, "p p"],
    strength2: Float[Array, ""],
    parameters: tuple[str, ...],
) -> PoseErrors:
    """`standard_errors` for a given square of the strength: the Cramér-Rao bound."""
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
        **{
            field: sigma[at[name]]
            for name, field in ABERRATION_FIELDS.items()
            if name in at
        },
    )
