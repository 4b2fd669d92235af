"""Correlations of many orientations at once, as a matrix product.

Each cross-correlation is needed at a few positions only. There it is a product of central
slices (rows) with windows of the box (columns), which costs far less than transforms.
Correlations and power vary slowly with defocus and orientation and are interpolated from
few of them. The results are therefore approximate; `search` scores the best again, exactly.
"""

from collections.abc import Callable
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxrefine.data import Particles, SearchGrid, Template
from jaxrefine.physics.slices import sample_slice
from jaxrefine.refine.layout import Layout
from jaxrefine.refine.nodes import OrientationNodes, defocus_nodes
from jaxrefine.refine.norms import Norms
from jaxrefine.refine.scoring import Score

_Tree = TypeVar("_Tree")

# Inputs in half precision are scaled to this maximum: safe from overflow, and small values
# remain representable.
_HALF_SCALE = 2.0**14


class _Chunks(NamedTuple):
    """Frequencies in chunks (c, f), and what slices are multiplied by there.

    The curvature is None for flat slices. Columns have further axes (r·p), and the weights
    of the power (l).
    """

    kx: Float[Array, "c f 1"]
    ky: Float[Array, "c f 1"]
    curvature: Float[Array, "c f 1"] | None
    real: Array
    imaginary: Array
    power_weights: Array


# The chunks, and the factor by which the columns were multiplied.
Columns = tuple[_Chunks, Float[Array, ""]]
# Products of slices with all columns, and the weighted sums of their power.
_Products = tuple[Float[Array, "b q"], Float[Array, "b l"]]


def shared_columns(
    score: Score, particle: Particles, grid: SearchGrid, norms: Norms, layout: Layout
) -> Columns | None:
    """The columns of all positions, if they fit into memory and there is one pixel size.

    Each call of `approximate_best_z` would otherwise compute them again.
    """
    corners = _corner_chunks(score, particle, grid, layout)
    if len(corners) > 1 or grid.shape[0] > 1:
        return None
    return _columns(score, particle, grid, norms, layout, jnp.int32(0), corners[0])


def approximate_best_z(
    score: Score,
    particle: Particles,
    template: Template,
    grid: SearchGrid,
    norms: Norms,
    layout: Layout,
    rows: Float[Array, "n 3 3"],
    between: tuple[OrientationNodes, Float[Array, "k 3 3"]] | None = None,
    shared: Columns | None = None,
) -> Float[Array, " k"]:
    """Best z-score of each orientation, over pixel sizes, defocus values and positions.

    Args:
        score: The score.
        particle: One particle.
        template: From `make_template`.
        grid: Offsets of pixel size and defocus around the particle's starting values.
        norms: From `measure_norms`.
        layout: From `plan_layout`.
        rows: Rotations of the slices that are multiplied.
        between: Nodes, whose rotations the rows are, and the offset rotations to which to
            interpolate; None computes the scores of the rows themselves.
        shared: From `shared_columns`; None computes the columns here.

    Returns:
        The z-scores; -inf if no score is finite.
    """
    defoci, weights = defocus_nodes(grid.defocus_angstrom, layout.defocus_nodes)
    corners = _corner_chunks(score, particle, grid, layout)
    rows_scale = _input_scale(layout, template.real, template.imaginary)
    wanted = rows if between is None else between[1]
    block = min(layout.orientations, rows.shape[0])

    def at_corners(m: Array, some: Int[Array, "p 2"]) -> Float[Array, " k"]:
        chunks, columns_scale = shared or _columns(
            score, particle, grid, norms, layout, m, some
        )
        ratio = norms.ratio[m] * (rows_scale * columns_scale)
        mean = particle.corr_mean[some[:, 0], some[:, 1]]
        std = particle.corr_std[some[:, 0], some[:, 1]]

        def products(rotations: Float[Array, "b 3 3"]) -> _Products:
            return _products(template, jnp.moveaxis(rotations, 0, -1), rows_scale, chunks)

        def best_of(
            product: Float[Array, "b q"], power: Float[Array, "b l"]
        ) -> Float[Array, " b"]:
            product = product.reshape(product.shape[0], defoci.shape[0], -1)
            correlation = jnp.einsum("lr,brp->lbp", weights, product, precision="highest")
            norm = jnp.sqrt(power) * ratio
            z = (correlation / norm.T[..., None] - mean) / std
            return jnp.max(jnp.where(jnp.isfinite(z) & (std > 0), z, -jnp.inf), axis=(0, 2))

        if between is None:
            return _in_blocks(lambda r: best_of(*products(r)), block, rows)
        at_nodes, weights_at = _in_blocks(products, block, rows), between[0].weights

        def interpolated(offset: Float[Array, "b 3 3"]) -> Float[Array, " b"]:
            weights = weights_at(offset)
            return best_of(*(jnp.matmul(weights, a, precision="highest") for a in at_nodes))

        return _in_blocks(interpolated, min(layout.orientations, len(wanted)), wanted)

    def at_pixel_size(m: Array) -> Float[Array, " k"]:
        return jnp.max(jax.lax.map(lambda some: at_corners(m, some), corners), axis=0)

    best = jax.lax.map(at_pixel_size, jnp.arange(grid.shape[0]))
    return jnp.max(best.reshape(-1, len(wanted)), axis=0)


