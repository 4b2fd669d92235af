"""Search of a local grid for one particle.

Every orientation first gets an approximate score by interpolation between nodes, which is
fast and the least accurate. The best get a more accurate one from a matrix product, and the
best of these are scored exactly, with Fourier transforms. Each step proceeds in order of
approximate score, until no remaining orientation can exceed the best one, given the largest
approximation error seen so far. The result is that of a search that scores every pose
exactly. An adaptive search (`search: adaptive`) ends each step after its first round.
"""

from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxrefine.data import Particles, SearchGrid, Template
from jaxrefine.refine.layout import Layout
from jaxrefine.refine.nodes import OrientationNodes
from jaxrefine.refine.norms import measure_norms
from jaxrefine.refine.product import approximate_best_z, shared_columns
from jaxrefine.refine.scoring import Score, slice_rotation

# Number of orientations that are scored exactly together.
_AT_ONCE = 8
# Approximation margin, in units of the largest approximation error seen so far.
_SAFETY = 2.0

# z-score, correlation, and index in (pixel size, defocus, orientation, y, x).
Best = tuple[Float[Array, ""], Float[Array, ""], Int[Array, " 5"]]
NOTHING_FOUND = (np.float32(-np.inf), np.float32(np.nan), np.zeros(5, np.int32))


def z_scores(
    correlation: Float[Array, "*b Y X"], particle: Particles
) -> Float[Array, "*b Y X"]:
    """(correlation - mean) / standard deviation; -inf where this is not defined."""
    z = (correlation - particle.corr_mean) / particle.corr_std
    return jnp.where(jnp.isfinite(z) & (particle.corr_std > 0), z, -jnp.inf)


def ranked_by_background(particle: Particles) -> Particles:
    """Replace a particle's statistics by those that choose its position.

    If the particle's own signal dominates the mean map (`mean_peaks`), these are the
    background statistics, at every valid position of the maps; otherwise nothing changes.
    """
    scored = jnp.isfinite(particle.corr_mean) & (particle.corr_std > 0)
    flat = scored & jnp.isfinite(particle.corr_std) & particle.mean_peaks
    mean = jnp.where(flat, particle.background_mean, particle.corr_mean)
    std = jnp.where(flat, particle.background_std, particle.corr_std)
    return replace(particle, corr_mean=mean, corr_std=std)


def pose_rotations(
    particle: Particles, offsets: Float[Array, "*k 3 3"], grid: SearchGrid
) -> Float[Array, "*k 3 3"]:
    """The particle's rotation combined with offsets, in the frame of the grid."""
    start = particle.alignment.rotation
    high = jax.lax.Precision.HIGHEST
    if grid.frame == "image":
        return jnp.matmul(start, offsets, precision=high)
    return jnp.matmul(offsets, start, precision=high)


