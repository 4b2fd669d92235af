"""Stacks of boxes, written one by one so that none need fit into memory."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import mrcfile
import numpy as np

from jaxrefine.data.errors import InputError
from jaxrefine.io.replace import PARTIAL_SUFFIX


@contextmanager
def new_stack(
    path: Path, n: int, box_px: int, pixel_size_angstrom: float
) -> Iterator[np.ndarray]:
    """Open a stack of square images that takes the name `path` when the block ends well.

    Args:
        path: File in a folder that exists; replaced at once if it is there.
        n: Number of images.
        box_px: Their side.
        pixel_size_angstrom: For the header.

    Yields:
        Array (n, y, x) of float32 in the file, to be filled.

    Raises:
        InputError: The file cannot be written.
    """
    temporary = path.parent / f".{secrets.token_hex(8)}{path.suffix}{PARTIAL_SUFFIX}"
    try:
        try:
            with mrcfile.new_mmap(temporary, (n, box_px, box_px), mrc_mode=2) as file:
                file.set_image_stack()
                file.voxel_size = pixel_size_angstrom
                yield np.asarray(file.data)
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror or error}") from error
