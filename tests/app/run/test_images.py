"""What is odd in a micrograph as it comes from the disk."""

import logging

import numpy as np
import pytest

from jaxrefine.app.run.images import read_images
from jaxrefine.io.mrc import write_image

NOISE = np.random.default_rng(0)


@pytest.fixture
def said(tmp_path, caplog, monkeypatch):
    """What is warned of when an image is read."""
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
