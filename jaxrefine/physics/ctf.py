"""The contrast transfer function, and the distance over which it spreads signal."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float, ScalarLike

from jaxrefine.data import Optics
from jaxrefine.physics.fourier import frequency_grid
from jaxrefine.physics.laser import LaserPhasePlate, laser_phase_rad

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
    laser: LaserPhasePlate | None = None,
) -> Float[Array, "h r"]:
    """Real CTF times B-factor envelope on the half plane of an image of `shape`.

    CTF = -sin χ with χ = -πλΔk² + (π/2) Cs λ³ k⁴ - phase shift - atan(A / √(1-A²)), plus
    the even Zernike terms of `Optics`, and
    Δ = (u+v)/2 + (u-v)/2 · cos 2(φ - α), φ and α from x towards y; the envelope is
    exp(-B k²/4), k in 1/Å. A laser phase plate adds its phase for electrons that are not
    scattered, less that for those scattered to k, to the phase shift. Sign and axis are
    those of torch-ctf 0.6. Antisymmetric aberrations are a separate factor,
    `antisymmetric_phase_factor`.

    Args:
        shape: Real-space shape of the image, any parity.
        pixel_size_angstrom: Å per pixel.
        defocus_angstrom: (u, v) in Å, underfocus positive.
        astigmatism_deg: α in degrees.
        optics: Optics of one particle.
        laser: The laser phase plate, if there is one.
    """
    ky, kx = _object_frequencies(shape, pixel_size_angstrom, optics)
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
    if laser is not None:
        light = laser, optics.voltage_kv, wavelength
        chi -= laser_phase_rad(jnp.zeros(()), jnp.zeros(()), *light)
        chi += laser_phase_rad(ky, kx, *light)
    if optics.even_zernikes is not None:
        cosine, sine, sixth = optics.even_zernikes
        # k⁴ cos 4φ and k⁴ sin 4φ from k² cos 2φ and k² sin 2φ.
        double_cos, double_sin = kx**2 - ky**2, 2 * kx * ky
        chi += cosine * (double_cos**2 - double_sin**2) + sixth * k2**3
        chi += sine * 2 * double_cos * double_sin
    return -jnp.sin(chi) * jnp.exp(-optics.b_factor_angstrom2 * k2 / 4)


def antisymmetric_phase_factor(
    shape: tuple[int, int], pixel_size_angstrom: ScalarLike, optics: Optics
) -> Complex[Array, "h r"] | None:
    """exp(iφ) of beam tilt and odd Zernike terms, by which the CTF is multiplied.

    φ = 2π Cs λ² k² (β·k) for a beam tilt β, plus the odd terms of `Optics`; sign and axes
    are those of torch-ctf 0.6.

    Returns:
        The factor on the half plane, or None where the optics have neither.
    """
    if optics.beam_tilt_mrad is None and optics.odd_zernikes is None:
        return None
    ky, kx = _object_frequencies(shape, pixel_size_angstrom, optics)
    k2, phase = ky**2 + kx**2, 0.0
    if optics.beam_tilt_mrad is not None:
        tilt_x, tilt_y = optics.beam_tilt_mrad * 1e-3
        wavelength = electron_wavelength_angstrom(optics.voltage_kv)
        coma = 2 * jnp.pi * optics.spherical_aberration_mm * 1e7 * wavelength**2
        phase = coma * k2 * (tilt_x * kx + tilt_y * ky)
    if optics.odd_zernikes is not None:
        first_cos, first_sin, third_cos, third_sin = optics.odd_zernikes
        phase += k2 * (first_cos * kx + first_sin * ky)
        phase += third_cos * (kx**3 - 3 * kx * ky**2)
        phase += third_sin * (3 * kx**2 * ky - ky**3)
    return jax.lax.complex(jnp.cos(phase), jnp.sin(phase))


def frequency_matrix(mag_matrix: Float[Array | np.ndarray, "2 2"]) -> Float[Array, "2 2"]:
    """A⁻ᵀ of a magnification matrix A, on (y, x), written out for two dimensions."""
    (a, b), (c, d) = mag_matrix
    return jnp.array([[d, -c], [-b, a]]) / (a * d - b * c)


def _object_frequencies(
    shape: tuple[int, int], pixel_size_angstrom: ScalarLike, optics: Optics
) -> tuple[Float[Array, "#h #r"], Float[Array, "#h #r"]]:
    """(ky, kx) in 1/Å in the frame of the object, after anisotropic magnification."""
    ky, kx = frequency_grid(shape)
    ky, kx = ky / pixel_size_angstrom, kx / pixel_size_angstrom
    if optics.mag_matrix is None:
        return ky, kx
    (yy, yx), (xy, xx) = frequency_matrix(optics.mag_matrix)
    return yy * ky + yx * kx, xy * ky + xx * kx


def ctf_spread_px(
    defocus_angstrom: float,
    voltage_kv: float,
    spherical_aberration_mm: float,
    pixel_size_angstrom: float,
    resolution_angstrom: float,
) -> float:
    """Upper bound of the radius in pixels to which the CTF spreads signal at a resolution.

    The local shift of frequency k is |dχ/dk| / 2π = |λΔk - Cs λ³ k³|. The magnitudes of the
    two terms are added, so that the bound holds for either sign of defocus and below k.
    """
    wavelength = electron_wavelength_angstrom(voltage_kv)
    k = 1 / resolution_angstrom
    shift = (
        wavelength * abs(defocus_angstrom) * k
        + spherical_aberration_mm * 1e7 * wavelength**3 * k**3
    )
    return shift / pixel_size_angstrom
