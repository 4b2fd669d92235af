"""Filters: whitening, bandpass, an arbitrary curve, random phases, random dropout.

Definitions follow torch-fourier-filter 0.6. Frequencies are in cycles per pixel; 0.5 is
Nyquist and √2/2 the corner of the Fourier plane.
"""

import math
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Complex, Float, Int

from jaxrefine.physics.fourier import half_plane_weights, radial_frequency

_CORNER = math.sqrt(2) / 2


class Whitening(eqx.Module):
    """How the noise spectrum is estimated and flattened.

    Attributes:
        num_freq_bins: Bins from 0 to √2/2; None chooses from the image's size.
        max_freq: The filter is 1 above this; None goes to the corner.
        do_power_spectrum: Average |X|² and take the root, rather than average |X|.
    """

    num_freq_bins: int | None = eqx.field(static=True, default=None)
    max_freq: float | None = eqx.field(static=True, default=0.5)
    do_power_spectrum: bool = eqx.field(static=True, default=True)


class Bandpass(eqx.Module):
    """1 on (low, high]; quarter-cosine ramps of width falloff outside."""

    low: float = eqx.field(static=True, default=0.0)
    high: float = eqx.field(static=True, default=1.0)
    falloff: float = eqx.field(static=True, default=0.0)


class Curve(eqx.Module):
    """Linear interpolation of (frequencies, amplitudes); 1 outside."""

    frequencies: tuple[float, ...] = eqx.field(static=True)
    amplitudes: tuple[float, ...] = eqx.field(static=True)


