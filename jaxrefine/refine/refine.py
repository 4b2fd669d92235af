"""Refine a batch of particles: start reading here.

`refine_particles` splits a batch over devices, searches the grid for each particle, and
returns the best alignment in the same types as the input.
"""

import functools
from dataclasses import replace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.errors import JaxRuntimeError
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Bool, Float, Int

from jaxrefine.data import (
    Alignment,
    Particles,
    Refined,
    SearchGrid,
    Status,
    Template,
    is_out_of_memory,
)
from jaxrefine.refine.arguments import (
    check_batch,
    check_defocus,
    check_grid,
    check_mesh,
    check_not_traced,
    check_template,
)
from jaxrefine.refine.layout import Layout, plan_layout
from jaxrefine.refine.precision import in_single_precision
from jaxrefine.refine.prepare import OUTSIDE_STD
from jaxrefine.refine.scoring import Score, slice_rotation
from jaxrefine.refine.search import (
    NOTHING_FOUND,
    Best,
    better,
    pose_rotations,
    ranked_by_background,
    search_particle,
    z_scores,
)
from jaxrefine.refine.sharding import ORIENTATIONS, PARTICLES, filled_up


def refine_particles(
    particles: Particles,
    template: Template,
    grid: SearchGrid,
    score: Score,
    *,
    mesh: Mesh | None = None,
    layout: Layout | None = None,
    adaptive: bool = False,
) -> Refined:
    """Search the grid for the best pose of each particle.

    Compiled once for given shapes, in float32 (arrays of float64 are converted). It cannot
    be called inside `jit`, because the layout of the search depends on the values of grid
    and optics.

    Args:
        particles: A batch, with one leading axis. With a mesh it is padded to a multiple of
            the mesh's "particles". Batches of equal length share one compilation; shorter
            ones can be padded with `valid=False`, which costs no time.
        template: From `make_template`.
        grid: From `local_grid`.
        score: `ImageCTF` or `TemplateCTF`.
        mesh: From `device_mesh`; None runs on the default device. Results do not depend
            on it.
        layout: From `plan_layout`, for all batches of a run to share one compilation; None
            plans for this batch. The results of an exhaustive search do not depend on it.
        adaptive: Evaluate only the most promising orientations: nearly always the same
            best, with less work. Ignored if a layout is given (`Layout.thorough`).

    Returns:
        The best grid point of each particle. New position = old + (y, x) index -
        (H - n + 1) // 2. If a particle was not refined according to its status, its
        alignment is the start and its scores are NaN.

    Raises:
        InputError: The arguments do not match: a single particle, boxes or a template of
            another score, a defocus beyond the range of the score, a mesh with other axes,
            or a call inside `jit`.
    """
    check_grid(grid)
    _check(particles, template, score)
    check_mesh(mesh)
    if layout is None:
        check_not_traced("refine_particles", particles, grid)
    layout = layout or layout_for(particles, template, grid, score, adaptive=adaptive)
    count = particles.valid.shape[0]
    particles, template, grid, score = in_single_precision(
        (particles, template, grid, score)
    )
    with jax.enable_x64(False):  # whatever the caller has set
        filled = filled_up(particles, count, mesh, layout.particles)
        refined = search_batch(filled, template, grid, score, mesh, layout)
        return jax.tree.map(lambda leaf: leaf[:count], refined)


def refine_within_memory(
    particles: Particles,
    template: Template,
    grid: SearchGrid,
    score: Score,
    *,
    mesh: Mesh | None,
    layout: Layout,
) -> tuple[Refined, Layout]:
    """`refine_particles`, repeated with half the memory if a device runs out of memory.

    Returns:
        The computed results, and the layout that was used, for the next batch.

    Raises:
        JaxRuntimeError: RESOURCE_EXHAUSTED, if the layout cannot be halved further.
    """
    while True:
        try:
            refined = search_batch(particles, template, grid, score, mesh, layout)
            return jax.block_until_ready(refined), layout
        except JaxRuntimeError as error:
            smaller = layout.halved()
            if not is_out_of_memory(error) or smaller is None:
                raise
            layout = smaller


