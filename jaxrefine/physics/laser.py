"""Phase shift of a laser phase plate: a standing light wave in the back focal plane.

The phase of an electron wave in the focus of a standing wave (Schwartz et al., Nat. Methods
16 (2019) 1016; Axelrod et al., Front. Mol. Biosci. 10 (2023) 1146525), as torch-ctf 0.6
computes it.
"""

import math

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, ScalarLike

# Rest energy of the electron in keV.
_REST_KEV = 510.99895


class LaserPhasePlate(eqx.Module):
    """A laser phase plate, whose focus is on the optical axis; plain numbers.

    Attributes:
        numerical_aperture: Of the light's focus.
        wavelength_angstrom: Of the light.
        focal_length_angstrom: Of the objective lens; scattering to a frequency k in 1/Å
            arrives at the distance k · electron wavelength · focal length.
        angle_deg: Direction of the light's axis, from y towards x.
        tilt_deg: Its inclination to the plane.
        polarization_deg: Polarization of the light; 90 for the largest effect of the
            standing wave.
        peak_phase_deg: Phase shift by each laser of the electrons that are not scattered.
        dual: A second laser, at a right angle to the first, adds to the phases.
    """

    numerical_aperture: float = eqx.field(static=True, default=0.05)
    wavelength_angstrom: float = eqx.field(static=True, default=10_640.0)
    focal_length_angstrom: float = eqx.field(static=True, default=2e8)
    angle_deg: float = eqx.field(static=True, default=0.0)
    tilt_deg: float = eqx.field(static=True, default=0.0)
    polarization_deg: float = eqx.field(static=True, default=90.0)
    peak_phase_deg: float = eqx.field(static=True, default=90.0)
    dual: bool = eqx.field(static=True, default=False)


def laser_phase_rad(
    ky: Float[Array, "..."],
    kx: Float[Array, "..."],
    plate: LaserPhasePlate,
    voltage_kv: ScalarLike,
    wavelength_angstrom: ScalarLike,
) -> Float[Array, "..."]:
    """Phase η that scattered electrons receive in the light, in radians.

    Args:
        ky: Frequencies along y in 1/Å, broadcast with kx.
        kx: The same along x.
        plate: The phase plate.
        voltage_kv: Acceleration voltage.
        wavelength_angstrom: Of the electrons.
    """
    to_plane = wavelength_angstrom * plate.focal_length_angstrom
    phase = _of_one(ky * to_plane, kx * to_plane, plate, plate.angle_deg, voltage_kv)
    if plate.dual:
        angle = plate.angle_deg + 90.0
        phase += _of_one(ky * to_plane, kx * to_plane, plate, angle, voltage_kv)
    return phase


def _of_one(
    y: Float[Array, "..."],
    x: Float[Array, "..."],
    plate: LaserPhasePlate,
    angle_deg: float,
    voltage_kv: ScalarLike,
) -> Float[Array, "..."]:
    aperture2 = plate.numerical_aperture**2
    waist = plate.wavelength_angstrom / (math.pi * plate.numerical_aperture)
    cosine, sine = math.cos(math.radians(angle_deg)), math.sin(math.radians(angle_deg))
    # Along the light in Rayleigh ranges, across it in waists.
    along = (y * cosine + x * sine) * plate.numerical_aperture / waist
    across = (x * cosine - y * sine) / waist
    spread, across2 = 1 + along**2, across**2
    gamma = 1 + jnp.asarray(voltage_kv) / _REST_KEV
    beta2 = 1 - 1 / gamma**2
    contrast = 1 - 2 * beta2 * math.cos(math.radians(plate.polarization_deg)) ** 2
    blur = 2 * math.radians(plate.tilt_deg) ** 2 / aperture2
    wave = 2 * along * across2 / spread + 4 * along / aperture2 - 1.5 * jnp.arctan(along)
    standing = contrast * jnp.exp(-blur * spread) * spread**-0.25 * jnp.cos(wave)
    travelling = jnp.exp(-2 * across2 / spread) / jnp.sqrt(spread)
    peak = 1 + contrast * math.exp(-blur)
    return math.radians(plate.peak_phase_deg) * travelling * (1 + standing) / peak