def search_particle(
    score: Score,
    particle: Particles,
    template: Template,
    grid: SearchGrid,
    layout: Layout,
) -> tuple[Best, Float[Array, ""], Float[Array, " k"]]:
    """Find the best combination of pixel size, defocus, orientation and position.

    Ties go to the lowest flat index in (pixel size, defocus, orientation, y, x).

    Args:
        score: The score.
        particle: One particle.
        template: From `make_template`.
        grid: Offsets around the particle's starting values.
        layout: From `plan_layout`.

    Returns:
        z-score, correlation and the five indices of the best; the z-score is -inf if no
        score is finite. Also the largest approximation error among the orientations that
        were scored exactly, and the approximate z-score of each orientation (interpolated
        between nodes if it was not refined by a product).
    """
    prepared = score.prepare(particle, grid)
    poses = slice_rotation(particle, pose_rotations(particle, grid.rotation, grid))
    orientations = poses.shape[0]
    approximate, rough, norm_error = _approximate_scores(
        score, particle, template, grid, prepared, poses, layout
    )
    # Orientations by approximate score, padded with the last, which changes no result.
    order = jnp.argsort(-approximate, stable=True)
    rounds = -(-orientations // _AT_ONCE)
    filled = jnp.minimum(jnp.arange(rounds * _AT_ONCE), orientations - 1)
    order = order[filled].reshape(rounds, _AT_ONCE)

    def unfinished(state) -> Array:
        number, (best_z, _, _), error = state
        approximate_z = approximate[order[jnp.minimum(number, rounds - 1), 0]]
        error = jnp.maximum(error, norm_error * (jnp.abs(best_z) + 1))
        # The first ones in any case: the products may have failed.
        open_ = number * _AT_ONCE < layout.rescored
        if layout.thorough:
            open_ |= jnp.isfinite(approximate_z) & (
                approximate_z + _SAFETY * error >= best_z
            )
        return (number < rounds) & open_

    def score_exactly(state):
        number, best, error = state
        which = jnp.sort(order[number])
        found, z_of_each = _exact_best(score, particle, template, prepared, poses, which)
        seen = jnp.abs(z_of_each - approximate[which])
        seen = jnp.where(jnp.isfinite(z_of_each), seen, 0)
        error = jnp.maximum(error, jnp.max(seen))
        return number + 1, better(found, best), error

    start = jax.tree.map(jnp.asarray, NOTHING_FOUND)
    _, best, error = jax.lax.while_loop(
        unfinished, score_exactly, (jnp.int32(0), start, jnp.float32(0))
    )
    return best, error, jnp.where(jnp.isfinite(approximate), approximate, rough)


def _approximate_scores(
    score: Score,
    particle: Particles,
    template: Template,
    grid: SearchGrid,
    prepared: Any,
    poses: Float[Array, "k 3 3"],
    layout: Layout,
) -> tuple[Float[Array, " k"], Float[Array, " k"], Float[Array, ""]]:
    """Approximate z-scores of each orientation: by product, and interpolated from nodes.

    The former is -inf for orientations that cannot be the best. The third value is the
    largest relative error of the norms.
    """
    norms, norm_error = measure_norms(score, particle, prepared, template, poses, grid)
    shared = shared_columns(score, particle, grid, norms, layout)
    fixed = (score, particle, template, grid, norms, layout)
    by_product = partial(approximate_best_z, *fixed, shared=shared)
    count = poses.shape[0]
    if not layout.nodes_pay(count):
        by_own = by_product(poses)
        return by_own, by_own, norm_error

    # If `nodes_pay`, the counts are not None.
    counts = layout.orientation_nodes
    nodes = OrientationNodes.around(grid.rotation, counts)  # pyright: ignore[reportArgumentType]
    at_nodes = slice_rotation(particle, pose_rotations(particle, nodes.rotation, grid))
    rough = by_product(at_nodes, (nodes, grid.rotation))
    rounds = -(-count // layout.candidates)
    filled = jnp.minimum(jnp.arange(rounds * layout.candidates), count - 1)
    order = jnp.argsort(-rough, stable=True)[filled].reshape(rounds, layout.candidates)

    def unfinished(state) -> Array:
        number, approximate_z, error = state
        left = rough[order[jnp.minimum(number, rounds - 1), 0]]
        best = jnp.max(approximate_z)
        reach = _SAFETY * error + norm_error * (jnp.abs(best) + 1)
        open_ = number == 0
        if layout.thorough:
            open_ |= left + reach >= best
        return (number < rounds) & jnp.isfinite(left) & open_

    def refine_approximation(state):
        number, approximate_z, error = state
        which = order[number]
        better_one = by_product(poses[which])
        seen = jnp.abs(better_one - rough[which])
        error = jnp.maximum(error, jnp.max(jnp.where(jnp.isfinite(seen), seen, 0)))
        return number + 1, approximate_z.at[which].set(better_one), error

    start = (jnp.int32(0), jnp.full(count, -jnp.inf), jnp.float32(0))
    _, found, _ = jax.lax.while_loop(unfinished, refine_approximation, start)
    return found, rough, norm_error


def _exact_best(
    score: Score,
    particle: Particles,
    template: Template,
    prepared,
    poses: Float[Array, "k 3 3"],
    which: Int[Array, " b"],
) -> tuple[Best, Float[Array, " b"]]:
    """The best of some orientations, given in rising order, and the best z of each."""
    correlation = jax.vmap(score.correlate, in_axes=(None, None, 0), out_axes=2)(
        prepared, template, poses[which]
    )
    z = z_scores(correlation, particle)
    flat = jnp.argmax(z)  # the first of equal scores, hence the lowest index
    m, l, k, y, x = jnp.unravel_index(flat, z.shape)
    index = jnp.stack([m, l, which[k], y, x]).astype(jnp.int32)
    best = (z.reshape(-1)[flat], correlation.reshape(-1)[flat], index)
    return best, jnp.max(z, axis=(0, 1, 3, 4))


def better(one: Best, other: Best) -> Best:
    """The one with the higher z-score or, if equal, the lower index."""
    differs = one[2] != other[2]
    first = jnp.argmax(differs)
    lower = (one[2] < other[2])[first] & jnp.any(differs)
    wins = (one[0] > other[0]) | ((one[0] == other[0]) & lower)
    return jax.tree.map(lambda a, b: jnp.where(wins, a, b), one, other)