def layout_for(
    particles: Particles,
    template: Template,
    grid: SearchGrid,
    score: Score,
    *,
    adaptive: bool = False,
) -> Layout:
    """The layout that `refine_particles` plans for a batch."""
    voltages = np.asarray(particles.optics.voltage_kv)
    pixel_sizes = np.asarray(particles.alignment.pixel_size_angstrom)
    # Ignore padding, and particles with invalid numbers.
    smallest = pixel_sizes + np.min(grid.pixel_size_angstrom)
    sound = np.asarray(particles.valid) & (voltages > 0) & (smallest > 0)
    if not sound.any():
        return Layout(defocus_nodes=1)
    return plan_layout(
        grid,
        score,
        template,
        voltage_kv=float(voltages[sound].min()),
        pixel_size_angstrom=float(pixel_sizes[sound].min()),
        thorough=not adaptive,
    )


@eqx.filter_jit
def search_batch(
    particles: Particles,
    template: Template,
    grid: SearchGrid,
    score: Score,
    mesh: Mesh | None,
    layout: Layout,
) -> Refined:
    """The compiled part of `refine_particles`, with the layout as an argument.

    Each device searches its share of the particles and, if there are fewer particles than
    devices, of the orientations. Only in the latter case do devices communicate, once, to
    find the best of all shares.
    """
    parts = 1 if mesh is None else mesh.shape[ORIENTATIONS]
    layout = replace(layout, candidates=max(layout.candidates // parts, 1))
    length = -(-grid.rotation.shape[0] // parts)

    # An own score may hold arrays, which every device gets whole.
    arrays, rest = eqx.partition(score, eqx.is_array)

    def shard(
        particles: Particles, template: Template, grid: SearchGrid, arrays: Score
    ) -> Refined:
        score = eqx.combine(arrays, rest)
        part = jax.lax.axis_index(ORIENTATIONS) if parts > 1 else 0
        # The last part is padded with the last orientation, which does not affect results.
        number = jnp.minimum(part * length + jnp.arange(length), grid.rotation.shape[0] - 1)
        share = eqx.tree_at(lambda g: g.rotation, grid, grid.rotation[number])

        def search(particle: Particles) -> tuple[Best, Array, Array]:
            (z, correlation, index), error, of_each = search_particle(
                score, ranked_by_background(particle), template, share, layout
            )
            return (z, correlation, index.at[2].set(number[index[2]])), error, of_each

        def one(particle: Particles) -> tuple[Best, Array, Array]:
            nothing = NOTHING_FOUND, np.float32(0), jnp.full(length, -jnp.inf, jnp.float32)
            return jax.lax.cond(particle.valid, search, lambda _: nothing, particle)

        # If searched one at a time, a particle that is not valid costs no time.
        at_once = layout.particles if layout.particles > 1 else None
        best, error, of_each = jax.lax.map(one, particles, batch_size=at_once)
        if parts > 1:
            each, errors, shares = jax.lax.all_gather((best, error, of_each), ORIENTATIONS)
            error = jnp.max(errors, axis=0)
            each = [jax.tree.map(lambda x, i=i: x[i], each) for i in range(parts)]
            best = functools.reduce(jax.vmap(better), each)
            of_each = jnp.concatenate(shares, axis=1)[:, : grid.rotation.shape[0]]
        refined = jax.vmap(functools.partial(_refined, score, grid))(particles, best, error)
        return replace(refined, orientation_z=of_each)

    if mesh is None:
        return shard(particles, template, grid, arrays)
    split, whole = PartitionSpec(PARTICLES), PartitionSpec()
    sharded = jax.shard_map(
        shard,
        mesh=mesh,
        in_specs=(split, whole, whole, whole),
        out_specs=split,
        check_vma=False,
    )
    return sharded(particles, template, grid, arrays)


def _refined(
    score: Score, grid: SearchGrid, particle: Particles, best: Best, error: Array
) -> Refined:
    """Result for one particle, from its best grid point."""
    z, correlation, index = best
    m, l, k, y, x = (index[i] for i in range(5))
    by_maps = (correlation - particle.corr_mean[y, x]) / particle.corr_std[y, x]
    z = jnp.where(particle.mean_peaks, by_maps, z)
    found = jnp.isfinite(z)
    outside = jnp.all(particle.corr_std >= OUTSIDE_STD) & particle.valid
    refined = found & ~outside

    start = particle.alignment
    moved = Alignment(
        rotation=pose_rotations(particle, grid.rotation[k], grid),
        position_px=start.position_px + jnp.stack([y, x]) - jnp.asarray(score.margin),
        defocus_angstrom=start.defocus_angstrom + grid.defocus_angstrom[l],
        astigmatism_deg=start.astigmatism_deg,
        pixel_size_angstrom=start.pixel_size_angstrom + grid.pixel_size_angstrom[m],
    )
    edges = at_edges(grid, score, index)
    moved_to_edge = edges.pop("position")
    status = jnp.select(
        [outside, ~found, moved_to_edge, functools.reduce(jnp.logical_or, edges.values())],
        [Status.BOX_OUTSIDE, Status.NOT_FINITE, Status.MOVED_TO_EDGE, Status.EDGE_OF_GRID],
        Status.CONVERGED,
    )
    nan = jnp.float32(jnp.nan)
    snr = (correlation - particle.background_mean) / particle.background_std
    return Refined(
        alignment=jax.tree.map(lambda new, old: jnp.where(refined, new, old), moved, start),
        z_score=jnp.where(refined, z, nan),
        correlation=jnp.where(refined, correlation, nan),
        snr=jnp.where(refined, snr, nan),
        grid_index=index,
        status=status.astype(jnp.int32),
        approximation_error=jnp.where(refined, error, nan),
    )


def at_edges(
    grid: SearchGrid, score: Score, grid_index: Int[Array | np.ndarray, "*n 5"]
) -> dict[str, Bool[Array | np.ndarray, "*n"]]:
    """Whether the best value of each searched quantity is at the edge of its range.

    Args:
        grid: The grid that was searched.
        score: The score, whose box was searched.
        grid_index: As in `Refined`.
    """
    m, l, k, y, x = (grid_index[..., i] for i in range(5))
    pixel_sizes, defoci, _ = grid.shape
    rows, columns = score.positions

    def outermost(index: Array | np.ndarray, count: int) -> Array | np.ndarray:
        return (count > 1) & ((index == 0) | (index == count - 1))

    return {
        "orientation": grid.rotation_at_edge[k],
        "defocus": outermost(l, defoci),
        "pixel_size": outermost(m, pixel_sizes),
        "position": outermost(y, rows) | outermost(x, columns),
    }


def score_particles(
    particles: Particles, template: Template, score: Score
) -> tuple[Float[Array, " n"], Float[Array, " n"]]:
    """(z-score, correlation) of each particle at its own alignment.

    It equals `refine_particles` on a grid of one pose, without the search over positions.
    It is differentiable in the template and in every field of `particles` except the
    position, which only states where the boxes were extracted and whose gradient is 0. For
    the gradient with respect to a shift, use `z_score` and `Offsets.shift_px`.

    Raises:
        InputError: The arguments do not match, as for `refine_particles`.
    """
    _check(particles, template, score)
    return _score_batch(particles, template, score)


def _check(particles: Particles, template: Template, score: Score) -> None:
    check_template(template, score)
    check_batch(particles, score)
    check_defocus(particles, score)


@eqx.filter_jit
def _score_batch(
    particles: Particles, template: Template, score: Score
) -> tuple[Float[Array, " n"], Float[Array, " n"]]:

    def one(particle: Particles) -> tuple[Float[Array, ""], Float[Array, ""]]:
        z, correlation = scores_in_box(particle, template, score)
        y, x = score.margin
        return z[y, x], correlation[y, x]

    return jax.vmap(one)(particles)


@eqx.filter_jit
def best_in_box(
    particles: Particles, template: Template, score: Score
) -> tuple[Float[Array, " n"], Int[Array, "n 2"]]:
    """Highest z-score in the box at each particle's own orientation, and its index (y, x).

    The z-score is -inf if no score is finite.
    """

    def one(particle: Particles) -> tuple[Float[Array, ""], Int[Array, " 2"]]:
        z = scores_in_box(particle, template, score)[0]
        best = jnp.argmax(z)
        return z.ravel()[best], jnp.stack(jnp.unravel_index(best, z.shape))

    return jax.lax.map(one, particles)


def scores_in_box(
    particle: Particles, template: Template, score: Score
) -> tuple[Float[Array, "Y X"], Float[Array, "Y X"]]:
    """(z-score, correlation) of one particle at each position of its box."""
    zero = jnp.zeros(1)
    grid = SearchGrid(jnp.eye(3)[None], jnp.zeros(1, bool), zero, zero)
    prepared = score.prepare(particle, grid)
    rotation = slice_rotation(particle, particle.alignment.rotation)
    correlation = score.correlate(prepared, template, rotation)[0, 0]
    return z_scores(correlation, particle), correlation
