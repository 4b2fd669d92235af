"""Interpolate the deformation field of a movie.

The field is a cubic Catmull-Rom spline in time, y and x, as in torch-cubic-spline-grids.
Its samples span the movie from its first frame to its last, and the image from the centre
of its first pixel to that of its last.
"""

import numpy as np
from jaxtyping import Float

# Coefficients of 1, u, u² and u³ at the samples -1, 0, 1 and 2.
_CATMULL_ROM = np.array([[0, 2, 0, 0], [-1, 0, 1, 0], [2, -5, 4, -1], [-1, 3, -3, 1]]) / 2


def deformation_at(
    field: Float[np.ndarray, "2 t h w"], tyx: Float[np.ndarray, "n 3"]
) -> Float[np.ndarray, "n 2"]:
    """Evaluate a deformation field, on the host.

    Args:
        field: Deformation (y, x) in Å at evenly spaced times and places.
        tyx: Time, y and x, each from 0 (first sample) to 1 (last sample); values outside
            are clipped.

    Returns:
        Deformation (y, x) in Å. It is constant along an axis with one sample.
    """
    count = len(tyx)
    first, weights = zip(
        *(_taps(tyx[:, axis], field.shape[axis + 1]) for axis in range(3)), strict=True
    )
    padded = np.asarray(field, np.float64)
    for axis in (1, 2, 3):
        padded = _extrapolated(padded, axis)
    total = np.zeros((count, 2))
    for t in range(4):
        for y in range(4):
            for x in range(4):
                weight = weights[0][:, t] * weights[1][:, y] * weights[2][:, x]
                sample = padded[:, first[0] + t, first[1] + y, first[2] + x]
                total += weight[:, None] * sample.T
    return total


def _taps(
    u: Float[np.ndarray, " n"], samples: int
) -> tuple[np.ndarray, Float[np.ndarray, "n 4"]]:
    """Index of the first of four samples of the padded axis, and the four weights."""
    place = np.clip(u, 0.0, 1.0) * max(samples - 1, 1)
    first = np.minimum(place.astype(np.int64), max(samples - 2, 0))
    powers = (place - first)[:, None] ** np.arange(4)
    return first, powers @ _CATMULL_ROM


def _extrapolated(values: np.ndarray, axis: int) -> np.ndarray:
    """Add a linearly extrapolated sample at both ends; a single sample counts twice."""
    values = np.moveaxis(values, axis, 0)
    if len(values) == 1:
        values = np.repeat(values, 2, axis=0)
    before, after = 2 * values[:1] - values[1:2], 2 * values[-1:] - values[-2:-1]
    return np.moveaxis(np.concatenate([before, values, after]), 0, axis)
