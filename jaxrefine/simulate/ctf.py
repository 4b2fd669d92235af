"""The microscope and its contrast transfer function, implemented independently."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from jaxrefine.simulate.arrays import ComplexArray, FloatArray
from jaxrefine.simulate.frequencies import half_plane_frequencies


@dataclass(frozen=True)
class Microscope:
    """Optics that all particles of a micrograph share.

    Attributes:
        voltage_kv: Acceleration voltage.
        spherical_aberration_mm: Cs.
        amplitude_contrast: Fraction of amplitude contrast.
        phase_shift_deg: Additional phase shift, for example of a phase plate.
        b_factor_angstrom2: B of the envelope exp(-B k²/4).
        beam_tilt_mrad: (x, y), which causes axial coma.
        zernikes: Further phases by name, with k in 1/Å, as in torch-ctf: Z44c, Z44s, Z60
            (symmetric); Z31c, Z31s, Z33c, Z33s (antisymmetric).
        mag_matrix: A, acting on (y, x): the image at x shows the object at A x.
        ewald_sign: 0 for thin objects. Otherwise parts of a particle with a larger z in the
            image frame have less defocus (1) or more (-1).
    """

    voltage_kv: float = 300.0
    spherical_aberration_mm: float = 2.7
    amplitude_contrast: float = 0.07
    phase_shift_deg: float = 0.0
    b_factor_angstrom2: float = 0.0
    beam_tilt_mrad: tuple[float, float] = (0.0, 0.0)
    zernikes: Mapping[str, float] = field(default_factory=dict)
    mag_matrix: tuple[tuple[float, float], tuple[float, float]] = ((1.0, 0.0), (0.0, 1.0))
    ewald_sign: int = 0


def ctf_rfft(
    shape: tuple[int, int],
    pixel_size_angstrom: float,
    defocus_angstrom: tuple[float, float],
    astigmatism_deg: float,
    microscope: Microscope,
) -> FloatArray:
    """Contrast transfer function and envelope on the half plane, without odd phases.

    Positive at low frequencies in underfocus: the image is minus the projection times CTF.

    Args:
        shape: (height, width) of the image.
        pixel_size_angstrom: Pixel size of the image.
        defocus_angstrom: Defocus (u, v), underfocus positive.
        astigmatism_deg: Direction of u, from the x axis towards y.
        microscope: The remaining optics.
    """
    ky, kx = _seen_frequencies(shape, pixel_size_angstrom, microscope)
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
    quadruple, terms = 4 * np.arctan2(ky, kx), microscope.zernikes
    phase -= k2**2 * terms.get("Z44c", 0.0) * np.cos(quadruple)
    phase -= k2**2 * terms.get("Z44s", 0.0) * np.sin(quadruple)
    phase -= k2**3 * terms.get("Z60", 0.0)
    return np.sin(phase) * np.exp(-0.25 * microscope.b_factor_angstrom2 * k2)


def odd_phase_factor_rfft(
    shape: tuple[int, int], pixel_size_angstrom: float, microscope: Microscope
) -> ComplexArray:
    """exp(iφ) of beam tilt and odd Zernike terms; arguments as for `ctf_rfft`."""
    ky, kx = _seen_frequencies(shape, pixel_size_angstrom, microscope)
    k, direction, terms = np.hypot(ky, kx), np.arctan2(ky, kx), microscope.zernikes
    wavelength = electron_wavelength_angstrom(microscope.voltage_kv)
    coma = 2e4 * np.pi * microscope.spherical_aberration_mm * wavelength**2
    tilt_x, tilt_y = microscope.beam_tilt_mrad
    along_x = coma * tilt_x + terms.get("Z31c", 0.0)
    along_y = coma * tilt_y + terms.get("Z31s", 0.0)
    phase = along_x * np.cos(direction) + along_y * np.sin(direction)
    phase += terms.get("Z33c", 0.0) * np.cos(3 * direction)
    phase += terms.get("Z33s", 0.0) * np.sin(3 * direction)
    return np.exp(1j * k**3 * phase)


def _seen_frequencies(
    shape: tuple[int, int], pixel_size_angstrom: float, microscope: Microscope
) -> FloatArray:
    """(ky, kx) in 1/Å in the frame of the object, A⁻ᵀ k."""
    k = np.stack(np.broadcast_arrays(*half_plane_frequencies(shape)))
    inverse = np.linalg.inv(microscope.mag_matrix)
    return np.einsum("ji,jhr->ihr", inverse, k / pixel_size_angstrom)


def electron_wavelength_angstrom(voltage_kv: float) -> float:
    """De Broglie wavelength of a relativistic electron: h c / sqrt(E (E + 2 m c²))."""
    energy_ev, rest_ev, hc_ev_angstrom = voltage_kv * 1e3, 510_998.95, 12_398.419_84
    return hc_ev_angstrom / np.sqrt(energy_ev * (energy_ev + 2.0 * rest_ev))
