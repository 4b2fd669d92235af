"""Files of motion in movies: shifts of particles, and deformation fields."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from jaxrefine.data import InputError
from jaxrefine.io.table import cells
from jaxrefine.io.table.csv_text import read_csv, write_csv

_MAX_ERRORS = 10

# particle_index, frame, shift (y, x) in px, and line number; one entry per row.
ShiftRows = tuple[
    Int[np.ndarray, " m"],
    Int[np.ndarray, " m"],
    Float[np.ndarray, "m 2"],
    tuple[int, ...],
]


def read_particle_shifts(path: Path) -> ShiftRows:
    """Read a CSV file with the columns particle_index, frame, y_shift and x_shift.

    Returns:
        particle_index and frame (from 0), the shift (y, x) in px, and the line of each row.

    Raises:
        InputError: With all errors of the file.
    """
    whole, shifts, lines = _columns(
        path, ("particle_index", "frame"), ("y_shift", "x_shift")
    )
    _refuse_twice(path, whole, lines, "the same particle_index and frame")
    return whole[:, 0], whole[:, 1], shifts, lines


def write_particle_shifts(
    path: Path,
    particle_index: Int[np.ndarray, " n"],
    shift_px: Sequence[Float[np.ndarray, "t 2"]],
) -> None:
    """Write a CSV file that `read_particle_shifts` reads.

    Args:
        path: The file.
        particle_index: Number of each particle.
        shift_px: (y, x) of each particle in all frames of its movie.

    Raises:
        InputError: The file cannot be written.
    """
    frames = [len(each) for each in shift_px]
    y, x = np.concatenate(shift_px).T.round(4)
    columns = {
        "particle_index": np.repeat(particle_index, frames),
        "frame": np.concatenate([np.arange(count) for count in frames]),
        "y_shift": y,
        "x_shift": x,
    }
    write_csv(pd.DataFrame(columns), path)


def read_deformation_field(path: Path) -> Float[np.ndarray, "2 t h w"]:
    """Read a CSV file with the columns t, h, w, y_shift and x_shift.

    Returns:
        Deformation (y, x) in Å, on the axes t, h and w in ascending order.

    Raises:
        InputError: With all errors of the file.
    """
    whole, shifts, lines = _columns(path, ("t", "h", "w"), ("y_shift", "x_shift"))
    _refuse_twice(path, whole, lines, "the same t, h and w")
    axes, places = zip(
        *(np.unique(column, return_inverse=True) for column in whole.T), strict=True
    )
    sides = tuple(map(len, axes))
    if np.prod(sides) != len(whole):
        raise InputError(
            f"{path}: has {len(whole)} rows; {sides[0]} values of t, {sides[1]} of h and "
            f"{sides[2]} of w need {np.prod(sides)}, one for each combination"
        )
    field = np.zeros((2, *sides))
    field[(slice(None), *places)] = shifts.T
    return field


def _columns(
    path: Path, whole: tuple[str, ...], numbers: tuple[str, ...]
) -> tuple[Int[np.ndarray, "m k"], Float[np.ndarray, "m 2"], tuple[int, ...]]:
    """Read columns of whole numbers and of other numbers, and the line of each row."""
    content = read_csv(path)
    names = (*whole, *numbers)
    missing = [name for name in names if name not in content.header]
    if missing:
        raise InputError(
            f"{path}: missing columns: {', '.join(missing)}; it should have the columns "
            f"{', '.join(names)}, not {', '.join(content.header)}"
        )
    width = len(content.header) + content.n_dropped
    errors = [
        f"{path}, line {line}: has {count} cells; it should have {width}"
        for line, count in content.odd_rows
    ]
    if not content.rows and not errors:
        errors.append(f"{path}: holds no shifts")
    places = [content.header.index(name) for name in names]
    values = np.array(
        [[cells.number(row[place]) for place in places] for row in content.rows]
    ).reshape(-1, len(names))
    good = np.isfinite(values) & (abs(values) <= 1e6)
    is_index = np.arange(len(names)) < len(whole)
    good &= ~is_index | ((values == np.round(values)) & (values >= 0))
    for row, column in np.argwhere(~good):
        kind = "a whole number from 0" if is_index[column] else "a number within ±1e6"
        errors.append(
            f"{path}, line {content.numbers[row]}, column {names[column]}: "
            f"{content.rows[row][places[column]][:60]!r}: should be {kind}"
        )
    if errors:
        more = len(errors) - _MAX_ERRORS
        last = [f"{path}: … and {more} more errors"] if more > 0 else []
        raise InputError([*errors[:_MAX_ERRORS], *last])
    index, shifts = np.split(values, [len(whole)], axis=1)
    return index.astype(np.int64), shifts, tuple(content.numbers)


def _refuse_twice(path: Path, index: np.ndarray, lines: tuple[int, ...], what: str) -> None:
    _, first, counts = np.unique(index, axis=0, return_index=True, return_counts=True)
    if (counts > 1).any():
        again = first[counts > 1][0]
        raise InputError(
            f"{path}: {int((counts - 1).sum())} rows have {what} as a row before, such as "
            f"that of line {lines[again]}; each should be there once"
        )
