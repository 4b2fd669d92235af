"""Cells of a table as text, and conversion of numbers to and from text.

The meaning of the columns is defined in `jaxrefine.io.table.particle_table`.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

_NOTHING = frozenset({"", "{}", "[]", "null", "none", "nan"})


@dataclass(frozen=True)
class Cells:
    """A table as in its file.

    Attributes:
        header: Names of the columns, without leading unnamed ones (an index written by
            pandas).
        rows: Rows with as many cells as the header.
        numbers: Position of each of `rows` in the file: for CSV the line on which it ends;
            the header is line 1.
        odd_rows: (number, number of cells) of the rows that have more or fewer.
        n_dropped: Number of leading unnamed columns that were dropped.
        row_word: Unit of the numbers, for messages.
    """

    header: list[str]
    rows: list[list[str]]
    numbers: list[int]
    odd_rows: list[tuple[int, int]]
    n_dropped: int
    row_word: str


def number(text: str) -> float:
    """The number in a cell; NaN if it holds none."""
    try:
        return np.nan if "_" in text else float(text)
    except ValueError:
        return np.nan


def is_neutral(text: str, neutral: np.ndarray | float) -> bool:
    """Whether a cell is empty, or holds JSON numbers without effect.

    Args:
        text: The cell: empty, a word for a missing value, or a JSON list or dictionary.
        neutral: The numbers without effect, in order.
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
    """The shortest texts with the same float32 value; empty if not finite."""
    return [str(np.float32(x)) if np.isfinite(x) else "" for x in _floats(values)]


def rounded_texts(values: np.ndarray, decimals: int) -> list[str]:
    """Texts with at most this many decimals; empty if not finite."""
    rounded = np.round(np.asarray(values, np.float64), decimals) + 0.0  # no -0.0
    return [repr(x) if np.isfinite(x) else "" for x in _floats(rounded)]


def whole_texts(values: np.ndarray) -> list[str]:
    """Whole numbers without a decimal point; empty if not finite."""
    return [str(round(x)) if np.isfinite(x) else "" for x in _floats(values)]


def texts(values: np.ndarray, written: str) -> list[str]:
    """The cells of a column, in the format `Column.written`."""
    if written == "text":
        return [str(value) for value in values]
    if written == "float32":
        return float32_texts(values)
    if written == "whole":
        return whole_texts(values)
    return rounded_texts(values, int(written.removesuffix(" decimals")))


def normalised_euler_deg(euler_deg: np.ndarray, decimals: int) -> np.ndarray:
    """The same rotations with phi, psi in [0, 360) and theta in [0, 180].

    Uses (phi, theta, psi) = (phi + 180, -theta, psi + 180).

    Args:
        euler_deg: (n, 3): phi, theta, psi, intrinsic ZYZ.
        decimals: Angles are rounded to this many decimals, and remain in range.
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
