"""A template's envelope, as a curve over spatial frequency."""

import numpy as np
from jaxtyping import Float


def apply_envelope(
    volume: Float[np.ndarray, "n n n"],
    voxel_size_angstrom: float,
    frequency_per_angstrom: Float[np.ndarray, " f"],
    factor: Float[np.ndarray, " f"],
) -> Float[np.ndarray, "n n n"]:
    """Multiply the Fourier coefficients of a template by a radial curve.

    Args:
        volume: The template.
        voxel_size_angstrom: Å per voxel.
        frequency_per_angstrom: Increasing spatial frequencies, in 1/Å.
        factor: Factor on the amplitude at each frequency; interpolated linearly, and
            constant outside the range.
    """
    side = volume.shape[0]
    along, half = np.fft.fftfreq(side), np.fft.rfftfreq(side)
    rfft = np.fft.rfftn(volume)
    for plane, kz in zip(rfft, along, strict=True):  # plane by plane, to save memory
        k = np.sqrt(kz**2 + along[:, None] ** 2 + half**2) / voxel_size_angstrom
        plane *= np.interp(k, frequency_per_angstrom, factor).astype(volume.dtype)
    blurred = np.fft.irfftn(rfft, s=volume.shape, axes=(0, 1, 2))
    return blurred.astype(volume.dtype)
