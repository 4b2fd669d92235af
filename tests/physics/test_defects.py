"""Defective pixels are found, no others, and filling them leaves no step."""

import numpy as np
import pytest

from jaxrefine.physics.defects import fill_defects, find_defects
from jaxrefine.simulate.artefacts import (
    with_band,
    with_block,
    with_slope,
    with_smeared_band,
    with_spots,
)

SHAPE = (200, 232)
NOISE = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
SMOOTH = np.fft.irfft2(
    np.fft.rfft2(NOISE) * np.exp(-(np.hypot(*np.ogrid[-0.0:1:200j, 0:1:117j]) ** 2) * 40),
    s=SHAPE,
)


def counts(mean, shape=SHAPE):
    return np.random.default_rng(1).poisson(mean, shape).astype(np.float32)


SOUND = {
    "noise": 40 + NOISE,
    "a slope": with_slope(NOISE, 40.0),
    "counts of 30": counts(30.0),
    "counts of 1": counts(1.0),
    "counts of 0.5": counts(0.5),
    "counts of 0.1": counts(0.1),
    "counts of 0.01": counts(0.01, (1000, 1000)),
    "counts that fade": counts(0.6 * np.exp(-((np.arange(232) - 116.0) ** 2) / 5000)),
    "whole numbers, 3 to a deviation": np.rint(3 * NOISE),
    "whole numbers, as many as deviations": np.rint(NOISE),
    "smooth whole numbers": np.rint(20 * SMOOTH / SMOOTH.std()).astype(np.float32),
    "contamination": with_spots(NOISE, np.array([[60.0, 80.0]]), 20.0, 100.0),
    "few pixels": np.arange(12.0, dtype=np.float32).reshape(3, 4),
}


@pytest.mark.parametrize("name", SOUND)
def test_an_image_has_no_defects(name):
    assert not find_defects(SOUND[name]).mask.any()
    image = SOUND[name]
    assert fill_defects(image, np.zeros(image.shape, bool)) is image


@pytest.mark.parametrize("value", [0.0, 40.0, 44.0, 1e4])
@pytest.mark.parametrize("edge", ["top", "bottom", "left", "right"])
@pytest.mark.parametrize("image", [40 + NOISE, counts(0.5), counts(30.0)], ids=str)
def test_bands_are_found_to_the_pixel(image, edge, value):
    for width in (2, 4, 64):
        spoilt = with_band(image, edge, width, value)
        truth = with_band(np.zeros(SHAPE), edge, width, 1.0) == 1
        found = find_defects(spoilt)
        assert not (truth & ~found.mask).any()
        # Counts beside a wide band that happen to be of its value go on with its runs.
        beside = 0 if image.mean() > 35 else 0.5 * truth.sum() / width
        assert (found.mask & ~truth).sum() <= beside


@pytest.mark.parametrize("mean", [6.0, 40.0])
@pytest.mark.parametrize("edge", ["top", "bottom", "left", "right"])
def test_bands_that_fourier_cropping_smeared(edge, mean):
    for width in (2, 4, 8, 16, 64):
        spoilt = with_smeared_band(mean + NOISE, edge, width, 0.0)
        truth = with_band(np.zeros(SHAPE), edge, width, 1.0) == 1
        found = find_defects(spoilt).mask
        assert (found & truth).sum() >= 0.7 * truth.sum()
        # The step rings, the more so the higher it is, and into the opposite edge, too.
        assert (found & ~truth).sum() <= 32 * truth.sum() / width
    assert not find_defects(with_smeared_band(mean + NOISE, "top", 0, 0.0)).mask.any()


def test_bands_on_all_sides_leave_the_middle():
    spoilt = 40 + NOISE
    for edge in ("top", "bottom", "left", "right"):
        spoilt = with_band(spoilt, edge, 50, 0.0)
    np.testing.assert_array_equal(find_defects(spoilt).mask, spoilt == 0)


def test_each_kind_is_told_from_the_others():
    spoilt = with_block(40 + NOISE, (100, 30), 9, 41.0)
    spoilt[20, 20:22] = np.nan
    spoilt[50, 60] = -np.inf
    spoilt[70, 90] = 100.0  # hot
    spoilt[150:153, 200] = 0.0  # dead, three together
    not_finite, constant, far = find_defects(spoilt)
    assert not_finite.sum() == 3
    assert constant[100:109, 30:39].all()
    assert constant.sum() == 81
    assert far[70, 90]
    assert far[150:153, 200].all()
    assert far.sum() == 4


def test_single_pixels_are_far_from_their_surroundings_not_from_the_mean():
    """On a slope of 40 σ, no global limit finds a pixel 150 σ above it."""
    spoilt = with_slope(NOISE, 40.0)
    assert 150 < 20 * spoilt.std()
    spoilt[100, 10] += 150
    assert np.argwhere(find_defects(spoilt).far).tolist() == [[100, 10]]


def test_an_oblique_block_is_found_with_its_tips():
    y, x = np.indices(SHAPE)
    corner = y + 0.3 * x < 60  # as a turned image leaves it
    spoilt = np.where(corner, np.float32(7.0), 40 + NOISE)
    np.testing.assert_array_equal(find_defects(spoilt).mask, corner)


def test_an_image_without_a_sound_pixel():
    for image in (np.full(SHAPE, 3.0), np.full(SHAPE, np.nan)):
        defects = find_defects(image.astype(np.float32))
        assert defects.mask.all()
        assert fill_defects(image, defects.mask) is image


def test_filling_does_not_look_at_what_it_fills():
    mask = np.zeros(SHAPE, bool)
    mask[30:60, 100:180] = mask[:, -5:] = True
    filled = fill_defects(NOISE, mask)
    np.testing.assert_array_equal(filled[~mask], NOISE[~mask])
    for value in (np.nan, 1e30):
        np.testing.assert_array_equal(
            fill_defects(np.where(mask, np.float32(value), NOISE), mask), filled
        )


def test_filling_continues_what_is_around():
    """A slope across a hole of 40 px, and a constant level beside a band."""
    y, x = np.indices(SHAPE).astype(np.float32)
    slope = 3 * y - 2 * x
    mask = np.zeros(SHAPE, bool)
    mask[80:120, 90:130] = True
    # The hole's rim rises by 40 · (3 + 2); a flat fill is off by 100 at its corners.
    assert np.abs(fill_defects(slope, mask) - slope)[mask].max() < 25
    band = with_band(40 + NOISE, "left", 64, 0.0)
    filled = fill_defects(band, band == 0)[:, :64]
    # The mean of some pixels beside it: much less noise, no other level.
    assert filled.std() < 0.6
    assert abs(filled.mean() - 40) < 0.2
    np.testing.assert_allclose(fill_defects(0 * band + 7, band == 0), 7, rtol=1e-6)
