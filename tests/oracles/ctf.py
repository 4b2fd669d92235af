"""The contrast transfer function on the half plane of an rfft2."""

import numpy as np

PLANCK = 6.62607015e-34
LIGHT_SPEED = 299792458.0
ELECTRON_MASS = 9.1093837139e-31
ELEMENTARY_CHARGE = 1.602176634e-19


def electron_wavelength(voltage_kv: float) -> float:
    """Relativistic wavelength in angstrom."""
    energy = ELEMENTARY_CHARGE * voltage_kv * 1e3
    momentum_c = np.sqrt(energy * (2 * ELECTRON_MASS * LIGHT_SPEED**2 + energy))
    return float(PLANCK * LIGHT_SPEED / momentum_c * 1e10)


def ctf_2d(
    shape: tuple[int, int],
    pixel_size: float,
    defocus_u: float,
    defocus_v: float,
    astigmatism_deg: float,
    voltage_kv: float,
    cs_mm: float,
    amplitude_contrast: float,
    phase_shift_deg: float = 0.0,
    b_factor: float = 0.0,
    defocus_offset: float = 0.0,
    signed_astigmatism: bool = False,
) -> np.ndarray:
    """CTF times exp(-B k^2 / 4), (h, w//2 + 1), ky in fft order.

    CTF = -sin(chi), chi = -pi lambda D k^2 + pi/2 Cs lambda^3 k^4
                           - phase shift - atan(A / sqrt(1 - A^2)),
    D = mean defocus + a cos 2(phi_k - angle), phi_k from x towards y.

    torch-ctf's docstring says that angle 0 places defocus_u along y. Its code measures
    the angle from x, and the code is what the peer's numbers come from.

    Args:
        shape: real-space (h, w), even or odd.
        pixel_size: angstrom per pixel; only the frequencies depend on it.
        defocus_u, defocus_v: angstrom, underfocus positive.
        astigmatism_deg: direction of defocus_u, degrees from x towards y.
        cs_mm: spherical aberration.
        b_factor: angstrom^2.
        defocus_offset: angstrom, added to the mean of u and v.
        signed_astigmatism: a = (u - v)/2 instead of the peer's |u - v|/2. They differ
            where u < v: the peer then gives the larger defocus to the direction u.
    """
    h, w = shape
    ky = np.fft.fftfreq(h)[:, None] / pixel_size
    kx = np.arange(w // 2 + 1)[None, :] / w / pixel_size
    k2 = kx**2 + ky**2

    astigmatism = (defocus_u - defocus_v) / 2
    if not signed_astigmatism:
        astigmatism = abs(astigmatism)
    direction = np.arctan2(ky, kx)
    defocus = (defocus_u + defocus_v) / 2 + defocus_offset
    defocus = defocus + astigmatism * np.cos(2 * (direction - np.deg2rad(astigmatism_deg)))

    wavelength = electron_wavelength(voltage_kv)
    chi = -np.pi * wavelength * defocus * k2
    chi = chi + np.pi / 2 * cs_mm * 1e7 * wavelength**3 * k2**2
    chi = chi - np.deg2rad(phase_shift_deg)
    chi = chi - np.arctan(amplitude_contrast / np.sqrt(1 - amplitude_contrast**2))
    return -np.sin(chi) * np.exp(-b_factor * k2 / 4)
