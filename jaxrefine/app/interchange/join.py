"""Joining of particle tables, and the changes by a second refinement."""

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float

from jaxrefine.app.interchange.export_star import files_of, refuse_overwriting
from jaxrefine.app.interchange.select import micrographs_of, write_rows
from jaxrefine.data import ErrorCollector, InputError
from jaxrefine.io.paths import rebase_relative_paths
from jaxrefine.io.table import ParticleTable, decide_statistics, read_particle_table
from jaxrefine.io.table.cells import number
from jaxrefine.io.table.dataframe import concatenated
from jaxrefine.io.table.schema import ANGLES, BY_NAME

# Columns of the match, which identify a particle and which refinement does not change.
_OF_THE_MATCH = ("pos_x", "pos_y", *ANGLES, "relative_defocus")
_INDEX, _ID, _STATUS = "particle_index", "particle_id", "refined_status"

Keep = Literal["last", "first", "best"]


@dataclass(frozen=True, eq=False)
class Changes:
    """Changes of particles that two tables share.

    Attributes:
        tables: The two tables.
        moved_angstrom: Distance between the two positions of each particle.
        z_score: z-scores in the first and the second table.
        statuses: refined_status in both -> number of particles.
    """

    tables: tuple[Path, Path]
    moved_angstrom: Float[np.ndarray, " c"]
    z_score: Float[np.ndarray, "2 c"]
    statuses: dict[tuple[str, str], int]


@dataclass(frozen=True)
class Joined:
    """Result of a join.

    Attributes:
        output: The file that was written.
        rows: Number of particles in it.
        of_each: Number of particles from each table.
        renumbered: Number of particles with a new `particle_index`, as theirs was taken.
        filled: Columns that some tables lack, with empty cells there.
        changes: Changes for each pair of tables that share particles.
    """

    output: Path
    rows: int
    of_each: tuple[int, ...]
    renumbered: int
    filled: tuple[str, ...]
    changes: tuple[Changes, ...]


def join(
    paths: Sequence[Path], output: Path, *, keep: Keep = "last", overwrite: bool = False
) -> Joined:
    """Write the particles of several tables into one, table after table.

    A particle that occurs in several, according to its micrograph and the columns of the
    match (position, angles, defocus), is written once.

    Args:
        paths: Two or more particle tables, refined or not.
        output: The table to write; its suffix determines the format.
        keep: The row to keep for a particle in several tables: that of the last or first
            table, or the one with the highest z-score.
        overwrite: Replace an existing file.

    Raises:
        InputError: With the errors of all tables; a column holds numbers in one and text in
            another; the columns named correlation_variance hold variances in one and
            standard deviations in another; or the file cannot be written.
    """
    if len(paths) < 2:
        raise InputError("join: name two tables or more")
    refuse_overwriting(output, *paths, overwrite=overwrite)
    errors, tables = ErrorCollector(), []
    for path in paths:
        with errors:
            tables.append(read_particle_table(path, ignore_aberrations=True))
    errors.raise_any()
    for table in tables:
        refuse_overwriting(output, *files_of(table), overwrite=True)
    _refuse_clashes(tables)

    names = dict.fromkeys(name for table in tables for name in table.raw.columns)
    whole = [set(table.raw.columns) for table in tables]
    filled = tuple(name for name in names if not all(name in each for each in whole))
    places = _places(tables)
    chosen = _chosen(tables, places, keep)
    rebased = [
        rebase_relative_paths(
            table.raw, table.path.absolute().parent, output.absolute().parent
        ).take(np.flatnonzero(kept))
        for table, kept in zip(tables, chosen, strict=True)
    ]
    frame = concatenated(rebased, list(names))
    renumbered = 0
    if _INDEX in frame.columns:
        frame[_INDEX], renumbered = _unique(frame[_INDEX].tolist())
    if _ID in frame.columns and not frame[_ID].is_unique:
        frame = frame.drop(
            columns=_ID
        )  # names in HDF5 stacks, which are made again on writing
    write_rows(frame, list(paths), output)
    return Joined(
        output,
        len(frame),
        tuple(int(kept.sum()) for kept in chosen),
        renumbered,
        filled,
        _changes(tables, places),
    )


