"""How z-scores changed from the start of a run to its end."""

from collections.abc import Mapping, Sequence

import numpy as np

from jaxrefine.app.console.summary import ExpectedScores, FallenMicrograph
from jaxrefine.io.table import ParticleTable, StartingValues

# Refining raises z-scores. Another program's filters and normalisation may lower them
# somewhat; below this share of the start's something is wrong.
FALLEN = 0.75


def z_at_start(table: ParticleTable, start: StartingValues) -> np.ndarray:
    """z-score of each row by its table: the refined one where it starts from that."""
    earlier = table.numbers("refined_scaled_mip")
    again = start.from_refined & np.isfinite(earlier)
    return np.where(again, earlier, table.numbers("scaled_mip"))


def expected_scores(table: ParticleTable, start: StartingValues) -> np.ndarray:
    """z-score that each row's start is worth in other data; NaN: unknown.

    A match's is taken as it is. One that was refined has fitted noise: there it is what
    that refinement expected, if it said so.
    """
    earlier = table.numbers("refined_scaled_mip_expected")
    return np.where(start.from_refined, earlier, table.numbers("scaled_mip"))


def compare_expected(before: np.ndarray, after: np.ndarray) -> ExpectedScores | None:
    """Means over the rows that have both; None where none has.

    Args:
        before: From `expected_scores`.
        after: The expected z-score of each row, refined; NaN: not refined.
    """
    known = np.isfinite(before) & np.isfinite(after)
    if not known.any():
        return None
    means = float(before[known].mean()), float(after[known].mean())
    return ExpectedScores(int(known.sum()), *means)


def fallen_micrographs(
    before: np.ndarray, after: np.ndarray, groups: Mapping[str, Sequence[int] | np.ndarray]
) -> tuple[FallenMicrograph, ...]:
    """Micrographs whose median z-score fell below `FALLEN` of the start's.

    Args:
        before: z-score of each row at the start; NaN: unknown.
        after: The same, refined; NaN: not refined.
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
