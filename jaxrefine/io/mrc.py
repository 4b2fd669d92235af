"""MRC files: micrographs, statistic maps and template volumes.

The header is checked first, so that an invalid file is refused before memory is allocated.
Files may be compressed with gzip or bzip2, have either byte order, and have their axes in
any order. Whether the values are finite is not checked here.
"""

import bz2
import gzip
import logging
import math
import os
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BufferedIOBase, BufferedReader
from pathlib import Path

import mrcfile
import numpy as np
from mrcfile.constants import MAP_ID, MAP_ID_OFFSET_BYTES

from jaxrefine.data.errors import InputError
from jaxrefine.io.mrc_header import Header, read_header
from jaxrefine.io.paths import no_such_file, quoted

log = logging.getLogger("jaxrefine")

PathLike = str | os.PathLike[str]

_CHUNK_BYTES = 1 << 24
# A small compressed file can expand to any number of zeros. Images of noise compress to no
# less than a tenth; files that unpack to less than a GiB are always read.
_UNPACKED_BYTES = 1 << 30
_UNPACKED_RATIO = 100
_MOST_BYTES_AFTER_DATA = 1 << 26


def read_image(path: PathLike) -> np.ndarray:
    """Reads a micrograph or a statistic map.

    Args:
        path: MRC file with one image; a stack of exactly one section counts as one.

    Returns:
        Array (y, x) of float32.

    Raises:
        InputError: The file is missing, damaged, not an MRC file, complex, or holds several
            images.
    """
    with open_mrc(path) as (stream, header):
        _check_one_image(path, header)
        return _read_values(path, stream, header)[0]


def read_volume(path: PathLike) -> tuple[np.ndarray, float | None]:
    """Reads a template volume.

    Args:
        path: MRC file with one volume.

    Returns:
        Array (z, y, x) of float32, and the voxel size in Å; None if the header says 0, or
        if the sizes along x, y and z differ by more than 0.1 %.

    Raises:
        InputError: The file is missing, damaged, not an MRC file, complex, or not a volume.
    """
    with open_mrc(path) as (stream, header):
        _check_one_volume(path, header)
        return _read_values(path, stream, header), header.voxel_size_angstrom


def image_shape(path: PathLike, *, warn: bool = True) -> tuple[int, int]:
    """Reads only the header: a fast check before long computations.

    The length of an uncompressed file is checked against the header. Warnings about unusual
    headers are given here, not when the values are read.

    Args:
        path: MRC file with one image, as `read_image` takes it.
        warn: Warn about unusual headers.

    Returns:
        Sides (y, x) in pixels.

    Raises:
        InputError: As in `read_image`.
    """
    with open_mrc(path) as (_, header):
        _check_one_image(path, header)
        if warn:
            _warn_of_oddities(path, header)
        return header.shape[1:]


def image_pixel_size(path: PathLike) -> float | None:
    """The pixel size in Å in the header of an image; None if it has none.

    Raises:
        InputError: As in `read_image`.
    """
    with open_mrc(path) as (_, header):
        return header.voxel_size_angstrom


def volume_shape(path: PathLike) -> tuple[int, int, int]:
    """Reads only the header of a volume; otherwise as `image_shape`."""
    with open_mrc(path) as (_, header):
        _check_one_volume(path, header)
        _warn_of_oddities(path, header)
        return header.shape


def write_image(path: PathLike, array: np.ndarray, voxel_size: float | None = None) -> None:
    """Writes one image as float32, replacing an older file.

    Args:
        path: Compressed if the name ends in .gz or .bz2.
        array: Image (y, x).
        voxel_size: Pixel size in Å; None leaves it 0, which means unknown.

    Raises:
        InputError: The folder is missing or cannot be written.
    """
    _write(path, array, 2, voxel_size)


def write_volume(
    path: PathLike, array: np.ndarray, voxel_size: float | None = None
) -> None:
    """Writes one volume (z, y, x) as float32; otherwise as `write_image`."""
    _write(path, array, 3, voxel_size)


