"""Refine a batch of particles: start reading here.

`refine_particles` splits a batch over devices, searches the whole grid for each
particle, and returns where its best lies, in the same types that went in.
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
    """Search every pose of the grid for every particle; the best of each.

    Compiled once for given shapes. Not to be called inside `jit`: how the search is laid
    out depends on the values of grid and optics.

    Args:
        particles: A batch, one leading axis. With a mesh it is filled up to a multiple of
            the mesh's "particles"; batches of one length share one compilation, and those
            that are short can be filled up with `valid=False`, which costs nothing.
        template: From `make_template`.
        grid: From `local_grid`.
        score: `ImageCTF` or `TemplateCTF`.
        mesh: From `device_mesh`; None runs on the default device. Results do not depend
            on it.
        layout: From `plan_layout`, so that all batches of a run share one compilation;
            None plans for this batch. Results do not depend on it while it is thorough.
        adaptive: Look closely at the most promising orientations alone: nearly always
            the same best, for less work. A layout that is given says so itself.

    Returns:
        The best of each particle. New position = old + (y, x) index - (H - n + 1) // 2.
        Where the status says that a particle was not refined, its alignment is the
        start and its scores are NaN.

    Raises:
        InputError: Arguments that do not fit together: one particle, boxes or a template
            of another score, a defocus beyond the score's grids, a mesh with other axes,
            or a call inside `jit`.
    """
    check_grid(grid)
    _check(particles, template, score)
    check_mesh(mesh)
    if layout is None:
        check_not_traced("refine_particles", particles, grid)
    layout = layout or layout_for(particles, grid, score, adaptive=adaptive)
    count = particles.valid.shape[0]
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
    """`refine_particles`, with half the memory as often as a device runs out of it.

    Returns:
        The results, computed, and the layout that they were computed with, for the next
        batch to begin with.

    Raises:
        JaxRuntimeError: RESOURCE_EXHAUSTED, where nothing is left to halve.
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
    particles: Particles, grid: SearchGrid, score: Score, *, adaptive: bool = False
) -> Layout:
    """The layout that `refine_particles` plans for a batch."""
    voltages = np.asarray(particles.optics.voltage_kv)
    pixel_sizes = np.asarray(particles.alignment.pixel_size_angstrom)
    # Padding, and particles with invalid numbers, have no say.
    smallest = pixel_sizes + np.min(grid.pixel_size_angstrom)
    sound = np.asarray(particles.valid) & (voltages > 0) & (smallest > 0)
    if not sound.any():
        return Layout(defocus_nodes=1)
    return plan_layout(
        grid,
        score,
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
    """`refine_particles` with its layout given; this is what is compiled.

    Each device searches its share of the particles and, where there are fewer particles
    than devices, of the orientations. Only then do devices speak to each other, once: to
    agree on the best of the shares.
    """
    parts = 1 if mesh is None else mesh.shape[ORIENTATIONS]
    layout = replace(layout, candidates=max(layout.candidates // parts, 1))
    length = -(-grid.rotation.shape[0] // parts)

    def shard(particles: Particles, template: Template, grid: SearchGrid) -> Refined:
        part = jax.lax.axis_index(ORIENTATIONS) if parts > 1 else 0
        # The last part is filled up with the last orientation, which changes nothing.
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

        # One at a time, a particle that is not valid costs nothing.
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
        return shard(particles, template, grid)
    split, whole = PartitionSpec(PARTICLES), PartitionSpec()
    sharded = jax.shard_map(
        shard, mesh=mesh, in_specs=(split, whole, whole), out_specs=split, check_vma=False
    )
    return sharded(particles, template, grid)


def _refined(
    score: Score, grid: SearchGrid, particle: Particles, best: Best, error: Array
) -> Refined:
    """What was found of one particle, at its place in the grid."""
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
    grid: SearchGrid, score: Score, grid_index: Int[Array, "*n 5"]
) -> dict[str, Bool[Array, "*n"]]:
    """Of each searched quantity, whether its best is the outermost.

    Args:
        grid: What was searched.
        score: Whose box was.
        grid_index: As in `Refined`.
    """
    m, l, k, y, x = (grid_index[..., i] for i in range(5))
    pixel_sizes, defoci, _ = grid.shape
    rows, columns = score.positions

    def outermost(index: Array, count: int) -> Array:
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

    What `refine_particles` gives on a grid of one pose, without the search over
    positions. Differentiable in the template and in every field of `particles` but the
    position: that says where the boxes were cut, and its gradient is 0. The gradient with
    respect to a shift is that of `z_score` with respect to `Offsets.shift_px`.

    Raises:
        InputError: Arguments that do not fit together, as for `refine_particles`.
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
    """Highest z-score of each particle at its own pose, and where in the box (y, x).

    -inf where no score is finite.
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
