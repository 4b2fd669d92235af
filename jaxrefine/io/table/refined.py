"""The results of a refinement as columns of the particle table."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from jaxrefine.io.table import csv_text as cells
from jaxrefine.io.table.particle_table import ParticleTable
from jaxrefine.io.table.schema import ANGLES, BY_NAME, COLUMNS, DEFOCUS, OURS, POLISHED

# Refined astigmatism stays: it is where this refinement began.
_OF_AN_EARLIER_POLISH = [
    column.name
    for column in COLUMNS
    if column.use == "polished"
    and column.name not in {f"refined_{name}" for name in (*DEFOCUS, "astigmatism_angle")}
]


@dataclass(frozen=True, eq=False)
class RefinedColumns:
    """What a refinement found, n rows; NaN where a particle was not refined.

    Attributes:
        template_side: Side of the template in px.
        mip: Correlation at the best.
        scaled_mip: z-score at the best.
        position_px: (n, 2): y, x of the template's top-left corner, whole numbers.
        euler_deg: (n, 3): phi, theta, psi, of any range.
        relative_defocus_angstrom: Relative defocus.
        pixel_size_angstrom: Pixel size.
        snr: Correlation above the background, in its standard deviations.
        status: Name of the particle's status.
        at_edge: The quantities whose best is the outermost that was searched.
        filled: Share of the template on filled pixels; None where none were looked for.
        polished: (n, c): the columns `POLISHED`; None without a polish.
        polish: How each particle's polish ended; None without one.
    """

    template_side: int
    mip: np.ndarray
    scaled_mip: np.ndarray
    position_px: np.ndarray
    euler_deg: np.ndarray
    relative_defocus_angstrom: np.ndarray
    pixel_size_angstrom: np.ndarray
    snr: np.ndarray
    status: list[str]
    at_edge: list[str]
    filled: np.ndarray | None = None
    polished: np.ndarray | None = None
    polish: Sequence[str] | None = None


def refined_table(table: ParticleTable, results: RefinedColumns) -> pd.DataFrame:
    """Adds the results to a table.

    Args:
        table: The table that was refined; its other cells are kept as they are.
        results: One row per row of the table.

    Returns:
        All cells as text: Leopard-EM's columns in its order, then unknown columns of the
        input, then our own.
    """
    frame = table.raw.drop(columns=_OF_AN_EARLIER_POLISH, errors="ignore")
    corner = np.asarray(results.position_px, np.float64)
    centre = corner + results.template_side // 2
    centre_angstrom = (centre + _shift(results)) * table.numbers("pixel_size")[:, None]
    for i, axis in enumerate("yx"):
        frame[f"refined_pos_{axis}"] = cells.whole_texts(corner[:, i])
        frame[f"refined_pos_{axis}_img"] = cells.whole_texts(centre[:, i])
        texts = cells.rounded_texts(centre_angstrom[:, i], 4)
        frame[f"refined_pos_{axis}_img_angstrom"] = texts
    euler = cells.normalised_euler_deg(results.euler_deg, 4)
    for i, name in enumerate(ANGLES):
        frame[f"refined_{name}"] = cells.rounded_texts(euler[:, i], 4)
    # Fewer decimals than float32 holds: 60.0 and not 60.000488 from 5260.0005 - 5200.
    defocus = cells.rounded_texts(results.relative_defocus_angstrom, 2)
    frame["refined_relative_defocus"] = defocus
    frame["refined_pixel_size"] = cells.rounded_texts(results.pixel_size_angstrom, 6)
    frame["refined_mip"] = cells.float32_texts(results.mip)
    frame["refined_scaled_mip"] = cells.float32_texts(results.scaled_mip)
    frame["refined_snr"] = cells.float32_texts(results.snr)
    frame["refined_status"] = list(results.status)
    frame["refined_at_edge"] = list(results.at_edge)
    if results.filled is not None:
        frame["refined_filled_fraction"] = cells.rounded_texts(results.filled, 4)
    for name, texts in _polished_texts(results):
        frame[name] = texts
    known = [name for name in BY_NAME if name in frame.columns and name not in OURS]
    unknown = [name for name in frame.columns if name not in BY_NAME]
    ours = [name for name in OURS if name in frame.columns]
    return frame.reindex(columns=[*known, *unknown, *ours])


def _shift(results: RefinedColumns) -> np.ndarray:
    """Sub-pixel rest (y, x) of the positions."""
    if results.polished is None:
        return np.zeros(2)
    at = [POLISHED.index(f"refined_shift_{axis}") for axis in "yx"]
    return results.polished[:, at]


def _polished_texts(results: RefinedColumns) -> Iterator[tuple[str, Sequence[str]]]:
    """Columns of a polish; one that has no value in any row is left out."""
    if results.polished is None:
        return
    for name, values in zip(POLISHED, results.polished.T, strict=True):
        if not np.isfinite(values).any():
            continue
        column = BY_NAME[name]
        if column.kind == "integer":
            yield name, cells.whole_texts(values)
        elif column.unit == "-":
            yield name, cells.float32_texts(values.astype(np.float32))
        else:
            decimals = 6 if "pixel_size" in name else 4
            yield name, cells.rounded_texts(values, decimals)
    yield "refined_polish", list(results.polish or ())
