"""Oddities of a micrograph as read from disk."""

import logging
from pathlib import Path

import numpy as np
import pytest

from jaxrefine.app.run.images import clean_image, read_images
from jaxrefine.io.mrc import write_image
from jaxrefine.simulate.artefacts import with_spots

NOISE = np.random.default_rng(0)


@pytest.fixture
def messages(caplog, monkeypatch):
    """Logged messages: levels and texts."""
    monkeypatch.setattr(logging.getLogger("jaxrefine"), "propagate", True)
    caplog.set_level(logging.INFO, "jaxrefine")
    return lambda: [(record.levelname, record.getMessage()) for record in caplog.records]


@pytest.fixture
def said(tmp_path, caplog, monkeypatch):
    """Warnings on reading an image."""
    monkeypatch.setattr(logging.getLogger("jaxrefine"), "propagate", True)

    def read(image):
        paths = [tmp_path / name for name in ("image.mrc", "mean.mrc", "std.mrc")]
        for path, values in zip(paths, (image, image * 0, image * 0 + 1), strict=True):
            write_image(path, values)
        caplog.clear()
        read_images(*paths, maps_hold_variance=False)
        return [record.getMessage().partition(": ")[2] for record in caplog.records]

    return read


@pytest.mark.parametrize(
    "image",
    [
        NOISE.normal(5.0, 2.0, (400, 300)),
        NOISE.poisson(30.0, (400, 300)),
        NOISE.poisson(0.1, (400, 300)),  # most are 0
        np.arange(12.0).reshape(3, 4),
    ],
    ids=["noise", "counts", "sparse counts", "few pixels"],
)
def test_far_pixels_are_counted_and_the_farthest_is_named(said, image):
    assert said(image) == []
    for value in (1e4, -1e4):
        spoilt = np.asarray(image, np.float64).copy()
        spoilt[1, 2] = value
        (warning,) = said(spoilt)
        assert warning.startswith("1 pixels are more than 20 standard deviations")
        assert f"at y 1, x 2, is {value:.3g}" in warning


def test_many_far_pixels_do_not_hide_each_other(said):
    spoilt = NOISE.normal(size=(400, 300))
    spoilt[:40] = 1e6
    (warning,) = said(spoilt)
    assert warning.startswith("12000 pixels are more than 20")


def test_what_is_no_image_is_counted_by_kind_with_its_share(messages):
    image = NOISE.normal(5.0, 2.0, (400, 300)).astype(np.float32)
    clean_image(image, Path("a.mrc"))
    assert messages() == []
    image[:4], image[100, 100], image[200, 200:203] = 0, np.nan, 1e5
    clean = clean_image(image, Path("a.mrc"))
    ((level, text),) = messages()
    assert level == "WARNING"
    assert text.startswith("a.mrc: 1 % of its pixels are defective (1 NaN or infinite, ")
    assert "1200 in rows, columns or blocks of one value, 3 isolated outliers" in text
    assert clean.filled.sum() == 1204
    assert np.abs(clean.image).max() < 12


def test_strong_objects_are_said_but_stay(messages):
    image = NOISE.normal(5.0, 2.0, (400, 300)).astype(np.float32)
    spoilt = with_spots(image, np.array([[100.0, 100.0]]), 20.0, -10.0)
    clean = clean_image(spoilt, Path("a.mrc"))
    ((level, text),) = messages()
    assert level == "INFO"
    assert "strong objects" in text
    assert not clean.filled.any()
    assert clean.image[100, 100] < -10 < clean.noise[100, 100]


def test_an_image_of_one_value_is_said(messages):
    for value, text in ((3.0, "is constant"), (np.nan, "every pixel is NaN or infinite")):
        clean_image(np.full((50, 60), value, np.float32), Path("a.mrc"))
        assert messages()[-1] == ("WARNING", f"a.mrc: {text}: nothing can be refined")
