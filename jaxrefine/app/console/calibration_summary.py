"""Summary of a calibration for the command line."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

# Probability of such a gain by chance, below which it counts as significant.
SIGNIFICANT = 0.01
_MOST_GROUPS = 12
# Standard errors by which the check must gain.
_SIGMAS = 2.0


def format_calibration(found: Mapping[str, Any]) -> Iterator[str]:
    """Lines for a terminal.

    Args:
        found: The contents of `calibration.yaml`.
    """
    yield (
        f"{found['particles']} picks, of which {found['probable_particles']:.0f} are "
        f"probably particles; mean 2DTM SNR {found['mean_z_poses_refined']:.2f} with the "
        f"poses fitted alone, {found['mean_z_calibrated']:.2f} calibrated"
    )
    counts: dict[str, int] = {}
    for entry in found["parameters"]:
        name = entry["parameter"]
        counts[name] = counts.get(name, 0) + 1
        if counts[name] <= _MOST_GROUPS:
            yield from _format_entry(entry)
    for name, count in counts.items():
        if count > _MOST_GROUPS:
            yield f"… {name} of {count - _MOST_GROUPS} more groups"
    spread = found["defocus_spread"]
    if spread["standard_error"] is not None:
        found_spread = f"{spread['value']:.0f} ± {spread['standard_error']:.0f} Å"
        yield (
            f"particles lie {found_spread} around their common defocus; "
            f"{spread['assumed']:.0f} Å was assumed"
        )
    held_out = found["held_out"]
    if held_out is not None and held_out["gain"] is not None:
        gain, error = held_out["gain"], held_out["gain_standard_error"]
        significant = "significant" if has_gained(held_out) else "not significant"
        yield (
            f"check on {held_out['halves_of']} that were not fitted: mean 2DTM SNR "
            f"{held_out['mean_z_with_starting_values']:.3f} with the starting values, "
            f"{held_out['mean_z_with_values_of_the_other_half']:.3f} with those of the "
            f"other half: a gain of {gain:+.3f} ± {error:.3f}, {significant}"
        )


def has_gained(held_out: Mapping[str, Any]) -> bool:
    """Whether the check has gained significantly."""
    return held_out["gain"] > _SIGMAS * held_out["gain_standard_error"]


def p_value_of(entry: Mapping[str, Any]) -> float | None:
    """Probability of such a gain by chance: by the likelihood ratio if it was computed."""
    return entry.get("likelihood_ratio_p_value", entry.get("p_value"))


def format_with_error(value: float, sigma: float) -> str:
    """A value and its standard error, to two digits of the latter: 2.0145 ± 0.0057."""
    digits = max(0, 1 - math.floor(math.log10(sigma)))
    return f"{value:.{digits}f} ± {sigma:.{digits}f}"


def _format_entry(entry: Mapping[str, Any]) -> Iterator[str]:
    group = "" if entry["group"] == "all" else f" of {entry['group']}"
    for label, value in entry["values"].items():
        if "value" not in value:
            yield f"{label}{group}: not determined by the data; held at {value['start']:g}"
            continue
        found = format_with_error(value["value"], value["standard_error"])
        text = f"{label}{group}: {found} {entry['unit']}".rstrip()
        yield f"{text} (was {value['start']:.6g})"
    if "tilt_deg" in entry:
        yield (
            f"tilt{group}: {entry['tilt_deg']:.2f} ± "
            f"{entry['tilt_standard_error_deg']:.2f}° about an axis at "
            f"{entry['tilt_axis_deg']:.0f}°"
        )
    p_value = p_value_of(entry)
    if p_value is not None and p_value > SIGNIFICANT:
        what = f"{entry['parameter']}{group}"
        yield f"  {what}: the change is not significant (p = {p_value:.2g})"
