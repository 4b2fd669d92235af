"""Artefacts of real micrographs, added to any image; each function returns a changed copy.

Heights are in standard deviations of the image, from its quartiles; values are absolute.
"""

import numpy as np

from jaxrefine.simulate.arrays import FloatArray

_QUARTILES_OF_NORMAL_NOISE = 1.349  # interquartile range, in standard deviations


def noise_deviation(image: FloatArray) -> float:
    """Standard deviation of the image's pixels, insensitive to a few outliers."""
    low, high = np.quantile(image, (0.25, 0.75))
    return float(high - low) / _QUARTILES_OF_NORMAL_NOISE


def with_band(image: FloatArray, edge: str, width_px: int, value: float) -> FloatArray:
    """Set a band along the `top`, `bottom`, `left` or `right` edge to one value.

    Motion correction leaves such bands.
    """
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
    """As `with_band`, followed by Fourier cropping, which smears the band and rings.

    Args:
        image: Image with even sides.
        edge: As for `with_band`.
        width_px: Width of the band after cropping.
        value: Value of the band.
        factor: Factor of the cropping.
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
    """Set a square to one value; its top-left corner is at (y, x)."""
    spoilt = image.copy()
    y, x = corner_px
    spoilt[y : y + side_px, x : x + side_px] = value
    return spoilt


def with_single_pixels(
    image: FloatArray, share: float, height: float, rng: np.random.Generator
) -> FloatArray:
    """Add hot pixels, or dead ones if the height is negative."""
    spoilt = image.copy()
    spoilt[rng.random(image.shape) < share] += height * noise_deviation(image)
    return spoilt


def with_slope(image: FloatArray, height: float) -> FloatArray:
    """Add a gradient: `height` from left to right, and half of it from top to bottom."""
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
    """Add round spots with soft edges at (n, 2) centres: contamination, or gold if dark."""
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
    """Add an oblique edge, to the left of which the image is darker and noisier.

    Args:
        image: The image.
        share: Fraction of the image's width to the left of the edge.
        height: Difference in brightness.
        noise: Standard deviation of the additional noise.
        rng: Random generator for this noise.
        edge_px: Width of the edge.
    """
    y, x = np.ogrid[: image.shape[0], : image.shape[1]]
    left = 0.5 - 0.5 * np.tanh((x + 0.2 * y - share * image.shape[1]) / edge_px)
    more = noise * rng.standard_normal(image.shape) - height
    return (image + noise_deviation(image) * left * more).astype(image.dtype)
