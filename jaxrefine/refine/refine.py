"""Refine a batch of particles: start reading here.

`refine_particles` splits a batch over devices, searches the whole grid for each
particle, and returns where its best lies, in the same types that went in.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Float

from jaxrefine.data import (
    Alignment,
    Particles,
    Refined,
    SearchGrid,
    Status,
    Template,
)
from jaxrefine.refine.prepare import OUTSIDE_STD
from jaxrefine.refine.product import count_defocus_nodes
from jaxrefine.refine.scoring import Score
from jaxrefine.refine.search import pose_rotations, search_particle, z_scores
from jaxrefine.refine.sharding import AXIS


def refine_particles(
    particles: Particles,
    template: Template,
    grid: SearchGrid,
    score: Score,
    *,
    mesh: Mesh | None = None,
    defocus_nodes: int | None = None,
) -> Refined:
    """Search every pose of the grid for every particle; the best of each.

    Compiled once for given shapes. Not to be called inside `jit`: how the search is laid
    out depends on the values of grid and optics.

    Args:
        particles: A batch, one leading axis. With a mesh, its length must be a multiple
            of the number of devices; fill up with `valid=False`, which costs nothing.
        template: From `make_template`.
        grid: From `local_grid`.
        score: `ImageCTF` or `TemplateCTF`.
        mesh: From `device_mesh`; None runs on the default device. Results do not depend
            on it.
        defocus_nodes: From `plan_defocus_nodes`, so that all batches of a run share one
            compilation; None plans for this batch. Results do not depend on it.

    Returns:
        The best of each particle. New position = old + (y, x) index - (H - n + 1) // 2.
        Where the status says that a particle was not refined, its alignment is the
        start and its scores are NaN.
    """
    if defocus_nodes is None:
        voltages = np.asarray(particles.optics.voltage_kv)
        pixel_sizes = np.asarray(particles.alignment.pixel_size_angstrom)
        # Padding, and particles with faulty numbers, have no say.
        smallest = pixel_sizes + np.min(grid.pixel_size_angstrom)
        sound = np.asarray(particles.valid) & (voltages > 0) & (smallest > 0)
        defocus_nodes = 1
        if sound.any():
            defocus_nodes = plan_defocus_nodes(
                grid, float(voltages[sound].min()), float(pixel_sizes[sound].min())
            )
    return search_batch(particles, template, grid, score, mesh, defocus_nodes)


def plan_defocus_nodes(
    grid: SearchGrid, voltage_kv: float, pixel_size_angstrom: float
) -> int:
    """Nodes of the interpolation in defocus that do for every particle of a run.

    Args:
        grid: The offsets.
        voltage_kv: The lowest voltage.
        pixel_size_angstrom: The smallest pixel size to start from.
    """
    offsets = np.asarray(grid.defocus_angstrom)
    half_range = float(offsets.max() - offsets.min()) / 2
    smallest = pixel_size_angstrom + float(np.min(grid.pixel_size_angstrom))
    # Without an end: no more nodes than offsets are ever used.
    return min(count_defocus_nodes(half_range, voltage_kv, smallest), len(offsets))


@eqx.filter_jit
def search_batch(
    particles: Particles,
    template: Template,
    grid: SearchGrid,
    score: Score,
    mesh: Mesh | None,
    defocus_nodes: int,
) -> Refined:
    """`refine_particles` with its layout given; this is what is compiled."""

    def shard(particles: Particles, template: Template, grid: SearchGrid) -> Refined:
        def one(particle: Particles) -> Refined:
            return jax.lax.cond(
                particle.valid,
                lambda p: _refine_one(p, template, grid, score, defocus_nodes),
                lambda p: _not_refined(p, Status.NOT_FINITE),
                particle,
            )

        return jax.lax.map(one, particles)

    if mesh is None:
        return shard(particles, template, grid)
    split, whole = PartitionSpec(AXIS), PartitionSpec()
    sharded = jax.shard_map(
        shard, mesh=mesh, in_specs=(split, whole, whole), out_specs=split, check_vma=False
    )
    return sharded(particles, template, grid)


def _not_refined(particle: Particles, status: Status) -> Refined:
    nan = jnp.float32(jnp.nan)
    index = jnp.zeros(5, jnp.int32)
    return Refined(particle.alignment, nan, nan, nan, index, jnp.int32(status))


def _refine_one(
    particle: Particles,
    template: Template,
    grid: SearchGrid,
    score: Score,
    defocus_nodes: int,
) -> Refined:
    z, correlation, index = search_particle(score, particle, template, grid, defocus_nodes)
    m, l, k, y, x = (index[i] for i in range(5))
    found = jnp.isfinite(z)
    outside = jnp.all(particle.corr_std >= OUTSIDE_STD)
    refined = found & ~outside

    start = particle.alignment
    best = Alignment(
        rotation=pose_rotations(particle, grid.rotation[k], grid),
        position_px=start.position_px + jnp.stack([y, x]) - jnp.asarray(score.margin),
        defocus_angstrom=start.defocus_angstrom + grid.defocus_angstrom[l],
        astigmatism_deg=start.astigmatism_deg,
        pixel_size_angstrom=start.pixel_size_angstrom + grid.pixel_size_angstrom[m],
    )
    status = jnp.select(
        [outside, ~found, _at_position_edge(score, y, x), _at_grid_edge(grid, m, l, k)],
        [Status.BOX_OUTSIDE, Status.NOT_FINITE, Status.MOVED_TO_EDGE, Status.EDGE_OF_GRID],
        Status.CONVERGED,
    )
    nan = jnp.float32(jnp.nan)
    snr = (correlation - particle.background_mean) / particle.background_std
    return Refined(
        alignment=jax.tree.map(lambda new, old: jnp.where(refined, new, old), best, start),
        z_score=jnp.where(refined, z, nan),
        correlation=jnp.where(refined, correlation, nan),
        snr=jnp.where(refined, snr, nan),
        grid_index=index,
        status=status.astype(jnp.int32),
    )


def _at_grid_edge(grid: SearchGrid, m: Array, l: Array, k: Array) -> Array:
    """Whether a searched quantity's best is its first or last offset."""
    pixel_sizes, defoci, _ = grid.shape
    at_pixel_size = (pixel_sizes > 1) & ((m == 0) | (m == pixel_sizes - 1))
    at_defocus = (defoci > 1) & ((l == 0) | (l == defoci - 1))
    return grid.rotation_at_edge[k] | at_defocus | at_pixel_size


def _at_position_edge(score: Score, y: Array, x: Array) -> Array:
    rows, columns = score.positions
    at_y = (rows > 1) & ((y == 0) | (y == rows - 1))
    at_x = (columns > 1) & ((x == 0) | (x == columns - 1))
    return at_y | at_x


@eqx.filter_jit
def score_particles(
    particles: Particles, template: Template, score: Score
) -> tuple[Float[Array, " n"], Float[Array, " n"]]:
    """(z-score, correlation) of each particle at its own alignment.

    What `refine_particles` gives on a grid of one pose, without the search over
    positions; differentiable in every field of `particles` and in the template.
    """

    def one(particle: Particles) -> tuple[Float[Array, ""], Float[Array, ""]]:
        zero = jnp.zeros(1)
        grid = SearchGrid(jnp.eye(3)[None], jnp.zeros(1, bool), zero, zero)
        prepared = score.prepare(particle, grid)
        correlation = score.correlate(prepared, template, particle.alignment.rotation)[0, 0]
        z = z_scores(correlation, particle)
        y, x = score.margin
        return z[y, x], correlation[y, x]

    return jax.vmap(one)(particles)
