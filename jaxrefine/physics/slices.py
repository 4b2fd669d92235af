"""Central slices of the template's Fourier transform."""

from typing import Literal

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float, ScalarLike

from jaxrefine.data import InputError, Template

Sampling = Literal["padded", "trilinear"]

# The padded sampling's slices correlate with exact projections at 0.9997 and better (0.9995
# along the volume's own axes), where unpadded trilinear ones lose up to 1 %
# (docs/decisions.md).
_PADDING: dict[str, int] = {"padded": 2, "trilinear": 1}

# Samples this close to a face of the stored cube, in voxels, lie on it: a rotation by 90
# degrees puts whole lines there, and rounding some of them outside.
_ON_FACE = 1e-4


def make_template(
    volume: Float[Array | np.ndarray, "..."], sampling: Sampling = "padded"
) -> Template:
    """Transform a volume so that it can be sliced.

    Args:
        volume: Real-space template (n, n, n), axes z, y, x, its centre at voxel n // 2.
        sampling: "padded": twice zero-padded, and divided by sinc²(x/M) along each axis
            beforehand, which undoes the apodisation by trilinear interpolation.
            "trilinear": neither, as Leopard-EM.

    Returns:
        The template. Slices of "padded" are the better ones and need 8 times the memory.

    Raises:
        InputError: If the volume is not a cube of even side.
    """
    if volume.ndim != 3 or len(set(volume.shape)) != 1 or volume.shape[0] % 2:
        raise InputError(f"template of shape {volume.shape}: must be a cube of even side")
    side = volume.shape[0]
    padded = side * _PADDING[sampling]
    values = np.asarray(volume, np.float32)
    if sampling == "padded":
        window = np.sinc((np.arange(side) - side // 2) / padded) ** 2
        inverse = (1 / window).astype(np.float32)
        values = values * inverse[:, None, None] * inverse[:, None] * inverse
    before = padded // 2 - side // 2
    values = np.pad(values, (before, padded - side - before))
    half = jnp.fft.rfftn(jnp.fft.ifftshift(jnp.asarray(values)))
    return Template(volume_rfft=jnp.fft.fftshift(half, axes=(0, 1)), side=side)


def central_slice(
    template: Template, rotation: Float[Array, "3 3"], scale: ScalarLike = 1.0
) -> Complex[Array, "n r"]:
    """Fourier transform of a projection, interpolated (central slice theorem).

    Args:
        template: From `make_template`.
        rotation: Image frame -> volume frame, on xyz column vectors.
        scale: Template voxel size / image pixel size: frequency k of the image (cycles
            per pixel) samples the template at k * scale (cycles per voxel).

    Returns:
        Half plane in fft order along y, with its origin at the centre of the volume,
        and the sign of the volume. Samples outside the stored cube, [-1/2, 1/2 - 1/M]
        along z and y and [0, 1/2] along x, are 0; nothing inside it is cut. Where kx is
        negative the Friedel mate is sampled (torch-fourier-slice's rule, ties included).
    """
    n, stored = template.side, template.volume_rfft.shape[0]
    ky = jnp.asarray(np.fft.fftfreq(n).astype(np.float32))[:, None, None]
    kx = jnp.asarray(np.fft.rfftfreq(n).astype(np.float32))[None, :, None]
    k = (kx * rotation[:, 0] + ky * rotation[:, 1]) * scale  # xyz, cycles per voxel
    decides = jnp.where(jnp.abs(rotation[0, 0]) > 1e-7, rotation[0, 0], rotation[0, 1])
    tie = decides < -1e-8  # below that it is the rounding of a 0
    mirrored = jnp.where(jnp.abs(k[..., 0]) < 1e-8, tie, k[..., 0] < 0)
    k = jnp.where(mirrored[..., None], -k, k)
    position = k * stored + jnp.asarray([0.0, stored // 2, stored // 2])
    sample = _trilinear(template.volume_rfft, position[..., ::-1])
    return jnp.where(mirrored, jnp.conj(sample), sample)


def _trilinear(
    volume: Complex[Array, "M M Mr"], position: Float[Array, "h r 3"]
) -> Complex[Array, "h r"]:
    """Interpolate at zyx positions in voxels; 0 outside [0, size - 1]."""
    last = jnp.asarray([size - 1 for size in volume.shape])
    inside = (position >= -_ON_FACE) & (position <= last + _ON_FACE)
    position = jnp.clip(position, 0, last)
    low = jnp.clip(jnp.floor(position).astype(jnp.int32), 0, last - 1)
    weight = position - low
    flat = volume.reshape(-1)
    strides = (volume.shape[1] * volume.shape[2], volume.shape[2], 1)
    base = low[..., 0] * strides[0] + low[..., 1] * strides[1] + low[..., 2]
    total = jnp.zeros(position.shape[:-1], volume.dtype)
    for dz in (0, 1):
        for dy in (0, 1):
            for dx in (0, 1):
                corner = base + (dz * strides[0] + dy * strides[1] + dx)
                product = (
                    (weight[..., 0] if dz else 1 - weight[..., 0])
                    * (weight[..., 1] if dy else 1 - weight[..., 1])
                    * (weight[..., 2] if dx else 1 - weight[..., 2])
                )
                total = total + flat.at[corner].get(mode="promise_in_bounds") * product
    return jnp.where(jnp.all(inside, axis=-1), total, 0)
