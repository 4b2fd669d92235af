"""Cutting boxes out of micrographs and of the statistic maps."""

import numpy as np


def box_corner(position: int, box: int, template: int) -> int:
    """First pixel of the box along one axis; ``position`` is the template's."""
    return position - (box - template) // 2


def mirrored(index: int, length: int) -> int:
    """The pixel seen at ``index`` of an endless reflection; the edge is not repeated."""
    period = 2 * (length - 1)
    index %= period
    return index if index < length else period - index


def reflect_cut(
    image: np.ndarray, top: int, left: int, shape: tuple[int, int]
) -> np.ndarray:
    """A box of a micrograph; beyond the edge the image is mirrored."""
    h, w = image.shape
    box = np.empty(shape, np.float64)
    for row, column in np.ndindex(*shape):
        box[row, column] = image[mirrored(top + row, h), mirrored(left + column, w)]
    return box


def constant_cut(
    image: np.ndarray, top: int, left: int, shape: tuple[int, int], value: float
) -> np.ndarray:
    """A box of a map; beyond the edge it is ``value``."""
    h, w = image.shape
    box = np.full(shape, value, np.float64)
    for row, column in np.ndindex(*shape):
        if 0 <= top + row < h and 0 <= left + column < w:
            box[row, column] = image[top + row, left + column]
    return box


def statistic_cuts(
    average_map: np.ndarray,
    variance_map: np.ndarray,
    top: int,
    left: int,
    shape: tuple[int, int],
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of the correlation on a box's valid corner.

    Cut at the box's own corner, with shape (H - h + 1, W - w + 1). Outside the maps the
    mean is 0 and the variance 1e10, so that no z-score there can win.
    """
    mean = constant_cut(average_map, top, left, shape, 0.0)
    variance = constant_cut(variance_map, top, left, shape, 1e10)
    return mean, np.sqrt(variance)
