"""Optimisation from the best grid point to the continuous optimum, for one particle."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

# Initial damping; factors on it after a step without gain and after a step with gain.
_DAMPING, _GROWTH, _FALL = 0.1, 8.0, 0.2
# The iteration ends when the predicted gain in z of the next step is below this (a step of
# 0.14 standard errors at z = 10) while the damping, which also shortens steps, is small.
# That step is made without an evaluation.
_LEAST_GAIN, _SMALL_DAMPING = 1e-3, 0.2
# Converged if the predicted gain is below this, for whatever reason the iteration ended.
_CLOSE_ENOUGH = 1e-2
# A secant updates the curvature only if the curvature along it is clearly positive.
_LEAST_SECANT = 0.05
# Adam's step size, in standard errors of each coordinate at z = 1.
_LEARNING_RATE = 0.1

# Returns the score and its gradient at the given coordinates.
Evaluate = Callable[[Float[Array, " p"]], tuple[Float[Array, ""], Float[Array, " p"]]]


class Summit(eqx.Module):
    """Result of an optimisation.

    Attributes:
        coordinates: The best coordinates found.
        value: The score there, predicted if the last step was made without an evaluation.
        evaluations: Number of evaluations of score and gradient.
        converged: Whether the predicted gain of a further step is negligible.
    """

    coordinates: Float[Array, " p"]
    value: Float[Array, ""]
    evaluations: Int[Array, ""]
    converged: Bool[Array, ""]


class _State(eqx.Module):
    at: Float[Array, " p"]
    value: Float[Array, ""]
    gradient: Float[Array, " p"]


def gauss_newton(
    evaluate: Evaluate,
    information: Float[Array, "p p"],
    limits: Float[Array, " p"],
    max_evaluations: int,
    first: tuple[Float[Array, ""], Float[Array, " p"]] | None = None,
) -> Summit:
    """Maximise by Levenberg-Marquardt from coordinates of 0.

    No step that is evaluated makes the result worse. The initial curvature is
    Gauss-Newton's, value · JᵀJ. It omits the second derivatives of the feature times the
    noise, which at z = 10 amount to a third of it or more, so every evaluation corrects it
    by its secant (BFGS). Such structured methods go back to Dennis, Gay & Welsch, ACM TOMS
    7 (1981) 348 (NL2SOL).

    Args:
        evaluate: The function to maximise, with its gradient.
        information: JᵀJ at coordinates of 0.
        limits: Bounds; each coordinate stays within ± its limit.
        max_evaluations: Largest number of evaluations.
        first: Value and gradient at coordinates of 0, the first evaluation, if known.
    """
    start = jnp.zeros_like(limits)
    scale = _reciprocal_root(jnp.diagonal(information))

    def unfinished(state) -> Array:
        _, _, damping, _, gain, count = state
        promising = (gain > _LEAST_GAIN) | (damping > _SMALL_DAMPING)
        return (count < max_evaluations) & promising & jnp.isfinite(gain)

    def optimise(state):
        candidate = state[3]
        return advanced(state, _State(candidate, *evaluate(candidate)))

    def advanced(state, there: _State):
        here, curvature, damping, _, _, count = state
        step, change = there.at - here.at, here.gradient - there.gradient
        at_start = count == 0
        curvature = jnp.where(
            at_start,
            jnp.abs(there.value) * information,
            _with_secant(curvature, step, change),
        )
        better = there.value > here.value
        damping = damping * jnp.where(at_start, 1, jnp.where(better, _FALL, _GROWTH))
        here = jax.tree.map(lambda a, b: jnp.where(better, a, b), there, here)
        candidate, gain = _step(here, curvature, damping, scale, limits)
        return here, curvature, damping, candidate, gain, count + 1

    nowhere = _State(start, jnp.full_like(start[0], -jnp.inf), start)
    damping, gain = jnp.full_like(start[0], _DAMPING), jnp.ones_like(start[0])
    state = (nowhere, information, damping, start, gain, jnp.int32(0))
    if first is not None:
        state = advanced(state, _State(start, *first))
    state = jax.lax.while_loop(unfinished, optimise, state)
    here, curvature, damping, candidate, gain, count = state
    last = (gain <= _LEAST_GAIN) & (damping <= _SMALL_DAMPING)
    _, left = _step(here, curvature, jnp.zeros_like(damping), scale, limits)
    return Summit(
        jnp.where(last, candidate, here.at),
        here.value + jnp.where(last, gain, 0),
        count,
        left <= _CLOSE_ENOUGH,
    )


def adam(
    evaluate: Evaluate,
    information: Float[Array, "p p"],
    limits: Float[Array, " p"],
    max_evaluations: int,
    first: tuple[Float[Array, ""], Float[Array, " p"]] | None = None,
) -> Summit:
    """Maximise with optax's Adam, with coordinates in units of their standard errors.

    Returns the best point visited. Always uses `max_evaluations`, and needs several times
    as many as `gauss_newton`. For objectives whose curvature differs much from the score's.
    """
    import optax  # 0.1 s, in the start of every run

    start = jnp.zeros_like(limits)
    here = _State(start, *(first or evaluate(start)))
    scale = _reciprocal_root(jnp.diagonal(information))
    rate = optax.cosine_decay_schedule(_LEARNING_RATE, max_evaluations)
    optimizer = optax.adam(rate)

    def optimise(_, state):
        here, best, inner = state
        update, inner = optimizer.update(-here.gradient * scale, inner)
        # optax types an update as any pytree.
        at = jnp.clip(here.at + scale * jnp.asarray(update), -limits, limits)
        here = _State(at, *evaluate(at))
        better = here.value > best.value
        best = jax.tree.map(lambda a, b: jnp.where(better, a, b), here, best)
        return here, best, inner

    state = (here, here, optimizer.init(start))
    _, best, _ = jax.lax.fori_loop(1, max_evaluations, optimise, state)
    curvature = jnp.abs(best.value) * information
    _, gain = _step(best, curvature, jnp.zeros(()), scale, limits)
    count = jnp.int32(max_evaluations)
    return Summit(best.at, best.value, count, gain <= _CLOSE_ENOUGH)


def _reciprocal_root(values: Float[Array, " p"]) -> Float[Array, " p"]:
    """1/√values, and 0 where that is not finite."""
    positive = values > 0
    return jnp.where(positive, 1 / jnp.sqrt(jnp.where(positive, values, 1)), 0)


def _step(
    here: _State,
    curvature: Float[Array, "p p"],
    damping: Float[Array, ""],
    scale: Float[Array, " p"],
    limits: Float[Array, " p"],
) -> tuple[Float[Array, " p"], Float[Array, ""]]:
    """End point of the damped Newton step within the limits, and its predicted gain.

    Marquardt's damping is relative to the curvature of each coordinate and hence
    independent of units. Coordinates at their limit that would move beyond it are fixed.
    """
    held = (jnp.abs(here.at) >= limits) & (here.at * here.gradient > 0)
    free = jnp.where(held, 0, scale)
    scaled = curvature * free[:, None] * free
    own = jnp.diagonal(scaled)
    damped = scaled + jnp.diag(jnp.where(own > 0, damping * own, 1))
    step = free * jnp.linalg.solve(damped, free * here.gradient)
    at = jnp.clip(here.at + step, -limits, limits)
    step = at - here.at
    bent = jnp.sum(step * _times(curvature, step)) / 2
    return at, jnp.sum(step * here.gradient) - bent


def _with_secant(
    curvature: Float[Array, "p p"], step: Float[Array, " p"], change: Float[Array, " p"]
) -> Float[Array, "p p"]:
    """Update the curvature by BFGS from the change of the gradient along a step."""
    bent = _times(curvature, step)
    expected, seen = jnp.sum(step * bent), jnp.sum(step * change)
    good = (seen > _LEAST_SECANT * expected) & (expected > 0)
    expected, seen = jnp.where(good, expected, 1), jnp.where(good, seen, 1)
    update = jnp.outer(change, change) / seen - jnp.outer(bent, bent) / expected
    return curvature + jnp.where(good, update, 0)


def _times(matrix: Float[Array, "p p"], vector: Float[Array, " p"]) -> Float[Array, " p"]:
    """Matrix-vector product in full float32 precision, on all devices."""
    return jnp.sum(matrix * vector, axis=1)
