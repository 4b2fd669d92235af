"""The CTF against torch-ctf's frozen numbers and the plain formula."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from jaxrefine.data import Optics
from jaxrefine.physics import ctf
from tests.leopard_em_reference import frozen, settings
from tests.oracles import ctf as oracle

PEER = frozen("ctf")
SETTINGS = settings(PEER)


def optics_of(kv=300.0, cs=2.7, ac=0.07, phase=0.0, b=0.0):
    return Optics(*(jnp.float32(value) for value in (kv, cs, ac, phase, b)))


transfer = jax.jit(ctf.contrast_transfer, static_argnums=0)


def ours(setting, **changes):
    s = setting | changes
    return np.asarray(
        transfer(
            tuple(s["shape"]),
            s["pixel_size"],
            jnp.asarray([s["u"], s["v"]]),
            s["angle"],
            optics_of(s["kv"], s["cs"], s["ac"], s["phase"], s["b"]),
        )
    )


def plain(setting, signed=True, **changes):
    s = setting | changes
    return oracle.ctf_2d(
        tuple(s["shape"]),
        s["pixel_size"],
        s["u"],
        s["v"],
        s["angle"],
        s["kv"],
        s["cs"],
        s["ac"],
        s["phase"],
        s["b"],
        signed_astigmatism=signed,
    )


def as_the_peer(setting):
    """The peer takes |u - v|; with signed (u - v) that is u and v in descending order."""
    return setting | dict(
        u=max(setting["u"], setting["v"]), v=min(setting["u"], setting["v"])
    )


@pytest.mark.parametrize("index", range(len(SETTINGS)))
def test_against_the_peer_and_the_oracle(index):
    setting = SETTINGS[index]
    peer = PEER[f"ctf_{index}"].astype(np.float64) * PEER[f"envelope_{index}"]
    # Phases reach 200 rad, where a float32 rounding is 1.5e-5, on either side; ten of
    # them add up. B = -20 at the corner multiplies by 3.
    np.testing.assert_allclose(ours(as_the_peer(setting)), peer, rtol=0, atol=2e-4)
    np.testing.assert_allclose(ours(setting), plain(setting), rtol=0, atol=1.5e-4)


def test_the_astigmatism_has_a_sign():
    """u < v differs from u > v, unlike in Leopard-EM: the angle is the direction of u."""
    setting = SETTINGS[2]
    assert setting["u"] < setting["v"]
    assert np.abs(ours(setting) - PEER["ctf_2"]).max() > 0.1
    swapped = setting | dict(u=setting["v"], v=setting["u"])
    np.testing.assert_allclose(ours(swapped), PEER["ctf_2"], rtol=0, atol=1e-4)


@given(
    st.floats(-3000.0, 20000.0),
    st.floats(-3000.0, 20000.0),
    st.floats(-180.0, 180.0),
    st.sampled_from([(32, 32), (31, 33)]),
)
@hypothesis_settings(max_examples=40, deadline=None, derandomize=True)
def test_swapping_u_and_v_with_a_quarter_turn_changes_nothing(u, v, angle, shape):
    setting = SETTINGS[0] | dict(shape=shape, u=u, v=v, angle=angle)
    turned = setting | dict(u=v, v=u, angle=angle + 90.0)
    # Phases of up to 140 rad in float32, and an angle rounded to 1.5e-5 degrees times a
    # difference of up to 23000 Å: 2e-4 in all.
    np.testing.assert_allclose(ours(setting), ours(turned), rtol=0, atol=3e-4)
    np.testing.assert_allclose(ours(setting), plain(setting), rtol=0, atol=3e-4)
    half_turn = setting | dict(angle=angle + 180.0)
    np.testing.assert_allclose(ours(setting), ours(half_turn), rtol=0, atol=3e-4)


def test_without_astigmatism_the_angle_is_nothing():
    setting = SETTINGS[3] | dict(u=9000.0, v=9000.0)
    np.testing.assert_array_equal(ours(setting, angle=13.0), ours(setting, angle=77.0))


def test_angle_zero_puts_u_along_x():
    setting = SETTINGS[0] | dict(angle=0.0)
    along_x = ours(setting)[0]
    np.testing.assert_allclose(along_x, ours(setting, v=setting["u"])[0], atol=1e-5)
    along_y = ours(setting)[:, 0]
    np.testing.assert_allclose(along_y, ours(setting, u=setting["v"])[:, 0], atol=1e-5)


def test_sign_and_envelope():
    setting = SETTINGS[3]
    assert ours(setting)[0, 0] == pytest.approx(0.07, abs=1e-6)  # amplitude contrast
    assert np.all(ours(setting)[0, :4] > 0)  # underfocus: positive up to the first zero
    damped = ours(setting, b=50.0) / np.where(ours(setting) == 0, 1, ours(setting))
    k2 = (np.fft.fftfreq(32)[:, None] ** 2 + np.fft.rfftfreq(32) ** 2) / 1.0**2
    np.testing.assert_allclose(damped, np.exp(-50.0 * k2 / 4), rtol=1e-5)


@pytest.mark.parametrize("kv", [60.0, 100.0, 120.0, 200.0, 300.0])
def test_wavelength(kv):
    assert ctf.electron_wavelength_angstrom(kv) == pytest.approx(
        oracle.electron_wavelength(kv), rel=1e-8
    )
    # as an array, in float32
    single = ctf.electron_wavelength_angstrom(jnp.float32(kv))
    assert single == pytest.approx(oracle.electron_wavelength(kv), rel=1e-6)


def test_gradients_of_every_parameter():
    """Central differences of the float64 oracle at one coefficient after another."""
    setting = SETTINGS[8] | dict(b=40.0, ac=0.1)
    weights = np.random.default_rng(0).standard_normal((32, 17))

    def loss(p):
        optics = optics_of()
        optics = Optics(p["kv"], p["cs"], p["ac"], p["phase"], p["b"])
        defocus = jnp.stack([p["u"], p["v"]])
        value = ctf.contrast_transfer(
            (32, 32), p["pixel_size"], defocus, p["angle"], optics
        )
        return jnp.sum(weights.astype(np.float32) * value)

    names = ["kv", "cs", "ac", "phase", "b", "u", "v", "pixel_size", "angle"]
    gradient = jax.jit(jax.grad(loss))({name: jnp.float32(setting[name]) for name in names})
    for name in names:
        step = 1e-5 * max(1.0, abs(setting[name]))
        rise = plain(setting, **{name: setting[name] + step})
        rise = rise - plain(setting, **{name: setting[name] - step})
        expected = np.sum(weights * rise) / (2 * step)
        # The sum over 544 float32 terms cancels to a tenth of their size.
        assert gradient[name] == pytest.approx(expected, rel=2e-3), name


def test_gradients_without_amplitude_contrast_and_defocus():
    def loss(u, ac):
        optics = optics_of()
        optics = Optics(
            optics.voltage_kv, optics.spherical_aberration_mm, ac, *[0.0 * u] * 2
        )
        return jnp.sum(
            ctf.contrast_transfer((8, 8), 1.5, jnp.stack([u, u]), jnp.float32(0), optics)
        )

    slopes = jax.jit(jax.grad(loss, argnums=(0, 1)))(jnp.float32(0), jnp.float32(0))
    assert all(np.isfinite(slope) for slope in slopes)


@pytest.mark.parametrize("defocus", [-9000.0, 0.0, 8000.0, 20000.0])
@pytest.mark.parametrize("resolution", [3.0, 4.0, 8.0])
def test_the_spread_bounds_the_ctf_s_phase_gradient(defocus, resolution):
    """Signal of frequency k moves by |dχ/dk|/2π; nothing coarser moves further."""
    spread = ctf.ctf_spread_px(defocus, 300.0, 2.7, 1.5, resolution)
    k = np.linspace(0, 1 / resolution, 200)
    wavelength = oracle.electron_wavelength(300.0)
    slope = -wavelength * defocus * k + 2.7e7 * wavelength**3 * k**3
    moved = np.abs(slope) / 1.5
    assert np.all(moved <= spread * (1 + 1e-6))
    # It overestimates by no more than the Cs term counted with the wrong sign.
    assert spread <= moved[-1] + 2 * 2.7e7 * wavelength**3 / resolution**3 / 1.5 + 1e-4


def test_the_spread_of_an_image_of_a_point():
    """The image of a band-limited point is within the bound, except for wave tails."""
    side, resolution = 256, 4.0
    transfer_function = oracle.ctf_2d(
        (side, side), 1.5, 9000.0, 9000.0, 0.0, 300.0, 2.7, 0.07
    )
    k = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)) / 1.5
    band = np.exp(-((k * resolution) ** 12))
    image = np.fft.fftshift(np.fft.irfft2(transfer_function * band, s=(side, side)))
    radius = np.hypot(*(np.indices((side, side)) - side // 2))
    spread = ctf.ctf_spread_px(9000.0, 300.0, 2.7, 1.5, resolution)

    def energy_outside(fraction):
        return np.sum(image[radius > fraction * spread] ** 2) / np.sum(image**2)

    assert energy_outside(1.1) < 0.002
    assert energy_outside(0.7) > 0.1  # so the bound is not idle
