"""Motion from the score: correlations of frames, and their fit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrefine.physics.filters import Filters, RadialFilter
from jaxrefine.refine import motion, movies
from tests.worlds import single

BOX, PADDED, REACH = (44, 40), (32, 30), 3
LENS = movies.FrameOptics(single(1.5), single(300.0))


def smooth(shape, seed):
    """Noise with the autocorrelation of a Gaussian of 6 samples."""
    image = np.random.default_rng(seed).standard_normal(shape)
    k = np.hypot(np.fft.fftfreq(shape[0])[:, None], np.fft.rfftfreq(shape[1]))
    return np.fft.irfft2(np.fft.rfft2(image) * np.exp(-((np.pi * 6 * k) ** 2)), s=shape)


@pytest.mark.slow
def test_correlations_of_frames_add_up_to_those_of_the_sum():
    """With the sum of the same frames, moved by further shifts on top of those given."""
    rng = np.random.default_rng(0)
    frames = single(rng.standard_normal((3, 90, 96)))
    corner = jnp.asarray([[20, 25], [33, 30]])
    given = rng.uniform(-4, 4, (3, 2, 2))
    more = rng.uniform(-2, 2, (3, 2, 2))
    more[:, 1] = 0.0  # the other particle stays
    exposures = np.array([5.0, 10.0, 15.0], np.float32)
    filters = RadialFilter(single(np.linspace(0.2, 1.0, 20)), Filters())
    transfer = motion.box_transfer(filters, single(1.3), exposures, LENS, BOX)
    # As particles are, within the box: what a shift moves across its edge is lost.
    y, x = (np.arange(n) - n // 2 for n in PADDED)
    kernel = np.exp(-(y[:, None] ** 2 + x**2) / (2 * 4.0**2))
    kernel = kernel * rng.standard_normal((2, *PADDED))
    features = np.fft.rfft2(kernel).astype(np.complex64)
    windows = jnp.stack(
        [
            motion.frame_correlations(
                frame,
                corner,
                single(given[t]),
                exposures[t],
                LENS,
                transfer,
                features,
                BOX,
                REACH,
            )
            for t, frame in enumerate(frames)
        ]
    )
    got = motion.correlation_at(windows, single(more)).sum(axis=0)

    shape = (len(corner), BOX[0], BOX[1] // 2 + 1)
    sums = jnp.zeros(shape, jnp.complex64)
    both = movies.FrameOptics(single([1.5, 1.5]), single([300.0, 300.0]))
    for t, frame in enumerate(frames):
        move = single((given + more)[t])
        sums = movies.add_to_boxes(sums, frame, corner, move, exposures[t], both)
    boxes = np.asarray(movies.finished_boxes(sums, exposures, both, BOX))
    on_grid = np.asarray(filters.on_grid(BOX)) * 1.3
    boxes = np.fft.irfft2(np.fft.rfft2(boxes) * on_grid, s=BOX)
    top, left = ((b - p) // 2 for b, p in zip(BOX, PADDED, strict=True))
    cut = boxes[:, top : top + PADDED[0], left : left + PADDED[1]]
    weights = np.full(PADDED[1] // 2 + 1, 2.0)
    weights[[0, -1]] = 1.0
    weights = np.sqrt(weights / (PADDED[0] * PADDED[1]))
    expected = np.sum((np.conj(features) * np.fft.rfft2(cut) * weights).real, axis=(1, 2))
    scale = np.sqrt(np.sum(np.abs(features) ** 2, axis=(1, 2)))
    # The particle that stays is exact. The other one's box is cut around other pixels, and
    # cubic interpolation of white noise is good to 1 %.
    np.testing.assert_allclose(got[1] / scale[1], expected[1] / scale[1], atol=1e-5)
    np.testing.assert_allclose(got[0] / scale[0], expected[0] / scale[0], atol=0.05)


def planted(strength, count=24, frames=12):
    """Correlations of particles whose motion is smooth in time and space, in noise."""
    rng = np.random.default_rng(3)
    place = rng.uniform(0, 2000, (count, 2))
    time = np.exp(-np.arange(frames) / 3.0)[:, None, None]
    slope = np.array([[1.0, -0.5], [0.3, 0.8]]) * 1e-3
    shift = time * (np.array([1.5, -1.0]) + place @ slope)
    shift -= shift.mean(axis=0)
    samples = (np.arange(8 * 5 + 5) - 22) / 4
    apart = samples - shift[..., None]
    bump = np.exp(-(apart**2) / (2 * 1.5**2))
    signal = bump[:, :, 0, :, None] * bump[:, :, 1, None, :]
    noise = np.reshape(
        [smooth(signal.shape[2:], n) for n in range(frames * count)], signal.shape
    )
    noise /= noise.std() * np.sqrt(frames)
    return place, shift, signal * strength / frames + noise


PRIOR = motion.MotionPrior(0.4, 10_000.0, 0.4)


@pytest.mark.slow
def test_motion_is_found_in_noise():
    """Of particles with z = 12, or 3.5 in a frame: alone they are good to 0.4 px."""
    place, true, windows = planted(12.0)
    found = motion.fit_motion(single(windows), single(place), PRIOR)
    error = np.asarray(found.shift_px) - true
    error -= error.mean(axis=0)  # a particle's position is its own
    assert found.converged
    before, after = (np.sqrt(np.mean(each**2)) for each in (true, error))
    assert before > 0.6 and after < 0.15
    assert np.all(found.correlation_after > found.correlation_before)


def test_the_prior_holds_noise_back():
    """Where nothing is seen, shifts stay within what the prior expects of velocities."""
    place, _, windows = planted(0.0)
    loose = motion.fit_motion(single(windows), single(place), PRIOR)
    tight_prior = motion.MotionPrior(0.02, 10_000.0, 0.02)
    tight = motion.fit_motion(single(windows), single(place), tight_prior)
    spread = [np.std(np.diff(found.shift_px, axis=0)) for found in (loose, tight)]
    assert spread[1] < 0.02 and spread[0] < 0.4


def test_interpolation_and_its_limits():
    place = np.linspace(-1, 1, 8 * REACH + 5)
    wave = np.sin(2.0 * place)[:, None] * np.cos(1.5 * place)
    at = np.random.default_rng(0).uniform(-REACH, REACH, (1, 50, 2))
    step = place[1] - place[0]
    y, x = np.moveaxis(at * 4 * step, -1, 0)
    found = jax.jit(motion.correlation_at)(single(np.tile(wave, (1, 50, 1, 1))), single(at))
    np.testing.assert_allclose(found, np.sin(2 * y) * np.cos(1.5 * x), atol=1e-4)
    beyond = motion.correlation_at(single(wave[None, None]), single([[[9.0, 9.0]]]))
    limit = motion.correlation_at(single(wave[None, None]), single([[[3.0, 3.0]]]))
    assert float(beyond[0, 0]) == pytest.approx(float(limit[0, 0]))
