"""Every orientation of a grid at once: correlations as a matrix product.

Only a small corner of positions is wanted of each cross-correlation. There it is a product
of central slices (rows) with the box's windows (columns), far cheaper than transforms.
Correlations turn slowly with defocus, so that columns at a few Chebyshev nodes serve all
defoci; and norms turn slowly with orientation, so that a cubic through some exact ones
serves all orientations. What comes out is therefore approximate, to some 1e-3 of a score;
`search` scores the best again, exactly.
"""

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxrefine.data import Particles, SearchGrid, Template
from jaxrefine.physics.ctf import electron_wavelength_angstrom
from jaxrefine.physics.slices import sample_slice
from jaxrefine.refine.scoring import Score

# Frequencies, and orientations, of one product: the slices between the two stay in cache.
_FREQUENCIES = 1056
_ORIENTATIONS = 512
# Orientations whose norms are exact. A cubic has 20 coefficients.
_NORM_SAMPLES = 96
# Memory that the columns of one product may take, in bytes.
_COLUMN_BYTES = 1 << 30
# Interpolation in defocus may be off by this share of a correlation's highest frequencies.
_DEFOCUS_TOLERANCE = 5e-3


def count_defocus_nodes(
    half_range_angstrom: float, voltage_kv: float, pixel_size_angstrom: float
) -> int:
    """Chebyshev nodes that interpolate the CTF over a range of defocus.

    At Nyquist, k = 1/(2p), the CTF's phase turns by Ω = πλk²·(half range) to either side;
    r nodes leave at most 2 (Ω/2)^r / r! of exp(iΩx) on [-1, 1].
    """
    k2 = (0.5 / pixel_size_angstrom) ** 2
    phase = math.pi * electron_wavelength_angstrom(voltage_kv) * half_range_angstrom * k2
    nodes = 1
    while 2 * (phase / 2) ** nodes / math.factorial(nodes) > _DEFOCUS_TOLERANCE:
        nodes += 1
    return nodes


