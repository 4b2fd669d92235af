"""Every orientation of a grid at once: correlations as a matrix product.

Only a small corner of positions is wanted of each cross-correlation. There it is a product
of central slices (rows) with the box's windows (columns), far cheaper than transforms.
Correlations turn slowly with defocus, so that columns at a few Chebyshev nodes serve all
defoci; and norms turn slowly with orientation, so that a cubic through some exact ones
serves all orientations. What comes out is therefore approximate, to some 1e-3 of a score;
`search` scores the best again, exactly.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxrefine.data import Particles, SearchGrid, Template
from jaxrefine.physics.slices import sample_slice
from jaxrefine.refine.layout import Layout
from jaxrefine.refine.scoring import Score

# Orientations whose norms are exact. A cubic has 20 coefficients.
_NORM_SAMPLES = 96
# Half precision's inputs are scaled to this: far from its largest, and small ones last.
_HALF_SCALE = 2.0**14


def _defocus_interpolation(
    offsets: Float[Array, " l"], nodes: int
) -> tuple[Float[Array, " r"], Float[Array, "l r"]]:
    """Chebyshev nodes over the offsets' range, and Lagrange weights from them.

    The weights by Chebyshev polynomials: l_i(x) = (1 + 2 Σ_j T_j(x_i) T_j(x)) / r.
    """
    if nodes >= offsets.shape[0]:
        return offsets, jnp.eye(offsets.shape[0])
    centre = (jnp.max(offsets) + jnp.min(offsets)) / 2
    half = (jnp.max(offsets) - jnp.min(offsets)) / 2
    angle = np.pi * (np.arange(nodes) + 0.5) / nodes
    order = np.arange(nodes)
    factor = np.where(order == 0, 1, 2) / nodes * np.cos(np.multiply.outer(angle, order))
    x = jnp.clip((offsets - centre) / half, -1, 1)
    polynomials = jnp.cos(jnp.arccos(x)[:, None] * order)
    weights = jnp.matmul(polynomials, factor.T.astype(np.float32), precision="highest")
    return centre + half * np.cos(angle).astype(np.float32), weights


class _NormFit(eqx.Module):
    """log of the norm as a cubic in the offset's rotation vector."""

    coefficients: Float[Array, "m l c"]
    width: Float[Array, ""]

    def __call__(self, offset: Float[Array, "b 3 3"]) -> Float[Array, "m l b"]:
        features = _cubic(_turn(offset) / self.width)
        high = jax.lax.Precision.HIGHEST
        log = jnp.einsum("mlc,bc->mlb", self.coefficients, features, precision=high)
        return jnp.exp(log)


def _turn(rotation: Float[Array, "b 3 3"]) -> Float[Array, "b 3"]:
    """Axis times the sine of the angle: a rotation vector, nearly, and smooth."""
    r = rotation
    return jnp.stack(
        [r[:, 2, 1] - r[:, 1, 2], r[:, 0, 2] - r[:, 2, 0], r[:, 1, 0] - r[:, 0, 1]], axis=-1
    )


def _cubic(v: Float[Array, "b 3"]) -> Float[Array, "b c"]:
    """All products x^i y^j z^k with i + j + k at most 3."""
    powers = v[:, :, None] ** np.arange(4)
    i, j, k = np.nonzero(np.add.outer(np.add.outer(range(4), range(4)), range(4)) <= 3)
    return powers[:, 0, i] * powers[:, 1, j] * powers[:, 2, k]


def _fit_norms(
    score: Score,
    prepared: Any,
    template: Template,
    poses: Float[Array, "k 3 3"],
    grid: SearchGrid,
) -> tuple[_NormFit, Float[Array, ""]]:
    """The fit, and its largest relative error at the samples."""
    count = poses.shape[0]
    # At random: evenly spaced ones may all have the same in-plane rotation.
    drawn = np.random.default_rng(0).permutation(count)[:_NORM_SAMPLES]
    sample = np.sort(drawn)
    exact = jax.lax.map(
        lambda pose: score.norms(prepared, template, pose), poses[sample], batch_size=8
    )
    turn = _turn(grid.rotation[sample])
    width = jnp.maximum(jnp.max(jnp.abs(turn)), 1e-6)
    features = _cubic(turn / width)
    target = jnp.log(jnp.moveaxis(exact, 0, -1))
    coefficients = jnp.einsum(
        "cb,mlb->mlc", jnp.linalg.pinv(features), target, precision="highest"
    )
    fit = _NormFit(coefficients, width)
    error = jnp.max(jnp.abs(jnp.log(fit(grid.rotation[sample])) - target))
    return fit, error


