"""A template's envelope, against a plain sum."""

import numpy as np

from jaxrefine.physics.envelope import apply_envelope


def test_each_coefficient_has_its_factor():
    rng = np.random.default_rng(0)
    volume = rng.standard_normal((8, 8, 8)).astype(np.float32)
    frequency, factor = np.array([0.05, 0.2, 0.3]), np.array([1.0, 0.5, 0.1])
    blurred = apply_envelope(volume, 1.5, frequency, factor)
    assert blurred.dtype == np.float32 and blurred.shape == volume.shape
    k = np.fft.fftfreq(8) / 1.5
    length = np.sqrt(k[:, None, None] ** 2 + k[:, None] ** 2 + k**2)
    ratio = np.fft.fftn(blurred.astype(float)) / np.fft.fftn(volume.astype(float))
    # Beyond the first and the last point the curve goes on level.
    np.testing.assert_allclose(ratio, np.interp(length, frequency, factor), atol=1e-4)


def test_a_level_curve_changes_nothing_but_the_scale():
    volume = np.random.default_rng(1).standard_normal((6, 6, 6)).astype(np.float32)
    flat = apply_envelope(volume, 2.0, np.array([0.0, 0.2]), np.array([3.0, 3.0]))
    np.testing.assert_allclose(flat, 3 * volume, rtol=1e-5, atol=1e-5)
