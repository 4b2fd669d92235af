"""From a micrograph to particles that are ready to score."""

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Complex, Float, Int

from jaxrefine.data import Alignment, InputError, Optics, Particles
from jaxrefine.physics.boxes import centre_crop, crop_filled, crop_reflected
from jaxrefine.physics.filters import (
    Filters,
    RadialFilter,
    measure_filter,
    noise_scale,
    randomize_phases,
)
from jaxrefine.physics.medians import nanmedian
from jaxrefine.physics.rotations import AnyArray
from jaxrefine.refine.arguments import check_score
from jaxrefine.refine.cut_arguments import check_images, check_starting_values
from jaxrefine.refine.scoring import Score, box_corner, padded_corner

# Standard deviation outside the statistic maps, where no whole template fits into the
# micrograph. Scores there are 0. The value does not occur within maps.
OUTSIDE_STD = float("inf")
# Standard deviation / median absolute deviation of a normal distribution.
_MAD_TO_STD = 1.4826
# Threshold for peaks of the mean map, in standard deviations of the background. Peaks stay
# below 1 for simulated particles without symmetry, and below 1.7 for a real one with D2.
_PEAK = 2.0


class Micrograph(eqx.Module):
    """One micrograph with its statistic maps.

    Attributes:
        image: Filtered to unit noise (global filtering), or raw (local filtering).
        filter: The filter that was applied; None if each box is filtered separately.
        corr_mean: Mean of the correlation, per position of the template's top-left corner.
        corr_std: Its standard deviation, by which z-scores divide.
        background_mean: Median of the mean map.
        background_std: Median of the standard deviation map.
        noise_std: Standard deviation of the correlation of noise at one pose, over both
            orientations (as in the maps) and positions.
        filters: The filters to apply to boxes.
        filled: Mask of the pixels that were filled; None for none.
        gain: Factor on the filtered image beside the filter; None with local filtering.
    """

    image: Float[Array, "Ny Nx"]
    filter: RadialFilter | None
    corr_mean: Float[Array, "My Mx"]
    corr_std: Float[Array, "My Mx"]
    background_mean: Float[Array, ""]
    background_std: Float[Array, ""]
    noise_std: Float[Array, ""]
    filters: Filters
    filled: Bool[Array, "Ny Nx"] | None = None
    gain: Float[Array, ""] | None = None

    @property
    def template_side(self) -> int:
        """Side of the template with which the maps were computed."""
        return self.image.shape[0] - self.corr_mean.shape[0] + 1


# One program each; without `jit`, JAX compiles six for each of them.
_rfft2 = jax.jit(jnp.fft.rfft2)
_irfft2 = jax.jit(jnp.fft.irfft2, static_argnames="s")


@jax.jit
def _without_mean(rfft: Complex[Array, "Ny r"]) -> Complex[Array, "Ny r"]:
    return rfft.at[0, 0].set(0)


def _rfft_without_mean(image: Float[Array, "Ny Nx"]) -> Complex[Array, "Ny r"]:
    """Transform of the image minus its mean, which avoids loss of digits in float32.

    As one program it would differ in the last digits from run to run (jax 0.10, CPU).
    """
    return _without_mean(_rfft2(image - jnp.mean(image)))


@jax.jit
def _gain_to_one(image: Float[Array, "Ny Nx"]) -> Float[Array, ""]:
    """The power of two that scales an image's largest value to 0.5 … 1.

    Filtering undoes any gain, but squares of the spectrum overflow float32 for pixel values
    above about 1e12. Scaling by a power of two causes no rounding.
    """
    _, exponent = jnp.frexp(jnp.max(jnp.abs(image)))
    # Within the normal numbers of float32; the largest numbers are scaled to at most 4.
    return jnp.ldexp(jnp.float32(1), -jnp.clip(exponent, -126, 126))


