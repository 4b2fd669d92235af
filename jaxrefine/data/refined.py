"""The result of a search."""

import enum
from collections import Counter

import numpy as np
from jaxtyping import Array, Float, Int

from jaxrefine.data.batch import Batch
from jaxrefine.data.html import shown_in_notebooks, span
from jaxrefine.data.particles import Alignment


class Status(enum.IntEnum):
    """Outcome of the refinement of one particle; a failure never stops the run."""

    CONVERGED = 0
    EDGE_OF_GRID = 1
    MOVED_TO_EDGE = 2
    BOX_OUTSIDE = 3
    NOT_FINITE = 4
    UNREADABLE = 5

    @property
    def meaning(self) -> str:
        """What it says about the particle, and what to do."""
        return STATUS_MEANING[self]


STATUS_MEANING: dict[Status, str] = {
    Status.CONVERGED: "the best grid point lies inside the search grid",
    Status.EDGE_OF_GRID: (
        "the best grid point lies on the border of the orientation, defocus or pixel size "
        "grid: refine again, or widen the grid"
    ),
    Status.MOVED_TO_EDGE: (
        "the best position is at the edge of the box: refine again, or enlarge the box"
    ),
    Status.BOX_OUTSIDE: (
        "no position in the box has the whole template inside the micrograph: not refined"
    ),
    Status.NOT_FINITE: (
        "no finite score: a constant or NaN image, no signal after filtering, or a "
        "statistic map without positive standard deviations; not refined"
    ),
    Status.UNREADABLE: "the micrograph or a statistic map could not be read; not refined",
}


class Refined(Batch):
    """Best alignment of each particle. `alignment` can be refined again.

    Attributes:
        alignment: The best grid point; the starting values if the status says not refined.
        z_score: (correlation - mean) / standard deviation at the best grid point.
        correlation: Cross-correlation at the best grid point.
        snr: 2DTM SNR: the correlation minus the median of the mean map, divided by the
            median of the standard deviation map.
        grid_index: Indices of the best grid point: pixel size, defocus, orientation, y, x.
        status: Numbers of `Status`: `Status(4).meaning` explains one.
        approximation_error: Largest difference between approximate scores (of the matrix
            product) and exact ones, over the orientations that were scored both ways.
            Which orientations these are depends on the layout and the devices.
        orientation_z: Approximate z-score of each orientation of the grid, at its best
            defocus, pixel size and position. The polish uses it to look for other optima.
    """

    alignment: Alignment
    z_score: Float[Array, "*n"]
    correlation: Float[Array, "*n"]
    snr: Float[Array, "*n"]
    grid_index: Int[Array, "*n 5"]
    status: Int[Array, "*n"]
    approximation_error: Float[Array, "*n"]
    orientation_z: Float[Array, "*n k"] | None = None

    def html_rows(self) -> dict[str, object]:
        """The rows that a notebook shows."""
        statuses = Counter(np.asarray(self.status).ravel().tolist())
        counts = (f"{n} {Status(status).name.lower()}" for status, n in statuses.items())
        return {
            "particles": np.asarray(self.z_score).size,
            "status": ", ".join(counts),
            "z-score": span(self.z_score),
            "2DTM SNR": span(self.snr),
        }

    def _repr_html_(self) -> str:
        return shown_in_notebooks(self, lambda: ("Refined", self.html_rows()))
