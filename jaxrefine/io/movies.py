"""Read movies frame by frame: MRC stacks, TIFF and EER.

At most one frame is in memory. tifffile reads TIFF and EER.
"""

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedIOBase
from pathlib import Path
from typing import Any

import numpy as np

from jaxrefine.data.errors import InputError
from jaxrefine.io.mrc import open_mrc, truncated
from jaxrefine.io.mrc_header import Header
from jaxrefine.io.optional import require_packages
from jaxrefine.io.paths import no_such_file

PathLike = str | os.PathLike[str]

_TIFF = (".tif", ".tiff")
_EER = ".eer"
# Of frames, in three versions of the format.
_EER_COMPRESSIONS = (65000, 65001, 65002)


def movie_shape(path: PathLike, *, eer_grouping: int = 1) -> tuple[int, int, int]:
    """Return the number of frames and their sides (y, x) in px, without reading pixels.

    Args:
        path: An MRC stack (.mrc, .mrcs, .st, ...), a TIFF file (.tif, .tiff) or an EER
            file (.eer).
        eer_grouping: Number of frames of an EER file that are summed to one; a remainder at
            the end is dropped.

    Raises:
        InputError: The file is missing, damaged, or not a movie.
    """
    if _is_tiff(path):
        with _opened_tiff(path) as (pages, is_eer):
            count = len(pages) // (eer_grouping if is_eer else 1)
            height, width = _page_shape(path, pages)
    else:
        with open_mrc(path) as (_, header):
            _check_stack(path, header)
            count, height, width = header.shape
    if count < 1:
        raise InputError(
            f"{path}: has fewer frames than eer_grouping, {eer_grouping}, sums to one"
        )
    return count, height, width


def movie_frames(path: PathLike, *, eer_grouping: int = 1) -> Iterator[np.ndarray]:
    """Yield the frames (y, x) of a movie as float32.

    Args:
        path: As in `movie_shape`.
        eer_grouping: As there.

    Raises:
        InputError: As there.
    """
    return (_tiff_frames if _is_tiff(path) else _mrc_frames)(path, eer_grouping)


def read_gain(path: PathLike) -> np.ndarray:
    """Read a gain reference (y, x) as float32, from one image in a format of movies.

    Raises:
        InputError: The file is missing, damaged, or holds several images.
    """
    count, *_ = movie_shape(path)
    if count != 1:
        raise InputError(f"{path}: holds {count} images; a gain reference is one")
    return next(movie_frames(path))


def _is_tiff(path: PathLike) -> bool:
    return Path(path).suffix.lower() in (*_TIFF, _EER)


def _check_stack(path: PathLike, header: Header) -> None:
    if header.axes != (0, 1, 2):
        raise InputError(
            f"{path}: its sections are not along z; a movie's frames should be"
        )


def _mrc_frames(path: PathLike, eer_grouping: int) -> Iterator[np.ndarray]:
    with open_mrc(path) as (stream, header):
        _check_stack(path, header)
        count, height, width = header.shape
        stream.seek(header.offset)
        for _ in range(count):
            yield _mrc_frame(path, stream, header, (height, width))


def _mrc_frame(
    path: PathLike, stream: BufferedIOBase, header: Header, shape: tuple[int, int]
) -> np.ndarray:
    n_bytes = math.prod(shape) * header.dtype.itemsize
    data = stream.read(n_bytes)
    if len(data) < n_bytes:
        raise truncated(path, stream.tell(), header.offset + header.n_bytes)
    return np.frombuffer(data, header.dtype).reshape(shape).astype(np.float32)


def _tiff_frames(path: PathLike, eer_grouping: int) -> Iterator[np.ndarray]:
    with _opened_tiff(path) as (pages, is_eer):
        shape, grouping = _page_shape(path, pages), eer_grouping if is_eer else 1
        for number in range(len(pages) // grouping):
            frame = np.zeros(shape, np.float32)
            for page in pages[number * grouping : (number + 1) * grouping]:
                frame += _values(path, page, shape)
            yield frame


@contextmanager
def _opened_tiff(path: PathLike) -> Iterator[tuple[list[Any], bool]]:
    """Open a TIFF or EER file; yields its pages, and whether it is an EER file."""
    require_packages("a movie in TIFF or EER", "tifffile", "imagecodecs", extra="movies")
    import tifffile

    try:
        with tifffile.TiffFile(path) as file:
            is_eer = Path(path).suffix.lower() == _EER
            pages = list(file.pages)
            if is_eer:  # the sum of all frames may be there, too
                pages = [page for page in pages if page.compression in _EER_COMPRESSIONS]
            yield pages, is_eer
    except FileNotFoundError as error:
        raise no_such_file(path) from error
    except tifffile.TiffFileError as error:
        raise InputError(f"{path}: is not a TIFF or EER file: {error}") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from error


def _shape(page: Any) -> tuple[int, ...]:
    return tuple(page.shape)


def _page_shape(path: PathLike, pages: list[Any]) -> tuple[int, int]:
    """Return the sides (y, x) of the pages.

    Raises:
        InputError: There are no pages, they differ, or they are not grey-scale images.
    """
    shapes = {_shape(page) for page in pages}
    if len(shapes) != 1 or len(next(iter(shapes))) != 2:
        found = ", ".join(map(str, sorted(shapes))) or "none"
        raise InputError(
            f"{path}: its pages have the shapes {found}; a movie's frames should be grey "
            "images of one shape"
        )
    height, width = next(iter(shapes))
    return height, width


def _values(path: PathLike, page: Any, shape: tuple[int, int]) -> np.ndarray:
    try:
        values = np.asarray(page.asarray())
    except Exception as error:  # decoders can raise anything
        reason = str(error) or type(error).__name__
        raise InputError(f"{path}: frame {page.index} cannot be read: {reason}") from error
    if values.shape != shape or np.iscomplexobj(values):
        raise InputError(f"{path}: frame {page.index} is {values.dtype}{values.shape}")
    return values
