"""Slopes, steps between opposite edges, and strong objects."""

import numpy as np

from jaxrefine.physics.background import find_objects, periodic_part
from jaxrefine.simulate.artefacts import with_carbon, with_slope, with_spots

SHAPE = (160, 200)
NOISE = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)


def step_at_edges(image):
    """Mean squared difference of opposite edges."""
    return np.mean((image[0] - image[-1]) ** 2) + np.mean((image[:, 0] - image[:, -1]) ** 2)


def test_a_slope_goes_and_noise_stays():
    """Noise also has steps, whose smooth part is removed near the edges."""
    plain, sloped = periodic_part(NOISE), periodic_part(with_slope(NOISE, 40.0))
    assert step_at_edges(with_slope(NOISE, 40.0)) > 1e3
    assert step_at_edges(sloped) < 3
    # The slope, sampled, is off by half a pixel at its ends: 40 / 200 / 2 of a deviation
    # across and as much down, in the corners.
    np.testing.assert_allclose(sloped, plain, atol=0.2)
    inside = np.s_[8:-8, 8:-8]
    assert np.corrcoef(plain[inside].ravel(), NOISE[inside].ravel())[0, 1] > 0.998


def test_the_part_that_goes_is_harmonic_inside():
    """Moisan's definition: discrete Laplacian 0 except at the edges, mean 0."""
    image = np.cumsum(NOISE.astype(np.float64), axis=1)
    part = periodic_part(image)
    assert abs(part.mean()) < 1e-9
    smooth = image - part
    laplacian = sum(np.roll(smooth, s, a) for s in (1, -1) for a in (0, 1)) - 4 * smooth
    np.testing.assert_allclose(laplacian[1:-1, 1:-1], 0, atol=1e-9)


def test_odd_sides_and_tiny_images():
    for shape in ((7, 9), (1, 5), (2, 2), (1, 1)):
        image = NOISE[: shape[0], : shape[1]]
        assert periodic_part(image).shape == find_objects(image).shape == shape


def test_strong_objects_are_found_with_their_edges():
    centres = np.array([[40.0, 50.0], [100.0, 150.0]])
    image = with_spots(NOISE, centres, 8.0, -10.0)
    found = find_objects(image)
    assert found[np.abs(image - NOISE) > 0.1].all()
    assert found.mean() < 0.1


def test_noise_and_carbon_are_no_objects():
    rng = np.random.default_rng(1)
    assert not find_objects(NOISE).any()
    assert not find_objects(with_carbon(NOISE, 0.5, 3.0, 1.0, rng)).any()
    assert not find_objects(np.zeros(SHAPE, np.float32)).any()