class Dropout(eqx.Module):
    """Fourier coefficients of the template that are left out, chosen at random.

    Leopard-EM 1.3 leaves out the same ones in a match with the same fraction and seed:
    those where a number drawn by a Mersenne Twister (torch.rand) is not above the fraction.

    Attributes:
        fraction: Expected fraction that is left out, at least 0 and less than 1.
        seed: 0 to 2³² - 1.
    """

    fraction: float = eqx.field(static=True)
    seed: int = eqx.field(static=True, default=0)

    def on_grid(self, shape: tuple[int, int], side: int) -> Float[np.ndarray, "h r"]:
        """1 at the frequencies that are kept, otherwise 0.

        Args:
            shape: Real-space shape of the image; the mask is on its half plane.
            side: Side of the template. On other grids a frequency is left out where the
                nearest one of the template's grid is.
        """
        drawn = np.random.RandomState(self.seed).randint(
            0, 1 << 32, (side, side // 2 + 1), dtype=np.uint32
        )
        uniform = (drawn % (1 << 24)).astype(np.float32) / np.float32(1 << 24)
        kept = uniform > np.float32(self.fraction)
        y = np.round(np.fft.fftfreq(shape[0]) * side).astype(int) % side
        x = np.round(np.fft.rfftfreq(shape[1]) * side).astype(int)
        return kept[y[:, None], x].astype(np.float32)


class Filters(eqx.Module):
    """The filters to apply; None omits one. Plain numbers, no arrays.

    Attributes:
        randomize_phases_from: Phases of the image at and above this frequency are replaced
            by random ones: a control that shows how much of a score comes from these
            frequencies. The template is not changed.
        dropout: Coefficients of the template that do not count.
    """

    whitening: Whitening | None = Whitening()
    bandpass: Bandpass | None = None
    curve: Curve | None = None
    randomize_phases_from: float | None = eqx.field(static=True, default=None)
    dropout: Dropout | None = None


class RadialFilter(eqx.Module):
    """A filter measured on one image, which can be evaluated on any grid.

    Attributes:
        whitening_values: Whitening amplitudes, evenly spaced over [0, √2/2].
        filters: The settings from which it was made.
    """

    whitening_values: Float[Array, " f"] | None
    filters: Filters

    def on_grid(self, shape: tuple[int, int]) -> Float[Array, "h r"]:
        """The product of all filters on the half plane of an image of `shape`."""
        k = jnp.asarray(radial_frequency(shape))
        total = jnp.ones_like(k)
        if self.whitening_values is not None:
            total = total * _between_bins(k, self.whitening_values)
        if self.filters.bandpass is not None:
            total = total * bandpass_on_grid(self.filters.bandpass, shape)
        if self.filters.curve is not None:
            frequencies = jnp.asarray(self.filters.curve.frequencies)
            amplitudes = jnp.asarray(self.filters.curve.amplitudes)
            total = total * jnp.interp(k, frequencies, amplitudes, left=1.0, right=1.0)
        return total


@jax.jit
def _between_bins(
    k: Float[Array, "h r"], values: Float[Array, " f"]
) -> Float[Array, "h r"]:
    """Whitening amplitudes at some frequencies."""
    grid = jnp.linspace(0.0, _CORNER, values.shape[0])
    return jnp.interp(k, grid, values, left=1.0, right=1.0)


def default_num_freq_bins(shape: tuple[int, int]) -> int:
    """Number of whitening bins for an image of `shape`, as in torch-fourier-filter."""
    return int((max(shape[0], shape[1] // 2 + 1) // 2 + 1) * math.sqrt(2) + 1)


def whitening_frequencies(
    shape: tuple[int, int], settings: Whitening
) -> Float[np.ndarray, " f"]:
    """Frequencies of the whitening bins of an image of `shape`, in cycles/px; from 0."""
    bins = settings.num_freq_bins or default_num_freq_bins(shape)
    return np.linspace(0.0, _CORNER, bins)


def whitening_values(
    image_rfft: Complex[Array, "h r"], shape: tuple[int, int], settings: Whitening
) -> Float[Array, " f"]:
    """Reciprocal amplitude spectrum of an image; its maximum up to max_freq is 1.

    Each half-plane coefficient is split linearly between its two nearest bins. Empty
    bins and bins without power stay 0.

    Args:
        image_rfft: rfft2 of the image.
        shape: The image's real-space shape.
        settings: Bins, cut-off, and the quantity that is averaged.
    """
    frequencies = whitening_frequencies(shape, settings)
    bins = len(frequencies)
    # The bin of each coefficient is known beforehand; only the power is measured.
    place = radial_frequency(shape).ravel() * ((bins - 1) / _CORNER)
    low = np.clip(place.astype(np.int32), 0, bins - 2)
    upper = (place - low).astype(np.float32)
    counts = np.bincount(low, 1 - upper, bins) + np.bincount(low + 1, upper, bins)
    share = np.where(counts > 0, 1 / np.maximum(counts, 1e-12), 0)
    last = math.inf if settings.max_freq is None else settings.max_freq
    return _reciprocal_amplitude(
        image_rfft, low, upper, share, frequencies > last, settings.do_power_spectrum
    )


@partial(jax.jit, static_argnums=5)
def _reciprocal_amplitude(
    image_rfft: Complex[Array, "h r"],
    low: Int[Array, " k"],
    upper: Float[Array, " k"],
    share: Float[Array, " f"],
    above: Bool[Array, " f"],
    do_power_spectrum: bool,
) -> Float[Array, " f"]:
    """Reciprocal mean amplitudes in bins, of which the largest is 1; 1 in bins `above`.

    Args:
        image_rfft: rfft2 of the image.
        low: The lower bin of each coefficient.
        upper: The part of each that counts for the next bin.
        share: 1 / number of coefficients in each bin.
        above: Mask of the bins above the largest frequency.
        do_power_spectrum: Average squares.
    """
    power = jnp.abs(image_rfft).ravel()
    if do_power_spectrum:
        power = power**2
    sums = jnp.zeros(share.shape[0]).at[low].add(power * (1 - upper))
    sums = sums.at[low + 1].add(power * upper)
    mean = sums * share
    amplitude = jnp.sqrt(mean) if do_power_spectrum else mean
    reciprocal = jnp.where(amplitude > 0, 1 / jnp.where(amplitude > 0, amplitude, 1), 0)
    largest = jnp.max(jnp.where(above, 0, reciprocal))
    return jnp.where(above, 1.0, reciprocal / largest)


def bandpass_on_grid(bandpass: Bandpass, shape: tuple[int, int]) -> Float[Array, "h r"]:
    """The bandpass on the half plane of an image of `shape`."""
    k = jnp.asarray(radial_frequency(shape))
    inside = (k > bandpass.low) & (k <= bandpass.high)
    if bandpass.falloff <= 0:
        return inside.astype(jnp.float32)
    distance = jnp.minimum(jnp.abs(k - bandpass.low), jnp.abs(k - bandpass.high))
    ramp = (k > bandpass.low - bandpass.falloff) & (k <= bandpass.high + bandpass.falloff)
    soft = jnp.cos(distance / bandpass.falloff * (math.pi / 2))
    return jnp.where(inside, 1.0, jnp.where(ramp, soft, 0.0))


def measure_filter(
    image_rfft: Complex[Array, "h r"], shape: tuple[int, int], filters: Filters
) -> RadialFilter:
    """The filters for one image, with whitening measured on it.

    Args:
        image_rfft: rfft2 of the image, its DC set to 0.
        shape: The image's real-space shape.
        filters: Which filters apply.
    """
    values = None
    if filters.whitening is not None:
        values = whitening_values(image_rfft, shape, filters.whitening)
    return RadialFilter(whitening_values=values, filters=filters)


def noise_scale(
    filtered_rfft: Complex[Array, "h r"], shape: tuple[int, int], filters: Filters
) -> Float[Array, ""]:
    """Factor that gives a filtered image unit noise power per coefficient in the band.

    sqrt(D N / Σ|X|²), sums over the full plane, N pixels; D is the number of
    coefficients in the band (its filter summed), N without a bandpass.
    """
    weights = half_plane_weights(shape)
    total = _weighted_power(filtered_rfft, weights)
    if filters.bandpass is None:
        in_band = jnp.asarray(float(shape[0] * shape[1]))
    else:
        in_band = jnp.sum(weights * bandpass_on_grid(filters.bandpass, shape))
    return jnp.sqrt(in_band / total * (shape[0] * shape[1]))


@jax.jit
def _weighted_power(rfft: Complex[Array, "h r"], weights: Float[Array, " r"]) -> Array:
    return jnp.sum(weights * jnp.abs(rfft) ** 2)


def randomize_phases(
    image_rfft: Complex[Array, "h r"], shape: tuple[int, int], from_frequency: float
) -> Complex[Array, "h r"]:
    """Replace the phases at and above a frequency by those of white noise (fixed seed).

    Noise made in real space has the symmetry of a real image, so no power is lost on
    the edge columns of the half plane.
    """
    noise = jnp.fft.rfft2(jax.random.normal(jax.random.key(0), shape))
    phase = noise / jnp.maximum(jnp.abs(noise), 1e-12)
    randomized = jnp.abs(image_rfft) * phase
    return jnp.where(radial_frequency(shape) >= from_frequency, randomized, image_rfft)
