"""Extraction of boxes, inside and outside images."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxrefine.physics import boxes
from tests.leopard_em_reference import frozen
from tests.oracles import boxes as oracle

IMAGE = np.random.default_rng(0).standard_normal((9, 7)).astype(np.float32)
SHAPE = (5, 6)
reflected = jax.jit(boxes.crop_reflected, static_argnums=2)
filled = jax.jit(boxes.crop_filled, static_argnums=(2, 3))


def test_boxes_of_the_peer():
    data = frozen("boxes")
    shape = tuple(int(n) for n in data["shape"])
    image = jnp.asarray(data["image"])
    for corner, mirrored, constant in zip(
        data["corners"], data["reflect"], data["constant"], strict=True
    ):
        at = jnp.asarray(corner, jnp.int32)
        np.testing.assert_array_equal(reflected(image, at, shape), mirrored)
        np.testing.assert_array_equal(filled(image, at, shape, 1e10), constant)


@given(st.integers(-40, 40), st.integers(-40, 40))
@settings(max_examples=80, deadline=None, derandomize=True)
def test_any_corner(top, left):
    """Also if the box is entirely outside, and beyond one reflection."""
    corner = jnp.asarray([top, left], jnp.int32)
    np.testing.assert_array_equal(
        reflected(jnp.asarray(IMAGE), corner, SHAPE),
        oracle.reflect_cut(IMAGE, top, left, SHAPE),
    )
    np.testing.assert_array_equal(
        filled(jnp.asarray(IMAGE), corner, SHAPE, -2.5),
        oracle.constant_cut(IMAGE, top, left, SHAPE, -2.5),
    )


def test_reflection_is_numpy_s():
    padded = np.pad(IMAGE, 6, mode="reflect")
    corner = jnp.asarray([-6, -6], jnp.int32)
    np.testing.assert_array_equal(
        reflected(jnp.asarray(IMAGE), corner, padded.shape), padded
    )


def test_a_box_larger_than_the_image():
    small = jnp.asarray([[1.0, 2.0]])
    corner = jnp.asarray([-1, -2], jnp.int32)
    row = [1, 2, 1, 2, 1]
    np.testing.assert_array_equal(reflected(small, corner, (3, 5)), [row] * 3)
    np.testing.assert_array_equal(
        filled(small, corner, (3, 5), 9.0),
        [[9] * 5, [9, 9, 1, 2, 9], [9] * 5],
    )


def test_nan_outside_the_box_stays_outside():
    image = jnp.asarray(IMAGE).at[8, 6].set(jnp.nan)
    corner = jnp.asarray([-2, -3], jnp.int32)
    assert jnp.all(jnp.isfinite(filled(image, corner, SHAPE, 0.0)))
    # Beyond the lower right edge the clipped index meets the NaN; the fill must win.
    far = jnp.asarray([20, 20], jnp.int32)
    np.testing.assert_array_equal(filled(image, far, SHAPE, 0.0), np.zeros(SHAPE))


@pytest.mark.parametrize("shape", [(9, 7), (5, 3), (1, 1), (7, 7)])
def test_centre_crop(shape):
    top, left = (9 - shape[0]) // 2, (7 - shape[1]) // 2
    np.testing.assert_array_equal(
        boxes.centre_crop(jnp.asarray(IMAGE), shape),
        IMAGE[top : 9 - top, left : 7 - left],
    )
