"""Comparison of two refinements of the same particles."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from jaxrefine.app.report.table_data import ReportData
from jaxrefine.data import InputError
from jaxrefine.io.table.indices import INDEX


@dataclass(frozen=True, eq=False)
class Comparison:
    """Results of another refinement for the n rows of a table; NaN if it has none.

    Attributes:
        name: File name of the other table.
        z: Refined z-score in the other table.
        gain: Difference of the refined z-scores, this table minus the other.
        angle_deg: Angle of the rotation between the two orientations. Equivalent poses of a
            symmetric template count as different.
        distance_px: Distance between the two positions.
        defocus_change_angstrom: Difference of relative defocus, this table minus the other.
    """

    name: str
    z: Float[np.ndarray, " n"]
    gain: Float[np.ndarray, " n"]
    angle_deg: Float[np.ndarray, " n"]
    distance_px: Float[np.ndarray, " n"]
    defocus_change_angstrom: Float[np.ndarray, " n"]


def compare(data: ReportData, other: ReportData) -> Comparison:
    """Compare two refined tables.

    Particles are identified by `particle_index`, together with the micrograph if an index
    occurs more than once; if that column is missing in either table, by their row.

    Raises:
        InputError: The identification is ambiguous, or no particles are shared.
    """
    here, there = _partners(data, other)

    def spread(values: Float[np.ndarray, " c"]) -> Float[np.ndarray, " n"]:
        found = np.full(len(data), np.nan)
        found[here] = values
        return found

    # The cosine is inaccurate for small angles; the chord is √8 sin(angle / 2).
    chord = np.linalg.norm(data.rotation[here] - other.rotation[there], axis=(-2, -1))
    angle = 2 * np.arcsin(np.clip(chord / np.sqrt(8), 0, 1))
    z = spread(other.z_after[there])
    defoci = data.relative_defocus_angstrom[here], other.relative_defocus_angstrom[there]
    moved = data.corner_px[here] - other.corner_px[there]
    return Comparison(
        name=other.table.path.name,
        z=z,
        gain=data.z_after - z,
        angle_deg=spread(np.rad2deg(angle)),
        distance_px=spread(np.hypot(*moved.T)),
        defocus_change_angstrom=spread(defoci[0] - defoci[1]),
    )


def _partners(data: ReportData, other: ReportData) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the same particles in both tables."""
    both = f"{data.table.path} and {other.table.path}"
    if not all(INDEX in each.table.raw.columns for each in (data, other)):
        if len(data) != len(other):
            raise InputError(
                f"{both}: cannot be compared: without a column {INDEX} in each they should "
                f"have the same rows, but have {len(data)} and {len(other)}"
            )
        rows = np.arange(len(data))
        return rows, rows
    here_is, there_is = _names(data, other)
    place = {name: row for row, name in enumerate(there_is)}
    here = [row for row, name in enumerate(here_is) if name in place]
    if not here:
        raise InputError(f"{both}: cannot be compared: no {INDEX} occurs in both")
    return np.array(here), np.array([place[here_is[row]] for row in here])


def _names(data: ReportData, other: ReportData) -> list[list[tuple[str, ...]]]:
    """Identifiers of particles in both: the index, or the index and the micrograph name."""
    tables = [each.table for each in (data, other)]
    indices = [[(text.strip(),) for text in table.raw[INDEX]] for table in tables]
    in_micrographs = [
        [(*index, Path(path).name) for index, path in zip(each, paths, strict=True)]
        for each, table in zip(indices, tables, strict=True)
        for paths in [table.micrograph_paths]
    ]
    for names in (indices, in_micrographs):
        if all(len(set(each)) == len(each) for each in names):
            return names
    raise InputError(
        [
            f"{table.path}, column {INDEX}: holds a value more than once for one "
            "micrograph, so that particles cannot be identified and compared"
            for table, names in zip(tables, in_micrographs, strict=True)
            if len(set(names)) < len(names)
        ]
    )
