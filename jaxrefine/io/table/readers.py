"""The file formats of particle tables, all in one place.

To add a format, add a file beside `csv_text.py` with a reader that returns `Cells` and a
writer, and a row in `_FORMATS`.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from jaxrefine.io.hdf5 import SUFFIXES, is_hdf5
from jaxrefine.io.table.cells import Cells
from jaxrefine.io.table.csv_text import read_csv, write_csv
from jaxrefine.io.table.hdf5 import read_hdf5, write_hdf5


class TableFormat(NamedTuple):
    """Reader and writer of one file format; both raise `InputError`."""

    read: Callable[[Path], Cells]
    write: Callable[[pd.DataFrame, Path], None]


_CSV = TableFormat(read_csv, write_csv)
_HDF5 = TableFormat(read_hdf5, write_hdf5)
# By suffix, in lower case. Any other file is read as CSV.
_FORMATS: dict[str, TableFormat] = {".csv": _CSV, **dict.fromkeys(SUFFIXES, _HDF5)}


def read_cells(path: Path) -> Cells:
    """Reads a table as text, in the format of its suffix or first bytes.

    Raises:
        InputError: The file cannot be read, or holds no table.
    """
    return (_HDF5 if is_hdf5(path) else _format(path)).read(path)


def write_table(table: pd.DataFrame, path: str | os.PathLike[str]) -> None:
    """Writes a table atomically, in the format of its suffix.

    Args:
        table: Missing values become empty cells. The index is not written.
        path: File in a folder that exists; an older file is replaced.

    Raises:
        InputError: The folder is missing or cannot be written.
    """
    _format(Path(path)).write(table, Path(path))


def _format(path: Path) -> TableFormat:
    return _FORMATS.get(path.suffix.lower(), _CSV)
