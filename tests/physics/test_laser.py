"""The laser phase plate, compared with torch-ctf, and in the CTF."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrefine.physics.ctf import contrast_transfer, electron_wavelength_angstrom
from jaxrefine.physics.fourier import frequency_grid
from jaxrefine.physics.laser import LaserPhasePlate, laser_phase_rad
from tests.leopard_em_reference import frozen, settings
from tests.worlds import Imaging, single

PEER = frozen("laser")
PIXEL_SIZE, SHAPE = 2.0, (24, 28)


def phase_of(plate, voltage_kv):
    ky, kx = frequency_grid(SHAPE)
    wavelength = electron_wavelength_angstrom(voltage_kv)
    at = ky / PIXEL_SIZE, kx / PIXEL_SIZE
    return np.asarray(laser_phase_rad(*at, plate, voltage_kv, wavelength))


@pytest.mark.parametrize("number", range(3))
def test_phases_are_torch_ctf_s(number):
    given = settings(PEER)[number]
    plate = LaserPhasePlate(
        given["NA"],
        given["laser_wavelength_angstrom"],
        given["focal_length_angstrom"],
        given["laser_xy_angle_deg"],
        given["laser_xz_angle_deg"],
        given["laser_polarization_angle_deg"],
        given["peak_phase_deg"],
    )
    expected = PEER[f"phase_{number}"]
    assert np.ptp(expected) > 0.9 * np.deg2rad(given["peak_phase_deg"])
    got = phase_of(plate, given["voltage"])
    # Phases of the standing wave reach 500 rad, in float32.
    np.testing.assert_allclose(got, expected, rtol=0, atol=3e-4)


def test_a_second_laser_adds_its_phases():
    one = LaserPhasePlate(focal_length_angstrom=2e7)
    other = LaserPhasePlate(focal_length_angstrom=2e7, angle_deg=90.0)
    both = LaserPhasePlate(focal_length_angstrom=2e7, dual=True)
    sum_of_both = phase_of(one, 300.0) + phase_of(other, 300.0)
    np.testing.assert_allclose(phase_of(both, 300.0), sum_of_both, atol=1e-6)


def test_the_phase_shift_is_full_where_there_is_no_light():
    """As that of an ideal phase plate there, and none at the focus."""
    plate = LaserPhasePlate(focal_length_angstrom=2e8, peak_phase_deg=70.0)
    optics, u_v = Imaging(b=0.0).optics(), single([6000.0, 5000.0])

    def ctf(optics, laser):
        make = jax.jit(contrast_transfer, static_argnums=(0, 5))
        return np.asarray(make(SHAPE, PIXEL_SIZE, u_v, 20.0, optics, laser))

    with_laser = ctf(optics, plate)
    ideal = ctf(Imaging(b=0.0, phase=70.0).optics(), None)
    dark = np.abs(phase_of(plate, 300.0)) < 1e-6
    assert 0.5 < dark.mean() < 1 and not dark[0, 0]
    np.testing.assert_allclose(with_laser[dark], ideal[dark], rtol=0, atol=1e-5)
    assert with_laser[0, 0] == pytest.approx(ctf(optics, None)[0, 0], abs=1e-6)
    assert jnp.abs(with_laser[0, 0] - ideal[0, 0]) > 0.5
