"""Probability that a pick is a particle, from its score."""

import numpy as np
from jaxtyping import Float

_ITERATIONS = 200
# Noise alone spreads scores by 1; a much smaller spread would fit single picks.
_LEAST_SPREAD = 0.7
# Two populations are accepted if their means differ by this many combined spreads, and each
# has at least this many picks.
_LEAST_SEPARATION, _FEWEST = 2.0, 5.0


def particle_probability(z: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Posterior probability that each pick is a particle, not a noise peak.

    The scores are modelled as a mixture of two normal distributions, by expectation
    maximisation (Dempster et al., J. R. Stat. Soc. B 39 (1977) 1); the one with the higher
    mean is that of particles. If two distributions explain the scores no better than one,
    by Schwarz's criterion (Ann. Stat. 6 (1978) 461), or are too close to be distinguished,
    all picks count as particles.

    Args:
        z: Scores; NaN for none.

    Returns:
        1 everywhere if there is one population; 0 where z is NaN.
    """
    known = np.isfinite(z)
    values = z[known]
    found = known.astype(float)
    if len(values) < 4 * _FEWEST:
        return found
    split = np.median(values)
    mean = np.array([values[values <= split].mean(), values[values > split].mean()])
    spread, share = np.full(2, values.std()), np.full(2, 0.5)
    for _ in range(_ITERATIONS):
        likelihood = _likelihood(values, mean, spread, share)
        posterior = likelihood / likelihood.sum(axis=0)
        count = posterior.sum(axis=1) + 1e-9
        share, mean = count / count.sum(), posterior @ values / count
        variance = np.sum(posterior * (values - mean[:, None]) ** 2, axis=1) / count
        spread = np.maximum(np.sqrt(variance), _LEAST_SPREAD)
    order = np.argsort(mean)
    likelihood = _likelihood(values, mean, spread, share)[order]
    one = np.array([values.mean()]), np.array([max(values.std(), _LEAST_SPREAD)])
    of_one = np.log(_likelihood(values, *one, np.ones(1))[0]).sum()
    gain = np.log(likelihood.sum(axis=0)).sum() - of_one
    apart = abs(mean[1] - mean[0]) > _LEAST_SEPARATION * np.hypot(*spread) / np.sqrt(2)
    enough = share.min() * len(values) >= _FEWEST
    if apart and enough and gain > 1.5 * np.log(len(values)):  # three more parameters
        probability = likelihood[1] / likelihood.sum(axis=0)
        # A narrower distribution of particles falls below that of noise in the upper tail.
        probability[values > mean[order][1]] = 1.0
        found[known] = probability
    return found


def _likelihood(
    values: Float[np.ndarray, " n"],
    mean: Float[np.ndarray, " c"],
    spread: Float[np.ndarray, " c"],
    share: Float[np.ndarray, " c"],
) -> Float[np.ndarray, "c n"]:
    away = (values - mean[:, None]) / spread[:, None]
    density = np.exp(-(away**2) / 2) / (spread[:, None] * np.sqrt(2 * np.pi))
    return share[:, None] * density + 1e-300
