"""Optical parameters of the microscope."""

import numpy as np
from jaxtyping import Array, Float

from jaxrefine.data.batch import Batch

# Smallest and largest values; numbers beyond them are in another unit.
LIMITS: dict[str, tuple[float, float]] = {
    "voltage_kv": (1.0, 5000.0),
    "spherical_aberration_mm": (0.0, 100.0),
    "amplitude_contrast": (0.0, 1.0),
    "pixel_size_angstrom": (0.01, 100.0),
}


class Optics(Batch):
    """Optical parameters, one set per particle.

    In a table the leaves are numpy arrays in float64, on a device JAX arrays in float32. An
    optional parameter has the default None, as for tables without its column.

    Attributes:
        voltage_kv: Acceleration voltage.
        spherical_aberration_mm: Cs.
        amplitude_contrast: Fraction of amplitude contrast, between 0 and 1.
        phase_shift_deg: Additional phase shift, for example of a phase plate.
        b_factor_angstrom2: B of the envelope exp(-B k²/4), k in 1/Å.
        beam_tilt_mrad: (x, y), which causes axial coma.
        even_zernikes: Symmetric aberrations Z44c, Z44s (rad Å⁴) and Z60 (rad Å⁶); with k in
            1/Å, phases of k⁴ cos 4φ, k⁴ sin 4φ and k⁶. As torch-ctf 0.6 defines them.
        odd_zernikes: Antisymmetric aberrations Z31c, Z31s, Z33c, Z33s (rad Å³): phases of
            k³ cos φ, k³ sin φ, k³ cos 3φ and k³ sin 3φ, in addition to the beam tilt's.
        mag_matrix: Anisotropic magnification A, acting on (y, x): the image at x shows the
            object at A x. Template and CTF are sampled at the frequencies A⁻ᵀ k.
    """

    voltage_kv: Float[Array | np.ndarray, "*n"]
    spherical_aberration_mm: Float[Array | np.ndarray, "*n"]
    amplitude_contrast: Float[Array | np.ndarray, "*n"]
    phase_shift_deg: Float[Array | np.ndarray, "*n"]
    b_factor_angstrom2: Float[Array | np.ndarray, "*n"]
    beam_tilt_mrad: Float[Array | np.ndarray, "*n 2"] | None = None
    even_zernikes: Float[Array | np.ndarray, "*n 3"] | None = None
    odd_zernikes: Float[Array | np.ndarray, "*n 4"] | None = None
    mag_matrix: Float[Array | np.ndarray, "*n 2 2"] | None = None
