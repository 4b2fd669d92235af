"""Norms of all orientations, from the power of their slices.

The weighted sum of |slice|² is the square of the norm, but for what leaves the template's
grid and what the score subtracts. That is a small part and nearly the same for all
orientations, so that its ratio to the exact norm is measured at a few of them.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxrefine.data import Particles, SearchGrid, Template
from jaxrefine.physics.slices import central_slice
from jaxrefine.refine.scoring import Score

# Number of orientations whose norms are computed exactly.
_SAMPLES = 8


class Norms(eqx.Module):
    """Converts power to norms: the root of Σ weights |slice|², times a ratio.

    Attributes:
        weights: From `Score.power_weights`.
        ratio: Exact norms relative to those by power.
    """

    weights: Float[Array, "m l *s n nr"]
    ratio: Float[Array, "m l"]


def measure_norms(
    score: Score,
    particle: Particles,
    prepared: Any,
    template: Template,
    poses: Float[Array, "k 3 3"],
    grid: SearchGrid,
) -> tuple[Norms, Float[Array, ""]]:
    """Measure the ratio of norms; also returns its largest relative deviation.

    It is infinite if some ratio is not finite: nothing is then known of the norms.
    """
    weights = score.power_weights(prepared)
    scales, curvature = score.scale(particle, grid), score.curvature(particle)

    def both(pose: Float[Array, "3 3"]) -> tuple[Array, Array]:
        def power(scale: Float[Array, ""]) -> Float[Array, "*s n nr"]:
            if curvature is None:
                return jnp.abs(central_slice(template, pose, scale)) ** 2
            bent = curvature * jnp.array([1.0, -1.0])
            slices = jax.vmap(lambda bend: central_slice(template, pose, scale, bend))(bent)
            return jnp.abs(slices) ** 2

        powers = jax.vmap(power)(scales)
        squares = jnp.sum(weights * powers[:, None], axis=tuple(range(2, weights.ndim)))
        return score.norms(prepared, template, pose), jnp.sqrt(squares)

    # A random sample: evenly spaced ones may all have the same in-plane rotation.
    drawn = np.random.default_rng(0).permutation(poses.shape[0])[:_SAMPLES]
    exact, by_power = jax.lax.map(both, poses[np.sort(drawn)], batch_size=_SAMPLES)
    log = jnp.log(exact / by_power)
    mean = jnp.mean(log, axis=0)
    error = jnp.max(jnp.abs(log - mean))
    return Norms(weights, jnp.exp(mean)), jnp.where(jnp.isnan(error), jnp.inf, error)