def approximate_best_z(
    score: Score,
    particle: Particles,
    template: Template,
    grid: SearchGrid,
    prepared: Any,
    poses: Float[Array, "k 3 3"],
    layout: Layout,
) -> tuple[Float[Array, " k"], Float[Array, ""]]:
    """Best z-score of each orientation, over pixel sizes, defoci and positions.

    Args:
        score: How to correlate.
        particle: One particle.
        template: What to look for.
        grid: Offsets around the particle's start.
        prepared: From `score.prepare`.
        poses: The particle's rotation at each orientation of the grid.
        layout: From `plan_layout`.

    Returns:
        The z-scores, and the largest relative error seen of the norms. -inf where no
        score is finite.
    """
    fit, norm_error = _fit_norms(score, prepared, template, poses, grid)
    nodes, weights = _defocus_interpolation(grid.defocus_angstrom, layout.defocus_nodes)
    scales = score.scale(particle, grid)
    count = poses.shape[0]
    block = min(layout.orientations, count)
    blocks = -(-count // block)
    order = np.minimum(np.arange(blocks * block), count - 1).reshape(blocks, block)
    corners = _corner_chunks(score, nodes.shape[0], layout.column_bytes)
    rows_scale = _input_scale(layout, template.real, template.imaginary)

    def at_corners(m: Array, some: Int[Array, "p 2"]) -> Float[Array, " k"]:
        start = particle.alignment.pixel_size_angstrom
        pixel_size = start + grid.pixel_size_angstrom[m]
        columns = jax.lax.map(lambda d: score.columns(particle, pixel_size, d, some), nodes)
        chunks, columns_scale = _frequency_chunks(columns, scales[m], layout)
        back = 1 / (rows_scale * columns_scale)
        mean = particle.corr_mean[some[:, 0], some[:, 1]]
        std = particle.corr_std[some[:, 0], some[:, 1]]

        def of_block(number: Array) -> Float[Array, " b"]:
            rows = jnp.moveaxis(poses[number], 0, -1)
            products = _products(template, rows, rows_scale, chunks)
            products = products.reshape(block, len(nodes), -1)
            interpolated = jnp.einsum("lr,brp->lbp", weights, products, precision="highest")
            norm = fit(grid.rotation[number])[m] / back
            z = (interpolated / norm[..., None] - mean) / std
            return jnp.max(jnp.where(jnp.isfinite(z) & (std > 0), z, -jnp.inf), axis=(0, 2))

        return jax.lax.map(of_block, jnp.asarray(order)).reshape(-1)[:count]

    def at_pixel_size(m: Array) -> Float[Array, " k"]:
        return jnp.max(jax.lax.map(lambda some: at_corners(m, some), corners), axis=0)

    best = jax.lax.map(at_pixel_size, jnp.arange(scales.shape[0]))
    return jnp.max(best, axis=0), norm_error


def _corner_chunks(score: Score, nodes: int, most_bytes: int) -> Int[Array, "c p 2"]:
    """All positions, as many at once as their columns' memory allows."""
    rows, columns = score.positions
    total = rows * columns
    bytes_each = 8 * nodes * score.side * (score.side // 2 + 1)
    count = -(-total * bytes_each // most_bytes)
    count = min(count, total)
    length = -(-total // count)
    # The last chunk is filled up with the last position, which changes no maximum.
    index = np.minimum(np.arange(count * length), total - 1)
    corners = np.stack(np.unravel_index(index, (rows, columns)), axis=-1)
    return jnp.asarray(corners.reshape(count, length, 2), jnp.int32)


def _input_scale(layout: Layout, real: Array, imaginary: Array) -> Float[Array, ""]:
    """One factor for all of a product's inputs, that half precision may hold them."""
    if layout.precision == "float32":
        return jnp.float32(1)
    largest = jnp.maximum(jnp.max(jnp.abs(real)), jnp.max(jnp.abs(imaginary)))
    return _HALF_SCALE / jnp.maximum(largest, jnp.finfo(jnp.float32).tiny)


def _frequency_chunks(
    columns: Array, scale: Array, layout: Layout
) -> tuple[tuple[Array, Array, Array, Array], Float[Array, ""]]:
    """(kx, ky, real, imaginary) in chunks (c, f) and (c, f, r·P), padded with zeros.

    And what the columns were multiplied by.
    """
    side = columns.shape[2]
    ky, kx = np.meshgrid(np.fft.fftfreq(side), np.fft.rfftfreq(side), indexing="ij")
    total = kx.size
    count = -(-total // layout.frequencies)
    length = -(-total // count)
    missing = count * length - total

    def chunked(frequency: np.ndarray) -> Float[Array, "c f 1"]:
        padded = np.pad(frequency.ravel(), (0, missing)).reshape(count, length, 1)
        return jnp.asarray(padded, jnp.float32) * scale

    flat = jnp.moveaxis(columns.reshape(-1, total), 0, 1)
    flat = jnp.pad(flat, ((0, missing), (0, 0))).reshape(count, length, -1)
    factor = _input_scale(layout, flat.real, flat.imag)
    real, imaginary = (
        (part * factor).astype(layout.precision) for part in (flat.real, flat.imag)
    )
    return (chunked(kx), chunked(ky), real, imaginary), factor


def _products(
    template: Template,
    rotation: Float[Array, "3 3 b"],
    rows_scale: Float[Array, ""],
    chunks: tuple[Array, Array, Array, Array],
) -> Float[Array, "b q"]:
    """Scaled slices times columns, summed in float32 over chunks of frequencies."""

    def multiply(rows: Array, columns: Array) -> Float[Array, "b q"]:
        return jax.lax.dot_general(
            (rows * rows_scale).astype(columns.dtype),
            columns,
            (((0,), (0,)), ((), ())),
            precision="highest",
            preferred_element_type=jnp.float32,
        )

    def add(total: Array, chunk: tuple[Array, Array, Array, Array]):
        kx, ky, real, imaginary = chunk
        slices = sample_slice(template, rotation, kx, ky)
        # A wall between gathering and multiplying, or the gathers are done over again.
        slice_real, slice_imaginary = jax.lax.optimization_barrier(slices)
        total += multiply(slice_real, real)
        return total + multiply(slice_imaginary, imaginary), None

    start = jnp.zeros((rotation.shape[-1], chunks[2].shape[-1]))
    return jax.lax.scan(add, start, chunks)[0]
