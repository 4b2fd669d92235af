"""The optimisers, on functions with known optimum."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrefine.refine import ascent
from tests.worlds import single

UNITS = np.array([1.0, 0.01, 50.0, 3.0])
TOP = np.array([0.7, -0.012, 20.0, 1.5])
INFINITE = jnp.full(4, jnp.inf)


def mixed(seed=0):
    """A well-conditioned matrix with cross terms."""
    root = np.random.default_rng(seed).standard_normal((4, 4))
    return root @ root.T / 4 + np.eye(4)


def quadratic(at, curvature):
    """12 at the maximum, with curvatures in UNITS."""
    away = (at - TOP) / UNITS
    return 12.0 - 0.5 * away @ jnp.asarray(curvature, jnp.float32) @ away


def counted(function):
    """Its value and gradient, and a list that grows by each evaluation."""
    seen = []

    def evaluate(at):
        jax.debug.callback(lambda x: seen.append(np.asarray(x)), at)
        return jax.value_and_grad(function)(at)

    return evaluate, seen


def optimise(function, information, limits=INFINITE, most=10, method=ascent.gauss_newton):
    evaluate, seen = counted(function)
    run = jax.jit(lambda i, l: method(evaluate, i, l, most))
    summit = run(single(information), limits)
    jax.effects_barrier()
    assert len(seen) == summit.evaluations <= most
    np.testing.assert_array_equal(seen[0], 0)
    # The gain of the last step is predicted.
    assert summit.value == pytest.approx(float(function(summit.coordinates)), abs=1e-3)
    return summit, np.array(seen)


def in_units(curvature):
    return curvature / 12.0 / np.outer(UNITS, UNITS)


def test_a_known_curvature_leads_there_at_once():
    """In two steps and an evaluation: the damping leaves a tenth after the first."""
    curvature = mixed()
    start = float(quadratic(jnp.zeros(4), curvature))
    # Minus the curvature is taken as value times information.
    information = in_units(curvature) * 12.0 / start
    summit, _ = optimise(lambda x: quadratic(x, curvature), information)
    assert summit.evaluations <= 4 and summit.converged
    np.testing.assert_allclose(summit.coordinates / UNITS, TOP / UNITS, atol=0.03)


def test_the_first_evaluation_may_be_known():
    """It counts, and is not made again; all else is the same."""
    curvature = mixed(2)
    information = single(in_units(curvature))

    def function(x):
        return quadratic(x, curvature)

    first = jax.value_and_grad(function)(jnp.zeros(4))
    for method in (ascent.gauss_newton, ascent.adam):
        summits, calls = [], []
        for known in (None, first):
            evaluate, seen = counted(function)
            run = jax.jit(lambda k, e=evaluate, m=method: m(e, information, INFINITE, 9, k))
            summits.append(run(known))
            jax.effects_barrier()
            calls.append(len(seen))
        assert calls[0] == summits[0].evaluations == summits[1].evaluations == calls[1] + 1
        for one, other in zip(*map(jax.tree.leaves, summits), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-5)


def test_the_last_step_is_not_evaluated():
    """Nearer than the last evaluation, which is nearly there."""
    curvature = mixed(3)
    summit, seen = optimise(lambda x: quadratic(x, curvature), in_units(curvature))
    left = [12.0 - float(quadratic(at, curvature)) for at in (seen[-1], summit.coordinates)]
    assert not np.array_equal(seen[-1], summit.coordinates)
    assert left[1] < 0.5 * left[0] < 1e-3 and summit.converged


@pytest.mark.parametrize("factor", [0.4, 2.5])
def test_a_wrong_curvature_is_corrected(factor):
    """Steps that are much too long or short at first: secants correct this within ten."""
    curvature = mixed(1)
    summit, _ = optimise(lambda x: quadratic(x, curvature), in_units(np.eye(4)) * factor)
    assert summit.converged and summit.evaluations <= 10
    assert summit.value > 12.0 - 2e-3


def test_limits_hold_and_the_rest_goes_on():
    curvature = np.diag([1.0, 1.0, 1.0, 1.0])
    limits = single([np.inf, 0.005, 10.0, np.inf])
    summit, seen = optimise(
        lambda x: quadratic(x, curvature), in_units(curvature) * 1.2, limits
    )
    assert np.all(np.abs(seen) <= limits)
    expected = np.array([0.7, -0.005, 10.0, 1.5])
    np.testing.assert_allclose(summit.coordinates / UNITS, expected / UNITS, atol=0.03)
    assert summit.converged


def test_what_nothing_depends_on_stays():
    """An information of zero along one coordinate: no step, and no NaN."""
    curvature = mixed()
    curvature[1], curvature[:, 1] = 0, 0
    summit, _ = optimise(lambda x: quadratic(x, curvature), in_units(curvature))
    assert summit.coordinates[1] == 0 and summit.converged


@pytest.mark.parametrize("method", [ascent.gauss_newton, ascent.adam])
def test_never_below_the_start(method):
    """A function that decreases in all directions, despite its gradient."""

    def jagged(x):
        return 10.0 + jnp.sum(x / UNITS) - 1e3 * jnp.sum(jnp.abs(x))

    def evaluate(x):
        return jagged(x), single(1 / UNITS)

    information = single(in_units(np.eye(4)))
    summit = jax.jit(lambda: method(evaluate, information, INFINITE, 8))()
    assert summit.value == 10.0 and summit.evaluations == 8
    np.testing.assert_array_equal(summit.coordinates, 0)


@pytest.mark.parametrize("method", [ascent.gauss_newton, ascent.adam])
def test_without_a_value_there_is_no_step(method):
    def nothing(x):
        return jnp.nan * jnp.sum(x)

    information = single(in_units(np.eye(4)))
    evaluate = jax.value_and_grad(nothing)
    summit = jax.jit(lambda: method(evaluate, information, INFINITE, 8))()
    np.testing.assert_array_equal(summit.coordinates, 0)
    assert not summit.converged


def test_adam_arrives_later():
    curvature = mixed()
    summit, _ = optimise(
        lambda x: quadratic(x, curvature), in_units(curvature), most=80, method=ascent.adam
    )
    assert summit.evaluations == 80 and summit.value > 12.0 - 0.02
    assert summit.converged
