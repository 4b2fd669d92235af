"""What the microscope does to an image."""

import equinox as eqx
from jaxtyping import Array, Float


class Optics(eqx.Module):
    """Optical parameters, one set per particle.

    Attributes:
        voltage_kv: Acceleration voltage.
        spherical_aberration_mm: Cs.
        amplitude_contrast: Fraction of amplitude contrast, between 0 and 1.
        phase_shift_deg: Extra phase, from a phase plate for instance.
        b_factor_angstrom2: B of the envelope exp(-B k²/4), k in 1/Å.
    """

    voltage_kv: Float[Array, "*n"]
    spherical_aberration_mm: Float[Array, "*n"]
    amplitude_contrast: Float[Array, "*n"]
    phase_shift_deg: Float[Array, "*n"]
    b_factor_angstrom2: Float[Array, "*n"]