def _refuse_clashes(tables: Sequence[ParticleTable]) -> None:
    """Refuse columns of the same name with different kinds of content.

    Raises:
        InputError: With all such columns.
    """
    errors = []
    kinds: dict[str, dict[str, Path]] = {}
    for table in tables:
        for name in table.raw.columns:
            texts = [text for text in table.raw[name] if text.strip()]
            if name not in BY_NAME and texts:
                is_number = not np.isnan([number(text) for text in texts]).any()
                kind = "numbers" if is_number else "text"
                kinds.setdefault(str(name), {}).setdefault(kind, table.path)
    for name, of_kind in kinds.items():
        if len(of_kind) > 1:
            held = " and ".join(f"{kind} in {path}" for kind, path in of_kind.items())
            errors.append(f"column {name}: holds {held}; rename it in one of them")
    held_by_maps: dict[str, Path] = {}
    for table in tables:
        try:
            held_by_maps.setdefault(decide_statistics(table), table.path)
        except InputError:  # unknown, and therefore no clash
            continue
    if len(held_by_maps) > 1:
        held = " and ".join(f"{kind}s in {path}" for kind, path in held_by_maps.items())
        errors.append(
            f"column correlation_variance and its maps: hold {held.replace('_', ' ')}; a "
            "run takes all its maps the same way: refine these tables apart"
        )
    if errors:
        raise InputError(errors)


def _places(tables: Sequence[ParticleTable]) -> list[dict[Hashable, int]]:
    """For each table, the keys that identify its particles, and their rows."""
    found = []
    for table in tables:
        columns = [table.numbers(name).tolist() for name in _OF_THE_MATCH]
        seen: Counter[Hashable] = Counter()
        places: dict[Hashable, int] = {}
        keys = zip(micrographs_of(table), *columns, strict=True)
        for row, key in enumerate(keys):
            places[key, seen[key]] = row  # duplicates within one table are kept
            seen[key] += 1
        found.append(places)
    return found


def _chosen(
    tables: Sequence[ParticleTable], places: list[dict[Hashable, int]], keep: Keep
) -> list[np.ndarray]:
    """The rows of each table to write."""
    z_scores = [
        np.nan_to_num(table.numbers("refined_scaled_mip"), nan=-np.inf) for table in tables
    ]
    owner: dict[Hashable, int] = {}
    for i, of_table in enumerate(places):
        for key, row in of_table.items():
            before = owner.get(key)
            if before is not None:
                better = z_scores[i][row] > z_scores[before][places[before][key]]
                if keep == "first" or (keep == "best" and not better):
                    continue
            owner[key] = i
    chosen = [np.zeros(len(table), bool) for table in tables]
    for key, i in owner.items():
        chosen[i][places[i][key]] = True
    return chosen


def _unique(texts: list[str]) -> tuple[list[str], int]:
    """Unique indices, with new ones for duplicates and empty cells; and their number."""
    whole = [int(text) for text in texts if text.strip().isdecimal()]
    following, seen, found, renumbered = max(whole, default=-1) + 1, set(), [], 0
    for text in texts:
        if text in seen or not text.strip():
            text, following, renumbered = str(following), following + 1, renumbered + 1
        seen.add(text)
        found.append(text)
    return found, renumbered


def _changes(
    tables: Sequence[ParticleTable], places: list[dict[Hashable, int]]
) -> tuple[Changes, ...]:
    """Changes between each table and the next one that shares particles with it."""
    latest: dict[Hashable, int] = {}
    pairs: dict[tuple[int, int], list[Hashable]] = {}
    for i, of_table in enumerate(places):
        for key in of_table:
            if key in latest:
                pairs.setdefault((latest[key], i), []).append(key)
            latest[key] = i
    return tuple(
        _compared(
            (tables[one], tables[other]),
            [[places[i][key] for key in keys] for i in (one, other)],
        )
        for (one, other), keys in pairs.items()
    )


def _compared(both: tuple[ParticleTable, ParticleTable], rows: list[list[int]]) -> Changes:
    position, z_scores, statuses = [], [], []
    for table, some in zip(both, rows, strict=True):
        shift = [table.numbers(f"refined_shift_{axis}") for axis in "yx"]
        exact = table.start().position_px + np.nan_to_num(np.stack(shift, -1))
        position.append(exact[some] * table.numbers("pixel_size")[some, None])
        z_scores.append(table.numbers("refined_scaled_mip")[some])
        words = [""] * len(table)
        if _STATUS in table.raw.columns:
            words = table.raw[_STATUS].str.strip().tolist()
        statuses.append([words[row] for row in some])
    return Changes(
        tables=(both[0].path, both[1].path),
        moved_angstrom=np.linalg.norm(position[1] - position[0], axis=-1),
        z_score=np.stack(z_scores),
        statuses=dict(Counter(zip(*statuses, strict=True))),
    )
