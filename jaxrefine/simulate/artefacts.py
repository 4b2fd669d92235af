"""What spoils real micrographs, to be laid into any: each returns a changed copy.

Heights are in the image's own standard deviations, by its quartiles; values are as given.
"""

import numpy as np

from jaxrefine.simulate.arrays import FloatArray

_QUARTILES_OF_NORMAL_NOISE = 1.349  # their distance, in standard deviations


def noise_deviation(image: FloatArray) -> float:
    """Standard deviation of the image's pixels, whatever a few of them hold."""
    low, high = np.quantile(image, (0.25, 0.75))
    return float(high - low) / _QUARTILES_OF_NORMAL_NOISE


def with_band(image: FloatArray, edge: str, width_px: int, value: float) -> FloatArray:
    """One value along the `top`, `bottom`, `left` or `right` edge: motion correction."""
    spoilt = image.copy()
    spoilt[
        {
            "top": np.s_[:width_px],
            "bottom": np.s_[-width_px:],
            "left": np.s_[:, :width_px],
            "right": np.s_[:, -width_px:],
        }[edge]
    ] = value
    return spoilt


def with_smeared_band(
    image: FloatArray, edge: str, width_px: float, value: float, factor: int = 3
) -> FloatArray:
    """As `with_band`, but Fourier-cropped afterwards, which smears and rings.

    Args:
        image: Of even sides.
        edge: As there.
        width_px: Of the band after cropping.
        value: Of the band.
        factor: By which the sides become smaller.
    """
    height, width = image.shape
    large = factor * height, factor * width
    rfft = np.fft.rfft2(image)
    padded = np.zeros((large[0], large[1] // 2 + 1), rfft.dtype)
    half = height // 2
    padded[:half, : width // 2 + 1] = rfft[:half]
    padded[-half:, : width // 2 + 1] = rfft[-half:]
    fine = np.fft.irfft2(padded, s=large) * factor**2
    spoilt = np.fft.rfft2(with_band(fine, edge, round(factor * width_px), value))
    kept = np.concatenate([spoilt[:half], spoilt[-half:]])[:, : width // 2 + 1]
    return (np.fft.irfft2(kept, s=image.shape) / factor**2).astype(image.dtype)


def with_block(
    image: FloatArray, corner_px: tuple[int, int], side_px: int, value: float
) -> FloatArray:
    """A square of one value, its top-left at (y, x)."""
    spoilt = image.copy()
    y, x = corner_px
    spoilt[y : y + side_px, x : x + side_px] = value
    return spoilt


def with_single_pixels(
    image: FloatArray, share: float, height: float, rng: np.random.Generator
) -> FloatArray:
    """Hot pixels, or dead ones where the height is negative."""
    spoilt = image.copy()
    spoilt[rng.random(image.shape) < share] += height * noise_deviation(image)
    return spoilt


def with_slope(image: FloatArray, height: float) -> FloatArray:
    """A gradient: a rise by so much from left to right, and by half of it downwards."""
    y, x = np.ogrid[: image.shape[0], : image.shape[1]]
    slope = x / image.shape[1] + 0.5 * y / image.shape[0]
    return (image + height * noise_deviation(image) * slope).astype(image.dtype)


def with_spots(
    image: FloatArray,
    centres_px: FloatArray,
    radius_px: float,
    height: float,
    edge_px: float = 2.0,
) -> FloatArray:
    """Round spots with soft edges at (n, 2) centres: contamination, or gold where dark."""
    y, x = np.ogrid[: image.shape[0], : image.shape[1]]
    spots = np.zeros(image.shape)
    for centre_y, centre_x in centres_px:
        distance = np.hypot(y - centre_y, x - centre_x)
        spots = np.maximum(spots, 0.5 - 0.5 * np.tanh((distance - radius_px) / edge_px))
    return (image + height * noise_deviation(image) * spots).astype(image.dtype)


def with_carbon(
    image: FloatArray,
    share: float,
    height: float,
    noise: float,
    rng: np.random.Generator,
    edge_px: float = 4.0,
) -> FloatArray:
    """An oblique edge, left of which the image is darker and its noise stronger.

    Args:
        image: The image.
        share: Of the image's width, left of the edge.
        height: By how much the left is darker.
        noise: Standard deviation of the noise that it has in addition.
        rng: Source of that noise.
        edge_px: Width of the edge.
    """
    y, x = np.ogrid[: image.shape[0], : image.shape[1]]
    left = 0.5 - 0.5 * np.tanh((x + 0.2 * y - share * image.shape[1]) / edge_px)
    more = noise * rng.standard_normal(image.shape) - height
    return (image + noise_deviation(image) * left * more).astype(image.dtype)
