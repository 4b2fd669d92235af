"""How far particles lie around the defocus or the plane that they share."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

_LEAST_ANGSTROM, _MOST_ANGSTROM, _STEPS = 1.0, 3000.0, 800


class DefocusSpread(NamedTuple):
    """Standard deviation of the particles' own defocus.

    Attributes:
        sigma_angstrom: The standard deviation; NaN without particles.
        error_angstrom: Its standard error.
    """

    sigma_angstrom: float
    error_angstrom: float


def defocus_spread(
    own_defocus: Float[np.ndarray, "n 2"], weight: Float[np.ndarray, " n"], fitted: int
) -> DefocusSpread:
    """Estimate the spread from values that have known errors.

    Values with errors v and a spread σ have the variance σ² + v²; σ is that of the largest
    likelihood, and its error follows from the expected curvature.

    Args:
        own_defocus: Each particle's own defocus and standard error, as in `JointFit`.
        weight: Weight of each particle.
        fitted: Number of values of common defocus and planes that were fitted to them; as
            many particles' squares less than all are left.
    """
    value, error = own_defocus.T
    used = (weight > 0) & np.isfinite(value) & np.isfinite(error)
    value, error, weight = value[used], error[used], weight[used]
    left = 1 - fitted / max(weight.sum(), 1e-9)
    if left <= 0 or not len(value):
        return DefocusSpread(np.nan, np.nan)
    sigma = np.geomspace(_LEAST_ANGSTROM, _MOST_ANGSTROM, _STEPS)
    likelihood = np.zeros(_STEPS)
    for one, its_error, its_weight in zip(value, error, weight, strict=True):
        variance = sigma**2 + its_error**2
        likelihood -= its_weight * (np.log(variance) + one**2 / left / variance) / 2
    best = float(sigma[likelihood.argmax()])
    curvature = left * float(np.sum(weight * 2 * best**2 / (best**2 + error**2) ** 2))
    return DefocusSpread(best, curvature**-0.5)
