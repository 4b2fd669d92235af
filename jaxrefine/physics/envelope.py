"""A template's envelope, as a curve over spatial frequency."""

import numpy as np
from jaxtyping import Float


def apply_envelope(
    volume: Float[np.ndarray, "n n n"],
    voxel_size_angstrom: float,
    frequency_per_angstrom: Float[np.ndarray, " f"],
    factor: Float[np.ndarray, " f"],
) -> Float[np.ndarray, "n n n"]:
    """A template with its Fourier coefficients multiplied by a curve.

    Args:
        volume: The template.
        voxel_size_angstrom: Å per voxel.
        frequency_per_angstrom: Rising spatial frequencies, in 1/Å.
        factor: On the amplitude at each; straight lines between, and the first and the
            last hold beyond.
    """
    side = volume.shape[0]
    along, half = np.fft.fftfreq(side), np.fft.rfftfreq(side)
    rfft = np.fft.rfftn(volume)
    for plane, kz in zip(rfft, along, strict=True):  # large ones, without more memory
        k = np.sqrt(kz**2 + along[:, None] ** 2 + half**2) / voxel_size_angstrom
        plane *= np.interp(k, frequency_per_angstrom, factor).astype(volume.dtype)
    blurred = np.fft.irfftn(rfft, s=volume.shape, axes=(0, 1, 2))
    return blurred.astype(volume.dtype)
