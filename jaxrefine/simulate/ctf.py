"""The microscope, and its contrast transfer function, written out a second time."""

from dataclasses import dataclass

import numpy as np

from jaxrefine.simulate.arrays import FloatArray
from jaxrefine.simulate.frequencies import half_plane_frequencies


@dataclass(frozen=True)
class Microscope:
    """What all particles of a micrograph share.

    Attributes:
        voltage_kv: Acceleration voltage.
        spherical_aberration_mm: Cs.
        amplitude_contrast: Fraction of amplitude contrast.
        phase_shift_deg: Extra phase, from a phase plate for instance.
        b_factor_angstrom2: B of the envelope exp(-B k²/4).
    """

    voltage_kv: float = 300.0
    spherical_aberration_mm: float = 2.7
    amplitude_contrast: float = 0.07
    phase_shift_deg: float = 0.0
    b_factor_angstrom2: float = 0.0


def ctf_rfft(
    shape: tuple[int, int],
    pixel_size_angstrom: float,
    defocus_angstrom: tuple[float, float],
    astigmatism_deg: float,
    microscope: Microscope,
) -> FloatArray:
    """Contrast transfer function and envelope on the half plane.

    Positive at low frequencies in underfocus: the image is minus the projection times it.

    Args:
        shape: (height, width) of the image.
        pixel_size_angstrom: Pixel size of the image.
        defocus_angstrom: Defocus (u, v), underfocus positive.
        astigmatism_deg: Direction of u, from the x axis towards y.
        microscope: The remaining optics.
    """
    ky, kx = (k / pixel_size_angstrom for k in half_plane_frequencies(shape))
    k2 = ky**2 + kx**2
    u, v = defocus_angstrom
    direction = np.arctan2(ky, kx) - np.deg2rad(astigmatism_deg)
    defocus = 0.5 * (u + v) + 0.5 * (u - v) * np.cos(2.0 * direction)
    wavelength = electron_wavelength_angstrom(microscope.voltage_kv)
    cs_angstrom = microscope.spherical_aberration_mm * 1e7
    phase = np.pi * wavelength * defocus * k2
    phase -= 0.5 * np.pi * cs_angstrom * wavelength**3 * k2**2
    phase += np.deg2rad(microscope.phase_shift_deg) + np.arcsin(
        microscope.amplitude_contrast
    )
    return np.sin(phase) * np.exp(-0.25 * microscope.b_factor_angstrom2 * k2)


def electron_wavelength_angstrom(voltage_kv: float) -> float:
    """De Broglie wavelength of a relativistic electron: h c / sqrt(E (E + 2 m c²))."""
    energy_ev, rest_ev, hc_ev_angstrom = voltage_kv * 1e3, 510_998.95, 12_398.419_84
    return hc_ev_angstrom / np.sqrt(energy_ev * (energy_ev + 2.0 * rest_ev))
