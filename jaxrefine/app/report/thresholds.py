"""The z-scores with which particles are compared: thresholds in the report's plots."""

from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

import numpy as np

from jaxrefine.app.report.table_data import ReportData
from jaxrefine.data import InputError
from jaxrefine.io.maps import MEAN, map_shape
from jaxrefine.io.paths import PathMap, resolve_paths

# Maps that are tried for their size, in the order of the table.
_MOST_MAPS = 10


@dataclass(frozen=True)
class Threshold:
    """A z-score that is drawn as a line.

    Attributes:
        z: The z-score.
        of: Whose z-scores it is for: the match's, the refined ones, or both.
        name: A word or two, beside the line.
        meaning: What it is, in a sentence.
    """

    z: float
    of: Literal["match", "refined", "both"]
    name: str
    meaning: str


def find_thresholds(
    data: ReportData, given: float | None, path_map: PathMap = ()
) -> list[Threshold]:
    """The thresholds that are known: the user's, the match's and the refinement's.

    Args:
        data: The refined table.
        given: The user's z-score; None: not given.
        path_map: Folders that have moved.
    """
    found = []
    if given is not None:
        found.append(Threshold(given, "both", "threshold", "The threshold as given."))
    if (z := _of_match(data, path_map)) is not None:
        meaning = (
            "Match: Gaussian noise exceeds this z-score once per micrograph in all "
            "independent correlations of the match; Leopard-EM's default threshold."
        )
        found.append(Threshold(z, "match", "match", meaning))
    if (z := _of_refinement(data)) is not None:
        meaning = (
            "Refined: the lowest z-score of a particle with at most one expected false "
            "positive per micrograph (refined_false_positives)."
        )
        found.append(Threshold(z, "refined", "refined", meaning))
    return found


def _of_match(data: ReportData, path_map: PathMap) -> float | None:
    """As Leopard-EM: z = √2·erfc⁻¹(2 / (total_correlations · positions))."""
    trials = data.table.numbers("total_correlations")
    trials = trials[np.isfinite(trials) & (trials >= 1)]
    positions = _positions(data, path_map) if len(trials) else None
    if positions is None:
        return None
    return -NormalDist().inv_cdf(min(0.5, 1 / (float(np.median(trials)) * positions)))


def _positions(data: ReportData, path_map: PathMap) -> int | None:
    """Number of positions in a micrograph, from the size of one of the match's maps."""
    texts = list(dict.fromkeys(data.table.correlation_mean_paths))[:_MOST_MAPS]
    files = resolve_paths(
        texts, beside=data.table.path.absolute().parent, path_map=path_map
    )
    for text in texts:
        try:
            height, width = map_shape(files[text], MEAN, warn=False)
        except InputError:
            continue
        return height * width
    return None


def _of_refinement(data: ReportData) -> float | None:
    """The lowest z-score of a particle with at most one expected false positive.

    It is a z-score of the table, since each particle has its own number of trials, and a
    polish raises z-scores but not their significance.
    """
    z, count = data.z_after, data.table.numbers("refined_false_positives")
    known = np.isfinite(z) & np.isfinite(count)
    enough, more = known & (count <= 1), known & (count > 1)
    return float(z[enough].min()) if enough.any() and more.any() else None
