"""The half plane of a real image's Fourier transform."""

import numpy as np

from jaxrefine.simulate.arrays import FloatArray


def half_plane_frequencies(shape: tuple[int, int]) -> tuple[FloatArray, FloatArray]:
    """ky (height, 1) and kx (1, width // 2 + 1) in cycles/px."""
    return np.fft.fftfreq(shape[0])[:, None], np.fft.rfftfreq(shape[1])[None, :]
