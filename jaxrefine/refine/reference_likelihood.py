"""Posterior probability that a particle is of each of several references.

A whitened image is x = s u + n, with u the unit feature of the particle at some pose, s its
strength, and n noise of variance 1. Its log likelihood relative to noise alone is
s c - s²/2, with c = u·x the score of the matched filter: all information on a reference is
in c. Neither pose nor strength is known.

Pose. The c of each reference is the maximum over poses, which also fits noise. Integrating
over the pose instead, by Laplace's method, gives
exp(s c - s²/2) (2π)^(p/2) / √det(s c J), with c at the optimum and J the information of an
image of unit strength on the p coordinates (MacKay, Neural Comput. 4 (1992) 415; over poses
as in Sigworth, J. Struct. Biol. 122 (1998) 328). The prior of the poses, which the search
range determines, is the same for all references.

Strength. A free strength would maximise the likelihood at s = c, giving c²/2 as in the
generalised likelihood ratio (Kay, Fundamentals of Statistical Signal Processing II (1998),
ch. 6). Since particles of one data set have similar strengths, the likelihood is instead
integrated over a normal distribution of strengths, whose mean and width are estimated from
all particles. It is the same for all references: a weak image indicates thick ice, not a
particular reference.

Difference. For two references at the same strength s, the log likelihood ratio is
s (c₁ - c₂); what both have in common cancels. c₁ - c₂ is √(2 (1 - ρ)) times the score of
the unit vector along u₁ - u₂, which is orthogonal to u₁ + u₂, with ρ = u₁·u₂. For noise
alone this score has variance 1; for a particle of either reference its mean is
±s √((1 - ρ)/2). This predicts how well two references can be distinguished: the mean log
likelihood ratio is s² (1 - ρ).
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

# Lower limit of the spread of strengths, which few particles cannot determine.
_LEAST_SPREAD = 0.5
# The spread that is assumed for fewer than this many particles.
_FEW, _SPREAD_OF_FEW = 5, 3.0
_ITERATIONS = 200


class Strengths(NamedTuple):
    """Mean and standard deviation of the strengths of a data set, in units of noise."""

    mean: float
    spread: float


class Decision(NamedTuple):
    """Assignment of particles to references.

    Attributes:
        best: Index of the most probable reference; -1 if none was refined.
        probability: Posterior probability of each reference. NaN if none was refined; 0 for
            a reference that was not refined if another was.
        log_ratio: Logarithm of the likelihood ratio of the best to the second best
            reference, without priors; NaN if there is no second.
        log_likelihood: Log likelihood of each reference, up to a constant per particle.
        priors: Prior probability of each reference.
        strengths: Estimated distribution of strengths.
    """

    best: np.ndarray
    probability: np.ndarray
    log_ratio: np.ndarray
    log_likelihood: np.ndarray
    priors: np.ndarray
    strengths: Strengths


def strengths_of(signal: Float[np.ndarray, "n r"], free: int) -> Strengths:
    """Estimate mean and spread of the strengths of a data set.

    Args:
        signal: Score of each particle with each reference, in units of noise; NaN if
            unknown.
        free: Number of fitted coordinates. Each of them, and the strength, adds 1 to the
            mean square of the score.
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
    """Log likelihoods, integrated over pose and strength, up to a constant per particle.

    Args:
        signal: Scores in units of noise, at the best pose.
        log_determinant: log det J.
        strengths: From `strengths_of`.
        free: Number of fitted coordinates.

    Returns:
        Log likelihood of each reference; NaN where `signal` is.
    """
    mean, variance = strengths.mean, strengths.spread**2
    c = np.asarray(signal, np.float64)
    # The expected strength given a score lies between the score itself and the mean.
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
    """Compute posterior probabilities of the references.

    Args:
        signal: Score of each particle with each reference, in units of noise; NaN if it was
            not refined.
        log_determinant: From `fit_references`.
        free: Number of fitted coordinates of the pose.
        priors: Prior probability of each reference, with sum 1; None takes the shares that
            maximise the likelihood of the data set, by expectation maximisation (Dempster
            et al., J. R. Stat. Soc. B 39 (1977) 1).
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
    """Estimate the shares of a mixture of known distributions."""
    count = log_likelihood.shape[1]
    shares = np.full(count, 1 / count)
    if not len(log_likelihood):
        return shares
    for _ in range(_ITERATIONS):
        # Half a particle is added to each share, so that none can become 0.
        found = _posterior(log_likelihood, shares).sum(axis=0) + 0.5
        shares = found / found.sum()
    return shares
