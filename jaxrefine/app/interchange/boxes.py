"""Particle images extracted from micrographs, for RELION and cisTEM."""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float, Int

from jaxrefine.data import InputError

# Pixels beyond this fraction of the half side are background, as in RELION.
_BACKGROUND_BEYOND = 0.75


def box_side(template_side_px: int) -> int:
    """Side of a particle image with a margin for the CTF: 1.5 times the template's,
    even."""
    return 2 * round(0.75 * template_side_px)


def extract_boxes(
    image: Float[np.ndarray, "Y X"], centre_px: Int[np.ndarray, "n 2"], side: int
) -> Iterator[Float[np.ndarray, "side side"]]:
    """Particle images centred at pixel side // 2; reflected beyond the micrograph's edge.

    Values that are not finite are replaced by the mean.

    Args:
        image: The micrograph.
        centre_px: (x, y), within the micrograph.
        side: Side of the images, even.

    Yields:
        One image after another.

    Raises:
        InputError: A centre lies outside.
    """
    height, width = image.shape
    finite = np.isfinite(image)
    if not finite.all():
        image = np.where(finite, image, image[finite].mean() if finite.any() else 0.0)
    padded = np.pad(image, side // 2, mode="reflect")
    for x, y in centre_px:
        if not (0 <= x < width and 0 <= y < height):
            raise InputError(
                f"the particle at x, y = {x}, {y} px lies outside its micrograph of "
                f"{width} x {height} px"
            )
        yield padded[y : y + side, x : x + side]


def normalised(
    box: Float[np.ndarray, "side side"], matter_is_bright: bool
) -> Float[np.ndarray, "side side"]:
    """A particle image whose background has mean 0 and standard deviation 1.

    Args:
        box: Image from a micrograph, in which density is dark.
        matter_is_bright: Invert the contrast, as RELION expects.
    """
    side = len(box)
    offset = np.arange(side) - side // 2
    background = np.hypot(*np.meshgrid(offset, offset)) > _BACKGROUND_BEYOND * (side // 2)
    around = box[background].astype(np.float64)
    spread = around.std() or 1.0
    return (box - around.mean()) / (-spread if matter_is_bright else spread)
