"""Background of a micrograph: slopes across it, and strong objects.

Runs on the host, in numpy, like `defects`.
"""

import numpy as np
from jaxtyping import Bool, Float

# Objects are searched in the means of squares with this side, in px, ...
_SQUARE = 8
# ... as deviations from the median of all squares by this many standard deviations.
_STRONG = 6.0
_QUARTILE = 0.6745
# Above this fraction it is not an object but a part of the image, such as carbon.
_LARGEST_SHARE = 0.3


def periodic_part(image: Float[np.ndarray, "Ny Nx"]) -> Float[np.ndarray, "Ny Nx"]:
    """Subtract the smoothest image with the same steps between opposite edges.

    A Fourier transform treats an image as periodic and has a step where opposite edges
    differ, above all due to a slope across the image. The result has no such steps and
    mean 0; inside, it differs from the image by a smooth function. (Moisan, Periodic plus
    smooth image decomposition, J. Math. Imaging Vis. 39, 161, 2011.)
    """
    image = image - image.mean(dtype=np.float64).astype(image.dtype)
    height, width = image.shape
    steps = np.zeros_like(image)
    across, along = image[-1] - image[0], image[:, -1] - image[:, 0]
    steps[0] += across
    steps[-1] -= across
    steps[:, 0] += along
    steps[:, -1] -= along
    ky, kx = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)
    laplacian = 2 * (np.cos(2 * np.pi * ky) + np.cos(2 * np.pi * kx) - 2)
    laplacian[0, 0] = 1.0
    smooth = np.fft.rfft2(steps) / laplacian.astype(image.dtype)
    smooth[0, 0] = 0
    return image - np.fft.irfft2(smooth, s=image.shape)


def find_objects(image: Float[np.ndarray, "Ny Nx"]) -> Bool[np.ndarray, "Ny Nx"]:
    """Find objects far brighter or darker than particles, such as contamination and gold.

    Args:
        image: Image without defects and slopes, from `fill_defects` and `periodic_part`.
    """
    mask = np.zeros(image.shape, bool)
    rows, columns = (length // _SQUARE for length in image.shape)
    if min(rows, columns) == 0:
        return mask
    inner = image[: rows * _SQUARE, : columns * _SQUARE]
    means = inner.reshape(rows, _SQUARE, columns, _SQUARE).mean(axis=(1, 3))
    low, middle, high = np.quantile(means, (0.25, 0.5, 0.75))
    strong = np.abs(means - middle) > _STRONG * (high - low) / (2 * _QUARTILE)
    wider = np.pad(strong, 1)  # include the adjacent squares, which contain the edge
    wider = wider[:-2] | wider[1:-1] | wider[2:]
    wider = wider[:, :-2] | wider[:, 1:-1] | wider[:, 2:]
    if wider.mean() > _LARGEST_SHARE:
        return mask
    squares = np.repeat(np.repeat(wider, _SQUARE, axis=0), _SQUARE, axis=1)
    mask[: squares.shape[0], : squares.shape[1]] = squares
    return mask
