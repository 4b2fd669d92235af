"""Decides which confusion the scores support, and whether the evidence is sufficient."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from jaxrefine.app.run.confusions import Confusion
from jaxrefine.app.run.score_changes import FALLEN

# A confusion is named if it restores this fraction of the table's z, and raises the present
# z by this factor. Other filters, whole pixels and rounded tables cost less than the first;
# the best of a hundred trials in noise raises the median of 8 particles by less than the
# second.
_RESTORED, _RISEN = 0.8, 1.3
# Probability with which noise may reach the z at which a confusion is named, in all trials.
_BY_CHANCE = 1e-3
# Confusions whose z differs by less cannot be distinguished: as a fraction; and, divided by
# √particles, as the difference of medians of z-scores with different noise.
_SAME, _SAME_Z = 0.03, 1.5
# Scatter of the ratios to the table's z below which confusions count as equally good.
_STEADY = 0.05


@dataclass(frozen=True)
class Tried:
    """A confusion, and the scores of the particles after it is undone.

    Attributes:
        confusion: The confusion that was undone.
        z: Median z-score.
        scatter: Median absolute deviation of the ratios to the table's z. It is small if
            the confusion is the right one, which restores every particle.
    """

    confusion: Confusion
    z: float
    scatter: float = 0.0


@dataclass(frozen=True)
class Evidence:
    """The scores before any confusion is undone.

    Attributes:
        z: Present median z-score.
        table_z: Median z-score in the table; NaN if it has none.
        particles: Number of particles that were scored.
        positions: Number of positions at which each was scored.
    """

    z: float
    table_z: float
    particles: int
    positions: int


def scatter(z: np.ndarray, table_z: np.ndarray) -> float:
    """See `Tried`; 0 if the table has no z-scores."""
    known = np.isfinite(table_z) & (table_z > 0)
    if not known.any():
        return 0.0
    ratio = z[known] / table_z[known]
    return float(np.median(np.abs(ratio - np.median(ratio))))


def noise_level(positions: int) -> float:
    """z-score above which the best of so many positions is not noise.

    The expected maximum of n independent normal numbers is below √(2 ln n), and that of
    correlated neighbours is lower still. The level is 1 higher, which the median of several
    particles hardly ever exceeds in noise.
    """
    return math.sqrt(2 * math.log(positions)) + 1


def chance_level(positions: int, particles: int, trials: int) -> float:
    """Median z-score that the best of some trials in noise hardly ever reaches.

    Half of the particles must exceed it, each at one of its positions, in one of the trials
    (all taken as independent).
    """
    half = (particles + 1) // 2
    each = _BY_CHANCE / (max(trials, 1) * math.comb(particles, half))
    tail = min(each ** (1 / half) / positions, 0.5)
    return -NormalDist().inv_cdf(tail)


def agrees(z: float, table_z: float, noise_z: float) -> bool:
    """Whether a median z agrees with the table's; if that is unknown, exceeds noise."""
    return z >= (FALLEN * table_z if np.isfinite(table_z) else noise_z)


def decide(known: Evidence, tried: Sequence[Tried]) -> tuple[list[Tried], Tried | None]:
    """Select the confusions that restore the score, or the one that comes nearest.

    Returns:
        The most likely confusion with those that cannot be distinguished from it; and, if
        there is none, the one with the highest score, if that exceeds noise.
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
        # Sorting is stable: among equally steady ones the highest comes first.
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
