"""Which picks are particles: the probability of each, from its score."""

import numpy as np
from jaxtyping import Float

_ITERATIONS = 200
# Noise alone spreads scores by 1; much less is a mixture that fits single picks.
_LEAST_SPREAD = 0.7
# Two populations count where their means differ by so many of their spreads together, and
# each has so many picks.
_LEAST_SEPARATION, _FEWEST = 2.0, 5.0


def particle_probability(z: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Posterior probability that each pick is a particle, not a peak of noise.

    Scores are taken for a mixture of two normal distributions, found by expectation
    maximisation (Dempster et al., J. R. Stat. Soc. B 39 (1977) 1); the higher is the
    particles'. Where two explain the scores no better than one, by Schwarz's criterion
    (Ann. Stat. 6 (1978) 461), or lie too close to be told apart, all are particles.

    Args:
        z: Scores; NaN where there is none.

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
        # A narrower population of particles has less in its far upper tail than noise has.
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
