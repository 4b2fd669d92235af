"""From a slice to a normalised projection."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrefine.physics import projection
from tests.leopard_em_reference import frozen
from tests.oracles import scores as oracle


@pytest.mark.parametrize("side", [2, 6, 8, 16])
def test_the_slice_s_origin_moves_to_the_centre(side):
    spectrum = np.fft.rfft2(np.random.default_rng(side).standard_normal((side, side)))
    ours = jax.jit(projection.slice_to_projection)(jnp.asarray(spectrum, jnp.complex64))
    expected = np.fft.ifftshift(np.fft.irfft2(spectrum, s=(side, side)))
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-6)  # values up to 3


def test_a_flat_slice_is_a_point_at_the_centre():
    point = projection.slice_to_projection(jnp.ones((8, 5), jnp.complex64))
    expected = np.zeros((8, 8))
    expected[4, 4] = 1.0
    np.testing.assert_allclose(point, expected, atol=1e-6)


@pytest.mark.parametrize("side", [2, 3, 8])
def test_border_pixels_count_once(side):
    image = np.random.default_rng(side).standard_normal((side, side)).astype(np.float32)
    ours = projection.subtract_border_mean(jnp.asarray(image))
    np.testing.assert_allclose(ours, image - oracle.border_mean(image), atol=1e-6)
    border = np.ones((side, side), bool)
    border[1:-1, 1:-1] = False
    assert abs(np.asarray(ours)[border].mean()) < 1e-6


def test_normalisation_of_the_peer():
    data = frozen("normalisation")
    for index, box in enumerate(data["box_shapes"]):
        box = (int(box[0]), int(box[1]))
        for image, peer in zip(
            data["projections"], data[f"normalised_{index}"], strict=True
        ):
            flat = projection.subtract_border_mean(jnp.asarray(image))
            variance = projection.padded_variance_sum(flat, box)
            ours = flat * np.sqrt(box[0] * box[1]) / np.sqrt(max(variance, 1e-8))
            # values up to 5, float32 on both sides
            np.testing.assert_allclose(ours, peer, rtol=0, atol=5e-6)


def test_the_mean_enters_as_in_the_peer():
    """With (n²/HW)² instead of n²/HW; only a large mean distinguishes them."""
    image = np.full((4, 4), 3.0) + np.eye(4)
    box = (6, 10)
    mean = image.mean() * (16 / 60) ** 2
    expected = np.sum((image - mean) ** 2) + (6 - 4) * (10 - 4) * mean**2
    ours = projection.padded_variance_sum(jnp.asarray(image, jnp.float32), box)
    assert ours == pytest.approx(expected, rel=1e-6)
    other = image.mean() * (16 / 60)
    assert abs(np.sum((image - other) ** 2) + 12 * other**2 - expected) > 1.0
