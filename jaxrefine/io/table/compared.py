"""The table of a comparison: each particle's best reference, and the results of all."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pandas as pd

from jaxrefine.data import InputError
from jaxrefine.io.table import cells
from jaxrefine.io.table.particle_table import ParticleTable
from jaxrefine.io.table.schema import ANGLES, reference_columns

# Columns that a refinement does not change; they identify the particle.
_SAME = ("micrograph_path", "pos_x", "pos_y", *ANGLES, "relative_defocus")


def check_same_particles(tables: Mapping[str, ParticleTable]) -> None:
    """Refuse tables that do not hold the same particles in the same order.

    Raises:
        InputError: With the first difference, and its value in each table.
    """
    (first, *others), errors = tables.values(), []
    for table in others:
        error = _difference(first, table)
        if error is not None:
            errors.append(error)
    if errors:
        raise InputError(errors)


def _difference(first: ParticleTable, table: ParticleTable) -> str | None:
    if len(table) != len(first):
        return (
            f"{table.path}: holds {len(table)} particles, {first.path} {len(first)}; they "
            "must be the same particles in the same order"
        )
    for row in range(len(table)):
        for name in _SAME:
            here, there = table.raw[name].iloc[row], first.raw[name].iloc[row]
            if here != there and cells.number(here) != cells.number(there):
                return (
                    f"{table.path}, {table.locate(row)}, column {name}: {here!r}, but "
                    f"{there!r} in {first.path}; they must be the same particles in the "
                    "same order"
                )
    return None


def compared_table(
    tables: Sequence[pd.DataFrame], names: Sequence[str], best: np.ndarray, found: Mapping
) -> pd.DataFrame:
    """For each row, that of its best reference's table, plus the results of all.

    Args:
        tables: One for each reference, all cells as text.
        names: Names of the references.
        best: Index of the best reference per row; for -1 the first one's row is used.
        found: Name of a column of `reference_columns` -> its values.
    """
    header = list(dict.fromkeys(name for table in tables for name in table.columns))
    columns = {name: list(_of_best(tables, best, name)) for name in header}
    for column in reference_columns(names):
        columns[column.name] = cells.texts(found[column.name], column.written)
    return pd.DataFrame(columns, dtype=object)


def _of_best(tables: Sequence[pd.DataFrame], best: np.ndarray, name: str) -> Iterator[str]:
    texts = [
        table[name].tolist() if name in table.columns else [""] * len(table)
        for table in tables
    ]
    for row, number in enumerate(best):
        yield texts[max(int(number), 0)][row]
