"""Reading and checking columns of other programs' tables."""

from collections.abc import Iterator, Sequence, Set
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float

from jaxrefine.data.errors import InputError
from jaxrefine.io.table import cells

# Default values of columns that a file may lack.
_DEFAULTS = {"phase_shift_deg": 0.0, "b_factor_angstrom2": 0.0, "z_score": np.nan}
# The limits of `jaxrefine.io.table.particle_table`, which reads the converted table.
Limit = tuple[float, float, str]
_LIMITS: dict[str, Limit] = {
    "pixel_size_angstrom": (0.01, 100.0, "in 0.01 … 100 (Å)"),
    "voltage_kv": (1.0, 5000.0, "in 1 … 5000 (kV)"),
    "spherical_aberration_mm": (0.0, 100.0, "in 0 … 100 (mm)"),
    "amplitude_contrast": (0.0, 0.999999, "in [0, 1)"),
}
_LIMIT = (-1e6, 1e6, "within ±1e6")
_LIMIT_OF_PLACES = (-1e9, 1e9, "within ±1e9")  # px or Å
# Keeps the corner of any template within the table's ±1e6.
_MOST_PX = MOST_TEMPLATE_PX = 500_000
_MOST_NAMED = 5


def fields(path: Path, table: pd.DataFrame, names: dict) -> dict[str, np.ndarray]:
    """Numbers of the particles, by jaxrefine's names for them."""
    found = {}
    for name, theirs in names.items():
        limit = _LIMITS.get(name, _LIMIT)
        if isinstance(theirs, str) and theirs not in table:
            found[name] = np.full(len(table), _DEFAULTS[name])
        elif isinstance(theirs, str):
            found[name] = numbers(path, table, theirs, limit)
        else:
            columns = [numbers(path, table, one, limit) for one in theirs]
            found[name] = np.stack(columns, axis=-1)
    return found


def required(names: dict) -> Iterator[str]:
    for ours, name in names.items():
        if ours not in _DEFAULTS:
            yield from [name] if isinstance(name, str) else name


def need_columns(path: Path, block: str, table: pd.DataFrame, names: Sequence[str]) -> None:
    missing = [f"_{name}" for name in names if name not in table]
    if missing:
        raise InputError(f"{path}: {block}: missing columns: {', '.join(missing)}")
    if not len(table):
        raise InputError(f"{path}: {block}: holds no rows")


def numbers(
    path: Path, table: pd.DataFrame, name: str, limit: Limit = _LIMIT
) -> np.ndarray:
    values = np.array([cells.number(text) for text in table[name]], np.float64)
    low, high, right = limit
    bad = np.flatnonzero(~((values >= low) & (values <= high)))  # also NaN
    if len(bad):
        raise InputError(
            f"{path}: column _{name}, row {bad[0] + 1}: {table[name].iloc[bad[0]][:60]!r}: "
            f"should be a number {right}"
        )
    return values


def places(
    path: Path, table: pd.DataFrame, name: str, default: float | None = None
) -> Float[np.ndarray, "n 2"]:
    """Columns of x and y; `default` if one is missing."""
    columns = [
        np.full(len(table), default)
        if default is not None and one not in table
        else numbers(path, table, one, _LIMIT_OF_PLACES)
        for one in (name.format(axis) for axis in "XY")
    ]
    return np.stack(columns, axis=-1)


def need_sane_places(path: Path, centre: np.ndarray, shift: np.ndarray) -> None:
    place = centre + shift
    far = np.flatnonzero((abs(place) > _MOST_PX).any(axis=-1))
    if len(far):
        x, y = place[far[0]]
        raise InputError(
            f"{path}: row {far[0] + 1}: lies at x, y = {x:.6g}, {y:.6g} px: should be "
            f"within ±{_MOST_PX:g} px"
        )


def names(path: Path, table: pd.DataFrame, name: str) -> list[str]:
    """File names, without the quotes that cisTEM adds."""
    found = [text.strip("'") for text in table[name]]
    for row, text in enumerate(found, 1):
        if not text.strip():
            raise InputError(
                f"{path}: column _{name}, row {row}: an empty cell: should be a path"
            )
    return found


def some(values: Sequence[object]) -> str:
    """A few of the values, as short text."""
    texts = [
        f"{value:g}" if isinstance(value, float) else repr(value)[:60]
        for value in values[:_MOST_NAMED]
    ]
    return ", ".join(texts) + (" …" if len(values) > _MOST_NAMED else "")


def need_orientations(path: Path, table: pd.DataFrame, angles: Sequence[str]) -> None:
    """Refuse particle picks without orientations, with a remedy.

    Raises:
        InputError: An angle is missing.
    """
    missing = [f"_{name}" for name in angles if name not in table]
    if missing:
        raise InputError(f"{path}: {NO_ORIENTATIONS.format(missing=', '.join(missing))}")


NO_ORIENTATIONS = (
    "particles without orientations ({missing} missing): a refinement starts from one; "
    "search them with 2DTM (Leopard-EM's match_template, cisTEM), or align the particles "
    "(3D refinement) and import the result"
)


def unread(table: pd.DataFrame, read: Set[str]) -> Iterator[str]:
    """A note on the fields that are not converted to the particle table."""
    left = sorted(str(name) for name in table.columns if name not in read)
    if left:
        yield f"left out of the table: {', '.join(f'_{name}' for name in left)}"
