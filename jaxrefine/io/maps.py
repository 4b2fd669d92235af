"""Maps of a match: each in an MRC file, or all in one HDF5 file."""

from pathlib import Path

import numpy as np
from jaxtyping import Float

from jaxrefine.io.hdf5 import hdf5_map_shape, is_hdf5, read_hdf5_map
from jaxrefine.io.mrc import image_shape, read_image

# The two maps that a refinement reads, named as the table's columns without "_path".
MEAN, SPREAD = "correlation_average", "correlation_variance"


def read_map(path: Path, name: str) -> Float[np.ndarray, "My Mx"]:
    """Reads a map as float32.

    Args:
        path: An MRC file, or an HDF5 file of a match's results.
        name: Name of the map in an HDF5 file.

    Raises:
        InputError: The file cannot be read, or holds no such map.
    """
    return read_hdf5_map(path, name) if is_hdf5(path) else read_image(path)


def map_shape(path: Path, name: str, *, warn: bool = True) -> tuple[int, int]:
    """Sides (y, x) of a map, without reading its values; otherwise as `read_map`."""
    return hdf5_map_shape(path, name) if is_hdf5(path) else image_shape(path, warn=warn)
