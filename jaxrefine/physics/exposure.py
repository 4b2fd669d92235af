"""Radiation damage in movie frames: weights of each frame over spatial frequency.

Grant & Grigorieff, eLife 4:e06980 (2015). Constants, the exposure that counts for a frame,
and the factors of 100 and 200 kV are torch-fourier-filter's, and RELION's.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxrefine.physics.fourier import frequency_grid

# Their equation 3: critical exposure in electrons/Å² at a frequency in 1/Å.
_A, _B, _C = 0.245, -1.665, 2.81
_SMALLEST_FREQUENCY = 1e-10
# Within so many kV of them, damage per electron is that of 300 kV over this.
_FACTORS_KV = {200.0: 0.8, 100.0: 0.64}
_NEAR_KV = 2.0


def frame_exposures(
    count: int, pre_exposure: float, fluence_per_frame: float
) -> Float[np.ndarray, " t"]:
    """Exposure in electrons/Å² at the end of each frame: the one that weights it.

    Args:
        count: Number of frames.
        pre_exposure: Exposure before the first frame.
        fluence_per_frame: Exposure of a frame.
    """
    return pre_exposure + fluence_per_frame * np.arange(1, count + 1, dtype=np.float64)


def exposure_weights(
    shape: tuple[int, int],
    pixel_size_angstrom: Float[Array, ""],
    exposure: Float[Array, ""],
    voltage_kv: Float[Array, ""],
) -> Float[Array, "h r"]:
    """exp(-N / 2Nc(k)): the share of the amplitude that an exposure N leaves.

    Args:
        shape: The image's real-space shape.
        pixel_size_angstrom: Its pixel size.
        exposure: In electrons/Å².
        voltage_kv: Acceleration voltage.

    Returns:
        On the half plane of an image of `shape`.
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
    """√Σ w² over frames (their equation 9): what a sum of weighted frames is divided by.

    The noise of such a sum has the spectrum of one frame's.

    Args:
        shape: The image's real-space shape.
        pixel_size_angstrom: Its pixel size.
        exposures: Of each frame.
        voltage_kv: Acceleration voltage.
    """

    def add(total: Array, exposure: Array) -> tuple[Array, None]:
        weights = exposure_weights(shape, pixel_size_angstrom, exposure, voltage_kv)
        return total + weights**2, None

    total, _ = jax.lax.scan(add, jnp.zeros((shape[0], shape[1] // 2 + 1)), exposures)
    # Weights of a long exposure leave float32's range where nothing is left anyway.
    return jnp.sqrt(jnp.maximum(total, _SMALLEST_FREQUENCY))