def _write(path: PathLike, array: np.ndarray, ndim: int, voxel_size: float | None) -> None:
    array = np.asarray(array)
    if array.ndim != ndim or array.size == 0 or np.iscomplexobj(array):
        raise ValueError(
            f"need a real array of {ndim} axes, got {array.dtype}{array.shape}"
        )
    try:
        with warnings.catch_warnings():  # mrcfile warns of NaN, which may be written
            warnings.simplefilter("ignore", RuntimeWarning)
            mrcfile.write(path, array.astype(np.float32), True, voxel_size)
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror or error}") from error


@contextmanager
def open_mrc(path: PathLike) -> Iterator[tuple[BufferedIOBase, Header]]:
    """Opens a file and checks its header; all errors become InputError."""
    try:
        if Path(path).is_dir():
            raise InputError(f"{path}: is a folder; it should be an MRC file")
        if Path(path).exists() and not Path(path).is_file():  # reading might never end
            raise InputError(f"{path}: is a device or a pipe; it should be an MRC file")
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size == 0:
                raise InputError(f"{path}: is empty; it should be an MRC file")
            compressed = _decompressor(file)
            with compressed(file) if compressed else file as stream:
                header = read_header(path, stream, None if compressed else size)
                expected = header.offset + header.n_bytes
                if compressed is None and size < expected:
                    raise truncated(path, size, expected)
                if compressed and expected > max(_UNPACKED_BYTES, _UNPACKED_RATIO * size):
                    raise InputError(
                        f"{path}: its header asks for {expected} bytes, too many for a "
                        f"compressed file of {size} bytes; if it is right, decompress it"
                    )
                yield stream, header
    except FileNotFoundError as error:
        raise no_such_file(path) from error
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"{path}: the compressed file is damaged: {error}") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from error
    except ValueError as error:  # a path with a NUL character
        if isinstance(error, InputError):
            raise
        raise InputError(f"{str(path)!r}: cannot be read: {error}") from error


def _decompressor(file: BufferedIOBase) -> Callable[..., BufferedIOBase] | None:
    """Recognises compressed files by their first bytes, unless the MRC mark is present."""
    start = file.read(MAP_ID_OFFSET_BYTES + len(MAP_ID))
    file.seek(0)
    if start[MAP_ID_OFFSET_BYTES:] != MAP_ID:
        if start.startswith(b"\x1f\x8b"):
            return gzip.open
        if start.startswith(b"BZ"):
            return bz2.open
    return None


def _warn_of_oddities(path: PathLike, header: Header) -> None:
    for oddity in header.oddities:
        log.warning("%s: %s", quoted(path), oddity)


def _check_one_image(path: PathLike, header: Header) -> None:
    if header.shape[0] != 1:
        sides = " x ".join(map(str, header.shape))
        raise InputError(f"{path}: holds {sides} values (z, y, x); it should be one image")


def _check_one_volume(path: PathLike, header: Header) -> None:
    if header.shape[0] == 1:
        raise InputError(f"{path}: holds one image; it should be a volume")
    if header.is_volume_stack:
        raise InputError(f"{path}: holds several volumes; it should be one volume")


def _read_values(path: PathLike, stream: BufferedIOBase, header: Header) -> np.ndarray:
    stream.seek(header.offset)
    if isinstance(stream, BufferedReader):
        values = np.fromfile(stream, header.dtype, math.prod(header.shape))
    else:  # In pieces, so that a wrong header does not allocate too much memory.
        data = bytearray()
        while piece := stream.read(min(_CHUNK_BYTES, header.n_bytes - len(data))):
            data += piece
        after = 0
        while piece := stream.read(_CHUNK_BYTES):  # the end verifies the checksum
            after += len(piece)
            if after > _MOST_BYTES_AFTER_DATA:
                raise InputError(
                    f"{path}: has more than {_MOST_BYTES_AFTER_DATA} bytes after "
                    "the values that its header describes"
                )
        del data[len(data) - len(data) % header.dtype.itemsize :]
        values = np.frombuffer(data, header.dtype)
    if values.nbytes < header.n_bytes:
        raise truncated(path, header.offset + values.nbytes, header.offset + header.n_bytes)
    values = values.reshape(header.stored_shape).transpose(header.axes)
    return np.ascontiguousarray(values, np.float32)


def truncated(path: PathLike, size: int, expected: int) -> InputError:
    return InputError(
        f"{path}: is truncated: its header asks for {expected} bytes, it holds {size}"
    )
