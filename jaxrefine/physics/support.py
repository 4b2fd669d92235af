"""The part of a template's volume that holds its signal."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from jaxrefine.physics.fourier import next_fast_even

# What is cut off makes a correlation differ by up to the root of this share of the signal,
# in units of the noise.
_LOST = 1e-4
# Of what is coarser the CTF passes little: its first maximum at a defocus of 1 µm.
_COARSE_ANGSTROM = 20.0
# Slices are interpolated, worst towards the faces of the cube.
_ROOM = 1.08


def trim_template(
    volume: Float[np.ndarray, "n n n"], voxel_size_angstrom: float, lost: float = _LOST
) -> Float[np.ndarray, "m m m"]:
    """The smallest cube about a template's centre that holds nearly all of its signal.

    A search of it, with `ImageCTF.of_middle`, takes less time the smaller it is.

    Signal is what remains of the volume's difference from its background, the mean over
    its faces, when frequencies are weighted as the CTF weights them up to its first
    maximum. What lies outside the cube counts unweighted: rather a voxel too many.

    Args:
        volume: Template, n even, its centre at voxel n // 2.
        voxel_size_angstrom: Å per voxel.
        lost: Share of the signal's energy that may lie outside.

    Returns:
        The middle of the volume, of an even side whose Fourier transforms are fast, its
        centre at voxel m // 2; the volume itself where nothing can be left out.
    """
    side = volume.shape[0]
    faces = [volume[i] for i in (0, -1)] + [volume[:, i] for i in (0, -1)]
    faces += [volume[:, :, i] for i in (0, -1)]
    background = np.mean([face.mean(dtype=np.float64) for face in faces])
    contrast = np.asarray(volume - background)
    # Of no unit, so that squares stay within float32's range.
    contrast = (contrast / (np.abs(contrast).max() or 1)).astype(np.float32)
    outside = _energy_outside(contrast)
    allowed = lost * _signal_energy(contrast, voxel_size_angstrom)
    if not allowed > 0:  # constant, or not finite: not for this to judge
        return volume
    needed = 2 * int(np.argmax(outside <= allowed))
    return middle(volume, min(side, next_fast_even(int(np.ceil(_ROOM * needed)))))


def middle(volume: Float[np.ndarray, "n n n"], side: int) -> Float[np.ndarray, "m m m"]:
    """The cube of an even side about the volume's centre."""
    first = (volume.shape[0] - side) // 2
    kept = slice(first, first + side)
    return volume[kept, kept, kept]


def _energy_outside(contrast: Float[np.ndarray, "n n n"]) -> Float[np.ndarray, " h"]:
    """Sum of squares outside cubes about the centre, by half their side."""
    side = contrast.shape[0]
    # Half the side of the cube that reaches a voxel along one axis: n/2 … 1, 1 … n/2.
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
    """Sum of squares with coarse detail weighted down."""
    side = contrast.shape[0]
    power = jnp.abs(jnp.fft.rfftn(jnp.asarray(contrast))) ** 2
    k2 = np.fft.fftfreq(side).astype(np.float32) ** 2
    k2 = k2[:, None, None] + k2[:, None] + k2[: side // 2 + 1]
    phase = (np.pi / 2) * np.minimum(k2 * (_COARSE_ANGSTROM / voxel_size_angstrom) ** 2, 1)
    weights = np.sin(phase) ** 2
    weights[:, :, 1 : side // 2] *= 2
    return float(jnp.sum(power * weights)) / side**3
