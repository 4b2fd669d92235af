"""Aberrations in the cells of a particle table: beam tilt, Zernike terms, magnification.

Leopard-EM writes Zernike terms as JSON dictionaries and the matrix as a JSON list; the
definitions are those of torch-ctf 0.6 (`jaxrefine.data.Optics`).
"""

import json
from collections.abc import Mapping, Sequence

import numpy as np

from jaxrefine.io.table import cells

TILT = ("beam_tilt_x", "beam_tilt_y")
ZERNIKES = {
    "even_zernikes": ("Z44c", "Z44s", "Z60"),
    "odd_zernikes": ("Z31c", "Z31s", "Z33c", "Z33s"),
}
MATRIX = "mag_matrix"
_IDENTITY = np.array([1.0, 0.0, 0.0, 1.0])
_IGNORE = (
    "or empty; `ignore_aberrations: true` refines without this column's values and keeps "
    "them in the table"
)
# More than any microscope has; values in other units exceed it.
_LARGEST_TILT_MRAD, _LARGEST_MAGNIFICATION = 50.0, 1.5


def has_effect(name: str, text: str) -> bool:
    """Whether a cell of a column of aberrations has any effect."""
    neutral = _IDENTITY if name == MATRIX else 0.0
    return not cells.is_neutral(text, neutral)


def parse(name: str, text: str) -> np.ndarray | None:
    """The numbers in a cell of a column of aberrations; None if it is invalid."""
    if not has_effect(name, text):
        return _neutral(name)
    if name in TILT:
        value = np.array(cells.number(text))
        return value if abs(value) <= _LARGEST_TILT_MRAD else None
    try:
        found = json.loads(text)
        if name == MATRIX:
            return _matrix(np.asarray(found, np.float64).ravel())
        names = ZERNIKES[name]
        if not set(found) <= set(names):
            return None
        values = np.array([float(found.get(each, 0.0)) for each in names])
    except (ValueError, TypeError, AttributeError, RecursionError):
        return None
    return values if np.isfinite(values).all() else None


def _matrix(values: np.ndarray) -> np.ndarray | None:
    if values.shape != (4,) or not np.isfinite(values).all():
        return None
    matrix = values.reshape(2, 2)
    stretch = np.linalg.svd(matrix, compute_uv=False)
    most = _LARGEST_MAGNIFICATION
    return matrix if 1 / most <= stretch[1] and stretch[0] <= most else None


def _neutral(name: str) -> np.ndarray:
    if name in TILT:
        return np.array(0.0)
    return _IDENTITY.reshape(2, 2) if name == MATRIX else np.zeros(len(ZERNIKES[name]))


def what_is_right(name: str) -> str:
    """Description of a valid cell of such a column, for messages."""
    if name in TILT:
        return f"should be a number within ±{_LARGEST_TILT_MRAD:g} (mrad), {_IGNORE}"
    if name == MATRIX:
        text = "should be four numbers as [1.0, 0.0, 0.0, 1.0], which stretch the image by "
        return f"{text}at most {_LARGEST_MAGNIFICATION:g}, {_IGNORE}"
    names = ", ".join(ZERNIKES[name])
    return f'should be JSON such as {{"{ZERNIKES[name][0]}": 1.5}} of {names}, {_IGNORE}'


def optics_fields(columns: Mapping[str, Sequence[str]]) -> dict[str, np.ndarray]:
    """Fields of `Optics`, (n, …), for aberrations that occur in any row of a table.

    Zernike terms Z31c and Z31s replace the beam tilt along x and y, as in torch-ctf.

    Args:
        columns: Cells without errors, by the names of their columns.
    """
    values = {}
    for name in (*TILT, *ZERNIKES, MATRIX):
        texts = columns.get(name, ())
        parsed = {text: _parsed(name, text) for text in set(texts)}
        if any(has_effect(name, text) for text in parsed):
            values[name] = np.stack([parsed[text] for text in texts])
    fields = {name: values[name] for name in (*ZERNIKES, MATRIX) if name in values}
    if any(name in values for name in TILT):
        count = len(next(iter(values.values())))
        x, y = (values.get(name, np.zeros(count)) for name in TILT)
        if "odd_zernikes" in values:
            texts = columns["odd_zernikes"]
            x = np.where([_holds(text, "Z31c") for text in texts], 0.0, x)
            y = np.where([_holds(text, "Z31s") for text in texts], 0.0, y)
        fields["beam_tilt_mrad"] = np.stack([x, y], axis=-1)
    return fields


def _parsed(name: str, text: str) -> np.ndarray:
    value = parse(name, text)
    if value is None:
        raise ValueError(f"{name}: {text!r} should have been refused when it was read")
    return value


def _holds(text: str, term: str) -> bool:
    return has_effect("odd_zernikes", text) and term in json.loads(text)
