"""The result of a calibration."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from jaxrefine.app.run.calibration_inputs import CalibrationInputs
from jaxrefine.refine.joint_model import JointFit


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Effect of a calibration on one half of the micrographs on the other half.

    Attributes:
        particles: Number of probable particles in the other half.
        z_before: Their mean score with refined poses and the starting values.
        z_after: The same with the values from the first half.
        gain_sigma: Standard error of the difference.
        of_rows: Whether the halves are of particles, because there is one micrograph.
        gain: Gain of each row; NaN for the first half.
    """

    particles: float
    z_before: float
    z_after: float
    gain_sigma: float
    of_rows: bool
    gain: Float[np.ndarray, " n"]


@dataclass(frozen=True, eq=False)
class Calibration:
    """Result of a calibration.

    Attributes:
        inputs: The inputs.
        before: Fit of the poses with fixed shared values.
        fit: Fit of all values.
        scores: Correlation, z-score and SNR of each row at the fitted values; NaN if it
            was not read.
        held_out: The check on other micrographs; None if there was none.
        gains: Gain in log-likelihood over a fit with one parameter of one group (name,
            number) held at its start; empty if that was not asked.
        seconds: Duration in seconds.
    """

    inputs: CalibrationInputs
    before: JointFit
    fit: JointFit
    scores: Float[np.ndarray, "n 3"]
    held_out: HeldOut | None
    gains: dict[tuple[str, int], float]
    seconds: float


def mean_z(fit: JointFit, weight: Float[np.ndarray, " n"]) -> float:
    """Mean score of the probable particles."""
    known = np.isfinite(fit.z)
    return float(np.average(fit.z[known], weights=weight[known] + 1e-12))
