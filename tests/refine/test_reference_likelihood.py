"""Assignment of particles to references: calibrated probabilities."""

import numpy as np
import pytest

from jaxrefine.refine.reference_likelihood import (
    Strengths,
    decide,
    log_likelihoods,
    strengths_of,
)


def mixture(count, rho, shares, seed=0, free=0):
    """Scores of particles of two references, noise and all, at known poses."""
    rng = np.random.default_rng(seed)
    truth = (rng.uniform(size=count) > shares[0]).astype(int)
    strength = rng.normal(10.0, 1.5, count)
    mean = strength[:, None] * np.where(np.arange(2) == truth[:, None], 1.0, rho)
    half = np.linalg.cholesky([[1.0, rho], [rho, 1.0]])
    return truth, mean + rng.standard_normal((count, 2)) @ half.T


@pytest.mark.parametrize("rho", [0.9, 0.97, 0.99])
def test_probabilities_are_calibrated(rho):
    """In each bin the predicted fraction is right, within 4 standard errors."""
    truth, signal = mixture(20_000, rho, (0.5, 0.5))
    found = decide(signal, np.zeros_like(signal), 0, np.full(2, 0.5))
    sure, right = found.probability.max(axis=1), found.best == truth
    for low, high in ((0.5, 0.7), (0.7, 0.85), (0.85, 0.95), (0.95, 1.01)):
        some = (sure >= low) & (sure < high)
        said = sure[some].mean()
        allowed = 4 * np.sqrt(said * (1 - said) / some.sum()) + 0.003
        assert abs(right[some].mean() - said) < allowed
    assert sure.mean() < 0.99


def test_only_what_differs_counts():
    """The ratio is the strength times √(2 (1 - ρ)) times the score of the difference."""
    signal = np.array([[10.5, 10.0], [10.0, 10.0], [9.5, 10.0]])
    found = decide(signal, np.zeros((3, 2)), 0, np.full(2, 0.5))
    difference = found.log_likelihood[:, 0] - found.log_likelihood[:, 1]
    np.testing.assert_allclose(difference, [5.0, 0.0, -5.0], atol=0.2)
    np.testing.assert_array_equal(found.best, [0, 0, 1])
    np.testing.assert_allclose(found.log_ratio, np.abs(difference))
    np.testing.assert_allclose(found.probability[1], 0.5)


def test_pose_and_strength_are_integrated_over():
    """Compared with sums over both, for a score that decays as s c exp(-s c J θ²/2)."""
    strengths = Strengths(9.0, 1.5)
    s = np.linspace(1, 22, 2001)
    theta = np.linspace(-4, 4, 2001)[:, None]
    found = []
    for c, information in ((9.5, 1.0), (10.0, 4.0)):
        weight = np.exp(-(((s - 9.0) / 1.5) ** 2) / 2)
        log = s * (c - c * information * theta**2 / 2) - s**2 / 2
        found.append(np.log(np.sum(weight * np.exp(log - 60.0))))
    signal, determinant = np.array([[9.5, 10.0]]), np.log([[1.0, 4.0]])
    ours = log_likelihoods(signal, determinant, strengths, 1)[0]
    # Laplace's method for the strength is off by some 1 / (2 c²).
    assert ours[1] - ours[0] == pytest.approx(found[1] - found[0], abs=0.01)


def test_strengths_are_without_the_noise_that_was_fitted():
    rng = np.random.default_rng(1)
    strength = rng.normal(11.0, 2.0, 4000)
    fitted = np.hypot(strength + rng.standard_normal(4000), np.sqrt(rng.chisquare(6, 4000)))
    mean, spread = strengths_of(fitted[:, None], 6)
    assert mean == pytest.approx(11.0, abs=0.1) and spread == pytest.approx(2.0, abs=0.1)


def test_shares_of_the_data_set_can_be_estimated():
    truth, signal = mixture(2000, 0.95, (0.8, 0.2), seed=2)
    nothing = np.zeros_like(signal)
    equal = decide(signal, nothing, 0, np.full(2, 0.5))
    estimated = decide(signal, nothing, 0, None)
    assert estimated.priors == pytest.approx([0.8, 0.2], abs=0.03)
    assert np.mean(estimated.best == truth) > np.mean(equal.best == truth)
    given = decide(signal, nothing, 0, np.array([0.8, 0.2]))
    odds = np.log(given.probability[:, 0] / given.probability[:, 1])
    before = np.log(equal.probability[:, 0] / equal.probability[:, 1])
    np.testing.assert_allclose(odds - before, np.log(4.0), rtol=1e-6)


def test_what_was_not_refined_is_no_candidate():
    nan = np.nan
    signal = np.array([[10.0, nan, 9.0], [nan, nan, nan], [nan, 8.0, nan], [9.0, 9.5, 9.0]])
    found = decide(signal, np.zeros_like(signal), 6, None)
    np.testing.assert_array_equal(found.best, [0, -1, 1, 1])
    assert found.probability[0, 1] == 0 and np.isnan(found.probability[1]).all()
    np.testing.assert_allclose(np.nansum(found.probability, axis=1), [1, 0, 1, 1])
    assert np.isnan(found.log_ratio[1:3]).all() and found.log_ratio[0] > 0
    empty = decide(np.full((2, 2), nan), np.zeros((2, 2)), 6, None)
    np.testing.assert_array_equal(empty.best, [-1, -1])
