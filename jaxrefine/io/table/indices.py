"""Files with a selection of particles: a table that lists them."""

from pathlib import Path

import numpy as np
from jaxtyping import Bool

from jaxrefine.data import InputError
from jaxrefine.io.table.particle_table import ParticleTable
from jaxrefine.io.table.readers import read_cells

INDEX, ROW, MICROGRAPH = "particle_index", "row", "micrograph_path"


def listed_rows(table: ParticleTable, path: Path) -> Bool[np.ndarray, " n"]:
    """Mask of the particles of a table that a file lists, as saved by a report.

    The file identifies them by its column `particle_index`, together with
    `micrograph_path` if an index occurs more than once; otherwise by `row`, counted from 0.
    Other columns are ignored.

    Raises:
        InputError: The file has no such column, or lists particles not in the table.
    """
    content = read_cells(path)
    word = next((name for name in (INDEX, ROW) if name in content.header), "")
    if not word:
        raise InputError(
            f"--indices: {path}: has no column particle_index (or row, counted from 0)"
        )
    names = [word]
    if word == ROW:
        there = [(str(row),) for row in range(len(table))]
    else:
        if INDEX not in table.raw.columns:
            raise InputError(
                f"--indices: {table.path} has no column {INDEX}; name a refined table, as "
                "`jaxrefine CONFIG.yaml` writes it"
            )
        repeated = not table.raw[INDEX].str.strip().is_unique
        if repeated and MICROGRAPH in content.header:
            names.append(MICROGRAPH)
        there = list(zip(*(table.raw[name].str.strip() for name in names), strict=True))
        if len(set(there)) < len(there):
            raise InputError(
                f"--indices: {table.path}, column {word}: holds a value more than once, so "
                "that particles cannot be identified"
            )
    places = [content.header.index(name) for name in names]
    wanted = [tuple(row[place].strip() for place in places) for row in content.rows]
    known = set(there)
    absent = [listed for listed in wanted if listed not in known]
    if absent:
        raise InputError(
            f"--indices: {path}: {len(absent)} particles are not in {table.path}, such as "
            f"{word} {absent[0][0]!r}"
        )
    chosen = set(wanted)
    return np.array([one in chosen for one in there], bool)
