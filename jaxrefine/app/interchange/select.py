"""Selection of a table's particles by criteria; cells are copied unchanged."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from jaxrefine.app.interchange.export_star import files_of, refuse_overwriting
from jaxrefine.app.interchange.expression import rows_that_fulfil
from jaxrefine.data import InputError
from jaxrefine.io.hdf5 import SUFFIXES, is_hdf5
from jaxrefine.io.paths import rebase_relative_paths, resolve_path
from jaxrefine.io.table import ParticleTable, read_particle_table, write_table
from jaxrefine.io.table.dataframe import DataFrame
from jaxrefine.io.table.hdf5 import hdf5_attributes, write_hdf5
from jaxrefine.io.table.indices import listed_rows

_FALSE_POSITIVES = "refined_false_positives"
_EDGES = ("edge_of_grid", "moved_to_edge")


@dataclass(frozen=True)
class Criteria:
    """Criteria for particles; None, or an empty sequence, imposes no criterion.

    Attributes:
        where: Conditions, as in `rows_that_fulfil`.
        indices: A table of the particles to keep, with a column `particle_index`, or `row`
            counted from 0, as exported from the report.
        false_positives: Keep particles whose score is exceeded by at most this expected
            number of noise peaks per micrograph (`refined_false_positives`).
        drop_at_edge: Drop particles whose best is on the border of the search range.
        drop_moved_angstrom: Drop particles that the refinement moved further than this.
        drop_duplicates_angstrom: Of particles in one micrograph that are no further apart
            than this, keep the one with the highest z-score.
    """

    where: tuple[str, ...] = ()
    indices: Path | None = None
    false_positives: float | None = None
    drop_at_edge: bool = False
    drop_moved_angstrom: float | None = None
    drop_duplicates_angstrom: float | None = None


@dataclass(frozen=True)
class Selected:
    """Result of a selection.

    Attributes:
        output: The file that was written.
        total: Number of particles in the input.
        kept: Number of particles in the output.
        removed: Each criterion, in order of application, and the number of particles that
            it removed from those left by the earlier ones.
    """

    output: Path
    total: int
    kept: int
    removed: tuple[tuple[str, int], ...]


def select(
    table_path: Path, output: Path, criteria: Criteria, *, overwrite: bool = False
) -> Selected:
    """Write the rows of a table that fulfil all criteria, in their order.

    Args:
        table_path: A particle table in any format, refined or not.
        output: The table to write; its suffix determines the format.
        criteria: The criteria; duplicates are removed last.
        overwrite: Replace an existing file.

    Raises:
        InputError: With all errors of the table; a criterion is invalid, or needs columns
            that the table lacks; nothing is left; or the file cannot be written.
    """
    refuse_overwriting(output, table_path, overwrite=overwrite)
    table = read_particle_table(table_path, ignore_aberrations=True)
    refuse_overwriting(output, *files_of(table), overwrite=True)
    steps = _steps(table, criteria)
    if not steps:
        raise InputError("nothing to select by: give --where, --indices or a preset")
    left, removed = np.ones(len(table), bool), []
    for name, fulfilled in steps:
        now = left & fulfilled(left)
        removed.append((name, int(left.sum() - now.sum())))
        left = now
    if not left.any():
        counts = ", ".join(f"{name} removes {count}" for name, count in removed)
        raise InputError(
            f"{table_path}: no particle is left of {len(table)}: {counts}; nothing is "
            "written"
        )
    write_rows(table.raw.take(np.flatnonzero(left)), [table_path], output)
    return Selected(output, len(table), int(left.sum()), tuple(removed))


def write_rows(rows: DataFrame, sources: list[Path], output: Path) -> None:
    """Write rows of tables, all cells as text; a stack gets the sizes of the first table.

    Args:
        rows: All cells as text, paths as in the table.
        sources: The table, or several whose relative paths are already absolute.
        output: The file to write; its suffix determines the format.

    Raises:
        InputError: The file cannot be written.
    """
    if len(sources) == 1:
        folders = (path.absolute().parent for path in (sources[0], output))
        rows = rebase_relative_paths(rows, *folders)
    if output.suffix.lower() in SUFFIXES:
        stacks = [path for path in sources if is_hdf5(path)]
        write_hdf5(rows, output, hdf5_attributes(stacks[0]) if stacks else None)
    else:
        write_table(rows, output)


def micrographs_of(table: ParticleTable) -> list[str]:
    """Micrograph of each row, with one name however the table writes it."""
    beside = table.path.absolute().parent
    names = {
        text: os.path.realpath(resolve_path(text, beside=beside))
        for text in set(table.micrograph_paths)
    }
    return [names[text] for text in table.micrograph_paths]


def displacement_angstrom(table: ParticleTable) -> Float[np.ndarray, " n"]:
    """Distance by which the refinement moved each particle; NaN if not refined."""
    moved = [
        table.numbers(f"refined_pos_{axis}")
        + np.nan_to_num(table.numbers(f"refined_shift_{axis}"))
        - table.numbers(f"pos_{axis}")
        for axis in "yx"
    ]
    return np.hypot(*moved) * table.numbers("pixel_size")


_Rows = Bool[np.ndarray, " n"]


def _steps(
    table: ParticleTable, criteria: Criteria
) -> list[tuple[str, Callable[[_Rows], _Rows]]]:
    """Each criterion's name, and a function that tests the rows that are left."""
    steps: list[tuple[str, Callable[[_Rows], _Rows]]] = []
    errors: list[str] = []

    def add(name: str, find: Callable[..., _Rows], *arguments: Any) -> None:
        try:
            fulfilled = find(table, *arguments)
        except InputError as error:
            errors.extend(error.errors)
        else:
            steps.append((name, lambda _: fulfilled))

    for text in criteria.where:
        add(f"--where {text!r}", rows_that_fulfil, text)
    if criteria.indices is not None:
        add(f"--indices {criteria.indices}", listed_rows, criteria.indices)
    if (count := criteria.false_positives) is not None:
        add(f"--false-positives {count:g}", _significant, count)
    if criteria.drop_at_edge:
        add("--drop-at-edge", _inside)
    if (distance := criteria.drop_moved_angstrom) is not None:
        add(f"--drop-moved {distance:g}", _not_moved, distance)
    if errors:
        raise InputError(errors)
    if (apart := criteria.drop_duplicates_angstrom) is not None:
        name = f"--drop-duplicates {apart:g}"
        steps.append((name, lambda left: _best_of_each_place(table, left, apart)))
    return steps


