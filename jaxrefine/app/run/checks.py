"""Checks of the files that a run will read, all before any long work."""

import logging
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from jaxrefine.app.config import Config
from jaxrefine.data import ErrorCollector, InputError
from jaxrefine.io.mrc import image_shape, read_volume, volume_shape

log = logging.getLogger("jaxrefine")

# Voxel sizes in headers are rounded; half a percent shifts nothing that can be seen.
_VOXEL_SIZE_TOLERANCE = 0.005
_MAX_IMAGE_ERRORS = 20


def check_exists(path: Path, text: str, key: str, source: str) -> None:
    """Refuse a file of the configuration that is nowhere.

    Args:
        path: Where `resolve_path` looked last.
        text: The path as the configuration has it.
        key: Its key.
        source: The configuration.

    Raises:
        InputError: If so.
    """
    if not os.path.exists(path):
        raise InputError(
            f"{source}: {key}: {text} — no such file in the current folder, nor beside "
            "the configuration"
        )


def read_template(path: Path, config: Config) -> tuple[np.ndarray, float | None]:
    """The template volume and its header's voxel size in Å, checked.

    Raises:
        InputError: If it is no cube of the configured even side, not finite, or constant.
    """
    shape = volume_shape(path)  # before its values take memory
    side = config.particle_stack.original_template_size[0]
    key = f"{config.source}: template_volume_path: {path}"
    if len(set(shape)) != 1:
        raise InputError(f"{key} — has shape {shape}; it must be a cube")
    if shape[0] != side:
        raise InputError(
            f"{key} — has side {shape[0]} px, but particle_stack.original_"
            f"template_size says {side}; the two must be equal (and even)"
        )
    volume, voxel_size = read_volume(path)
    if not np.isfinite(volume).all():
        count = int((~np.isfinite(volume)).sum())
        raise InputError(f"{key} — {count} voxels are NaN or infinite; all must be finite")
    if volume.min() == volume.max():
        raise InputError(f"{key} — is constant ({volume.min():g}); it holds no structure")
    return volume, voxel_size


def warn_of_voxel_size(
    voxel_size_angstrom: float | None, template_pixel_size_angstrom: np.ndarray
) -> None:
    """Warn where the template's header disagrees with the size it is taken to have."""
    if voxel_size_angstrom is None:
        return
    for taken in np.unique(template_pixel_size_angstrom):
        if abs(voxel_size_angstrom / taken - 1) > _VOXEL_SIZE_TOLERANCE:
            log.warning(
                "the template's header says %g Å per voxel, it is taken as %g Å; "
                "set template_pixel_size if the header is right",
                voxel_size_angstrom,
                taken,
            )


def check_images(
    groups: dict[tuple[Path, Path, Path], np.ndarray], lines: tuple[int, ...], side: int
) -> None:
    """Check that every micrograph and its maps exist and fit together.

    Args:
        groups: (micrograph, mean map, variance map) -> rows.
        lines: Line of each row in the table, for messages.
        side: Side of the template; maps have one position per template inside.

    Raises:
        InputError: With every error, or the first ones and how many more there are.
    """
    errors = ErrorCollector()
    for (micrograph, *maps), rows in groups.items():
        where = f" (first named on line {lines[rows[0]]} of the particle table)"
        expected = None
        with errors, add_error_context(after=where):
            height, width = image_shape(micrograph)
            if min(height, width) < side:
                raise InputError(
                    f"{micrograph}: has shape {(height, width)}; it must be at least as "
                    f"large as the template, {side} px"
                )
            expected = (height - side + 1, width - side + 1)
        for path in maps:
            with errors, add_error_context(after=where):
                found = image_shape(path)
                if expected is not None and found != expected:
                    raise InputError(
                        f"{path}: has shape {found}; a statistic map of {micrograph} and "
                        f"a template of {side} px has shape {expected}"
                    )
    try:
        errors.raise_any()
    except InputError as error:  # a folder that was moved: all images of it
        if len(error.errors) <= _MAX_IMAGE_ERRORS:
            raise
        more = len(error.errors) - _MAX_IMAGE_ERRORS
        raise InputError(
            [*error.errors[:_MAX_IMAGE_ERRORS], f"… and {more} more errors of images"]
        ) from error


@contextmanager
def add_error_context(*, before: str = "", after: str = "") -> Iterator[None]:
    """Say of each error where what is invalid is named."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{before}{message}{after}" for message in error.errors) from error


def check_output(output: Path, inputs: Iterable[Path], source: str) -> None:
    """Refuse an output that cannot be written or would overwrite an input.

    Raises:
        InputError: If so.
    """
    key = f"{source}: output_path: {output}"
    try:
        real = Path(os.path.realpath(output))  # resolve() has no word for circles
        if os.path.lexists(output) and not os.path.exists(output):
            raise InputError(f"{key} — is a broken link; name a file")
        if not real.parent.is_dir():
            raise InputError(f"{key} — its folder does not exist; make it first")
        if real.is_dir():
            raise InputError(f"{key} — is a folder; name a file")
        if real.exists() and not real.is_file():  # it would be replaced
            raise InputError(f"{key} — is a device or a pipe; name a file")
        with tempfile.TemporaryFile(dir=real.parent):
            pass  # the folder can be written to
        if os.path.realpath(output) in map(os.path.realpath, inputs):
            raise InputError(f"{key} — is an input of the run; name another file")
    except (OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{key} — cannot be written: {reason}") from error