def _filter(
    image: Float[Array, "Ny Nx"],
    filters: Filters,
    noise: Float[Array, "Ny Nx"] | None = None,
    noise_share: float | Float[Array, ""] = 1.0,
) -> tuple[Float[Array, "Ny Nx"], RadialFilter, Float[Array, ""]]:
    """Filter an image to unit noise power per coefficient in the band.

    Filter and scale are measured on `noise`, in which only the fraction `noise_share` of
    the pixels holds noise, or on the image itself if it is None. Returns the filtered
    image, the filter, and the scale.
    """
    shape = image.shape[0], image.shape[1]
    gain = _gain_to_one(image)
    rfft = _rfft_without_mean(image * gain)
    noise_rfft = rfft if noise is None else _rfft_without_mean(noise * gain)
    if filters.randomize_phases_from is not None:
        rfft = randomize_phases(rfft, shape, filters.randomize_phases_from)
    radial = measure_filter(noise_rfft, shape, filters)
    on_grid = radial.on_grid(shape)
    scale = noise_scale(noise_rfft * on_grid, shape, filters) * jnp.sqrt(noise_share)
    filtered = _irfft2(rfft * on_grid * scale, s=shape)
    # Filters are float64 with `jax_enable_x64`, of images in float32 too.
    return filtered.astype(rfft.real.dtype), radial, gain * scale


def prepare_micrograph(
    image: Float[Array, "Ny Nx"],
    corr_mean: Float[Array, "My Mx"],
    corr_std: Float[Array, "My Mx"],
    filters: Filters,
    *,
    global_filtering: bool = True,
    second_square_root: bool = False,
    filled: Bool[Array, "Ny Nx"] | None = None,
    noise: Float[Array, "Ny Nx"] | None = None,
    noise_share: float = 1.0,
) -> Micrograph:
    """Filter a micrograph, once for all its particles.

    It is not compiled as a whole, since the program would contain frequency grids of the
    size of the micrograph.

    Args:
        image: Raw micrograph, with any gain and offset.
        corr_mean: `correlation_average` map, shape (Ny - n + 1, Nx - n + 1).
        corr_std: Standard deviation of the correlation, same shape.
        filters: The filters to apply.
        global_filtering: False leaves the image raw, and each box is filtered separately.
        second_square_root: Divide z-scores by the square root of `corr_std`, to reproduce
            an error of Leopard-EM 1.2. The background statistics are not affected.
        filled: Mask of filled pixels, from `clean_micrograph`; None for none.
        noise: The image to measure the noise on with global filtering; None: `image`.
        noise_share: Fraction of the pixels of `noise` that hold noise.

    Raises:
        InputError: No template could have maps of these shapes in an image of this shape,
            or an argument is of another type.
    """
    check_images(image, corr_mean, corr_std, filters)
    filtered, radial, gain = image, None, None
    if global_filtering:
        filtered, radial, gain = _filter(image, filters, noise, noise_share)
    corr_std = jnp.where(jnp.isinf(corr_std), jnp.nan, corr_std)
    background_mean, background_std = nanmedian(corr_mean), nanmedian(corr_std)
    return Micrograph(
        image=filtered,
        filter=radial,
        corr_mean=corr_mean,
        corr_std=jnp.sqrt(corr_std) if second_square_root else corr_std,
        background_mean=background_mean,
        background_std=background_std,
        noise_std=_noise_std(corr_mean, background_mean, background_std),
        filters=filters,
        filled=filled,
        gain=gain,
    )


@eqx.filter_jit
def filled_fraction(
    filled: Bool[Array, "Ny Nx"], position_px: Float[Array, "n 2"], side: int
) -> Float[Array, " n"]:
    """The fraction of each particle's template that covers filled pixels.

    Args:
        filled: Mask of the filled pixels.
        position_px: (y, x) of the template's top-left corner.
        side: Side of the template.
    """
    values = filled.astype(jnp.float32)
    corner = jnp.round(position_px).astype(jnp.int32)
    cut = jax.vmap(lambda at: crop_filled(values, at, (side, side), 0.0))
    return jnp.mean(cut(corner), axis=(1, 2))


