"""The results of a refinement as columns of the particle table."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from jaxrefine.io.table import cells
from jaxrefine.io.table.particle_table import ParticleTable
from jaxrefine.io.table.schema import (
    ANGLES,
    BY_NAME,
    COLUMNS,
    DEFOCUS,
    WRITTEN,
    Column,
    compared_names,
    reference_columns,
)

# Columns that are written only if they have values; those of an earlier run are removed.
_NOT_ALWAYS = ("polished", "envelope", "marked", "partner")
# Refined astigmatism is kept: it is a starting value of this refinement.
_OF_AN_EARLIER_RUN = [
    column.name
    for column in COLUMNS
    if column.use in _NOT_ALWAYS
    and column.name not in {f"refined_{name}" for name in (*DEFOCUS, "astigmatism_angle")}
]
_CENTRE, _CENTRE_ANGSTROM = "refined_pos_{}_img", "refined_pos_{}_img_angstrom"
_DERIVED = {name.format(axis) for name in (_CENTRE, _CENTRE_ANGSTROM) for axis in "xy"}


@dataclass(frozen=True, eq=False)
class RefinedColumns:
    """The results of a refinement as columns, n rows.

    Attributes:
        template_side: Side of the template in px.
        values: Name of a column -> its values; NaN or "" where there is no result. It has
            all columns that the schema writes except the centres, which follow from the
            corners; those of a polish or a partner only if there was one. Angles may have
            any range.
    """

    template_side: int
    values: dict[str, np.ndarray]

    @classmethod
    def empty(
        cls, n: int, template_side: int, *, polished: bool, partner: bool = False
    ) -> "RefinedColumns":
        """Columns without any results yet."""
        absent = {"polished": not polished, "partner": not partner}
        return cls(
            template_side,
            {
                column.name: _empty(column, n)
                for column in WRITTEN
                if column.name not in _DERIVED and not absent.get(column.use, False)
            },
        )

    def __getitem__(self, name: str) -> np.ndarray:
        return self.values[name]

    def store(self, rows: Any, found: Mapping[str, Any]) -> None:
        """Store values in some rows, by column name."""
        for name, values in found.items():
            self.values[name][rows] = values


def _empty(column: Column, n: int) -> np.ndarray:
    if column.written == "text":
        return np.full(n, "", object)
    return np.full(n, np.nan, np.float32 if column.written == "float32" else np.float64)


def refined_table(table: ParticleTable, results: RefinedColumns) -> pd.DataFrame:
    """Adds the results to a table.

    Args:
        table: The table that was refined; its other cells are kept as they are.
        results: One row per row of the table.

    Returns:
        All cells as text: Leopard-EM's columns in its order, then unknown columns of the
        input, then our own.
    """
    compared = reference_columns(compared_names(table.raw.columns))
    earlier = [*_OF_AN_EARLIER_RUN, *(column.name for column in compared)]
    frame = table.raw.drop(columns=earlier, errors="ignore")
    values = _with_derived(table, results)
    for column in WRITTEN:
        if column.name in values and _says_something(column, values[column.name]):
            frame[column.name] = cells.texts(values[column.name], column.written)
    there = [column for column in COLUMNS if column.name in frame.columns]
    known = [column.name for column in there if not column.ours]
    unknown = [name for name in frame.columns if name not in BY_NAME]
    ours = [column.name for column in there if column.ours]
    return frame.reindex(columns=[*known, *unknown, *ours])


def _with_derived(table: ParticleTable, results: RefinedColumns) -> dict[str, np.ndarray]:
    """All columns, including the particles' centres, with angles in their range."""
    values = dict(results.values)
    pixel_size = table.numbers("pixel_size")
    for axis in "xy":
        centre = values[f"refined_pos_{axis}"] + results.template_side // 2
        exact = centre + values.get(f"refined_shift_{axis}", 0.0)
        values[_CENTRE.format(axis)] = centre
        values[_CENTRE_ANGSTROM.format(axis)] = exact * pixel_size
    names = [f"refined_{name}" for name in ANGLES]
    euler = np.stack([values[name] for name in names], axis=-1)
    return values | dict(zip(names, cells.normalised_euler_deg(euler, 4).T, strict=True))


def _says_something(column: Column, values: np.ndarray) -> bool:
    """Whether to write a column: one that is not in every run is omitted if it is empty."""
    left_out = column.use in _NOT_ALWAYS and column.written != "text"
    return not left_out or bool(np.isfinite(values).any())
