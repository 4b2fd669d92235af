"""Checks during a run: approximation errors, and mean maps dominated by particles."""

import logging
from pathlib import Path

import jax
import numpy as np

from jaxrefine.data import Refined
from jaxrefine.refine.prepare import Micrograph, mean_map_peaks
from jaxrefine.refine.scoring import Score

log = logging.getLogger("jaxrefine")

# Relative to |z| + 1: several times the error of interpolation (docs/decisions.md).
MAX_APPROXIMATION_ERROR = 0.02


class ApproximationMonitor:
    """Warns, once per run, of the first particle with a large approximation error.

    Args:
        enabled: False never warns, for runs that score all orientations exactly.
    """

    def __init__(self, *, enabled: bool = True) -> None:
        self._warned = not enabled

    def check(self, refined: Refined) -> None:
        """Compare the approximation errors of some particles with the limit."""
        bound = MAX_APPROXIMATION_ERROR * (np.abs(refined.z_score) + 1)
        excess = refined.approximation_error - bound  # NaN for particles not refined
        if self._warned or not (excess > 0).any():
            return
        self._warned = True
        worst = int(np.nanargmax(excess))
        log.warning(
            "approximate scores differ by %.2g from exact z-scores, more than usual "
            "(%.2g at z = %.1f). The reported scores are exact, and an exhaustive search "
            "allows for twice such differences; an adaptive one may miss a better pose. "
            "Either the range of orientations is wide for this template, or the "
            "device is faulty: `jaxrefine selftest` tells",
            refined.approximation_error[worst],
            bound[worst],
            refined.z_score[worst],
        )


class SymmetryMonitor:
    """Warns, once per run, of particles at which the mean map itself peaks."""

    def __init__(self) -> None:
        self._warned = False

    def check(
        self, path: Path, micrograph: Micrograph, position_px: np.ndarray, score: Score
    ) -> None:
        """Examine the mean map around some particles.

        Args:
            path: File of the micrograph.
            micrograph: The micrograph with its maps.
            position_px: (n, 2): y, x of the template's top-left corner.
            score: The score, whose box is searched.
        """
        if self._warned:
            return
        mean = np.asarray(micrograph.corr_mean)
        (up, left), (rows, columns) = score.margin, score.positions
        count = 0
        background = jax.device_get((micrograph.background_mean, micrograph.background_std))
        for y, x in position_px.astype(int) - (up, left):
            part = mean[max(y, 0) : max(y + rows, 0), max(x, 0) : max(x + columns, 0)]
            if part.size:
                count += int(mean_map_peaks(part[None], *background).sum())
        if not count:
            return
        self._warned = True
        log.warning(
            "%s: the mean map has peaks at %d of %d particles, as for templates of high "
            "symmetry. The correlation relative to the background determines their "
            "positions; their z-scores remain low: use refined_snr instead",
            path,
            count,
            len(position_px),
        )
