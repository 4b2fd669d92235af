"""The part of a template volume that contains its signal."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxrefine.physics.fourier import next_fast_even

# Fraction of the signal's energy that may be removed. It changes a correlation by up to the
# square root of this fraction of the signal, in units of the noise.
_LOST = 1e-4
# Coarser detail is attenuated by the CTF: its first maximum at a defocus of 1 µm.
_COARSE_ANGSTROM = 20.0
# Additional space, since the interpolation of slices is worst near the faces of the cube.
_ROOM = 1.08


def trim_template(
    volume: Float[np.ndarray, "n n n"], voxel_size_angstrom: float, lost: float = _LOST
) -> Float[np.ndarray, "m m m"]:
    """The smallest cube around the centre of a template that holds nearly all its signal.

    The smaller the cube, the faster is a search with it (with `ImageCTF.of_middle`).

    The signal is the difference of the volume from its background, the mean over its faces,
    with frequencies weighted as by the CTF up to its first maximum. What lies outside the
    cube counts unweighted, so that the cube is rather too large than too small.

    Args:
        volume: Template, n even, its centre at voxel n // 2.
        voxel_size_angstrom: Å per voxel.
        lost: Fraction of the energy of the signal that may be outside.

    Returns:
        The middle of the volume, with an even side that transforms fast and its centre at
        voxel m // 2; the volume itself if nothing can be removed.
    """
    side = volume.shape[0]
    faces = [volume[i] for i in (0, -1)] + [volume[:, i] for i in (0, -1)]
    faces += [volume[:, :, i] for i in (0, -1)]
    background = np.mean([face.mean(dtype=np.float64) for face in faces])
    contrast = np.asarray(volume - background)
    # Scaled to 1, so that squares are within the range of float32.
    contrast = (contrast / (np.abs(contrast).max() or 1)).astype(np.float32)
    outside = _energy_outside(contrast)
    allowed = lost * _signal_energy(contrast, voxel_size_angstrom)
    if not allowed > 0:  # constant or not finite; reported elsewhere
        return volume
    needed = 2 * int(np.argmax(outside <= allowed))
    return middle(volume, min(side, next_fast_even(int(np.ceil(_ROOM * needed)))))


def middle(volume: Float[np.ndarray, "n n n"], side: int) -> Float[np.ndarray, "m m m"]:
    """The cube of an even side around the centre of the volume."""
    first = (volume.shape[0] - side) // 2
    kept = slice(first, first + side)
    return volume[kept, kept, kept]


def _energy_outside(contrast: Float[np.ndarray, "n n n"]) -> Float[np.ndarray, " h"]:
    """Sum of squares outside cubes around the centre, for each half side."""
    side = contrast.shape[0]
    # Half side of the smallest cube that holds a voxel, along one axis: n/2 … 1, 1 … n/2.
    reach = np.arange(side) - side // 2
    reach = np.where(reach < 0, -reach, reach + 1)
    in_plane = np.maximum(reach[:, None], reach)
    shells = np.zeros(side // 2 + 1)
    for plane, half in zip(contrast, reach, strict=True):
        cube = np.maximum(in_plane, half).ravel()
        shells += np.bincount(cube, plane.ravel() ** 2, len(shells))
    return np.append(np.cumsum(shells[:0:-1])[::-1], 0.0)


def _signal_energy(
    contrast: Float[np.ndarray, "n n n"], voxel_size_angstrom: float
) -> float:
    """Sum of squares, with coarse detail attenuated."""
    side = contrast.shape[0]
    k2 = np.fft.fftfreq(side).astype(np.float32) ** 2
    k2 = k2[:, None, None] + k2[:, None] + k2[: side // 2 + 1]
    phase = (np.pi / 2) * np.minimum(k2 * (_COARSE_ANGSTROM / voxel_size_angstrom) ** 2, 1)
    weights = np.sin(phase) ** 2
    weights[:, :, 1 : side // 2] *= 2
    return float(_weighted_power(jnp.asarray(contrast), weights)) / side**3


@jax.jit
def _weighted_power(
    contrast: Float[Array, "n n n"], weights: Float[Array, "n n r"]
) -> Float[Array, ""]:
    return jnp.sum(jnp.abs(jnp.fft.rfftn(contrast)) ** 2 * weights)
