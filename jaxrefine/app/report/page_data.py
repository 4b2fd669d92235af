"""Data for the page's script: each column once, in compact form.

Plots and table share the columns. A number is stored as a multiple of its column's step, in
16 or 32 bits, as base64; a text as an index into a list of the different texts.
"""

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from jaxrefine.app.report.compare import Comparison
from jaxrefine.app.report.references import best_references
from jaxrefine.app.report.table_data import ReportData
from jaxrefine.io.table.indices import INDEX
from jaxrefine.io.table.schema import ANGLES, DEFOCUS

_WHOLE_NUMBER = re.compile(r"0|[1-9]\d{0,8}")


@dataclass(frozen=True)
class _Column:
    """One column of numbers.

    Attributes:
        name: Name in the script.
        title: Title for the reader.
        unit: Its unit; empty for none.
        step: Step of rounding.
        values: Its numbers; NaN for none.
    """

    name: str
    title: str
    unit: str
    step: float
    values: Float[np.ndarray, " n"]


def page_data(
    data: ReportData, threshold: float | None, comparison: Comparison | None
) -> dict[str, Any]:
    """All data of the particles for the script, as values for JSON."""
    columns = [
        column
        for column in [*_columns(data), *_compared(comparison)]
        if np.isfinite(column.values).any()
    ]
    return {
        "count": len(data),
        "index": _index(data),
        "stem": data.table.path.stem,
        "label": _labels(data),
        "threshold": threshold,
        "side": data.template_side_px,
        "columns": [_packed(column) for column in columns],
        "words": {
            "micrograph": _words(data.table.micrograph_paths, list(data.micrographs)),
            "status": _words(_statuses(data)),
            **_references(data),
        },
        "concerned": _base64(np.packbits(~data.converged, bitorder="little")),
        "micrographs": _micrographs(data),
    }


def _columns(data: ReportData) -> list[_Column]:
    match = {name: data.table.numbers(name) for name in ("phi", "theta")}
    refined = {name: data.table.numbers(f"refined_{name}") for name in ANGLES}
    x, y = data.centre_px.T
    shift_x, shift_y = data.shift_px.T
    found = [
        _Column("z", "z refined", "", 1e-3, data.z_after),
        _Column("z_match", "z match", "", 1e-3, data.z_before),
        _Column("gain", "gain in z", "", 1e-3, data.z_after - data.z_before),
        _Column("z_expected", "z expected", "", 1e-3, data.z_expected),
        _Column("tilt", "tilt", "°", 1e-2, data.tilt_deg),
        _Column("in_plane", "in-plane", "°", 1e-2, data.in_plane_deg),
        _Column("shift_x", "shift x", "px", 1e-2, shift_x),
        _Column("shift_y", "shift y", "px", 1e-2, shift_y),
        _Column("defocus", "rel. defocus", "Å", 1.0, data.relative_defocus_angstrom),
        _Column("defocus_change", "Δ defocus", "Å", 1.0, data.defocus_change_angstrom),
        *(_Column(name, name, "°", 1e-2, refined[name]) for name in ANGLES),
        _Column("x", "x", "px", 0.1, x),
        _Column("y", "y", "px", 0.1, y),
        _Column("phi_match", "phi match", "°", 1e-2, match["phi"]),
        _Column("theta_match", "theta match", "°", 1e-2, match["theta"]),
    ]
    if best_references(data):
        p = data.table.numbers("reference_probability")
        found.append(_Column("probability", "P(reference)", "", 1e-3, p))
    units = {"orientation": ("°", 1e-3), "position": ("px", 1e-3), "defocus": ("Å", 0.1)}
    for name, values in data.sigma.items():
        unit, step = units[name]
        found.append(_Column(f"sigma_{name}", f"σ {name}", unit, step, values))
    return found


def _compared(comparison: Comparison | None) -> list[_Column]:
    if comparison is None:
        return []
    return [
        _Column("z_other", "z other", "", 1e-3, comparison.z),
        _Column("gain_other", "z − z other", "", 1e-3, comparison.gain),
        _Column("angle_other", "angle to other", "°", 1e-2, comparison.angle_deg),
        _Column("distance_other", "distance to other", "px", 1e-2, comparison.distance_px),
        _Column(
            "defocus_other", "defocus − other", "Å", 1.0, comparison.defocus_change_angstrom
        ),
    ]


def _packed(column: _Column) -> dict[str, Any]:
    """Whole steps from the middle of the column's range; the smallest integer is NaN."""
    finite = np.isfinite(column.values)
    ends = (column.values[finite].min(), column.values[finite].max())
    middle = round(float(sum(ends)) / 2 / column.step)
    # No value of these columns needs more than 32 bits.
    steps = np.clip(np.rint(column.values / column.step) - middle, 1 - 2**31, 2**31 - 1)
    largest = abs(steps[finite]).max()
    kind = np.int16 if largest < 2**15 else np.int32
    whole = np.where(finite, steps, np.iinfo(kind).min).astype(f"<i{kind().itemsize}")
    return {
        "name": column.name,
        "title": column.title,
        "unit": column.unit,
        "step": column.step,
        "middle": middle,
        "digits": max(0, round(-np.log10(column.step))),
        "bytes": kind().itemsize,
        "data": _base64(whole),
    }


def _labels(data: ReportData) -> dict[str, Any]:
    """Labels of the particles, as in the table."""
    raw = data.table.raw
    if INDEX not in raw.columns:
        return {"row": True}
    texts = raw[INDEX].tolist()
    if all(_WHOLE_NUMBER.fullmatch(text) for text in texts):
        return {"data": _base64(np.array(texts, "<i4"))}
    return {"texts": texts}


def _index(data: ReportData) -> str:
    """What identifies particles: "unique" or "repeated" indices, or only "row"."""
    raw = data.table.raw
    if INDEX not in raw.columns:
        return "row"
    return "unique" if raw[INDEX].is_unique else "repeated"


def _statuses(data: ReportData) -> list[str]:
    """A text for each particle: its status and polish, or a substitute."""
    found = [
        status or ("refined" if refined else "not refined")
        for status, refined in zip(data.status, data.refined, strict=True)
    ]
    for concern in data.concerns:
        found[concern.row] = concern.words
    return found


def _words(texts: Sequence[str], known: list[str] | None = None) -> dict[str, Any]:
    known = list(dict.fromkeys(texts)) if known is None else known
    place = {text: number for number, text in enumerate(known)}
    kind = np.uint16 if len(known) <= 2**16 else np.uint32
    numbers = np.array([place[text] for text in texts], kind)
    return {"words": known, "bytes": kind().itemsize, "data": _base64(numbers)}


def _references(data: ReportData) -> dict[str, Any]:
    """The best reference of each particle, if several were compared."""
    best = best_references(data)
    return {"reference": _words([name or "—" for name in best])} if best else {}


def _micrographs(data: ReportData) -> list[dict[str, Any]]:
    """Name, defocus and pixel size of each micrograph, those with most particles first."""
    defocus = np.mean([data.table.numbers(name) for name in DEFOCUS], axis=0)
    pixel_size = data.table.numbers("pixel_size")
    found = []
    for rows in data.micrographs.values():
        each = {"defocus": float(np.median(defocus[rows])), "pixel": pixel_size[rows[0]]}
        found.append({name: round(float(value), 4) for name, value in each.items()})
    return found


def _base64(values: np.ndarray) -> str:
    return base64.b64encode(values.tobytes()).decode()
