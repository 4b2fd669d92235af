"""Which of several references a particle is of, and how sure that is.

A whitened image is x = s u + n: u the expected image of unit length, at some pose, s the
particle's strength, n noise of variance 1. Against noise alone its log likelihood is
s c - s²/2, c = u·x being the matched filter's score: an image says of a reference only
what is in c. Neither pose nor strength is known.

Pose. Each reference's c is the highest over poses, and with it noise is fitted. Integrated
over the pose instead, by Laplace's method, a reference has
exp(s c - s²/2) (2π)^(p/2) / √det(s c J): c at the optimum, J the information that an image
of unit strength holds on the p coordinates (MacKay, Neural Comput. 4 (1992) 415; over
poses as in Sigworth, J. Struct. Biol. 122 (1998) 328). The prior of the poses, the reach of
the search, is the same for all references.

Strength. With it free the likelihood would be at its highest at s = c, the generalised
likelihood ratio's c²/2 (Kay, Fundamentals of Statistical Signal Processing II (1998),
ch. 6). Particles of one data set are of similar strengths, so that a normal distribution of
strengths, its mean and width from all of them, is integrated over instead. It is the same
for all references: a weak image says that the ice is thick, not which reference it is.

The difference. Of two references at one strength s, the log likelihood ratio is
s (c₁ - c₂): what both share drops out. c₁ - c₂ is √(2 (1 - ρ)) times the score of the unit
vector along u₁ - u₂, which is orthogonal to u₁ + u₂, with ρ = u₁·u₂; of noise alone that
score has variance 1, and of a particle of either reference the mean ±s √((1 - ρ)/2). How
surely two references can be told apart is thereby known before: s² (1 - ρ) is the mean log
likelihood ratio.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

# Strengths of a data set hardly differ by less, and a few particles cannot tell.
_LEAST_SPREAD = 0.5
# Of a few particles the spread is not known.
_FEW, _SPREAD_OF_FEW = 5, 3.0
_ITERATIONS = 200


class Strengths(NamedTuple):
    """Mean and standard deviation of a data set's strengths, in units of noise."""

    mean: float
    spread: float


class Decision(NamedTuple):
    """Which reference each particle is of.

    Attributes:
        best: Its number; -1 where no reference was refined.
        probability: Posterior probability of each; NaN in rows without any, 0 for a
            reference that was not refined where another was.
        log_ratio: Logarithm of the likelihood ratio of the best to the next, without
            priors; NaN where there is no next.
        log_likelihood: Of each reference, up to a constant per particle.
        priors: Of each reference.
        strengths: As estimated.
    """

    best: np.ndarray
    probability: np.ndarray
    log_ratio: np.ndarray
    log_likelihood: np.ndarray
    priors: np.ndarray
    strengths: Strengths


def strengths_of(signal: Float[np.ndarray, "n r"], free: int) -> Strengths:
    """Mean and spread of the strengths of a data set.

    Args:
        signal: Score of each particle with each reference in units of noise, NaN: unknown.
        free: Number of coordinates that were fitted: with the strength itself each has
            added 1 to the square of the score.
    """
    known = signal[np.isfinite(signal).any(axis=1)]
    if not len(known):
        return Strengths(0.0, _SPREAD_OF_FEW)
    strength = np.sqrt(np.maximum(np.nanmax(known, axis=1) ** 2 - (free + 1), 0.0))
    mean = float(strength.mean())
    if len(known) < _FEW:
        return Strengths(mean, _SPREAD_OF_FEW)
    return Strengths(mean, float(np.sqrt(max(strength.var() - 1, _LEAST_SPREAD**2))))


def log_likelihoods(
    signal: Float[np.ndarray, "n r"],
    log_determinant: Float[np.ndarray, "n r"],
    strengths: Strengths,
    free: int,
) -> Float[np.ndarray, "n r"]:
    """Of each reference, integrated over pose and strength, up to a constant per particle.

    Args:
        signal: Score in units of noise, at the best pose.
        log_determinant: log det J.
        strengths: From `strengths_of`.
        free: Number of coordinates.

    Returns:
        NaN where the signal is.
    """
    mean, variance = strengths.mean, strengths.spread**2
    c = np.asarray(signal, np.float64)
    # The strength to expect of a score: between the score itself and the mean.
    strength = np.maximum((variance * c + mean) / (variance + 1), 1.0)
    of_score = (variance * c**2 + 2 * mean * c) / (2 * (variance + 1))
    poses = free / 2 * np.log(strength * np.maximum(c, 1.0))
    return of_score - poses - np.asarray(log_determinant, np.float64) / 2


def decide(
    signal: Float[np.ndarray, "n r"],
    log_determinant: Float[np.ndarray, "n r"],
    free: int,
    priors: Float[np.ndarray, " r"] | None,
) -> Decision:
    """Posterior probabilities of the references.

    Args:
        signal: Score of each particle with each reference in units of noise, NaN where it
            was not refined.
        log_determinant: From `fit_references`.
        free: Number of coordinates of the pose that were fitted.
        priors: Probability of each reference, of sum 1; None: the shares of the data set
            under which it is most likely, found by expectation maximisation (Dempster et
            al., J. R. Stat. Soc. B 39 (1977) 1).
    """
    strengths = strengths_of(signal, free)
    found = log_likelihoods(signal, log_determinant, strengths, free)
    known = np.isfinite(found)
    some = known.any(axis=1)
    comparable = np.where(known, found, -np.inf)
    if priors is None:
        priors = _estimated_priors(comparable[known.all(axis=1)])
    posterior = np.full(found.shape, np.nan)
    posterior[some] = _posterior(comparable[some], priors)
    best = np.where(some, np.argmax(np.where(known, posterior, -1.0), axis=1), -1)
    rows = np.flatnonzero(some)
    others = comparable[rows]
    of_best = others[np.arange(len(rows)), best[rows]]
    others[np.arange(len(rows)), best[rows]] = -np.inf
    ratio = of_best - others.max(axis=1)
    log_ratio = np.full(len(found), np.nan)
    log_ratio[rows] = np.where(np.isfinite(ratio), ratio, np.nan)
    return Decision(best, posterior, log_ratio, found, np.asarray(priors), strengths)


def _posterior(
    log_likelihood: Float[np.ndarray, "n r"], priors: Float[np.ndarray, " r"]
) -> Float[np.ndarray, "n r"]:
    with np.errstate(divide="ignore"):
        weight = log_likelihood + np.log(priors)
    weight = np.exp(weight - weight.max(axis=1, keepdims=True))
    return weight / weight.sum(axis=1, keepdims=True)


def _estimated_priors(log_likelihood: Float[np.ndarray, "n r"]) -> np.ndarray:
    """Shares of a mixture of known distributions."""
    count = log_likelihood.shape[1]
    shares = np.full(count, 1 / count)
    if not len(log_likelihood):
        return shares
    for _ in range(_ITERATIONS):
        # Half a particle more of each: none is excluded for ever.
        found = _posterior(log_likelihood, shares).sum(axis=0) + 0.5
        shares = found / found.sum()
    return shares
