"""What a search returns."""

import enum

import equinox as eqx
from jaxtyping import Array, Float, Int

from jaxrefine.data.particles import Alignment


class Status(enum.IntEnum):
    """How a particle fared. Failure of one particle is data, never a lost run."""

    CONVERGED = 0
    EDGE_OF_GRID = 1
    MOVED_TO_EDGE = 2
    BOX_OUTSIDE = 3
    NOT_FINITE = 4
    UNREADABLE = 5


STATUS_MEANING: dict[Status, str] = {
    Status.CONVERGED: "the best lies inside the searched grid",
    Status.EDGE_OF_GRID: (
        "the best lies on the border of the orientation, defocus or pixel size grid: "
        "refine again, or widen the grid"
    ),
    Status.MOVED_TO_EDGE: (
        "the best position is the outermost of the box: refine again, or enlarge the box"
    ),
    Status.BOX_OUTSIDE: (
        "no position in the box has the whole template inside the micrograph: not refined"
    ),
    Status.NOT_FINITE: (
        "no finite score: a constant or NaN image, nothing left by the filters, or a "
        "statistic map without positive deviations; not refined"
    ),
    Status.UNREADABLE: "its micrograph or a map could not be read; not refined",
}


class Refined(eqx.Module):
    """Best alignment of each particle. `alignment` can be refined again.

    Attributes:
        alignment: The grid's best; the start where the status says not refined.
        z_score: (correlation - mean) / standard deviation at the best.
        correlation: Cross-correlation at the best.
        snr: Correlation above the micrograph's median mean, in units of its median
            standard deviation.
        grid_index: Indices of the best in (pixel size, defocus, orientation, y, x).
        status: A `Status`.
        approximation_error: Largest difference between the z-scores of the matrix product
            and the exact ones, over the orientations that were scored both ways; which
            these are depends on the layout and the devices.
    """

    alignment: Alignment
    z_score: Float[Array, "*n"]
    correlation: Float[Array, "*n"]
    snr: Float[Array, "*n"]
    grid_index: Int[Array, "*n 5"]
    status: Int[Array, "*n"]
    approximation_error: Float[Array, "*n"]
