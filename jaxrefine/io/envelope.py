"""Files of a template's envelope: a curve over spatial frequency."""

import csv
import math
from pathlib import Path

import numpy as np
from jaxtyping import Float

from jaxrefine.data import ErrorCollector, InputError

_WANTED = "spatial frequency in 1/Å and amplitude factor"
_MOST_LINES = 500

# Spatial frequency in 1/Å, increasing, and amplitude factor.
EnvelopeCurve = tuple[Float[np.ndarray, " f"], Float[np.ndarray, " f"]]


def read_envelope(path: Path) -> EnvelopeCurve:
    """Read a CSV file of two columns: spatial frequency in 1/Å and amplitude factor.

    A first line without numbers is a header. Empty lines, and lines that begin with #, are
    skipped.

    Raises:
        InputError: With all errors of the file.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "is no text"
        raise InputError(f"{path}: cannot be read as an envelope: {reason}") from error
    rows = [
        (number, cells)
        for number, cells in enumerate(csv.reader(text.splitlines()), start=1)
        if any(cell.strip() for cell in cells) and not cells[0].lstrip().startswith("#")
    ]
    if rows and not any(_number(cell) is not None for cell in rows[0][1]):
        rows = rows[1:]
    if len(rows) > _MOST_LINES:
        raise InputError(
            f"{path}: has {len(rows)} lines of numbers, where {_MOST_LINES} are more than "
            f"enough; it should hold {_WANTED}"
        )
    errors, points = ErrorCollector(), []
    for number, cells in rows:
        with errors:
            points.append(_point(path, number, cells, points[-1] if points else None))
    errors.raise_any()
    if len(points) < 2:
        raise InputError(
            f"{path}: has {len(points)} points; an envelope needs two or more lines of "
            f"{_WANTED}"
        )
    if not any(factor for _, factor in points):
        raise InputError(f"{path}: every amplitude factor is 0: nothing is left to match")
    frequency, factor = np.array(points).T
    return frequency, factor


def _number(cell: str) -> float | None:
    try:
        value = float(cell)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _point(
    path: Path, number: int, cells: list[str], before: tuple[float, float] | None
) -> tuple[float, float]:
    """Read and check one line."""
    where = f"{path}: line {number}: {','.join(cells)}"
    values = [_number(cell) for cell in cells]
    if len(values) != 2 or values[0] is None or values[1] is None:
        raise InputError(f"{where} — must be two numbers, {_WANTED}, separated by a comma")
    frequency, factor = values[0], values[1]
    if frequency < 0 or factor < 0:
        raise InputError(f"{where} — neither number may be below 0")
    if before is not None and frequency <= before[0]:
        raise InputError(
            f"{where} — frequencies must increase; the line before has {before[0]:g}"
        )
    return frequency, factor