def _in_blocks(
    function: Callable[[Array], _Tree], block: int, rotations: Float[Array, "k 3 3"]
) -> _Tree:
    """Apply a function of rotations to all of them, one block at a time."""
    count = rotations.shape[0]
    blocks = -(-count // block)
    # The last block is padded with the last rotation; the padding is removed again.
    order = np.minimum(np.arange(blocks * block), count - 1).reshape(blocks, block)
    out = jax.lax.map(lambda n: function(rotations[n]), jnp.asarray(order))
    return jax.tree.map(lambda x: x.reshape(blocks * block, *x.shape[2:])[:count], out)


def _corner_chunks(
    score: Score, particle: Particles, grid: SearchGrid, layout: Layout
) -> Int[Array, "c p 2"]:
    """All positions, in chunks whose columns fit into `column_bytes`."""
    defoci = min(layout.defocus_nodes, grid.shape[1])
    slices = 1 if score.curvature(particle) is None else 2
    rows, columns = score.positions
    total = rows * columns
    bytes_each = 8 * defoci * slices * score.side * (score.side // 2 + 1)
    count = -(-total * bytes_each // layout.column_bytes)
    count = min(count, total)
    length = -(-total // count)
    # The last chunk is padded with the last position, which does not change the maximum.
    index = np.minimum(np.arange(count * length), total - 1)
    corners = np.stack(np.unravel_index(index, (rows, columns)), axis=-1)
    return jnp.asarray(corners.reshape(count, length, 2), jnp.int32)


def _columns(
    score: Score,
    particle: Particles,
    grid: SearchGrid,
    norms: Norms,
    layout: Layout,
    m: Int[Array, ""],
    corners: Int[Array, "p 2"],
) -> Columns:
    """Columns of some positions at all nodes of defocus, at one pixel size."""
    defoci, _ = defocus_nodes(grid.defocus_angstrom, layout.defocus_nodes)
    pixel_size = particle.alignment.pixel_size_angstrom + grid.pixel_size_angstrom[m]
    columns = jax.lax.map(lambda d: score.columns(particle, pixel_size, d, corners), defoci)
    scale = score.scale(particle, grid)[m]
    power_weights = norms.weights[m].reshape(grid.shape[1], -1)
    return _frequency_chunks(
        columns, power_weights, scale, score.curvature(particle), layout
    )


def _input_scale(layout: Layout, real: Array, imaginary: Array) -> Float[Array, ""]:
    """A common factor for the inputs of a product, to fit the range of half precision."""
    if layout.precision == "float32":
        return jnp.float32(1)
    largest = jnp.maximum(jnp.max(jnp.abs(real)), jnp.max(jnp.abs(imaginary)))
    return _HALF_SCALE / jnp.maximum(largest, jnp.finfo(jnp.float32).tiny)


def _frequency_chunks(
    columns: Array,
    power_weights: Float[Array, "l k"],
    scale: Array,
    curvature: Array | None,
    layout: Layout,
) -> Columns:
    """Frequencies, columns and weights in chunks (c, f, …), padded with zeros."""
    side = columns.shape[-2]
    ky, kx = np.meshgrid(np.fft.fftfreq(side), np.fft.rfftfreq(side), indexing="ij")
    signs = np.ones(kx.size)
    if curvature is not None:
        kx, ky = np.stack([kx, kx]), np.stack([ky, ky])
        signs = np.concatenate([signs, -signs])
    total = kx.size
    count = -(-total // layout.frequencies)
    length = -(-total // count)
    missing = count * length - total

    def constant(frequency: np.ndarray) -> Float[Array, "c f 1"]:
        padded = np.pad(frequency.ravel(), (0, missing)).reshape(count, length, 1)
        return jnp.asarray(padded, jnp.float32)

    def chunked(values: Array) -> Array:
        flat = jnp.moveaxis(values.reshape(-1, total), 0, 1)
        return jnp.pad(flat, ((0, missing), (0, 0))).reshape(count, length, -1)

    bent = None if curvature is None else constant(signs) * curvature
    flat = chunked(columns)
    factor = _input_scale(layout, flat.real, flat.imag)
    real, imaginary = (
        (part * factor).astype(layout.precision) for part in (flat.real, flat.imag)
    )
    where = (constant(kx) * scale, constant(ky) * scale, bent)
    return _Chunks(*where, real, imaginary, chunked(power_weights)), factor


def _products(
    template: Template,
    rotation: Float[Array, "3 3 b"],
    rows_scale: Float[Array, ""],
    chunks: _Chunks,
) -> _Products:
    """Multiply scaled slices and columns; sum in float32 over chunks of frequencies."""

    def multiply(rows: Array, columns: Array) -> Float[Array, "b q"]:
        return jax.lax.dot_general(
            rows.astype(columns.dtype),
            columns,
            (((0,), (0,)), ((), ())),
            precision="highest",
            preferred_element_type=jnp.float32,
        )

    def add(totals: _Products, chunk: _Chunks) -> tuple[_Products, None]:
        where = (chunk.kx, chunk.ky, chunk.curvature)
        slices = sample_slice(template, rotation, *where)
        # The barrier keeps XLA from repeating the gathers for each product.
        slice_real, slice_imaginary = jax.lax.optimization_barrier(slices)
        product = totals[0] + multiply(slice_real * rows_scale, chunk.real)
        product += multiply(slice_imaginary * rows_scale, chunk.imaginary)
        # In float32: half precision does not hold squares.
        strength = slice_real**2 + slice_imaginary**2
        return (product, totals[1] + multiply(strength, chunk.power_weights)), None

    def nothing(columns: Array) -> Float[Array, "b q"]:
        return jnp.zeros((rotation.shape[-1], columns.shape[-1]))

    start = nothing(chunks.real), nothing(chunks.power_weights)
    return jax.lax.scan(add, start, chunks)[0]