def _defocus_interpolation(
    offsets: Float[Array, " l"], nodes: int
) -> tuple[Float[Array, " r"], Float[Array, "l r"]]:
    """Chebyshev nodes over the offsets' range, and Lagrange weights from them."""
    if nodes >= offsets.shape[0]:
        return offsets, jnp.eye(offsets.shape[0])
    centre = (jnp.max(offsets) + jnp.min(offsets)) / 2
    half = (jnp.max(offsets) - jnp.min(offsets)) / 2
    unit = np.cos(np.pi * (np.arange(nodes) + 0.5) / nodes)
    x = (offsets - centre) / half
    weights = [
        math.prod(
            (x - unit[other]) / (unit[node] - unit[other])
            for other in range(nodes)
            if other != node
        )
        * jnp.ones_like(x)
        for node in range(nodes)
    ]
    return centre + half * jnp.asarray(unit, jnp.float32), jnp.stack(weights, axis=-1)


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
    powers = [
        (i, j, k) for i in range(4) for j in range(4) for k in range(4) if i + j + k <= 3
    ]
    x, y, z = v[:, 0], v[:, 1], v[:, 2]
    return jnp.stack([x**i * y**j * z**k for i, j, k in powers], axis=-1)


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
    defocus_nodes: int,
) -> tuple[Float[Array, " k"], Float[Array, ""]]:
    """Best z-score of each orientation, over pixel sizes, defoci and positions.

    Args:
        score: How to correlate.
        particle: One particle.
        template: What to look for.
        grid: Offsets around the particle's start.
        prepared: From `score.prepare`.
        poses: The particle's rotation at each orientation of the grid.
        defocus_nodes: From `count_defocus_nodes`; as many as there are offsets, or more,
            leave out the interpolation.

    Returns:
        The z-scores, and the largest relative error seen of the norms. -inf where no
        score is finite.
    """
    fit, norm_error = _fit_norms(score, prepared, template, poses, grid)
    nodes, weights = _defocus_interpolation(grid.defocus_angstrom, defocus_nodes)
    scales = score.scale(particle, grid)
    count = poses.shape[0]
    block = min(_ORIENTATIONS, count)
    blocks = -(-count // block)
    order = np.minimum(np.arange(blocks * block), count - 1).reshape(blocks, block)
    corners = _corner_chunks(score, nodes.shape[0])

    def at_corners(m: Array, some: Int[Array, "p 2"]) -> Float[Array, " k"]:
        start = particle.alignment.pixel_size_angstrom
        pixel_size = start + grid.pixel_size_angstrom[m]
        columns = jax.lax.map(lambda d: score.columns(particle, pixel_size, d, some), nodes)
        chunks = _frequency_chunks(columns, scales[m])
        mean = particle.corr_mean[some[:, 0], some[:, 1]]
        std = particle.corr_std[some[:, 0], some[:, 1]]

        def of_block(number: Array) -> Float[Array, " b"]:
            rows = jnp.moveaxis(poses[number], 0, -1)
            products = _products(template, rows, chunks).reshape(block, len(nodes), -1)
            interpolated = jnp.einsum("lr,brp->lbp", weights, products, precision="highest")
            norm = fit(grid.rotation[number])[m]
            z = (interpolated / norm[..., None] - mean) / std
            return jnp.max(jnp.where(jnp.isfinite(z) & (std > 0), z, -jnp.inf), axis=(0, 2))

        return jax.lax.map(of_block, jnp.asarray(order)).reshape(-1)[:count]

    def at_pixel_size(m: Array) -> Float[Array, " k"]:
        return jnp.max(jax.lax.map(lambda some: at_corners(m, some), corners), axis=0)

    best = jax.lax.map(at_pixel_size, jnp.arange(scales.shape[0]))
    return jnp.max(best, axis=0), norm_error


def _corner_chunks(score: Score, nodes: int) -> Int[Array, "c p 2"]:
    """All positions, as many at once as their columns' memory allows."""
    rows, columns = score.positions
    total = rows * columns
    bytes_each = 8 * nodes * score.side * (score.side // 2 + 1)
    count = -(-total * bytes_each // _COLUMN_BYTES)
    length = -(-total // count)
    # The last chunk is filled up with the last position, which changes no maximum.
    index = np.minimum(np.arange(count * length), total - 1)
    corners = np.stack(np.unravel_index(index, (rows, columns)), axis=-1)
    return jnp.asarray(corners.reshape(count, length, 2), jnp.int32)


def _frequency_chunks(columns: Array, scale: Array) -> tuple[Array, Array, Array, Array]:
    """(kx, ky, real, imaginary) in chunks (c, f) and (c, f, r·P); padded with zeros."""
    side = columns.shape[2]
    ky, kx = np.meshgrid(np.fft.fftfreq(side), np.fft.rfftfreq(side), indexing="ij")
    total = kx.size
    count = -(-total // _FREQUENCIES)
    length = -(-total // count)
    missing = count * length - total

    def chunked(frequency: np.ndarray) -> Float[Array, "c f 1"]:
        padded = np.pad(frequency.ravel(), (0, missing)).reshape(count, length, 1)
        return jnp.asarray(padded, jnp.float32) * scale

    flat = jnp.moveaxis(columns.reshape(-1, total), 0, 1)
    flat = jnp.pad(flat, ((0, missing), (0, 0))).reshape(count, length, -1)
    return chunked(kx), chunked(ky), flat.real, flat.imag


def _products(
    template: Template,
    rotation: Float[Array, "3 3 b"],
    chunks: tuple[Array, Array, Array, Array],
) -> Float[Array, "b q"]:
    """Slices times columns, summed over chunks of frequencies."""
    contract_first = (((0,), (0,)), ((), ()))

    def add(total: Array, chunk: tuple[Array, Array, Array, Array]):
        kx, ky, real, imaginary = chunk
        slices = sample_slice(template, rotation, kx, ky)
        # A wall between gathering and multiplying, or the gathers are done over again.
        slice_real, slice_imaginary = jax.lax.optimization_barrier(slices)
        total += jax.lax.dot_general(slice_real, real, contract_first)
        return total + jax.lax.dot_general(slice_imaginary, imaginary, contract_first), None

    start = jnp.zeros((rotation.shape[-1], chunks[2].shape[-1]))
    return jax.lax.scan(add, start, chunks)[0]
