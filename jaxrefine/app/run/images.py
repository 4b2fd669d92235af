"""Reading and cleaning a micrograph and its statistic maps, with warnings of oddities."""

import logging
from pathlib import Path

import numpy as np
from jaxtyping import Float

from jaxrefine.io.maps import MEAN, SPREAD, read_map
from jaxrefine.io.mrc import read_image
from jaxrefine.physics.defects import FAR, Defects
from jaxrefine.refine.clean import CleanMicrograph, clean_micrograph

log = logging.getLogger("jaxrefine")

_ENOUGH_PIXELS = 1_000_000  # for quartiles
# Distance of the quartiles of normal noise from its median, in standard deviations.
_QUARTILE = 0.6745


def read_images(
    micrograph: Path,
    mean: Path,
    spread: Path,
    *,
    maps_hold_variance: bool,
    as_it_is: bool = False,
) -> tuple[
    Float[np.ndarray, "Ny Nx"], Float[np.ndarray, "My Mx"], Float[np.ndarray, "My Mx"]
]:
    """Read three files, and warn of oddities in each.

    Args:
        micrograph: File of the image.
        mean: File of the mean map.
        spread: File of the variance or standard deviation map.
        maps_hold_variance: Whether it holds variances.
        as_it_is: Return the micrograph unchanged, for `clean_image`.

    Returns:
        The micrograph, with pixels that are not finite set to the mean of the others; the
        mean map; and the standard deviation map, NaN where it is not a positive number.

    Raises:
        InputError: A file cannot be read.
    """
    image = read_image(micrograph)
    if not as_it_is:
        image = _without_dead_pixels(image, micrograph)
        _warn_of_far_pixels(image, micrograph)
    mean_map = read_map(mean, MEAN)
    count = int((~np.isfinite(mean_map)).sum())
    if count:
        log.warning("%s: %d values are NaN or infinite: %s", mean, count, _NOT_SCORED)
    spread_map = _deviations(read_map(spread, SPREAD), spread, maps_hold_variance)
    return image, mean_map, spread_map


_NOT_SCORED = "these positions are not scored"


def clean_image(image: Float[np.ndarray, "Ny Nx"], path: Path) -> CleanMicrograph:
    """Clean a micrograph before filtering, with a warning about defective pixels.

    Args:
        image: The micrograph as stored.
        path: Its file, for the warning.
    """
    clean = clean_micrograph(image)
    if clean.filled.all():
        constant = clean.defects.constant.any()
        what = "is constant" if constant else "every pixel is NaN or infinite"
        log.warning("%s: %s: nothing can be refined", path, what)
        return clean
    warn_of_defects(clean.defects, path)
    if clean.objects.any():
        log.info(
            "%s: %.2g %% of it are strong objects (contamination, gold): excluded from the "
            "noise spectrum",
            path,
            100 * clean.objects.mean(),
        )
    return clean


def warn_of_defects(defects: Defects, path: Path) -> None:
    """Warn about defective pixels that are filled."""
    kinds = {
        "NaN or infinite": defects.not_finite,
        "in rows, columns or blocks of one value": defects.constant,
        "isolated outliers": defects.far,
    }
    counts = [f"{mask.sum()} {kind}" for kind, mask in kinds.items() if mask.any()]
    if counts:
        log.warning(
            "%s: %.2g %% of its pixels are defective (%s): filled from their surroundings, "
            "and excluded from the noise spectrum",
            path,
            100 * defects.mask.mean(),
            ", ".join(counts),
        )


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
    """Warn about outlier pixels, which distort spectrum and scores; they are kept."""
    lowest, highest = float(image.min()), float(image.max())
    if not np.isfinite(highest):  # no pixel is finite, which was reported already
        return
    if lowest == highest:
        log.warning("%s: is constant: nothing can be refined", path)
        return
    some = image.ravel()[:: max(1, image.size // _ENOUGH_PIXELS)]
    least, low, middle, high, most = np.quantile(some, (0.001, 0.25, 0.5, 0.75, 0.999))
    deviation = (high - low) / (2 * _QUARTILE)
    if deviation == 0:  # sparse counts, mostly 0
        deviation = float(some[(some >= least) & (some <= most)].std())
    farthest = max(highest - middle, middle - lowest)
    if farthest <= FAR * deviation or deviation == 0:
        return
    far = np.abs(image - middle)
    y, x = np.unravel_index(int(np.argmax(far)), image.shape)
    log.warning(
        "%s: %d pixels are more than %g standard deviations from the median; the "
        "farthest, at y %d, x %d, is %.3g, which is %.3g of them away. Such pixels "
        "lower all scores, and can cause false matches: replace them in the micrograph "
        "(for example by the mean) unless they are intended",
        path,
        int((far > FAR * deviation).sum()),
        FAR,
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
            "%s: %d of %d %s are not positive: %s",
            path,
            count,
            spread.size,
            kind,
            _NOT_SCORED,
        )
        spread = np.where(sound, spread, np.float32(np.nan))
    return np.sqrt(spread) if maps_hold_variance else spread
