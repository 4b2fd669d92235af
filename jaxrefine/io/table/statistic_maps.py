"""Whether statistic maps hold variances or standard deviations."""

from collections.abc import Callable
from typing import Literal

import numpy as np

from jaxrefine.data.errors import InputError

MapKind = Literal["variance", "standard_deviation"]

ADVICE = "set `statistics: variance` or `statistics: standard_deviation`"

# The table's numbers are float32 with 7 to 8 digits; a z-score recomputed from them differs
# by about 1e-7 (largest seen: 1.3e-7). 1e-4 also admits tables rounded to 5 digits. If both
# readings fit within it (a spread of 1 ± 0.0002), they give the same z-score to 1e-4.
TOLERANCE = 1e-4


def decide_map_kind(
    correlation: np.ndarray,
    z_score: np.ndarray,
    mean: np.ndarray,
    spread: np.ndarray,
    locate: Callable[[int], str],
    table: str,
) -> MapKind:
    """Decide by the match's z-scores: (correlation - mean) / v or / sqrt(v).

    At least half of the rows must agree with one reading to `TOLERANCE`, and none only with
    the other. If all agree with both, v is 1 and the choice does not matter:
    standard_deviation.

    Args:
        correlation: Correlation of each row.
        z_score: Its z-score.
        mean: Mean of the correlation.
        spread: v. Rows with v ≤ 0, a z-score of 0 or anything not finite are ignored.
        locate: Returns the location of a row, for messages.
        table: Name of the table, for messages.

    Returns:
        The reading that agrees.

    Raises:
        InputError: No row is usable, neither reading agrees, or each agrees with some rows.
    """
    values = np.stack([correlation, z_score, mean, spread])
    usable = np.isfinite(values).all(axis=0) & (spread > 0) & (z_score != 0)
    question = f"{table}: cannot tell whether the maps hold variance or standard deviation"
    if not usable.any():
        raise InputError(f"{question}: no row has finite statistics: {ADVICE}")
    correlation, z_score, mean, spread = values[:, usable]
    with np.errstate(over="ignore"):
        as_deviation = (correlation - mean) / spread
        as_variance = (correlation - mean) / np.sqrt(spread)
        fits_deviation = np.abs(as_deviation / z_score - 1) <= TOLERANCE
        fits_variance = np.abs(as_variance / z_score - 1) <= TOLERANCE
    only_variance = fits_variance & ~fits_deviation
    misfit = ~fits_variance & ~fits_deviation
    if only_variance.any() and np.any(fits_deviation & ~fits_variance):
        reason, wrong = "some rows agree with one, some with the other", only_variance
    elif 2 * misfit.sum() > misfit.size:
        reason, wrong = "neither agrees with the z-scores", misfit
    else:
        return "variance" if only_variance.any() else "standard_deviation"
    i = int(np.argmax(wrong))
    where = locate(int(np.flatnonzero(usable)[i]))
    raise InputError(
        f"{question}: {reason}. On {where} the correlation "
        f"{correlation[i]:.8g}, mean {mean[i]:.8g} and variance {spread[i]:.8g} give a "
        f"z-score of {as_deviation[i]:.8g} (read as a standard deviation) or "
        f"{as_variance[i]:.8g} (as a variance); the table says {z_score[i]:.8g}: {ADVICE}"
    )
