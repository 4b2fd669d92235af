"""The spread of the particles' own defocus, from values with errors."""

import numpy as np
import pytest

from jaxrefine.refine import joint
from jaxrefine.refine.defocus_spread import defocus_spread
from jaxrefine.refine.joint import fit_jointly
from jaxrefine.refine.joint_model import State
from tests.refine.test_joint import Toy


@pytest.mark.parametrize("fitted", [0, 20])
def test_the_spread_and_its_error_are_those_of_repetitions(rng, fitted):
    """Of 300 sets of 80 values: the mean is known to 2 %, their deviation to 4 %."""
    found = []
    for _ in range(300):
        error = rng.uniform(20, 80, 80)
        values = rng.normal(0, np.hypot(50.0, error)).reshape(20, 4)
        if fitted:  # a defocus to each four of them
            weight = 1 / np.hypot(50.0, error.reshape(20, 4)) ** 2
            values -= np.average(values, axis=1, weights=weight)[:, None]
        own = np.stack([values.ravel(), error], axis=1)
        found.append(defocus_spread(own, np.ones(80), fitted))
    sigma, its_error = np.array(found).T
    # The likelihood of a variance is skewed: its maximum is low by about 1/(2N).
    assert sigma.mean() == pytest.approx(50.0, rel=0.05)
    assert (sigma - 50).std() == pytest.approx(its_error.mean(), rel=0.12)


def test_picks_that_are_no_particles_do_not_count(rng):
    values = np.stack([rng.normal(0, 30, 200), np.full(200, 1.0)], axis=1)
    values[:50, 0] *= 100
    values[50] = np.nan
    weight = np.where(np.arange(200) < 50, 0.0, 1.0)
    assert defocus_spread(values, weight, 0).sigma_angstrom == pytest.approx(30, rel=0.2)
    none = defocus_spread(values, np.zeros(200), 0)
    assert np.isnan(none.sigma_angstrom) and np.isnan(none.error_angstrom)


def test_a_fit_tells_the_spread_whatever_it_assumed(monkeypatch):
    """A prior of 12 Å around values that spread by 40 Å, in 200 particles."""
    toy = Toy(("defocus",), {}, count=200)
    own = np.zeros((200, 6))
    own[:, 5] = toy.rng.normal(0, 40, 200)
    toy.expose(own, np.zeros(1))
    monkeypatch.setattr(joint, "equations", toy.equations)
    free = np.ones(1, bool)
    fit = fit_jointly(toy.model(), State.start(toy.design), free, errors=False)
    found = fit.defocus_spread(toy.design)
    # The prior has drawn them together.
    assert fit.state.own[:, 5].std() < 0.75 * own[:, 5].std()
    assert abs(found.sigma_angstrom - 40) < 3 * found.error_angstrom < 15


@pytest.mark.parametrize("names", [("beam_tilt",), ("beam_tilt", "b_factor")])
def test_likelihood_ratio_and_quadratic_approximation(monkeypatch, names):
    """They agree for a small change: twice the gain of the likelihood, times the share of
    the curvature, is χ² of the covariance."""
    toy = Toy(names, {}, count=200)
    shared = np.zeros(len(toy.design.values))
    shared[:2] = 0.015, -0.012
    toy.expose(np.zeros((200, 6)), shared)
    monkeypatch.setattr(joint, "equations", toy.equations)
    start, free = State.start(toy.design), np.ones(len(shared), bool)
    fit = fit_jointly(toy.model(), start, free)
    held = fit_jointly(
        toy.model(), start, np.arange(len(shared)) > 1, errors=False, strength_z=fit.z
    )
    gain = fit.weight @ (fit.log_likelihood - held.log_likelihood)
    away, block = fit.state.shared[:2], fit.covariance[:2, :2]
    chi2 = away @ np.linalg.solve(block, away)
    assert chi2 > 30
    assert 2 * gain * fit.curvature == pytest.approx(chi2, rel=0.15)
