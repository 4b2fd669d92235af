"""What is image, but neither particles nor noise: slopes across it, and strong objects.

On the host, in plain numpy, like `defects`.
"""

import numpy as np
from jaxtyping import Bool, Float

# Objects are looked for in means of squares of this side, in px, ...
_SQUARE = 8
# ... so many standard deviations (by quartiles) from the median of all squares.
_STRONG = 6.0
_QUARTILE = 0.6745
# Above this share it is no object but a part of the image, such as carbon.
_LARGEST_SHARE = 0.3


def periodic_part(image: Float[np.ndarray, "Ny Nx"]) -> Float[np.ndarray, "Ny Nx"]:
    """An image less the smoothest one that has the same steps from edge to opposite edge.

    A Fourier transform takes an image for periodic, and sees a step where its edges differ:
    of a slope across it above all. What is left has none, and mean 0; inside it differs
    from the image by something smooth. (Moisan, Periodic plus smooth image decomposition,
    J. Math. Imaging Vis. 39, 161, 2011.)
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
    """Where something is far brighter or darker than particles: contamination, gold.

    Args:
        image: Without defects and slopes: from `fill_defects` and `periodic_part`.
    """
    mask = np.zeros(image.shape, bool)
    rows, columns = (length // _SQUARE for length in image.shape)
    if min(rows, columns) == 0:
        return mask
    inner = image[: rows * _SQUARE, : columns * _SQUARE]
    means = inner.reshape(rows, _SQUARE, columns, _SQUARE).mean(axis=(1, 3))
    low, middle, high = np.quantile(means, (0.25, 0.5, 0.75))
    strong = np.abs(means - middle) > _STRONG * (high - low) / (2 * _QUARTILE)
    wider = np.pad(strong, 1)  # the squares around, into which its edge reaches
    wider = wider[:-2] | wider[1:-1] | wider[2:]
    wider = wider[:, :-2] | wider[:, 1:-1] | wider[:, 2:]
    if wider.mean() > _LARGEST_SHARE:
        return mask
    squares = np.repeat(np.repeat(wider, _SQUARE, axis=0), _SQUARE, axis=1)
    mask[: squares.shape[0], : squares.shape[1]] = squares
    return mask