def _need(table: ParticleTable, option: str, *names: str) -> None:
    missing = [name for name in names if name not in table.raw.columns]
    if missing:
        more = " with `significance: true`" if _FALSE_POSITIVES in missing else ""
        raise InputError(
            f"{option}: {table.path} has no column {', '.join(missing)}; name a refined "
            f"table, as `jaxrefine CONFIG.yaml` writes it{more}"
        )


def _significant(table: ParticleTable, false_positives: float) -> _Rows:
    """Rows whose score is exceeded by at most this expected number of noise peaks."""
    _need(table, "--false-positives", _FALSE_POSITIVES)
    return table.numbers(_FALSE_POSITIVES) <= false_positives


def _inside(table: ParticleTable) -> _Rows:
    """Rows whose best is inside all search ranges."""
    _need(table, "--drop-at-edge", "refined_status")
    at_edge = table.raw["refined_status"].str.strip().isin(_EDGES).to_numpy()
    if "refined_at_edge" in table.raw.columns:
        at_edge = at_edge | (table.raw["refined_at_edge"].str.strip() != "").to_numpy()
    return ~at_edge


def _not_moved(table: ParticleTable, most_angstrom: float) -> _Rows:
    _need(table, "--drop-moved", "refined_pos_x", "refined_pos_y")
    return ~(displacement_angstrom(table) > most_angstrom)


def _best_of_each_place(table: ParticleTable, left: _Rows, apart_angstrom: float) -> _Rows:
    """Remove duplicates greedily, starting from the highest z-score."""
    micrograph = micrographs_of(table)
    z_score = np.where(
        np.isfinite(table.numbers("refined_scaled_mip")),
        table.numbers("refined_scaled_mip"),
        table.numbers("scaled_mip"),
    )
    position = table.start().position_px * table.numbers("pixel_size")[:, None]
    # Squares with the side of the distance: neighbours are in the same or an adjacent one.
    square = np.floor(position / max(apart_angstrom, 1e-6)).astype(int)
    kept = np.zeros(len(table), bool)
    occupied: dict[tuple[str, int, int], list[int]] = {}
    order = np.argsort(-np.nan_to_num(z_score, nan=-np.inf), kind="stable")
    for row in order[left[order]]:
        image, (y, x) = micrograph[row], square[row].tolist()
        near = [
            other
            for dy in (-1, 0, 1)
            for dx in (-1, 0, 1)
            for other in occupied.get((image, y + dy, x + dx), ())
        ]
        apart = np.linalg.norm(position[near] - position[row], axis=-1)
        if np.all(apart > apart_angstrom):
            kept[row] = True
            occupied.setdefault((image, y, x), []).append(int(row))
    return kept
