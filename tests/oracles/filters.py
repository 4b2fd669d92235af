"""Whitening, bandpass and curve filters, and the normalisation of a filtered image.

All on the half plane of an rfft2, frequencies in cycles per pixel. Shapes are real-space
shapes (h, w); unlike the peer's, they may be odd.
"""

import numpy as np

CORNER = np.sqrt(2) / 2


def radial_frequency(shape: tuple[int, int]) -> np.ndarray:
    """|k| in cycles per pixel, (h, w//2 + 1)."""
    h, w = shape
    ky = np.fft.fftfreq(h)[:, None]
    kx = np.arange(w // 2 + 1)[None, :] / w
    return np.sqrt(ky**2 + kx**2)


def half_plane_weights(width: int) -> np.ndarray:
    """How often each half-plane column occurs in the full spectrum: (width//2 + 1,)."""
    weights = np.full(width // 2 + 1, 2.0)
    weights[0] = 1.0
    if width % 2 == 0:
        weights[-1] = 1.0
    return weights


def interpolate(k: np.ndarray, frequencies, values) -> np.ndarray:
    """Linear between the points, 1 outside. The last point itself counts as outside.

    (So does the peer; it only matters where a grid point is exactly the last frequency,
    such as the corner (1/2, 1/2) for a whitening filter without max_freq.)
    """
    frequencies = np.asarray(frequencies, np.float64)
    inside = np.interp(k, frequencies, np.asarray(values, np.float64))
    outside = (k < frequencies[0]) | (k >= frequencies[-1] - 1e-12)
    return np.where(outside, 1.0, inside)


def whitening_curve(
    image_rfft: np.ndarray,
    shape: tuple[int, int],
    num_freq_bins: int | None = None,
    max_freq: float | None = 0.5,
    do_power_spectrum: bool = True,
) -> tuple[np.ndarray, np.ndarray]:
    """The 1D whitening filter: (bin frequencies, values).

    Each half-plane coefficient counts once (no doubling of the inner columns).

    Args:
        image_rfft: rfft2 of the image, DC already 0.
        shape: the image's real-space shape.
    """
    if num_freq_bins is None:
        # of the rfft's own shape: (h, w//2 + 1), not (h, w)
        num_freq_bins = int((max(image_rfft.shape) // 2 + 1) * np.sqrt(2) + 1)
    bins = np.linspace(0.0, CORNER, num_freq_bins)
    step = bins[1]

    power = np.abs(image_rfft)
    if do_power_spectrum:
        power = power**2

    total = np.zeros(num_freq_bins)
    count = np.zeros(num_freq_bins)
    for k, p in zip(radial_frequency(shape).ravel(), power.ravel(), strict=True):
        lower = min(int(k / step), num_freq_bins - 1)
        upper = min(lower + 1, num_freq_bins - 1)
        fraction = min((k - bins[lower]) / step, 1.0)
        total[lower] += (1 - fraction) * p
        total[upper] += fraction * p
        count[lower] += 1 - fraction
        count[upper] += fraction
    spectrum = total / np.where(count == 0, 1.0, count)
    if do_power_spectrum:
        spectrum = np.sqrt(spectrum)

    curve = np.zeros(num_freq_bins)
    curve[spectrum != 0] = 1 / spectrum[spectrum != 0]
    above = np.zeros(num_freq_bins, bool) if max_freq is None else bins > max_freq
    curve = curve / curve[~above].max()
    curve[above] = 1.0
    return bins, curve


def whitening_filter(
    image_rfft: np.ndarray,
    shape: tuple[int, int],
    output_shape: tuple[int, int] | None = None,
    num_freq_bins: int | None = None,
    max_freq: float | None = 0.5,
    do_power_spectrum: bool = True,
) -> np.ndarray:
    """The whitening filter of an image, evaluated on any grid (default: its own)."""
    bins, curve = whitening_curve(
        image_rfft, shape, num_freq_bins, max_freq, do_power_spectrum
    )
    grid = radial_frequency(shape if output_shape is None else output_shape)
    return interpolate(grid, bins, curve)


def bandpass_filter(
    shape: tuple[int, int],
    low: float | None = None,
    high: float | None = None,
    falloff: float | None = None,
) -> np.ndarray:
    """1 on (low, high], quarter-cosine ramps of width ``falloff`` outside, then 0.

    With low = 0 and no falloff the DC is 0, since the interval is open there.
    """
    low = 0.0 if low is None else low
    high = 1.0 if high is None else high
    falloff = 0.0 if falloff is None else falloff
    k = radial_frequency(shape)
    band = (k > low) & (k <= high)
    ramp = (k > low - falloff) & (k <= high + falloff) & ~band
    result = band.astype(np.float64)
    distance = np.minimum(np.abs(k - low), np.abs(k - high))
    result[ramp] = np.cos(distance[ramp] / falloff * np.pi / 2) if ramp.any() else 0.0
    return result


def curve_filter(shape: tuple[int, int], frequencies, amplitudes) -> np.ndarray:
    """Linear interpolation of a user's curve at |k|, 1 outside it."""
    return interpolate(radial_frequency(shape), frequencies, amplitudes)


def combined_filter(
    image_rfft: np.ndarray,
    shape: tuple[int, int],
    output_shape: tuple[int, int] | None = None,
    whitening: dict | None = None,
    bandpass: dict | None = None,
    curve: dict | None = None,
) -> np.ndarray:
    """Whitening times bandpass times curve on the output grid; None switches one off.

    ``whitening={}`` is the whitening filter with its defaults. Evaluated on the
    template's grid this is the projective filter.
    """
    output_shape = shape if output_shape is None else output_shape
    result = np.ones_like(radial_frequency(output_shape))
    if whitening is not None:
        result = result * whitening_filter(image_rfft, shape, output_shape, **whitening)
    if bandpass is not None:
        result = result * bandpass_filter(output_shape, **bandpass)
    if curve is not None:
        result = result * curve_filter(output_shape, **curve)
    return result


def normalise_image(
    image_rfft: np.ndarray,
    total_filter: np.ndarray,
    bandpass: np.ndarray | None,
    image_shape: tuple[int, int],
    box_shape: tuple[int, int],
    peer_box_area: bool = False,
) -> np.ndarray:
    """Filter an image and bring it to the unit in which correlations of noise have std 1.

    Args:
        image_rfft: rfft2 of the image, DC 0.
        total_filter: :func:`combined_filter` on the image's own grid.
        bandpass: the bandpass filter alone on that grid; None counts as all ones.
        box_shape: (H, W) of the extracted boxes. For local filtering, where each box is
            normalised by itself, the image is the box and the ratio of areas is 1.
        peer_box_area: take (H+1)(W+1) for the box's area, as the peer does when it
            filters the whole micrograph.

    Returns:
        The normalised rfft2 of the image. Its irfft2 has pixel variance 1/(box area),
        times the passed fraction of the spectrum.
    """
    weights = half_plane_weights(image_shape[1])
    filtered = image_rfft * total_filter
    power = np.sum(weights * np.abs(filtered) ** 2)
    if bandpass is None:
        bandpass = np.ones(image_rfft.shape)
    dimensionality = np.sum(weights * bandpass)
    box_h, box_w = box_shape
    area = (box_h + 1) * (box_w + 1) if peer_box_area else box_h * box_w
    factor = dimensionality / power * image_shape[0] * image_shape[1] / area
    return filtered * np.sqrt(factor)
