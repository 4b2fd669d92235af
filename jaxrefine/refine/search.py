"""Search of a local grid for one particle.

Every orientation gets a promise, by interpolation between nodes: cheap, and the roughest.
The most promising get a better one, by a product of their own; and the best of these are
scored by transforms. Each step goes on, in order of promise, until nothing that is left
can win by what the step before was seen to be off by: what is returned is exact, and the
same as the plain search's, which scores every pose by transforms. A search that is not
thorough (`search: adaptive`) goes as far as each step's first round.
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
from jaxrefine.refine.norms import fit_norms
from jaxrefine.refine.product import approximate_best_z
from jaxrefine.refine.scoring import Score, slice_rotation

# Orientations scored again at once.
_AT_ONCE = 8
# How many times the largest error seen an unseen orientation may be off by.
_SAFETY = 2.0

# z-score, correlation, and index in (pixel size, defocus, orientation, y, x).
Best = tuple[Float[Array, ""], Float[Array, ""], Int[Array, " 5"]]
NOTHING_FOUND = (np.float32(-np.inf), np.float32(np.nan), np.zeros(5, np.int32))


def z_scores(
    correlation: Float[Array, "*b Y X"], particle: Particles
) -> Float[Array, "*b Y X"]:
    """(correlation - mean) / standard deviation; -inf where that makes no sense."""
    z = (correlation - particle.corr_mean) / particle.corr_std
    return jnp.where(jnp.isfinite(z) & (particle.corr_std > 0), z, -jnp.inf)


def ranked_by_background(particle: Particles) -> Particles:
    """The particle with statistics that choose its place, in the place of the maps'.

    Where its own signal fills the mean map (`mean_peaks`) these are the background's, at
    every position that the maps allow; elsewhere nothing changes.
    """
    scored = jnp.isfinite(particle.corr_mean) & (particle.corr_std > 0)
    flat = scored & jnp.isfinite(particle.corr_std) & particle.mean_peaks
    mean = jnp.where(flat, particle.background_mean, particle.corr_mean)
    std = jnp.where(flat, particle.background_std, particle.corr_std)
    return replace(particle, corr_mean=mean, corr_std=std)


def pose_rotations(
    particle: Particles, offsets: Float[Array, "*k 3 3"], grid: SearchGrid
) -> Float[Array, "*k 3 3"]:
    """The particle's rotation turned by offsets, in the grid's frame."""
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
    """Best of every pixel size, defocus, orientation and position.

    Ties go to the lowest flat index in (pixel size, defocus, orientation, y, x).

    Args:
        score: How to correlate.
        particle: One particle.
        template: What to look for.
        grid: Offsets around the particle's start.
        layout: From `plan_layout`.

    Returns:
        z-score and correlation at the best, and its five indices. Without any finite
        score the z-score is -inf. And by how much the products' z was off, at most, of
        the orientations that were scored again; and the products' z of each orientation,
        those between nodes where it got none of its own.
    """
    prepared = score.prepare(particle, grid)
    poses = slice_rotation(particle, pose_rotations(particle, grid.rotation, grid))
    orientations = poses.shape[0]
    approximate, rough, norm_error = _approximate_scores(
        score, particle, template, grid, prepared, poses, layout
    )
    # The next orientations by promise; filled up with the last, which changes nothing.
    order = jnp.argsort(-approximate, stable=True)
    rounds = -(-orientations // _AT_ONCE)
    filled = jnp.minimum(jnp.arange(rounds * _AT_ONCE), orientations - 1)
    order = order[filled].reshape(rounds, _AT_ONCE)

    def unfinished(state) -> Array:
        number, (best_z, _, _), error = state
        approximate_z = approximate[order[jnp.minimum(number, rounds - 1), 0]]
        error = jnp.maximum(error, norm_error * (jnp.abs(best_z) + 1))
        # The first ones also where nothing is promised: the products may have failed.
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
    """z of each orientation by products, between nodes, and the norms' error.

    The first is -inf where an orientation cannot be the best; the last is the largest
    relative error seen.
    """
    fit, norm_error = fit_norms(score, prepared, template, poses, grid)
    by_product = partial(approximate_best_z, score, particle, template, grid, fit, layout)
    count = poses.shape[0]
    if not layout.nodes_pay(count):
        by_own = by_product(grid.rotation, poses)
        return by_own, by_own, norm_error

    # Where nodes pay the layout has counts of them.
    counts = layout.orientation_nodes
    nodes = OrientationNodes.around(grid.rotation, counts)  # pyright: ignore[reportArgumentType]
    at_nodes = slice_rotation(particle, pose_rotations(particle, nodes.rotation, grid))
    rough = by_product(grid.rotation, at_nodes, nodes)
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
        better_one = by_product(grid.rotation[which], poses[which])
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
    """The best of some orientations, in rising order, and the best z of each."""
    correlation = jax.vmap(score.correlate, in_axes=(None, None, 0), out_axes=2)(
        prepared, template, poses[which]
    )
    z = z_scores(correlation, particle)
    flat = jnp.argmax(z)  # the first of equals, hence the lowest index
    m, l, k, y, x = jnp.unravel_index(flat, z.shape)
    index = jnp.stack([m, l, which[k], y, x]).astype(jnp.int32)
    best = (z.reshape(-1)[flat], correlation.reshape(-1)[flat], index)
    return best, jnp.max(z, axis=(0, 1, 3, 4))


def better(one: Best, other: Best) -> Best:
    """The higher z-score, or of equals the lower index."""
    differs = one[2] != other[2]
    first = jnp.argmax(differs)
    lower = (one[2] < other[2])[first] & jnp.any(differs)
    wins = (one[0] > other[0]) | ((one[0] == other[0]) & lower)
    return jax.tree.map(lambda a, b: jnp.where(wins, a, b), one, other)
