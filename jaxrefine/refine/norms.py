"""Norms of all orientations, fitted to a few exact ones.

Norms vary slowly with orientation: on a local grid a cubic in the rotation vector suffices.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxrefine.data import SearchGrid, Template
from jaxrefine.refine.nodes import turn
from jaxrefine.refine.scoring import Score

# Number of orientations whose norms are computed. A cubic has 20 coefficients.
_NORM_SAMPLES = 96


class NormFit(eqx.Module):
    """Logarithm of the norm as a cubic in the rotation vector of the offset."""

    coefficients: Float[Array, "m l c"]
    width: Float[Array, ""]

    def __call__(self, offset: Float[Array, "b 3 3"]) -> Float[Array, "m l b"]:
        features = _cubic(turn(offset) / self.width)
        high = jax.lax.Precision.HIGHEST
        log = jnp.einsum("mlc,bc->mlb", self.coefficients, features, precision=high)
        return jnp.exp(log)


def _cubic(v: Float[Array, "b 3"]) -> Float[Array, "b c"]:
    """All products x^i y^j z^k with i + j + k at most 3."""
    powers = v[:, :, None] ** np.arange(4)
    i, j, k = np.nonzero(np.add.outer(np.add.outer(range(4), range(4)), range(4)) <= 3)
    return powers[:, 0, i] * powers[:, 1, j] * powers[:, 2, k]


def fit_norms(
    score: Score,
    prepared: Any,
    template: Template,
    poses: Float[Array, "k 3 3"],
    grid: SearchGrid,
) -> tuple[NormFit, Float[Array, ""]]:
    """Fit the norms; also returns the largest relative error at the samples."""
    count = poses.shape[0]
    # A random sample: evenly spaced ones may all have the same in-plane rotation.
    drawn = np.random.default_rng(0).permutation(count)[:_NORM_SAMPLES]
    sample = np.sort(drawn)
    exact = jax.lax.map(
        lambda pose: score.norms(prepared, template, pose), poses[sample], batch_size=8
    )
    turned = turn(grid.rotation[sample])
    width = jnp.maximum(jnp.max(jnp.abs(turned)), 1e-6)
    features = _cubic(turned / width)
    target = jnp.log(jnp.moveaxis(exact, 0, -1))
    coefficients = jnp.einsum(
        "cb,mlb->mlc", jnp.linalg.pinv(features), target, precision="highest"
    )
    fit = NormFit(coefficients, width)
    error = jnp.max(jnp.abs(jnp.log(fit(grid.rotation[sample])) - target))
    return fit, error