def cut_particles(
    micrograph: Micrograph,
    alignment: Alignment,
    optics: Optics,
    template_pixel_size_angstrom: Float[Array, " n"],
    score: Score,
    *,
    image_scale: float = 1.0,
    place_by_z: bool = False,
    valid: Bool[Array, " n"] | None = None,
    boxes: Float[Array, "n Ph Pw"] | None = None,
) -> Particles:
    """Extract the padded boxes of a batch of particles from their micrograph.

    Args:
        micrograph: From `prepare_micrograph`.
        alignment: Starting values; positions are rounded to whole pixels.
        optics: Optics, per particle.
        template_pixel_size_angstrom: Voxel size of the template, per particle.
        score: The score; it determines the padded box and the grids of the filter. Its
            template may be the middle of the one with which the maps were computed;
            positions always refer to the latter.
        image_scale: Factor on the images, for the normalisation of another program.
        place_by_z: Choose positions by z only, even if the mean map peaks at the particle.
        valid: False marks padding of a batch.
        boxes: Raw boxes to filter instead of cutting any, such as sums of movie frames from
            `refine.movies`: the middle of each is what would be cut, `score.padded_box`,
            and what is around it is for the filter.

    Raises:
        InputError: The maps do not belong to a template with the side of the score, or to a
            larger one of which it can be the middle; the shapes of alignment, optics or
            pixel sizes are not those of n particles; or, outside `jit`, a rotation is
            none, a position is not finite, or a number is in another unit.
    """
    check_score(score)
    if not isinstance(micrograph, Micrograph):
        raise InputError(
            f"micrograph: {type(micrograph).__name__}; expected a Micrograph: "
            "jr.prepare_micrograph(...)"
        )
    check_starting_values(alignment, optics, template_pixel_size_angstrom, score, valid)
    rest = micrograph.template_side - score.side
    if rest < 0 or rest % 2:
        raise InputError(
            f"maps of shape {micrograph.corr_mean.shape} in a micrograph of shape "
            f"{micrograph.image.shape} are of a template of {micrograph.template_side} px; "
            f"the score's template has {score.side} px"
        )
    return _cut(
        micrograph,
        alignment,
        optics,
        template_pixel_size_angstrom,
        score,
        image_scale,
        place_by_z,
        valid,
        boxes,
    )


@eqx.filter_jit
def _cut(
    micrograph: Micrograph,
    alignment: Alignment,
    optics: Optics,
    template_pixel_size_angstrom: Float[Array, " n"],
    score: Score,
    image_scale: float,
    place_by_z: bool,
    valid: Bool[Array, " n"] | None,
    boxes: Float[Array, "n Ph Pw"] | None,
) -> Particles:
    """`cut_particles` after the checks of its arguments."""
    corner = jnp.round(alignment.position_px).astype(jnp.int32)
    cut = jax.vmap(partial(_extract_one, micrograph, score))
    image, filter_image, filter_template, corr_mean, corr_std = cut(corner, boxes)
    count = corner.shape[0]
    background = micrograph.background_mean, micrograph.background_std
    peaks = mean_map_peaks(corr_mean, *background)
    return Particles(
        alignment=eqx.tree_at(
            lambda a: a.position_px, alignment, corner.astype(jnp.float32)
        ),
        optics=optics,
        template_pixel_size_angstrom=template_pixel_size_angstrom,
        image=image * image_scale,
        filter_image=filter_image,
        filter_template=filter_template,
        corr_mean=corr_mean,
        corr_std=corr_std,
        background_mean=jnp.full(count, micrograph.background_mean),
        background_std=jnp.full(count, micrograph.background_std),
        noise_std=jnp.full(count, micrograph.noise_std),
        mean_peaks=jnp.zeros(count, bool) if place_by_z else peaks,
        valid=jnp.ones(count, bool) if valid is None else valid,
    )


def _noise_std(
    corr_mean: Float[Array, "Y X"],
    background_mean: Float[Array, ""],
    background_std: Float[Array, ""],
) -> Float[Array, ""]:
    """Standard deviation of the correlation at one pose, by the law of total variance.

    The part that all orientations share, the low frequencies, is in the mean map and not in
    the standard deviations. Its spread is estimated by medians, which ignore particles.
    """
    spread = _MAD_TO_STD * nanmedian(jnp.abs(corr_mean - background_mean))
    return jnp.hypot(background_std, spread)


