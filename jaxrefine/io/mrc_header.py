"""The header of an MRC file: reading, checking, and interpreting unusual headers."""

import math
import os
from contextlib import suppress
from dataclasses import dataclass
from io import BufferedIOBase
from typing import Literal

import numpy as np
from mrcfile.constants import MAP_ID, MAP_ID_OFFSET_BYTES
from mrcfile.dtypes import HEADER_DTYPE
from mrcfile.utils import byte_order_from_machine_stamp, dtype_from_mode

from jaxrefine.data.errors import InputError

PathLike = str | os.PathLike[str]
ByteOrder = Literal["<", ">"]

_REAL_MODES = {
    0: "int8",
    1: "int16",
    2: "float32",
    6: "uint16",
    12: "float16",
}
_COMPLEX_MODES = {3: 4, 4: 8}  # bytes per value
# Cell lengths are float32 and some programs round them; real differences are larger.
_VOXEL_TOLERANCE = 1e-3
# Upper limits of a side of an image or volume, and of an extended header.
_MOST_PIXELS = 1 << 20
_MOST_EXTENDED_BYTES = 1 << 28


@dataclass(frozen=True)
class Header:
    """The parts of an MRC header that the program uses, checked.

    Attributes:
        stored_shape: Sections, rows, columns.
        axes: Positions of z, y and x among these.
        dtype: Type of the values.
        offset: Position of the first value, in bytes.
        voxel_size_angstrom: None if unknown.
        is_volume_stack: Whether there are several volumes.
        oddities: Warnings about the header.
    """

    stored_shape: tuple[int, int, int]
    axes: tuple[int, int, int]
    dtype: np.dtype
    offset: int
    voxel_size_angstrom: float | None
    is_volume_stack: bool
    oddities: tuple[str, ...]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Sides along z, y and x."""
        z, y, x = (self.stored_shape[axis] for axis in self.axes)
        return z, y, x

    @property
    def n_bytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


def read_header(path: PathLike, stream: BufferedIOBase, size: int | None) -> Header:
    """A checked header; the size is known for an uncompressed file."""
    raw = stream.read(HEADER_DTYPE.itemsize)
    if raw.startswith(b"\x89HDF"):
        raise InputError(
            f"{path}: is an HDF5 file; it should be an MRC file (a match's maps and "
            "particle stacks may be HDF5, micrographs and templates may not)"
        )
    if len(raw) < HEADER_DTYPE.itemsize:
        raise _no_mrc(path)
    order, oddities = _byte_order(path, raw, size)
    header = np.frombuffer(raw, HEADER_DTYPE.newbyteorder(order))[0]
    mode = int(header["mode"])
    if mode not in _REAL_MODES:
        what = "complex values" if mode in _COMPLEX_MODES else "values of an unknown kind"
        right = ", ".join(f"{key} ({name})" for key, name in _REAL_MODES.items())
        raise InputError(f"{path}: MRC mode {mode} is {what}; it should be one of {right}")
    stored = _stored_shape(header)
    if min(stored) < 1:
        sides = " x ".join(map(str, stored))
        raise InputError(
            f"{path}: its header says {sides} (z, y, x); all should be 1 or more"
        )
    # Numbers of the axes x, y, z (1, 2, 3) along sections, rows and columns.
    named = [int(header[name]) for name in ("maps", "mapr", "mapc")]
    if sorted(named) != [1, 2, 3]:  # not set by old programs
        named = [3, 2, 1]
    axes = named.index(3), named.index(2), named.index(1)
    if axes != (0, 1, 2):
        oddities.append(
            f"columns, rows and sections are the axes {tuple(named[::-1])}, that is "
            f"{', '.join('xyz'[axis - 1] for axis in named[::-1])}: transposed"
        )
    n_extended = int(header["nsymbt"])
    if n_extended < 0:
        raise InputError(f"{path}: its extended header is {n_extended} bytes long")
    return Header(
        stored_shape=stored,
        axes=axes,
        dtype=dtype_from_mode(mode).newbyteorder(order),
        offset=HEADER_DTYPE.itemsize + n_extended,
        voxel_size_angstrom=_voxel_size(header),
        is_volume_stack=bool(
            401 <= header["ispg"] <= 630 and header["mz"] != stored[axes[0]]
        ),
        oddities=tuple(oddities),
    )


def _byte_order(
    path: PathLike, raw: bytes, size: int | None
) -> tuple[ByteOrder, list[str]]:
    """The byte order of the header, and warnings about how it is stated.

    If the marks of the format are missing or wrong, as in files of older programs, the
    order in which the rest of the header is valid is used, if there is exactly one.

    Returns:
        "<" or ">".
    """
    orders: tuple[ByteOrder, ByteOrder] = ("<", ">")
    sane: list[ByteOrder] = [o for o in orders if _makes_sense(raw, o, size)]
    has_mark = raw[MAP_ID_OFFSET_BYTES:][:3] == MAP_ID[:3]
    stamp = np.frombuffer(raw, HEADER_DTYPE)[0]["machst"]
    stamped: ByteOrder | None = None
    with suppress(ValueError):
        stamped = "<" if byte_order_from_machine_stamp(stamp) == "<" else ">"
    # Mark and stamp are valid; other errors are reported by the checks of the header.
    if has_mark and stamped is not None and (stamped in sane or not sane):
        return stamped, []
    if len(sane) != 1:
        if has_mark:
            code = " ".join(f"{byte:02x}" for byte in bytes(stamp))
            raise InputError(
                f"{path}: its machine stamp is {code}, which is not a byte order, and its "
                "sizes are valid in neither; write it again with the program that made it"
            )
        raise _no_mrc(path)
    (order,) = sane
    said = "its machine stamp" if has_mark else "the mark 'MAP'"
    fault = "is wrong" if has_mark else "is not in its header"
    word = "little" if order == "<" else "big"
    return order, [f"{said} {fault}: read as {word}-endian, in which its sizes are valid"]


def _makes_sense(raw: bytes, order: ByteOrder, size: int | None) -> bool:
    """Whether a header, read in a byte order, is valid for an MRC file."""
    header = np.frombuffer(raw, HEADER_DTYPE.newbyteorder(order))[0]
    mode, stored = int(header["mode"]), _stored_shape(header)
    n_extended = int(header["nsymbt"])
    axes = sorted(int(header[name]) for name in ("mapc", "mapr", "maps"))
    if not (
        mode in (*_REAL_MODES, *_COMPLEX_MODES)
        and all(1 <= side <= _MOST_PIXELS for side in stored)
        and 0 <= n_extended <= _MOST_EXTENDED_BYTES
        and axes in ([1, 2, 3], [0, 0, 0])
    ):
        return False
    value_bytes = _COMPLEX_MODES.get(mode) or dtype_from_mode(mode).itemsize
    n_bytes = math.prod(stored) * value_bytes
    return size is None or size >= HEADER_DTYPE.itemsize + n_extended + n_bytes


def _stored_shape(header: np.void) -> tuple[int, int, int]:
    return int(header["nz"]), int(header["ny"]), int(header["nx"])


def _no_mrc(path: PathLike) -> InputError:
    return InputError(
        f"{path}: is not an MRC file: the mark 'MAP' is not in its header, and its sizes "
        "are not valid"
    )


def _voxel_size(header: np.void) -> float | None:
    cell = [float(header["cella"][axis]) for axis in "xyz"]
    samples = [int(header[name]) for name in ("mx", "my", "mz")]
    if min(samples) < 1 or not all(math.isfinite(side) and side > 0 for side in cell):
        return None
    x, y, z = (np.float32(side / n) for side, n in zip(cell, samples, strict=True))
    if max(abs(y - x), abs(z - x)) > _VOXEL_TOLERANCE * x:
        return None
    return float(str(x))  # 1.06 instead of the 1.0599999427795 of float32
