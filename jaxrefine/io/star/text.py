"""STAR files as tables of text.

They are read with gemmi, not with starfile, which writes them: starfile's result for a
damaged file depends on the file it read before, a file of 200 kB can occupy it for minutes,
and a row whose first cell begins with `data_` ends its table.
"""

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from jaxrefine.data.errors import InputError
from jaxrefine.io.optional import require_packages

if TYPE_CHECKING:
    from gemmi import cif

# "string:2:7(14): why", "string:2 in data_x: why", "string: why".
_GEMMI = re.compile(
    r"(?:string)?:?(?:(\d+)(?::(\d+)\(\d+\))?)?(?: in [^:]*)?:? ?(.*)", re.DOTALL
)
_MOST_SHOWN = 200
_MOST_BYTES = 1 << 30  # a file is held in memory several times


def star_tables(path: Path) -> dict[str, pd.DataFrame]:
    """The blocks of a file by name, all cells as text; of equal names the last one.

    Raises:
        InputError: The file cannot be read, or is not a valid STAR file.
    """
    require_packages("reading STAR files", "gemmi", extra="star")
    from gemmi import cif

    try:
        document = cif.read_string(star_text(path))
    except (ValueError, RuntimeError) as error:
        raise InputError(f"{path}{_place_and_reason(str(error))}") from error
    return {block.name: _table(block) for block in document}


def _place_and_reason(message: str) -> str:
    """gemmi's message, in the style of the other messages."""
    found = _GEMMI.fullmatch(message)  # it matches any text
    line, column, reason = found.groups() if found else (None, None, message)
    at = "" if line is None else f", line {line}"
    at += "" if column is None else f", column {int(column) + 1}"
    return f"{at}: is not a valid STAR file: {reason[:_MOST_SHOWN]}"


def _table(block: "cif.Block") -> pd.DataFrame:
    """The loop of a block; single values form a table of one row."""
    from gemmi import cif

    loops = [item.loop for item in block if item.loop is not None]
    if loops:
        names, values = loops[0].tags, loops[0].values
    else:
        # gemmi's stubs do not say that a pair is one.
        pairs: list[Any] = [item.pair for item in block if item.pair is not None]
        names, values = [name for name, _ in pairs], [value for _, value in pairs]
    cells_of = [cif.as_string(value) for value in values]
    width = len(names)
    columns = {name[1:]: cells_of[place::width] for place, name in enumerate(names)}
    return pd.DataFrame(columns, dtype=object)


def star_text(path: Path) -> str:
    """The text of a file of limited length.

    Raises:
        InputError: It cannot be read.
    """
    try:
        if path.exists() and not (path.is_file() or path.is_dir()):  # might never end
            raise InputError(f"{path}: is a device or a pipe; it should be a STAR file")
        with open(path, encoding="utf-8-sig") as file:
            size = os.fstat(file.fileno()).st_size
            if size > _MOST_BYTES:
                raise InputError(
                    f"{path}: has {size} bytes, but a STAR file has at most "
                    f"{_MOST_BYTES}; is it one?"
                )
            return file.read()
    except InputError:
        raise
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except IsADirectoryError as error:
        raise InputError(f"{path}: is a folder; it should be a STAR file") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: is not UTF-8 text; it should be a STAR file") from error
    except ValueError as error:  # a path with a NUL character
        raise InputError(f"{str(path)!r}: cannot be read: {error}") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from error
