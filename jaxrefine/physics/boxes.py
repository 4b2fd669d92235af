"""Extraction of boxes from images."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


def _reflected(index: Int[Array, " n"], size: int) -> Int[Array, " n"]:
    """Index into an image that is mirrored about its edge pixels, repeatedly if needed."""
    if size == 1:
        return jnp.zeros_like(index)
    period = 2 * (size - 1)
    index = index % period
    return jnp.minimum(index, period - index)


def crop_reflected(
    image: Float[Array, "Ny Nx"], corner: Int[Array, " 2"], shape: tuple[int, int]
) -> Float[Array, "h w"]:
    """Extract `shape` with its top-left at (y, x) `corner`; reflect beyond the edge.

    The edge pixel itself is not repeated (numpy's `reflect`).
    """
    rows = _reflected(corner[0] + jnp.arange(shape[0]), image.shape[0])
    columns = _reflected(corner[1] + jnp.arange(shape[1]), image.shape[1])
    return image[rows[:, None], columns[None, :]]


def crop_filled(
    image: Float[Array, "Ny Nx"],
    corner: Int[Array, " 2"],
    shape: tuple[int, int],
    fill: float,
) -> Float[Array, "h w"]:
    """Extract `shape` with its top-left at (y, x) `corner`; `fill` beyond the edge."""
    rows = corner[0] + jnp.arange(shape[0])
    columns = corner[1] + jnp.arange(shape[1])
    inside_rows = (rows >= 0) & (rows < image.shape[0])
    inside_columns = (columns >= 0) & (columns < image.shape[1])
    rows = jnp.clip(rows, 0, image.shape[0] - 1)
    columns = jnp.clip(columns, 0, image.shape[1] - 1)
    inside = inside_rows[:, None] & inside_columns[None, :]
    return jnp.where(inside, image[rows[:, None], columns[None, :]], fill)


def centre_crop(
    image: Float[Array, "Ny Nx"], shape: tuple[int, int]
) -> Float[Array, "h w"]:
    """The middle of an image; both differences in size must be even."""
    top, left = (image.shape[0] - shape[0]) // 2, (image.shape[1] - shape[1]) // 2
    return jax.lax.slice(image, (top, left), (top + shape[0], left + shape[1]))
