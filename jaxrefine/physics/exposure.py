"""Exposure weights of movie frames over spatial frequency.

Grant & Grigorieff, eLife 4:e06980 (2015). The constants, the use of the exposure at the end
of a frame, and the factors for 100 and 200 kV are those of torch-fourier-filter and RELION.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxrefine.physics.fourier import frequency_grid

# Equation 3: critical exposure in electrons/Å² at a spatial frequency in 1/Å.
_A, _B, _C = 0.245, -1.665, 2.81
_SMALLEST_FREQUENCY = 1e-10
# Within _NEAR_KV of these voltages, damage per electron is that at 300 kV divided by this.
_FACTORS_KV = {200.0: 0.8, 100.0: 0.64}
_NEAR_KV = 2.0


def frame_exposures(
    count: int, pre_exposure: float, fluence_per_frame: float
) -> Float[np.ndarray, " t"]:
    """Return the exposure in electrons/Å² at the end of each frame, which weights it.

    Args:
        count: Number of frames.
        pre_exposure: Exposure before the first frame.
        fluence_per_frame: Exposure during one frame.
    """
    return pre_exposure + fluence_per_frame * np.arange(1, count + 1, dtype=np.float64)


def exposure_weights(
    shape: tuple[int, int],
    pixel_size_angstrom: Float[Array, ""],
    exposure: Float[Array, ""],
    voltage_kv: Float[Array, ""],
) -> Float[Array, "h r"]:
    """Return exp(-N / 2Nc(k)), the fraction of the amplitude left after an exposure N.

    Args:
        shape: Real-space shape of the image.
        pixel_size_angstrom: Pixel size of the image.
        exposure: Exposure N in electrons/Å².
        voltage_kv: Acceleration voltage.

    Returns:
        Weights in the layout of rfft2 of an image of this shape.
    """
    ky, kx = frequency_grid(shape)
    k = jnp.sqrt(ky**2 + kx**2) / pixel_size_angstrom
    critical = _A * jnp.maximum(k, _SMALLEST_FREQUENCY) ** _B + _C
    for kilovolt, factor in _FACTORS_KV.items():
        near = jnp.abs(voltage_kv - kilovolt) <= _NEAR_KV
        exposure = jnp.where(near, exposure / factor, exposure)
    return jnp.exp(-exposure / (2 * critical))


def exposure_normalisation(
    shape: tuple[int, int],
    pixel_size_angstrom: Float[Array, ""],
    exposures: Float[Array, " t"],
    voltage_kv: Float[Array, ""],
) -> Float[Array, "h r"]:
    """Return √Σ w² over the frames (equation 9), the divisor of a sum of weighted frames.

    After division, the noise of the sum has the spectrum of a single frame.

    Args:
        shape: Real-space shape of the image.
        pixel_size_angstrom: Pixel size of the image.
        exposures: Exposures of the frames.
        voltage_kv: Acceleration voltage.
    """

    def add(total: Array, exposure: Array) -> tuple[Array, None]:
        weights = exposure_weights(shape, pixel_size_angstrom, exposure, voltage_kv)
        return total + weights**2, None

    total, _ = jax.lax.scan(add, jnp.zeros((shape[0], shape[1] // 2 + 1)), exposures)
    # After a long exposure, weights at high frequencies underflow in float32.
    return jnp.sqrt(jnp.maximum(total, _SMALLEST_FREQUENCY))
