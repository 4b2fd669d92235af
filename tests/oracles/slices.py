"""The central slice: trilinear samples of a half volume, and the exact projection."""

import numpy as np


def half_volume(volume: np.ndarray) -> np.ndarray:
    """fftshift, rfftn, fftshift of the first two axes: (n, n, n) -> (n, n, n//2 + 1).

    Array position [z, y, x] then holds frequency (x, y - n/2, z - n/2) / n, and phases
    refer to the voxel n//2 along each axis.
    """
    transform = np.fft.rfftn(np.fft.fftshift(np.asarray(volume, np.float64)))
    return np.fft.fftshift(transform, axes=(0, 1))


def slice_frequencies(side: int) -> tuple[np.ndarray, np.ndarray]:
    """kx, ky of a slice in whole cycles per side: kx = 0 ... side/2, ky in fft order."""
    kx = np.arange(side // 2 + 1)
    ky = np.round(np.fft.fftfreq(side) * side).astype(int)
    return np.broadcast_arrays(kx[None, :], ky[:, None])


def volume_frequencies(side: int, rotation: np.ndarray, scale: float = 1.0) -> np.ndarray:
    """f = scale * R (kx, ky, 0) / side in cycles per voxel, as (x, y, z): (side, w, 3).

    ``scale`` is the template's pixel size over the micrograph's. Elements of R below
    1e-8 count as zero, as in torch-fourier-slice: a rotation by 90 degrees would
    otherwise push the cube's faces outside by rounding.
    """
    matrix = np.where(np.abs(rotation) < 1e-8, 0.0, np.asarray(rotation, np.float64))
    kx, ky = slice_frequencies(side)
    in_plane = scale * np.stack([kx, ky], axis=-1) / side
    return in_plane @ matrix[:, :2].T


def _sampling_points(volume_side, side, rotation, scale):
    """Array coordinates (z, y, x) in the half volume, and where to conjugate."""
    matrix = np.where(np.abs(rotation) < 1e-8, 0.0, np.asarray(rotation, np.float64))
    frequency = volume_frequencies(side, rotation, scale)

    # The stored half has fx >= 0. On fx = 0 the sign is that of the side from which the
    # slice comes: r11, or r12 where r11 vanishes too.
    near_zero = np.abs(frequency[..., 0]) < 1e-8
    sign_source = matrix[0, 0] if abs(matrix[0, 0]) > 1e-7 else matrix[0, 1]
    conjugate = np.where(near_zero, sign_source < 0, frequency[..., 0] < 0)
    frequency = np.where(conjugate[..., None], -frequency, frequency)
    frequency[..., 0] = np.where(near_zero, 0.0, frequency[..., 0])

    x, y, z = np.moveaxis(frequency, -1, 0) * volume_side
    return (z + volume_side // 2, y + volume_side // 2, x), conjugate


def central_slice(
    volume_rfft: np.ndarray,
    rotation: np.ndarray,
    scale: float = 1.0,
    side: int | None = None,
) -> np.ndarray:
    """Trilinear central slice, (side, side//2 + 1), ky in fft order.

    Neither negated nor with its DC set to zero: those are steps of the score.

    Args:
        volume_rfft: what :func:`half_volume` returns; even side.
        rotation: image frame -> volume frame, acts on (x, y, z) columns.
        scale: template pixel size / micrograph pixel size.
        side: side of the slice; differs from the volume's if the volume was padded.
    """
    n = volume_rfft.shape[0]
    side = n if side is None else side
    (z, y, x), conjugate = _sampling_points(n, side, rotation, scale)

    # The stored cube spans [0, n-1] along z and y and [0, n/2] along x; beyond is 0.
    # Points within 1e-6 px of a face belong to it (float64 rounding of a rotation).
    inside = np.ones(x.shape, bool)
    for coordinate, last in ((z, n - 1), (y, n - 1), (x, n // 2)):
        inside &= (coordinate >= -1e-6) & (coordinate <= last + 1e-6)
        np.clip(coordinate, 0, last, out=coordinate)

    z0, y0, x0 = (np.floor(coordinate).astype(int) for coordinate in (z, y, x))
    samples = np.zeros(x.shape, np.complex128)
    for dz in (0, 1):
        for dy in (0, 1):
            for dx in (0, 1):
                weight = (
                    np.abs(1 - dz - (z - z0))
                    * np.abs(1 - dy - (y - y0))
                    * np.abs(1 - dx - (x - x0))
                )
                # On the last plane the upper neighbour has weight 0.
                samples += (
                    weight
                    * volume_rfft[
                        np.minimum(z0 + dz, n - 1),
                        np.minimum(y0 + dy, n - 1),
                        np.minimum(x0 + dx, n // 2),
                    ]
                )
    samples = np.where(conjugate, np.conj(samples), samples)
    return np.where(inside, samples, 0.0)


def rounding_decides(
    volume_side: int,
    rotation: np.ndarray,
    scale: float = 1.0,
    side: int | None = None,
    margin_px: float = 1e-4,
) -> np.ndarray:
    """Where two correct programs may differ, because a sample lies on an edge of a rule.

    That is on the outer faces of the stored cube, where the slice jumps to 0; and on
    fx = 0 beyond the last stored plane of y or z, where one of the two mirrored points
    lies inside and the other outside. Everywhere else the slice is continuous.
    """
    side = volume_side if side is None else side
    (z, y, x), _ = _sampling_points(volume_side, side, rotation, scale)
    last = volume_side - 1
    near = np.abs(x - volume_side // 2) < margin_px
    for c in (z, y):
        near |= (np.abs(c) < margin_px) | (np.abs(c - last) < margin_px)
        near |= (x < margin_px) & ((c < 1 + margin_px) | (c > last - margin_px))
    return near


def exact_projection_slice(
    volume: np.ndarray, rotation: np.ndarray, scale: float = 1.0
) -> np.ndarray:
    """The voxels' own Fourier transform at the slice's frequencies, by direct sums.

    S(f) = sum over voxels of v(r) exp(-2 pi i f . (r - n//2)): what a trilinear slice
    approximates. No face, no conjugation rule; for small volumes.
    """
    n = volume.shape[0]
    position = np.arange(n) - n // 2
    frequency = volume_frequencies(n, rotation, scale)
    result = np.empty(frequency.shape[:2], np.complex128)
    for row, column in np.ndindex(result.shape):
        wave_x, wave_y, wave_z = (
            np.exp(-2j * np.pi * f * position) for f in frequency[row, column]
        )
        result[row, column] = wave_z @ ((volume @ wave_x) @ wave_y)
    return result
