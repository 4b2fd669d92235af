"""A table's particles by what they fulfil: their rows, cell by cell as they were."""

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
    """What particles have to fulfil; None, or nothing, asks for nothing.

    Attributes:
        where: Conditions, as `rows_that_fulfil` takes them.
        indices: A table of the particles to keep: a column `particle_index`, or `row`,
            counted from 0, as the report's page exports it.
        false_positives: Keep those whose score no more noise peaks of a micrograph reach,
            as expected (`refined_false_positives`).
        drop_at_edge: Drop those whose best lies on the border of what was searched.
        drop_moved_angstrom: Drop those that the refinement moved further than this.
        drop_duplicates_angstrom: Of those of a micrograph that are no further apart, keep
            the one of the highest z-score.
    """

    where: tuple[str, ...] = ()
    indices: Path | None = None
    false_positives: float | None = None
    drop_at_edge: bool = False
    drop_moved_angstrom: float | None = None
    drop_duplicates_angstrom: float | None = None


@dataclass(frozen=True)
class Selected:
    """What a selection did.

    Attributes:
        output: The file that was written.
        total: Particles of the input.
        kept: Particles that are left.
        removed: Each criterion, in the order in which they were applied, and how many it
            removed of those that the ones before it had left.
    """

    output: Path
    total: int
    kept: int
    removed: tuple[tuple[str, int], ...]


def select(
    table_path: Path, output: Path, criteria: Criteria, *, overwrite: bool = False
) -> Selected:
    """Writes the rows of a table that fulfil all criteria, in their order.

    Args:
        table_path: A particle table of any kind that can be read, refined or not.
        output: The table to write; its suffix says of which kind.
        criteria: What to keep; duplicates are looked for last, among what is left.
        overwrite: Replace a file that is there.

    Raises:
        InputError: With the errors of the table; a criterion is none, or asks for columns
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
    """Writes rows of tables, all cells as text; of a stack with the first one's sizes.

    Args:
        rows: All cells as text, paths as the table names them.
        sources: The table, or several whose relative paths are absolute already.
        output: File; its suffix says of which kind.

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
    """Each row's micrograph, by one name however the table writes it."""
    beside = table.path.absolute().parent
    names = {
        text: os.path.realpath(resolve_path(text, beside=beside))
        for text in set(table.micrograph_paths)
    }
    return [names[text] for text in table.micrograph_paths]


def displacement_angstrom(table: ParticleTable) -> Float[np.ndarray, " n"]:
    """How far the refinement moved each particle from the match; NaN where it did not."""
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
    """Criteria by name: which rows fulfil each, of those that are left."""
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
    """Those that no more noise peaks of a micrograph are expected to reach."""
    _need(table, "--false-positives", _FALSE_POSITIVES)
    return table.numbers(_FALSE_POSITIVES) <= false_positives


def _inside(table: ParticleTable) -> _Rows:
    """Those whose best is not the outermost of anything that was searched."""
    _need(table, "--drop-at-edge", "refined_status")
    at_edge = table.raw["refined_status"].str.strip().isin(_EDGES).to_numpy()
    if "refined_at_edge" in table.raw.columns:
        at_edge = at_edge | (table.raw["refined_at_edge"].str.strip() != "").to_numpy()
    return ~at_edge


def _not_moved(table: ParticleTable, most_angstrom: float) -> _Rows:
    _need(table, "--drop-moved", "refined_pos_x", "refined_pos_y")
    return ~(displacement_angstrom(table) > most_angstrom)


def _best_of_each_place(table: ParticleTable, left: _Rows, apart_angstrom: float) -> _Rows:
    """Greedily from the highest z-score: those with no better one of the same place."""
    micrograph = micrographs_of(table)
    z_score = np.where(
        np.isfinite(table.numbers("refined_scaled_mip")),
        table.numbers("refined_scaled_mip"),
        table.numbers("scaled_mip"),
    )
    position = table.start().position_px * table.numbers("pixel_size")[:, None]
    # Squares as wide as the distance: what is near lies in the same or a neighbour.
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