def mean_map_peaks(
    corr_mean: Float[AnyArray, "*n Y X"],
    background_mean: Float[AnyArray, ""],
    background_std: Float[AnyArray, ""],
) -> Bool[AnyArray, "*n"]:
    """Whether each of the given parts of the mean map contains a peak.

    Most orientations of a template of high symmetry correlate with a particle. The mean map
    is then high at the particle, and z, which subtracts it, is higher beside the particle.
    """
    xp = corr_mean.__array_namespace__()
    finite = xp.where(xp.isnan(corr_mean), -xp.inf, corr_mean)
    return xp.max(finite, axis=(-2, -1)) > background_mean + _PEAK * background_std


def _extract_one(
    micrograph: Micrograph,
    score: Score,
    corner: Int[Array, " 2"],
    raw: Float[Array, "Ph Pw"] | None,
) -> tuple[Array, Array, Array, Array, Array]:
    """(image, filter on its grid, filter on the score's, mean, std) of one particle.

    A position is the corner of the template with which the maps were computed. The template
    of the score may be its middle.
    """
    at_box = box_corner(score, corner)
    trimmed = micrograph.template_side - score.side
    radial, gain = micrograph.filter, micrograph.gain
    if raw is None:
        at_cut = padded_corner(score, micrograph.template_side, corner)
        image = crop_reflected(micrograph.image, at_cut, score.padded_box)
    elif radial is not None and gain is not None:
        image = centre_crop(_filter_raw(raw, radial, gain), score.padded_box)
    else:
        image = centre_crop(raw, score.padded_box)
    if radial is None:
        share = jnp.asarray(1.0)
        if micrograph.filled is not None:
            filled = micrograph.filled.astype(jnp.float32)
            inner_corner = at_box + trimmed // 2
            share = 1 - jnp.mean(crop_reflected(filled, inner_corner, score.box))
        image, radial = _filter_box(image, score.box, micrograph.filters, share)
    std = crop_filled(micrograph.corr_std, at_box, score.positions, OUTSIDE_STD)
    outside = jnp.isinf(std)
    # The score of 0 outside the maps must not win over negative scores inside.
    scored = jnp.any((std > 0) & ~outside) | jnp.all(outside)
    of_image, of_template = map(radial.on_grid, (score.padded_box, score.filter_grid))
    dropout = micrograph.filters.dropout
    if dropout is not None:
        of_image *= dropout.on_grid(score.padded_box, micrograph.template_side)
        of_template *= dropout.on_grid(score.filter_grid, micrograph.template_side)
    return (
        image,
        of_image,
        of_template,
        crop_filled(micrograph.corr_mean, at_box, score.positions, 0.0),
        jnp.where(scored, std, jnp.nan),
    )


def _filter_raw(
    raw: Float[Array, "Ph Pw"], radial: RadialFilter, gain: Float[Array, ""]
) -> Float[Array, "Ph Pw"]:
    """Apply a micrograph's filter to a box that was not cut out of it."""
    shape = raw.shape[0], raw.shape[1]
    rfft = jnp.fft.rfft2(raw - jnp.mean(raw))
    from_frequency = radial.filters.randomize_phases_from
    if from_frequency is not None:
        rfft = randomize_phases(rfft, shape, from_frequency)
    return jnp.fft.irfft2(rfft * radial.on_grid(shape) * gain, s=shape)


def _filter_box(
    image: Float[Array, "Qh Qw"],
    box: tuple[int, int],
    filters: Filters,
    noise_share: Float[Array, ""],
) -> tuple[Float[Array, "Qh Qw"], RadialFilter]:
    """Local filtering: measured in the box, and applied to the padded box."""
    inner = centre_crop(image, box)
    filtered, radial, _ = _filter(inner, filters, noise_share=noise_share)
    if image.shape == inner.shape:
        return filtered, radial
    scale = noise_scale(_rfft_without_mean(inner) * radial.on_grid(box), box, filters)
    scale = scale * jnp.sqrt(noise_share)
    rfft = jnp.fft.rfft2(image - jnp.mean(inner))
    shape = image.shape[0], image.shape[1]
    if filters.randomize_phases_from is not None:
        rfft = randomize_phases(rfft, shape, filters.randomize_phases_from)
    # The scale includes sqrt(N) of the box's N pixels, which cancels in the transforms.
    return jnp.fft.irfft2(rfft * radial.on_grid(shape) * scale, s=shape), radial
