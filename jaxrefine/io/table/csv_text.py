"""CSV files as cells of text: reading, writing, and numbers to and from text.

What the columns mean is the business of `jaxrefine.io.table.particle_table`.
"""

import csv
import json
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from jaxrefine.data.errors import InputError
from jaxrefine.io.atomic import atomic_open

_UNNAMED_INDEX = re.compile(r"(Unnamed: \d+)?")
_NOTHING = frozenset({"", "{}", "[]", "null", "none", "nan"})


@dataclass(frozen=True)
class Cells:
    """A CSV file as it is written.

    Attributes:
        header: Names of the columns, less leading unnamed ones (an index, as pandas
            writes it).
        rows: Rows with as many cells as the header.
        lines: Line of the file on which each of `rows` ends; the header is line 1.
        odd_rows: (line, number of cells) of the rows that have more or fewer.
        n_dropped: Number of leading unnamed columns that were dropped.
    """

    header: list[str]
    rows: list[list[str]]
    lines: list[int]
    odd_rows: list[tuple[int, int]]
    n_dropped: int


def read_cells(path: Path) -> Cells:
    """Reads a CSV file; empty lines are skipped.

    Args:
        path: UTF-8 text, comma-separated, with a header.

    Returns:
        Its cells.

    Raises:
        InputError: The file is missing, a folder, empty, no UTF-8 text or no CSV.
    """
    rows, lines = [], []
    try:
        if path.exists() and not (path.is_file() or path.is_dir()):  # it may never end
            raise InputError(f"{path}: is a device or a pipe; it should be a CSV file")
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            for row in reader:
                if row:
                    rows.append(row)
                    lines.append(reader.line_num)
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except IsADirectoryError as error:
        raise InputError(f"{path}: is a folder; it should be a CSV file") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: is no UTF-8 text; it should be a CSV file") from error
    except InputError:
        raise
    except ValueError as error:  # a path with a NUL character
        raise InputError(f"{str(path)!r}: cannot be read: {error}") from error
    except csv.Error as error:
        raise InputError(f"{path}, line {reader.line_num}: is no CSV: {error}") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from error
    if not rows:
        raise InputError(f"{path}: is empty; it should be a CSV file with a header")
    width = len(rows[0])
    n_dropped = 0
    while n_dropped < width and _UNNAMED_INDEX.fullmatch(rows[0][n_dropped]):
        n_dropped += 1
    sound = [i for i in range(1, len(rows)) if len(rows[i]) == width]
    return Cells(
        header=rows[0][n_dropped:],
        rows=[rows[i][n_dropped:] for i in sound],
        lines=[lines[i] for i in sound],
        odd_rows=[
            (line, len(row))
            for line, row in zip(lines[1:], rows[1:], strict=True)
            if len(row) != width
        ],
        n_dropped=n_dropped,
    )


def write_table(table: pd.DataFrame, path: str | os.PathLike[str]) -> None:
    """Writes a table as CSV, all of it or nothing; an older file is replaced at once.

    Args:
        table: Missing values become empty cells. The index is not written.
        path: File in a folder that exists.

    Raises:
        InputError: The folder is missing or cannot be written.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise InputError(f"{path}: cannot be written: no folder {path.parent}")
    # Python's csv leaves a lone carriage return unquoted, and then reads two rows.
    returns = any("\r" in str(cell) for name in table for cell in (name, *table[name]))
    quoting = csv.QUOTE_ALL if returns else csv.QUOTE_MINIMAL
    with atomic_open(path, encoding="utf-8", newline="") as file:
        table.to_csv(file, index=False, lineterminator="\n", quoting=quoting)


def number(text: str) -> float:
    """The number in a cell; NaN where there is none."""
    try:
        return np.nan if "_" in text else float(text)
    except ValueError:
        return np.nan


def is_neutral(text: str, neutral: np.ndarray | float) -> bool:
    """Whether a cell holds nothing, or JSON numbers that change nothing.

    Args:
        text: The cell: empty, a name of nothing, or a JSON list or dictionary.
        neutral: The numbers that change nothing, in order.
    """
    if text.strip().lower() in _NOTHING:
        return True
    try:
        value = json.loads(text)
        if isinstance(value, dict):
            value = list(value.values())
        values = np.asarray(value, np.float64).ravel()
        return bool(np.all(values == neutral))
    except (ValueError, TypeError, RecursionError):
        return False


def float32_texts(values: np.ndarray) -> list[str]:
    """The shortest texts that give the same float32; empty where not finite."""
    return [str(np.float32(x)) if np.isfinite(x) else "" for x in _floats(values)]


def rounded_texts(values: np.ndarray, decimals: int) -> list[str]:
    """Texts with so many decimals at most; empty where not finite."""
    rounded = np.round(np.asarray(values, np.float64), decimals) + 0.0  # no -0.0
    return [repr(x) if np.isfinite(x) else "" for x in _floats(rounded)]


def whole_texts(values: np.ndarray) -> list[str]:
    """Whole numbers without a decimal point; empty where not finite."""
    return [str(round(x)) if np.isfinite(x) else "" for x in _floats(values)]


def normalised_euler_deg(euler_deg: np.ndarray, decimals: int) -> np.ndarray:
    """The same rotations with phi, psi in [0, 360) and theta in [0, 180].

    Uses (phi, theta, psi) = (phi + 180, -theta, psi + 180).

    Args:
        euler_deg: (n, 3): phi, theta, psi, intrinsic ZYZ.
        decimals: Angles are rounded to so many decimals, and stay in range.
    """
    phi, theta, psi = np.asarray(euler_deg, np.float64).T
    theta = np.mod(theta, 360.0)
    flipped = theta > 180.0
    turn = np.where(flipped, 180.0, 0.0)
    theta = np.where(flipped, 360.0 - theta, theta)
    euler = np.stack([phi + turn, theta, psi + turn], axis=-1)
    euler = np.round(euler, decimals)
    euler[:, [0, 2]] = np.mod(euler[:, [0, 2]], 360.0)
    return euler


def _floats(values: np.ndarray) -> Iterable[float]:
    return np.asarray(values, np.float64).tolist()
