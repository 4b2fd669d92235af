"""Zernike terms, beam tilt and magnification, against torch-ctf's frozen numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrefine.data import Optics
from jaxrefine.io.table.aberrations import ZERNIKES
from jaxrefine.physics import ctf
from tests.leopard_em_reference import frozen, settings

PEER = frozen("aberrations")
SETTINGS = settings(PEER)
PLAIN = {k: v for k, v in SETTINGS[0].items() if k != "beam_tilt_mrad"}


def optics_of(setting, **changes):
    s = setting | changes
    more = {}
    for name, terms in ZERNIKES.items():
        if name in s:
            more[name] = jnp.asarray([s[name].get(term, 0.0) for term in terms])
    if "beam_tilt_mrad" in s:
        tilt = np.array(s["beam_tilt_mrad"])
        if "Z31c" in s.get("odd_zernikes", {}):
            tilt[0] = 0.0
        more["beam_tilt_mrad"] = jnp.asarray(tilt)
    if "mag_matrix" in s:
        more["mag_matrix"] = jnp.asarray(s["mag_matrix"]).reshape(2, 2)
    names = ("kv", "cs", "ac", "phase", "b")
    return Optics(*(jnp.float32(s[name]) for name in names), **more)


def transfer(setting, **changes):
    """The complex CTF."""
    s = setting | changes
    shape, optics = tuple(s["shape"]), optics_of(s)
    defocus = jnp.asarray([s["u"], s["v"]])
    real = ctf.contrast_transfer(shape, s["pixel_size"], defocus, s["angle"], optics)
    factor = ctf.antisymmetric_phase_factor(shape, s["pixel_size"], optics)
    return real if factor is None else real * factor


@pytest.mark.parametrize("index", range(len(SETTINGS)))
def test_against_the_peer(index):
    # Phases of up to 100 rad in float32, on either side.
    ours, peer = np.asarray(transfer(SETTINGS[index])), PEER[f"ctf_{index}"]
    np.testing.assert_allclose(ours, peer, rtol=0, atol=2e-4)
    assert np.iscomplexobj(ours) == np.iscomplexobj(peer)
    # What is compared is no small thing.
    assert np.abs(ours - np.asarray(transfer(PLAIN))).max() > 0.3


def test_optics_without_aberrations_cost_nothing():
    def operations(optics):
        jaxpr = jax.make_jaxpr(
            lambda d: ctf.contrast_transfer((8, 8), 1.5, d, 0.0, optics)
        )(jnp.ones(2))
        return len(jaxpr.eqns)

    plain = optics_of(PLAIN)
    assert ctf.antisymmetric_phase_factor((8, 8), 1.5, plain) is None
    distorted = optics_of(PLAIN, mag_matrix=[1.0, 0.0, 0.0, 1.0])
    assert operations(plain) < operations(distorted)


@pytest.mark.slow
def test_every_term_has_a_gradient():
    """Central differences, term by term."""
    setting = SETTINGS[5] | dict(beam_tilt_mrad=[0.2, 0.1], cs=2.7)
    weights = np.random.default_rng(0).standard_normal((2, 24, 21)).astype(np.float32)

    def loss(fields):
        optics = Optics(
            *(jnp.float32(setting[n]) for n in ("kv", "cs", "ac", "phase", "b"))
        )
        optics = Optics(**{**vars(optics), **fields})
        real = ctf.contrast_transfer(
            (24, 40), 1.06, jnp.asarray([8000.0, 7000.0]), 0.0, optics
        )
        value = real * ctf.antisymmetric_phase_factor((24, 40), 1.06, optics)
        return jnp.sum(weights[0] * value.real + weights[1] * value.imag)

    of_setting = vars(optics_of(setting))
    names = ("beam_tilt_mrad", "even_zernikes", "odd_zernikes", "mag_matrix")
    fields = {name: of_setting[name] for name in names}
    slopes = jax.grad(loss)(fields)
    steps = {"beam_tilt_mrad": 1e-2, "mag_matrix": 3e-5}
    for name in names:
        step = steps.get(name, 0.3)
        for place in np.ndindex(fields[name].shape):
            moved = [
                fields | {name: fields[name].at[place].add(sign * step)} for sign in (1, -1)
            ]
            rise = (loss(moved[0]) - loss(moved[1])) / (2 * step)
            scale = float(np.abs(np.asarray(slopes[name])).max())
            # Float32 sums of a thousand terms, differenced.
            assert float(slopes[name][place]) == pytest.approx(
                float(rise), abs=2e-2 * scale
            ), name
