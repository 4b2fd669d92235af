"""Filters, compared with Leopard-EM's frozen numbers and the plain formulas."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrefine.physics.filters import (
    Bandpass,
    Curve,
    Dropout,
    Filters,
    RadialFilter,
    Whitening,
    bandpass_on_grid,
    default_num_freq_bins,
    measure_filter,
    noise_scale,
    randomize_phases,
    whitening_values,
)
from tests.leopard_em_reference import frozen, settings
from tests.oracles import filters as oracle

PEER = frozen("filters")
SETTINGS = settings(PEER)
SHAPES = {name: tuple(shape) for name, shape in SETTINGS["shapes"].items()}
UNUSUAL = {"odd": (31, 45)}


@partial(jax.jit, static_argnums=(1, 2, 3))
def filter_of(transform, shape, filters, grids):
    """The filter measured on an image, on several grids."""
    radial = measure_filter(transform, shape, filters)
    return [radial.on_grid(grid) for grid in grids]


@partial(jax.jit, static_argnums=(1, 2))
def unit_noise(transform, shape, filters):
    """Filtered to unit noise power."""
    filtered = transform * measure_filter(transform, shape, filters).on_grid(shape)
    return filtered * noise_scale(filtered, shape, filters)


def coloured(shape, seed=0):
    rng = np.random.default_rng(seed)
    spectrum = np.fft.rfft2(rng.standard_normal(shape))
    spectrum *= np.exp(-6 * oracle.radial_frequency(shape)) + 0.1
    image = np.fft.irfft2(spectrum, s=shape)
    return (image / image.std() + 3.0).astype(np.float32)


def image_of(name):
    return PEER[f"image_{name}"] if name in SHAPES else coloured(UNUSUAL[name])


def rfft(image):
    transform = np.fft.rfft2(np.asarray(image, np.float64))
    transform[0, 0] = 0.0
    return transform


def single(transform):
    return jnp.asarray(transform, jnp.complex64)


def curve_of(setting):
    return Curve(tuple(setting["frequencies"]), tuple(setting["amplitudes"]))


def bandpass_arguments(setting):
    """As passed on by the configuration: null values are already replaced."""
    return dict(
        low=setting.get("low_freq_cutoff", 0.0),
        high=setting.get("high_freq_cutoff", 1.0),
        falloff=setting.get("falloff", 0.0),
    )


# --- whitening -------------------------------------------------------------------------


jitted_values = jax.jit(whitening_values, static_argnums=(1, 2))


@pytest.mark.parametrize("index", range(len(SETTINGS["whitening"])))
@pytest.mark.parametrize("name", [*SHAPES, *UNUSUAL])
def test_whitening_curves(name, index):
    setting = SETTINGS["whitening"][index]
    image = image_of(name)
    transform, shape = rfft(image), image.shape
    got = np.asarray(jitted_values(single(transform), shape, Whitening(**setting)))
    bins, expected = oracle.whitening_curve(transform, shape, **setting)
    # Values up to 1. A bin that holds few coefficients has small, cancelling float32
    # weights.
    np.testing.assert_allclose(got, expected, rtol=0, atol=2e-5)
    for grid, own in SETTINGS["grids"].items() if name in SHAPES else ():
        k = oracle.radial_frequency(own or shape)
        peer = PEER[f"whitening_{name}_{grid}_{index}"]
        np.testing.assert_allclose(oracle.interpolate(k, bins, got), peer, 0, 2e-5)


@pytest.mark.parametrize(("name", "index"), [("wide", 1), ("odd", 0)])
def test_whitening_on_grids(name, index):
    setting = SETTINGS["whitening"][index]
    image = image_of(name)
    transform, shape = rfft(image), image.shape
    whitening = Whitening(**setting)
    last = jitted_values(single(transform), shape, whitening)[-1]
    grids = tuple(tuple(own or shape) for own in SETTINGS["grids"].values())
    on_grids = filter_of(single(transform), shape, Filters(whitening), grids)
    for grid, grid_shape, got in zip(SETTINGS["grids"], grids, on_grids, strict=True):
        got = np.asarray(got)
        # The corner (1/2, 1/2) is the last frequency itself: 1 in the peer, the curve's
        # last value here, which is the limit from below.
        corner = oracle.radial_frequency(grid_shape) > oracle.CORNER - 1e-9
        expected = oracle.whitening_filter(transform, shape, grid_shape, **setting)
        np.testing.assert_allclose(got[~corner], expected[~corner], rtol=0, atol=2e-5)
        np.testing.assert_allclose(got[corner], last, atol=1e-6)
        if name in SHAPES:
            peer = PEER[f"whitening_{name}_{grid}_{index}"]
            np.testing.assert_allclose(got[~corner], peer[~corner], rtol=0, atol=2e-5)


@pytest.mark.parametrize("shape", [(48, 48), (40, 64), (64, 36), (31, 45), (300, 20)])
def test_default_number_of_bins_is_that_of_the_half_plane(shape):
    """torch-fourier-filter takes the rfft's own shape: a wide image has fewer bins."""
    bins = int((max(shape[0], shape[1] // 2 + 1) // 2 + 1) * np.sqrt(2) + 1)
    assert default_num_freq_bins(shape) == bins
    half_plane = jnp.ones((shape[0], shape[1] // 2 + 1), jnp.complex64)
    values = jax.eval_shape(lambda x: whitening_values(x, shape, Whitening()), half_plane)
    assert values.shape == (bins,)


def test_whitening_flattens_noise():
    shape = (256, 192)
    transform = rfft(coloured(shape, seed=4))
    filters = Filters(whitening=Whitening(max_freq=None))
    (on_grid,) = filter_of(single(transform), shape, filters, (shape,))
    white = np.abs(transform * on_grid)
    k = oracle.radial_frequency(shape)
    rings = [
        np.mean(white[(k >= low) & (k < low + 0.05)] ** 2)
        for low in np.arange(0.05, 0.65, 0.05)
    ]
    # The power that is divided by is the noise's own, in rings of at least 900
    # coefficients against bins a tenth as wide.
    np.testing.assert_allclose(rings, np.mean(rings), rtol=0.02)
    raw = [
        np.mean(np.abs(transform[(k >= low) & (k < low + 0.05)]) ** 2)
        for low in (0.05, 0.6)
    ]
    assert raw[0] > 20 * raw[1]


def test_empty_and_powerless_bins_stay_zero():
    shape = (16, 16)
    k = oracle.radial_frequency(shape)
    transform = np.where(k < 0.3, 0.0, 1.0 + 0.0j)
    values = np.asarray(
        jitted_values(single(transform), shape, Whitening(num_freq_bins=400))
    )
    assert np.all(np.isfinite(values))
    bins = np.linspace(0, oracle.CORNER, 400)
    assert np.all(values[bins < 0.29] == 0)
    assert values[bins <= 0.5].max() == pytest.approx(1.0)
    assert np.mean(values == 0) > 0.4  # most of 400 bins meet no coefficient


def test_an_image_without_noise_cannot_be_whitened():
    """Its filter is not finite, so that the particle is reported, not silently scored."""
    values = jitted_values(jnp.zeros((16, 9), jnp.complex64), (16, 16), Whitening())
    assert not np.any(np.isfinite(values[np.linspace(0, 0.7, len(values)) < 0.5]))


# --- bandpass, curve, all together -----------------------------------------------------


@pytest.mark.parametrize("name", [*SHAPES, *UNUSUAL])
def test_bandpass(name):
    shape = (SHAPES | UNUSUAL)[name]
    every = [bandpass_arguments(setting) for setting in SETTINGS["bandpass"]]
    at_once = jax.jit(lambda: [bandpass_on_grid(Bandpass(**one), shape) for one in every])
    for index, (arguments, got) in enumerate(zip(every, at_once(), strict=True)):
        expected = oracle.bandpass_filter(shape, **arguments)
        # float32: an error of 3e-8 in k over a ramp of 0.04
        np.testing.assert_allclose(got, expected, rtol=0, atol=5e-6)
        if name in SHAPES:
            np.testing.assert_allclose(got, PEER[f"bandpass_{name}_{index}"], 0, 5e-6)


def test_the_open_end_of_the_bandpass():
    """(low, high]: at low = 0 without falloff the DC is out; with falloff it is in."""
    assert bandpass_on_grid(Bandpass(), (8, 8))[0, 0] == 0
    assert bandpass_on_grid(Bandpass(falloff=0.1), (8, 8))[0, 0] == 1
    on_grid_points = bandpass_on_grid(Bandpass(low=0.125, high=0.25), (8, 8))
    np.testing.assert_array_equal(on_grid_points[0], [0, 0, 1, 0, 0])


@pytest.mark.parametrize("name", [*SHAPES, *UNUSUAL])
def test_curve(name):
    shape = (SHAPES | UNUSUAL)[name]
    every = [Filters(None, curve=curve_of(setting)) for setting in SETTINGS["curve"]]
    at_once = jax.jit(lambda: [RadialFilter(None, one).on_grid(shape) for one in every])()
    for index, setting in enumerate(SETTINGS["curve"]):
        got = np.asarray(at_once[index])
        # Where |k| is the curve's last frequency the peer has 1 and we the amplitude.
        inner = np.abs(oracle.radial_frequency(shape) - setting["frequencies"][-1]) > 1e-9
        expected = oracle.curve_filter(shape, **setting)
        np.testing.assert_allclose(got[inner], expected[inner], rtol=0, atol=2e-6)
        last = setting["amplitudes"][-1]
        np.testing.assert_allclose(got[~inner], last, rtol=0, atol=2e-6)
        if name in SHAPES:
            peer = PEER[f"curve_{name}_{index}"]
            np.testing.assert_allclose(got[inner], peer[inner], rtol=0, atol=2e-6)


def test_no_filter_is_one_everywhere():
    radial = measure_filter(
        jnp.ones((6, 4), jnp.complex64), (6, 6), Filters(whitening=None)
    )
    np.testing.assert_array_equal(radial.on_grid((8, 10)), np.ones((8, 6)))


@pytest.mark.parametrize("name", ["wide"])
def test_all_filters_together_and_the_image_s_scale(name):
    image = image_of(name)
    transform, shape = rfft(image), image.shape
    bandpass = bandpass_arguments(SETTINGS["bandpass"][0])
    filters = Filters(
        whitening=Whitening(),
        bandpass=Bandpass(**bandpass),
        curve=curve_of(SETTINGS["curve"][1]),
    )
    grids = (shape, tuple(SETTINGS["grids"]["template"]))
    on_grids = filter_of(single(transform), shape, filters, grids)
    for grid, got in zip(("own", "template"), on_grids, strict=True):
        np.testing.assert_allclose(got, PEER[f"combined_{name}_{grid}"], rtol=0, atol=2e-5)

    scaled = unit_noise(single(transform), shape, filters)
    box = tuple(SETTINGS["box_shape"])
    for area, key in (
        (box[0] * box[1], "box"),
        ((box[0] + 1) * (box[1] + 1), "box_plus_one"),
    ):
        # The peer's unit: box pixels of variance 1/area. Values up to 7; its float32 FFT
        # of an image with mean 3 loses 1e-6 of that.
        peer = PEER[f"normalised_{name}_{key}"]
        np.testing.assert_allclose(scaled / np.sqrt(area), peer, rtol=0, atol=1e-4)

    ours = unit_noise(single(transform), shape, Filters()) / np.sqrt(box[0] * box[1])
    np.testing.assert_allclose(
        ours, PEER[f"normalised_{name}_no_bandpass"], rtol=0, atol=1e-4
    )


# --- the scale -------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(48, 40), (31, 45)])
def test_unit_noise_without_a_bandpass(shape):
    transform = single(rfft(coloured(shape)))
    filters = Filters(whitening=None)
    image = np.fft.irfft2(unit_noise(transform, shape, filters), s=shape)
    assert np.var(image) == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize("falloff", [0.0, 0.05])
@pytest.mark.parametrize("shape", [(48, 40), (31, 45)])
def test_unit_noise_with_a_bandpass(shape, falloff):
    """The pixel variance is then D/N: the fraction of coefficients in the band."""
    transform = single(rfft(coloured(shape)))
    filters = Filters(None, Bandpass(low=0.06, high=0.33, falloff=falloff))
    scaled = unit_noise(transform, shape, filters)
    image = np.fft.irfft2(scaled, s=shape)
    band = oracle.bandpass_filter(shape, low=0.06, high=0.33, falloff=falloff)
    weights = oracle.half_plane_weights(shape[1])
    share = np.sum(weights * band) / (shape[0] * shape[1])
    assert 0.1 < share < 0.5
    assert np.var(image) == pytest.approx(share, rel=1e-5)
    if falloff == 0:
        # power 1 per coefficient in the band, in units in which white noise has N
        power = weights * np.abs(np.asarray(scaled)) ** 2
        mean = np.sum(power) / np.sum(weights * band)
        assert mean == pytest.approx(shape[0] * shape[1], rel=1e-5)


# --- random dropout ----------------------------------------------------------------------


def test_dropout_leaves_out_what_leopard_em_leaves_out():
    peer = frozen("dropout")
    for i, (fraction, seed, half_plane) in enumerate(settings(peer)):
        side = half_plane[0]
        dropout = Dropout(fraction, seed)
        np.testing.assert_array_equal(
            dropout.on_grid((side, side), side), peer[f"kept_{i}"]
        )
        # On a finer grid, frequencies 3 j and their neighbours are as j on this one.
        finer = dropout.on_grid((3 * side, 3 * side), side)
        for near in (-1, 0, 1):
            rows = np.roll(finer, -near, axis=0)[::3, : 3 * side // 2 - 1 : 3]
            np.testing.assert_array_equal(rows, peer[f"kept_{i}"][:, : side // 2])


# --- phase randomisation ---------------------------------------------------------------


jitted_phases = jax.jit(randomize_phases, static_argnums=(1, 2))


@pytest.mark.parametrize("shape", [(32, 32), (24, 40), (31, 45), (30, 27)])
@pytest.mark.parametrize("cuton", [0.0, 0.25, 0.9])
def test_random_phases(shape, cuton):
    image = coloured(shape, seed=3)
    transform = single(rfft(image))
    got = np.asarray(jitted_phases(transform, shape, cuton))
    before = np.asarray(transform)
    scale = np.abs(before).max()
    np.testing.assert_allclose(np.abs(got), np.abs(before), rtol=0, atol=1e-6 * scale)

    touched = oracle.radial_frequency(shape).astype(np.float32) >= np.float32(cuton)
    np.testing.assert_array_equal(got[~touched], before[~touched])
    free = touched & (np.abs(before) > 0)
    changed = np.abs(got - before) > 1e-3 * np.abs(before)
    assert free.any() == (cuton < 0.9)
    # Of up to 600, one by chance; self-conjugate ones are real, half keep their sign.
    assert np.sum(~changed[free]) <= 5

    # The half plane of a real image: nothing is lost on the way there and back.
    again = np.fft.rfft2(np.fft.irfft2(got.astype(np.complex128), s=shape))
    np.testing.assert_allclose(again, got, rtol=0, atol=2e-6 * scale)


def test_random_phases_are_uniform_and_repeat():
    shape = (128, 128)
    transform = single(rfft(coloured(shape, seed=3)))
    got = np.asarray(jitted_phases(transform, shape, 0.2))
    np.testing.assert_array_equal(got, jitted_phases(transform, shape, 0.2))
    inner = (oracle.radial_frequency(shape) >= 0.2) & (np.arange(65) % 64 > 0)
    turned = got[inner] / np.asarray(transform)[inner]
    # The mean of 6000 unit vectors of random direction is 0.013 long.
    assert abs(np.mean(turned)) < 0.05 and abs(np.mean(turned**2)) < 0.05
