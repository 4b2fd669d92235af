"""Which confusion do the scores speak for, and do they say enough to name one?"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from jaxrefine.app.run.confusions import Confusion
from jaxrefine.app.run.score_changes import FALLEN

# A confusion is named where it gives so much of the table's z, and so much more than the
# present one. Other filters, whole pixels and rounded tables cost less than the one; of
# the best of a hundred trials in noise the median over 8 particles rises by less than
# the other.
_RESTORED, _RISEN = 0.8, 1.3
# How often noise may reach the z at which one is named, of all that are tried.
_BY_CHANCE = 1e-3
# Confusions that differ by less cannot be told apart: a share; and, over √particles, by
# what the medians of two z-scores differ whose noise is not the same.
_SAME, _SAME_Z = 0.03, 1.5
# Ratios to the table's z that scatter by less are as good as any.
_STEADY = 0.05


@dataclass(frozen=True)
class Tried:
    """A confusion, and what the particles score without it.

    Attributes:
        confusion: That was undone.
        z: Median z-score.
        scatter: Of the particles' ratios to their table's z, the median distance from
            their median. Where a confusion is the right one each particle comes back.
    """

    confusion: Confusion
    z: float
    scatter: float = 0.0


@dataclass(frozen=True)
class Evidence:
    """What is known before any confusion is undone.

    Attributes:
        z: Present median z-score.
        table_z: The table's; NaN where it has none.
        particles: How many were scored.
        positions: How many each was scored at.
    """

    z: float
    table_z: float
    particles: int
    positions: int


def scatter(z: np.ndarray, table_z: np.ndarray) -> float:
    """See `Tried`; 0 where the table does not say."""
    known = np.isfinite(table_z) & (table_z > 0)
    if not known.any():
        return 0.0
    ratio = z[known] / table_z[known]
    return float(np.median(np.abs(ratio - np.median(ratio))))


def noise_level(positions: int) -> float:
    """z-score that the best of so many positions reaches where nothing is, and one more.

    The expected maximum of n normal numbers is below √(2 ln n); neighbours are correlated,
    so that it is well below. Hardly ever does a median of several exceed it.
    """
    return math.sqrt(2 * math.log(positions)) + 1


def chance_level(positions: int, particles: int, trials: int) -> float:
    """Median z-score that the best of some trials in noise hardly ever reaches.

    Half of the particles must exceed it, each at one of its positions, in one of the
    trials (all taken as independent).
    """
    half = (particles + 1) // 2
    each = _BY_CHANCE / (max(trials, 1) * math.comb(particles, half))
    tail = min(each ** (1 / half) / positions, 0.5)
    return -NormalDist().inv_cdf(tail)


def agrees(z: float, table_z: float, noise_z: float) -> bool:
    """Whether a median z-score is what the table says; without that, above noise."""
    return z >= (FALLEN * table_z if np.isfinite(table_z) else noise_z)


def decide(known: Evidence, tried: Sequence[Tried]) -> tuple[list[Tried], Tried | None]:
    """Of the confusions tried, those that restore the score; otherwise the nearest.

    Returns:
        The most likely, and with it those that cannot be told from it; and, where there is
        none, the one that gives most, if that is more than noise.
    """
    noise = noise_level(known.positions)
    table_says = np.isfinite(known.table_z)
    wanted = max(
        _RESTORED * known.table_z if table_says else noise,
        _RISEN * max(known.z, 0.0),
        chance_level(known.positions, known.particles, len(tried)),
    )
    ordered = sorted(tried, key=lambda each: -each.z)
    good = [each for each in ordered if each.z >= wanted]
    if good:
        best = good[0].z
        margin = max(_SAME * best, _SAME_Z / math.sqrt(known.particles))
        alike = [each for each in good if each.z >= best - margin]
        # Sorting is stable: the highest first among the steady.
        return sorted(alike, key=lambda each: max(each.scatter, _STEADY)), None
    if ordered and ordered[0].z >= max(noise, _RISEN * known.z):
        return [], ordered[0]
    return [], None


def likeness(best: Tried, other: Tried) -> str:
    """Comparison of another confusion with the one that is named."""
    return "nearly the same" if _same(best, other) else "as likely"


def doubt(restoring: Sequence[Tried], particles: int) -> str:
    """Remark on the first of several confusions if noise may have put it first."""
    if all(_same(restoring[0], each) for each in restoring):
        return ""
    count = f"{particles} particle{'s' if particles > 1 else ''}"
    return f" ({count} cannot distinguish this from the following)"


def _same(best: Tried, other: Tried) -> bool:
    return abs(best.z - other.z) <= _SAME * best.z
