"""What the microscope does to an image."""

import equinox as eqx
import numpy as np
from jaxtyping import Array, Float


class Optics(eqx.Module):
    """Optical parameters, one set per particle.

    As a table has them the leaves are numpy's, in float64; on the device JAX's, in float32.
    A further parameter has the default None, which is that of tables without its column.

    Attributes:
        voltage_kv: Acceleration voltage.
        spherical_aberration_mm: Cs.
        amplitude_contrast: Fraction of amplitude contrast, between 0 and 1.
        phase_shift_deg: Extra phase, from a phase plate for instance.
        b_factor_angstrom2: B of the envelope exp(-B k²/4), k in 1/Å.
    """

    voltage_kv: Float[Array | np.ndarray, "*n"]
    spherical_aberration_mm: Float[Array | np.ndarray, "*n"]
    amplitude_contrast: Float[Array | np.ndarray, "*n"]
    phase_shift_deg: Float[Array | np.ndarray, "*n"]
    b_factor_angstrom2: Float[Array | np.ndarray, "*n"]
