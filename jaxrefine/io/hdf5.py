"""HDF5 files, and the maps in the match results of Leopard-EM 1.3."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from jaxrefine.data.errors import InputError
from jaxrefine.io.optional import require_packages
from jaxrefine.io.paths import begins_with

if TYPE_CHECKING:
    import h5py

SUFFIXES = (".h5", ".hdf5")
_SIGNATURE = b"\x89HDF\r\n\x1a\n"
# Leopard-EM's MatchTemplateResultHDF5: eight float32 maps, (y, x), in one group.
_RESULTS = "tensors"
_SIDE_LIMIT_PX = 1_000_000


def is_hdf5(path: Path) -> bool:
    """Whether a file is an HDF5 file, by its first bytes."""
    return begins_with(path, _SIGNATURE)


@contextmanager
def opened_hdf5(path: Path) -> Iterator["h5py.File"]:
    """Open a file for reading; errors become an `InputError`.

    Raises:
        InputError: h5py is not installed, or the file is missing or damaged.
    """
    require_packages("reading HDF5 files", "h5py", extra="hdf5")
    import h5py

    try:
        with h5py.File(path, "r") as file:
            yield file
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except (OSError, KeyError, RuntimeError) as error:
        raise InputError(
            f"{path}: the HDF5 file is damaged ({str(error)[:200]}); copy it again, or "
            "write it again with the program that made it"
        ) from error


def hdf5_map_shape(path: Path, name: str) -> tuple[int, int]:
    """Sides (y, x) of a map, without reading its values; errors as in `read_hdf5_map`."""
    with opened_hdf5(path) as file:
        return _map(file, path, name).shape


def read_hdf5_map(path: Path, name: str) -> Float[np.ndarray, "My Mx"]:
    """Reads a map of a match's results as float32.

    Args:
        path: Results as Leopard-EM 1.3 writes them.
        name: Name of the map, such as "correlation_average".

    Raises:
        InputError: The file cannot be read, or holds no such map.
    """
    with opened_hdf5(path) as file:
        return np.asarray(_map(file, path, name), np.float32)


def _names(file: "h5py.File") -> Iterable[Any]:
    """Names in the results group, or in the file."""
    group: Any = file.get(_RESULTS, file)
    return group


def _map(file: "h5py.File", path: Path, name: str) -> Any:
    found: Any = file.get(f"{_RESULTS}/{name}")
    if found is None or not hasattr(found, "shape"):
        there = ", ".join([*map(str, _names(file))][:10]) or "nothing"
        raise InputError(
            f"{path}: holds no map {_RESULTS}/{name}; it should be the results of a match "
            f"as Leopard-EM 1.3 writes them (it holds {there})"
        )
    sound = len(found.shape) == 2 and 0 < min(found.shape) <= max(found.shape)
    if not sound or max(found.shape) > _SIDE_LIMIT_PX or found.dtype.kind not in "fiu":
        raise InputError(
            f"{path}: {_RESULTS}/{name}: is {found.dtype}{found.shape}; it should be an "
            "image of real numbers"
        )
    return found
