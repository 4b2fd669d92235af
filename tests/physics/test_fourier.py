"""Frequency grids and transform sizes."""

import numpy as np
import pytest

from jaxrefine.physics import fourier
from tests.oracles import filters as oracle

SHAPES = [(8, 8), (6, 10), (7, 9), (9, 8), (8, 9), (1, 2), (2, 1)]


@pytest.mark.parametrize("shape", SHAPES)
def test_frequency_grids(shape):
    ky, kx = fourier.frequency_grid(shape)
    assert ky.shape == (shape[0], 1) and kx.shape == (1, shape[1] // 2 + 1)
    np.testing.assert_allclose(ky[:, 0], np.fft.fftfreq(shape[0]), atol=3e-8)
    np.testing.assert_allclose(kx[0], np.fft.rfftfreq(shape[1]), atol=3e-8)
    # float32 of a float64 number: half a unit in the last place of 0.7
    np.testing.assert_allclose(
        fourier.radial_frequency(shape), oracle.radial_frequency(shape), rtol=0, atol=3e-8
    )


@pytest.mark.parametrize("shape", SHAPES)
def test_half_plane_weights_make_the_full_sum(shape):
    image = np.random.default_rng(0).standard_normal(shape)
    weights = fourier.half_plane_weights(shape)
    power = np.sum(np.asarray(weights) * np.abs(np.fft.rfft2(image)) ** 2)
    np.testing.assert_allclose(power, np.sum(np.abs(np.fft.fft2(image)) ** 2), rtol=1e-12)
    assert np.sum(weights) == shape[1]


def is_fast(number, primes):
    for prime in primes:
        while number % prime == 0:
            number //= prime
    return number == 1


def test_next_fast_even_is_the_smallest_of_its_kind():
    fast = [n for n in range(2, 1200, 2) if is_fast(n, (2, 3, 5))]
    for length in range(0, 1000):
        assert fourier.next_fast_even(length) == min(n for n in fast if n >= length)
    assert [fourier.next_fast_even(n) for n in (1, 7, 14, 511, 513)] == [2, 8, 16, 512, 540]


def test_next_fast_odd_is_the_smallest_of_its_kind():
    fast = [n for n in range(1, 1300, 2) if is_fast(n, (3, 5, 7))]
    for length in range(0, 1000):
        assert fourier.next_fast_odd(length) == min(n for n in fast if n >= length)
    assert [fourier.next_fast_odd(n) for n in (0, 1, 2, 8, 128, 160)] == [
        1,
        1,
        3,
        9,
        135,
        175,
    ]
