"""A micrograph and its statistic maps as they come, and what is odd in them."""

import logging
from pathlib import Path

import numpy as np
from jaxtyping import Float

from jaxrefine.io.maps import MEAN, SPREAD, read_map
from jaxrefine.io.mrc import read_image

log = logging.getLogger("jaxrefine")

# In standard deviations of the middle half of the pixels. Counting noise reaches 6 or 7 in
# a micrograph; hot pixels, and few other things, are beyond.
_HOT = 20.0
_ENOUGH_PIXELS = 1_000_000  # for quartiles
# Quartiles of normal noise are so far from its median.
_QUARTILE = 0.6745


def read_images(
    micrograph: Path, mean: Path, spread: Path, *, maps_hold_variance: bool
) -> tuple[
    Float[np.ndarray, "Ny Nx"], Float[np.ndarray, "My Mx"], Float[np.ndarray, "My Mx"]
]:
    """Read three files, with a warning of each for what is odd in it.

    Args:
        micrograph: File of the image.
        mean: File of the correlation's mean.
        spread: File of its variance or standard deviation.
        maps_hold_variance: Which of the two.

    Returns:
        The micrograph, its pixels that are not finite set to the mean of the others; the
        mean map; and the standard deviation map, NaN where that is no positive number.

    Raises:
        InputError: A file cannot be read.
    """
    image = _without_dead_pixels(read_image(micrograph), micrograph)
    _warn_of_far_pixels(image, micrograph)
    mean_map = read_map(mean, MEAN)
    count = int((~np.isfinite(mean_map)).sum())
    if count:
        log.warning("%s: %d values are NaN or infinite: %s", mean, count, _NOT_SCORED)
    spread_map = _deviations(read_map(spread, SPREAD), spread, maps_hold_variance)
    return image, mean_map, spread_map


_NOT_SCORED = "no position there is scored"


def _without_dead_pixels(
    image: Float[np.ndarray, "Ny Nx"], path: Path
) -> Float[np.ndarray, "Ny Nx"]:
    finite = np.isfinite(image)
    if finite.all():
        return image
    count = image.size - int(finite.sum())
    if not finite.any():
        log.warning("%s: every pixel is NaN or infinite: nothing can be refined", path)
        return image
    log.warning("%s: %d pixels are NaN or infinite: set to the mean", path, count)
    return np.where(finite, image, image[finite].mean(dtype=np.float64).astype(np.float32))


def _warn_of_far_pixels(image: Float[np.ndarray, "Ny Nx"], path: Path) -> None:
    """Pixels far from all others, which spoil spectrum and scores; they are left alone."""
    lowest, highest = float(image.min()), float(image.max())
    if not np.isfinite(highest):  # no pixel is: that was said
        return
    if lowest == highest:
        log.warning("%s: is constant: nothing can be refined", path)
        return
    some = image.ravel()[:: max(1, image.size // _ENOUGH_PIXELS)]
    least, low, middle, high, most = np.quantile(some, (0.001, 0.25, 0.5, 0.75, 0.999))
    deviation = (high - low) / (2 * _QUARTILE)
    if deviation == 0:  # sparse counts, most of them 0
        deviation = float(some[(some >= least) & (some <= most)].std())
    farthest = max(highest - middle, middle - lowest)
    if farthest <= _HOT * deviation or deviation == 0:
        return
    far = np.abs(image - middle)
    y, x = np.unravel_index(int(np.argmax(far)), image.shape)
    log.warning(
        "%s: %d pixels are more than %g standard deviations from the median; the "
        "farthest, at y %d, x %d, is %.3g, which is %.3g of them away. Such pixels "
        "lower all scores, and can feign one: replace them in the micrograph (by the "
        "mean, say), unless they are meant",
        path,
        int((far > _HOT * deviation).sum()),
        _HOT,
        y,
        x,
        image[y, x],
        farthest / deviation,
    )


def _deviations(
    spread: Float[np.ndarray, "My Mx"], path: Path, maps_hold_variance: bool
) -> Float[np.ndarray, "My Mx"]:
    sound = np.isfinite(spread) & (spread > 0)
    count = spread.size - int(sound.sum())
    if count:
        kind = "variances" if maps_hold_variance else "standard deviations"
        log.warning(
            "%s: %d of %d %s are no positive numbers: %s",
            path,
            count,
            spread.size,
            kind,
            _NOT_SCORED,
        )
        spread = np.where(sound, spread, np.float32(np.nan))
    return np.sqrt(spread) if maps_hold_variance else spread
