"""Checks of what particles are made of: image, statistic maps, starting values, optics."""

from dataclasses import fields
from typing import Any

import numpy as np
from jaxtyping import Array, Bool, Float

from jaxrefine.data import Alignment, InputError, Optics
from jaxrefine.data.optics import LIMITS
from jaxrefine.physics.filters import Filters
from jaxrefine.physics.rotations import is_rotation
from jaxrefine.refine.arguments import alignment_errors, is_traced
from jaxrefine.refine.scoring import Score, box_error, limit_errors

# Nobody samples a template more than this much finer or coarser than the images.
_LARGEST_RATIO = 8.0


def check_images(image: Any, corr_mean: Any, corr_std: Any, filters: Any) -> None:
    """Check that an image can have these statistic maps.

    Raises:
        InputError: Shapes that do not match, complex numbers, or another type of filters.
    """
    shape, of_maps = np.shape(image), np.shape(corr_mean)
    lost = [a - b for a, b in zip(shape, of_maps, strict=False)]
    if len(shape) != 2 or len(of_maps) != 2 or of_maps != np.shape(corr_std):
        raise InputError(
            f"image {shape}, corr_mean {of_maps}, corr_std {np.shape(corr_std)}: expected "
            "an image (Ny, Nx) and two maps of one shape, (Ny - n + 1, Nx - n + 1) for a "
            "template of side n"
        )
    if lost[0] != lost[1] or lost[0] < 1:
        raise InputError(
            f"maps of shape {of_maps} with an image of shape {shape}: expected (Ny - n + "
            "1, Nx - n + 1) for a template of side n, the positions of its first pixel; "
            "crop maps that were padded to the image's shape"
        )
    if not np.isrealobj(image):
        raise InputError("image: complex numbers; expected the micrograph in real space")
    if not isinstance(filters, Filters):
        raise InputError(
            f"filters: {type(filters).__name__}; expected Filters: jr.Filters()"
        )


def check_starting_values(
    alignment: Alignment,
    optics: Optics,
    template_pixel_size_angstrom: Float[Array, "..."],
    score: Score,
    valid: Bool[Array, " n"] | None,
) -> None:
    """Check starting values and optics of a batch: shapes, and values if they are known.

    Values that are not finite are left to the status of their particle, except positions.

    Raises:
        InputError: Shapes that are not those of n particles, matrices that are no
            rotations, positions that are not finite, or numbers in another unit.
    """
    if score.box[0] % 2 or score.box[1] % 2:
        raise InputError(box_error(score.box, score.side))
    position_shape = np.shape(alignment.position_px)
    if len(position_shape) != 2:
        raise InputError(
            f"alignment.position_px: shape {position_shape}; expected (n, 2): a batch of "
            "particles"
        )
    count = position_shape[:1]
    errors = alignment_errors(alignment, count)
    per_particle = {f"optics.{f.name}": getattr(optics, f.name) for f in fields(optics)}
    per_particle["template_pixel_size_angstrom"] = template_pixel_size_angstrom
    errors += [
        f"{name}: shape {np.shape(values)}; expected {count}, one per particle"
        for name, values in per_particle.items()
        if values is not None and np.shape(values)[:1] != count
    ]
    if errors:
        raise InputError(errors)
    if not is_traced((alignment, optics, valid)):
        kept = np.ones(count, bool) if valid is None else np.asarray(valid)
        errors = _value_errors(alignment, optics, kept)
        if not is_traced(template_pixel_size_angstrom):
            errors += voxel_errors(
                template_pixel_size_angstrom, alignment.pixel_size_angstrom, kept
            )
        if errors:
            raise InputError(errors)


def voxel_errors(
    template_pixel_size_angstrom: Any, pixel_size_angstrom: Any, valid: Any = True
) -> list[str]:
    """Describe the first voxel size that must be in another unit than the pixel size.

    Args:
        template_pixel_size_angstrom: One per particle.
        pixel_size_angstrom: The same of the images.
        valid: False marks particles that do not count.
    """
    voxel = np.asarray(template_pixel_size_angstrom, np.float64)
    pixel = np.asarray(pixel_size_angstrom, np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = voxel / pixel
    wrong = np.isfinite(ratio) & ~((ratio > 1 / _LARGEST_RATIO) & (ratio < _LARGEST_RATIO))
    return [
        f"template_pixel_size_angstrom of particle {i}: {voxel[i]:g} Å, for pixels of "
        f"{pixel[i]:g} Å; expected a similar voxel size: check the unit (Å, not nm)"
        for i in np.flatnonzero(wrong & valid)[:1]
    ]


def _value_errors(
    alignment: Alignment,
    optics: Optics,
    valid: Bool[np.ndarray, " n"],
) -> list[str]:
    """Describe the values that cannot be meant, of the particles that are not padding."""
    errors = []
    rotation = np.array(alignment.rotation, np.float64)
    finite = np.isfinite(rotation).all(axis=(1, 2))
    rotation[~finite] = np.eye(3)
    for wrong, text in (
        (
            ~is_rotation(rotation),
            "alignment.rotation of particle {}: no rotation matrix; expected one that is "
            "orthonormal and not mirrored, as jr.euler_to_matrix returns",
        ),
        (
            ~np.isfinite(np.asarray(alignment.position_px)).all(axis=1),
            "alignment.position_px of particle {}: not finite",
        ),
    ):
        errors += [text.format(i) for i in np.flatnonzero(wrong & valid)[:1]]
    for name in LIMITS:
        owner = alignment if hasattr(alignment, name) else optics
        of_valid = np.where(valid, np.asarray(getattr(owner, name)), np.nan)
        errors += limit_errors(f"{type(owner).__name__.lower()}.{name}", of_valid)
    return errors
