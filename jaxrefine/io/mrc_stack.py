"""Stacks of particle images, written one by one to save memory."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import mrcfile
import numpy as np

from jaxrefine.io.atomic import atomic_path


@contextmanager
def new_stack(
    path: Path, n: int, box_px: int, pixel_size_angstrom: float
) -> Iterator[np.ndarray]:
    """Open a stack of square images that becomes `path` when the block ends without an
    error.

    Args:
        path: File in a folder that exists; replaced atomically if it exists.
        n: Number of images.
        box_px: Their side.
        pixel_size_angstrom: Pixel size in the header.

    Yields:
        Array (n, y, x) of float32 in the file, to be filled.

    Raises:
        InputError: The file cannot be written.
    """
    shape = (n, box_px, box_px)
    with (
        atomic_path(path) as temporary,
        mrcfile.new_mmap(temporary, shape, mrc_mode=2) as file,
    ):
        file.set_image_stack()
        file.voxel_size = pixel_size_angstrom
        yield np.asarray(file.data)
