"""Whether the search's fast products agree with its exact scores as they should."""

import logging

import numpy as np

from jaxrefine.data import Refined

log = logging.getLogger("jaxrefine")

# Of |z| + 1: what interpolation takes, some times over (docs/decisions.md).
MAX_APPROXIMATION_ERROR = 0.02


class ApproximationMonitor:
    """Warns, once a run, of the first particle whose products were too far off."""

    def __init__(self) -> None:
        self._warned = False

    def check(self, refined: Refined) -> None:
        """Compare the error of some particles with its bound."""
        bound = MAX_APPROXIMATION_ERROR * (np.abs(refined.z_score) + 1)
        excess = refined.approximation_error - bound  # NaN where nothing was refined
        if self._warned or not (excess > 0).any():
            return
        self._warned = True
        worst = int(np.nanargmax(excess))
        log.warning(
            "the search's fast products differ by %.2g from exact z-scores, more than "
            "interpolation explains (%.2g at z = %.1f). Scores are exact, but a better "
            "pose may have been passed over. `jaxrefine selftest` tells whether the device "
            "is at error; if it is not, the grid reaches too far: search a smaller range",
            refined.approximation_error[worst],
            bound[worst],
            refined.z_score[worst],
        )
