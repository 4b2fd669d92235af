"""Volumes and projections as exact Fourier sums over atoms."""

import math

import numpy as np
from numpy.typing import NDArray

from jaxrefine.simulate.arrays import ComplexArray, FloatArray
from jaxrefine.simulate.atoms import Atoms


def potential_volume(
    atoms: Atoms, side: int, pixel_size_angstrom: float
) -> NDArray[np.float32]:
    """Density of the atoms on a cubic grid, band-limited, by an exact Fourier sum.

    Args:
        atoms: The atoms, which must fit inside the cube.
        side: Side of the cube in voxels.
        pixel_size_angstrom: Voxel size.

    Returns:
        (side, side, side), axes z, y, x; the sum over voxels is the sum of the weights.

    Raises:
        ValueError: An atom lies outside the cube.
    """
    furthest = np.abs(atoms.positions_angstrom).max(initial=0.0) / pixel_size_angstrom
    if furthest > side / 2:
        raise ValueError(
            f"the furthest atom is {furthest:.0f} px from the centre along an axis, beyond "
            f"a volume of {side} px: expected a side of at least {2 * math.ceil(furthest)}"
        )
    xyz_px = atoms.positions_angstrom / pixel_size_angstrom + side // 2
    b_px2 = atoms.b_factor_angstrom2 / pixel_size_angstrom**2
    half = side // 2 + 1
    total = np.zeros((side * side, half), dtype=np.complex128)
    for some in _chunks(len(xyz_px), 256):
        x, y, z = xyz_px[some].T
        along_z = _waves(z, b_px2[some], side) * atoms.weights[some, None]
        along_y = _waves(y, b_px2[some], side)
        planes = (along_z[:, :, None] * along_y[:, None, :]).reshape(len(z), -1)
        total += planes.T @ _half_waves(x, b_px2[some], side)
    spectrum = total.reshape(side, side, half)
    return np.fft.irfftn(spectrum, s=(side, side, side), axes=(0, 1, 2)).astype(np.float32)


def exact_projection_rfft(
    atoms: Atoms,
    rotation: FloatArray,
    shape: tuple[int, int],
    pixel_size_angstrom: float,
    centre_px: tuple[float, float],
) -> ComplexArray:
    """Half-plane Fourier coefficients of the projection of atoms, by an exact sum.

    Args:
        atoms: The atoms to project.
        rotation: Image frame to volume frame; the projection runs along the image's z.
        shape: (height, width) of the image.
        pixel_size_angstrom: Pixel size of the image.
        centre_px: (y, x) of the centroid, not necessarily whole.

    Returns:
        (height, width // 2 + 1), on the scale of numpy's rfft2; matter is positive and
        the zero frequency is the sum of the weights.
    """
    xyz_px = atoms.positions_angstrom @ rotation / pixel_size_angstrom
    b_px2 = atoms.b_factor_angstrom2 / pixel_size_angstrom**2
    half = shape[1] // 2 + 1
    total = np.zeros((shape[0], half), dtype=np.complex128)
    for some in _chunks(len(xyz_px), 2048):
        along_y = _waves(xyz_px[some, 1] + centre_px[0], b_px2[some], shape[0])
        along_x = _half_waves(xyz_px[some, 0] + centre_px[1], b_px2[some], shape[1])
        total += along_y.T @ (atoms.weights[some, None] * along_x)
    return total


def _half_waves(at_px: FloatArray, b_px2: FloatArray, n: int) -> ComplexArray:
    """Each atom's factors along one axis: exp(-2πi k at - B k²/4), k = rfftfreq(n)."""
    steps = np.ones((len(at_px), n // 2 + 1), dtype=np.complex128)
    steps[:, 1:] = np.exp(-2j * np.pi * at_px / n)[:, None]
    gauss = np.exp(-0.25 * b_px2[:, None] * np.fft.rfftfreq(n) ** 2)
    return np.cumprod(steps, axis=1) * gauss


def _waves(at_px: FloatArray, b_px2: FloatArray, n: int) -> ComplexArray:
    """The same for k = fftfreq(n)."""
    half = _half_waves(at_px, b_px2, n)
    return np.concatenate(
        [half[:, : (n + 1) // 2], half[:, n // 2 : 0 : -1].conj()], axis=1
    )


def _chunks(n: int, size: int) -> list[slice]:
    return [slice(start, start + size) for start in range(0, n, size)]
