"""Reading and writing tables in CSV files."""

import csv
import re
from pathlib import Path

import pandas as pd

from jaxrefine.data.errors import InputError
from jaxrefine.io.atomic import atomic_open
from jaxrefine.io.paths import no_such_file
from jaxrefine.io.table.cells import Cells

_UNNAMED_INDEX = re.compile(r"(Unnamed: \d+)?")


def read_csv(path: Path) -> Cells:
    """Reads a CSV file; blank lines, and those that begin with #, are skipped.

    Blank lines may contain spaces or empty cells, as spreadsheets leave them at the end.

    Args:
        path: UTF-8 text, comma-separated, with a header.

    Returns:
        Its cells.

    Raises:
        InputError: The file is missing, a folder, empty, not UTF-8 text or not valid CSV.
    """
    rows, lines = [], []
    try:
        if path.exists() and not (path.is_file() or path.is_dir()):  # might never end
            raise InputError(f"{path}: is a device or a pipe; it should be a CSV file")
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            for row in reader:
                if any(cell.strip() for cell in row) and not row[0].startswith("#"):
                    rows.append(row)
                    lines.append(reader.line_num)
    except FileNotFoundError as error:
        raise no_such_file(path) from error
    except IsADirectoryError as error:
        raise InputError(f"{path}: is a folder; it should be a CSV file") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: is not UTF-8 text; it should be a CSV file") from error
    except InputError:
        raise
    except ValueError as error:  # a path with a NUL character
        raise InputError(f"{str(path)!r}: cannot be read: {error}") from error
    except csv.Error as error:
        raise InputError(
            f"{path}, line {reader.line_num}: is not valid CSV: {error}"
        ) from error
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
        numbers=[lines[i] for i in sound],
        odd_rows=[
            (line, len(row))
            for line, row in zip(lines[1:], rows[1:], strict=True)
            if len(row) != width
        ],
        n_dropped=n_dropped,
        row_word="line",
    )


def write_csv(table: pd.DataFrame, path: Path) -> None:
    """Writes a table as CSV; an older file is replaced atomically.

    Args:
        table: Missing values become empty cells. The index is not written.
        path: File in a folder that exists.

    Raises:
        InputError: The folder is missing or cannot be written.
    """
    if not path.parent.is_dir():
        raise InputError(f"{path}: cannot be written: no folder {path.parent}")
    # Python's csv does not quote a lone carriage return, and would read it as a new row.
    returns = any("\r" in str(cell) for name in table for cell in (name, *table[name]))
    quoting = csv.QUOTE_ALL if returns else csv.QUOTE_MINIMAL
    with atomic_open(path, encoding="utf-8", newline="") as file:
        table.to_csv(file, index=False, lineterminator="\n", quoting=quoting)
