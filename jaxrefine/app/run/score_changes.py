"""Change of z-scores from the start of a run to its end."""

from collections.abc import Mapping, Sequence

import numpy as np

from jaxrefine.app.console.summary import ExpectedScores, FallenMicrograph
from jaxrefine.io.table import ParticleTable, StartingValues

# Refinement raises z-scores. Another program's filters and normalisation may lower them
# slightly; below this fraction of the starting z-score something is wrong.
FALLEN = 0.75


def z_at_start(table: ParticleTable, start: StartingValues) -> np.ndarray:
    """z-score of each row in the table: the refined one if the run starts from it."""
    earlier = table.numbers("refined_scaled_mip")
    again = start.from_refined & np.isfinite(earlier)
    return np.where(again, earlier, table.numbers("scaled_mip"))


def expected_scores(table: ParticleTable, start: StartingValues) -> np.ndarray:
    """Expected z-score of each row's starting values in independent data; NaN if unknown.

    A match's z-score is used as it is. A refined one includes fitted noise and is replaced
    by the expected z-score of that refinement, if known.
    """
    earlier = table.numbers("refined_scaled_mip_expected")
    return np.where(start.from_refined, earlier, table.numbers("scaled_mip"))


def compare_expected(before: np.ndarray, after: np.ndarray) -> ExpectedScores | None:
    """Means over the rows that have both values; None if there are none.

    Args:
        before: From `expected_scores`.
        after: Expected z-score of each row after refinement; NaN if not refined.
    """
    known = np.isfinite(before) & np.isfinite(after)
    if not known.any():
        return None
    means = float(before[known].mean()), float(after[known].mean())
    return ExpectedScores(int(known.sum()), *means)


def fallen_micrographs(
    before: np.ndarray, after: np.ndarray, groups: Mapping[str, Sequence[int] | np.ndarray]
) -> tuple[FallenMicrograph, ...]:
    """Micrographs whose median z-score fell below `FALLEN` of that at the start.

    Args:
        before: z-score of each row at the start; NaN if unknown.
        after: The same after refinement; NaN if not refined.
        groups: Micrograph -> rows.
    """
    found = []
    for name, members in groups.items():
        rows = np.asarray(members)
        known = rows[np.isfinite(before[rows]) & np.isfinite(after[rows])]
        if not len(known):
            continue
        was, now = float(np.median(before[known])), float(np.median(after[known]))
        if now < FALLEN * was:
            found.append(FallenMicrograph(name, len(known), was, now))
    return tuple(found)
