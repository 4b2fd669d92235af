"""The contrast transfer function, and how far it spreads a particle's signal."""

import math
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float, ScalarLike

from jaxrefine.data import Optics
from jaxrefine.physics.fourier import frequency_grid

# SI values (CODATA 2018), for the relativistic wavelength.
_PLANCK = 6.62607015e-34
_ELECTRON_MASS = 9.1093837015e-31
_ELEMENTARY_CHARGE = 1.602176634e-19
_LIGHT_SPEED = 299792458.0

# h / sqrt(2 m e) in Å √V, and e / (2 m c²) in 1/V.
_WAVELENGTH_FACTOR = 1e10 * _PLANCK / math.sqrt(2 * _ELECTRON_MASS * _ELEMENTARY_CHARGE)
_RELATIVISTIC = _ELEMENTARY_CHARGE / (2 * _ELECTRON_MASS * _LIGHT_SPEED**2)


def electron_wavelength_angstrom(voltage_kv: Any) -> Any:
    """Relativistic wavelength of an electron: 0.0197 Å at 300 kV. Number or array."""
    voltage = voltage_kv * 1e3
    return _WAVELENGTH_FACTOR / (voltage * (1 + _RELATIVISTIC * voltage)) ** 0.5


def contrast_transfer(
    shape: tuple[int, int],
    pixel_size_angstrom: ScalarLike,
    defocus_angstrom: Float[Array, " 2"],
    astigmatism_deg: ScalarLike,
    optics: Optics,
) -> Float[Array, "h r"]:
    """Real CTF times B-factor envelope on the half plane of an image of `shape`.

    CTF = -sin χ with χ = -πλΔk² + (π/2) Cs λ³ k⁴ - phase shift - atan(A / √(1-A²)) and
    Δ = (u+v)/2 + (u-v)/2 · cos 2(φ - α), φ and α from x towards y; the envelope is
    exp(-B k²/4), k in 1/Å. Sign and axis are those of torch-ctf 0.6.

    Args:
        shape: Real-space shape of the image, any parity.
        pixel_size_angstrom: Å per pixel.
        defocus_angstrom: (u, v) in Å, underfocus positive.
        astigmatism_deg: α in degrees.
        optics: Of one particle.
    """
    ky, kx = frequency_grid(shape)
    ky, kx = ky / pixel_size_angstrom, kx / pixel_size_angstrom
    k2 = ky**2 + kx**2
    wavelength = electron_wavelength_angstrom(optics.voltage_kv)
    cs_angstrom = optics.spherical_aberration_mm * 1e7
    mean = (defocus_angstrom[0] + defocus_angstrom[1]) / 2
    half_difference = (defocus_angstrom[0] - defocus_angstrom[1]) / 2
    # k² cos 2(φ - α) without an arctangent: smooth at k = 0.
    double = 2 * jnp.deg2rad(astigmatism_deg)
    k2_cos = (kx**2 - ky**2) * jnp.cos(double) + 2 * kx * ky * jnp.sin(double)
    amplitude = optics.amplitude_contrast
    chi = (
        -jnp.pi * wavelength * (mean * k2 + half_difference * k2_cos)
        + (jnp.pi / 2) * cs_angstrom * wavelength**3 * k2**2
        - jnp.deg2rad(optics.phase_shift_deg)
        - jnp.arctan(amplitude / jnp.sqrt(1 - amplitude**2))
    )
    return -jnp.sin(chi) * jnp.exp(-optics.b_factor_angstrom2 * k2 / 4)


def ctf_spread_px(
    defocus_angstrom: float,
    voltage_kv: float,
    spherical_aberration_mm: float,
    pixel_size_angstrom: float,
    resolution_angstrom: float,
) -> float:
    """Radius in pixels to which the CTF spreads signal at a resolution, bounded above.

    The local shift of frequency k is |dχ/dk| / 2π = |λΔk - Cs λ³ k³|; the two terms are
    added in magnitude, so that the bound holds for either sign of defocus and below k.
    """
    wavelength = electron_wavelength_angstrom(voltage_kv)
    k = 1 / resolution_angstrom
    shift = (
        wavelength * abs(defocus_angstrom) * k
        + spherical_aberration_mm * 1e7 * wavelength**3 * k**3
    )
    return shift / pixel_size_angstrom
