"""Results of a calibration as plain data: values, errors, correlations and gains."""

from typing import Any

import numpy as np
from scipy.special import chdtrc

from jaxrefine.app.run.calibration import Calibration, mean_z
from jaxrefine.app.run.calibration_inputs import CalibrationInputs
from jaxrefine.refine.shared import SHARED

# The largest number of values whose correlations are written.
_MOST_CORRELATED = 60


def calibration_data(made: Calibration) -> dict[str, Any]:
    """The contents of `calibration.yaml`."""
    before, fit, inputs = made.before, made.fit, made.inputs
    weight = before.weight
    z_before, z_after = mean_z(before, weight), mean_z(fit, weight)
    gain = _log_likelihood(fit, weight) - _log_likelihood(before, weight)
    return {
        "table": str(inputs.output),
        "particles": int(np.isfinite(fit.z).sum()),
        "probable_particles": _number(fit.weight.sum()),
        "converged": bool(fit.converged),
        "passes": before.passes + fit.passes,
        "seconds": _number(made.seconds),
        "mean_z_poses_refined": _number(z_before),
        "mean_z_calibrated": _number(z_after),
        "log_likelihood_gain": _number(gain),
        "defocus_spread": _defocus_spread(made),
        "held_out": _held_out(made),
        "parameters": [
            _parameter(made, name, group)
            for name in inputs.columns
            for group in range(len(inputs.groups[name]))
        ],
        "correlation": _correlation(made),
    }


def _log_likelihood(fit, weight: np.ndarray) -> float:
    return float(weight @ np.maximum(np.nan_to_num(fit.z), 0.0) ** 2 / 2)


def _defocus_spread(made: Calibration) -> dict[str, Any]:
    """How far particles lie around their common defocus, and what the fit took it for."""
    found = made.fit.defocus_spread(made.inputs.design)
    return {
        "value": _number(found.sigma_angstrom),
        "standard_error": _number(found.error_angstrom),
        "assumed": _number(made.inputs.design.own_sigma[-1]),
    }


def _held_out(made: Calibration) -> dict[str, Any] | None:
    found = made.held_out
    if found is None:
        return None
    return {
        "halves_of": "particles" if found.of_rows else "micrographs",
        "probable_particles": _number(found.particles),
        "mean_z_with_starting_values": _number(found.z_before),
        "mean_z_with_values_of_the_other_half": _number(found.z_after),
        "gain": _number(found.z_after - found.z_before),
        "gain_standard_error": _number(found.gain_sigma),
    }


def _parameter(made: Calibration, name: str, group: int) -> dict[str, Any]:
    """One parameter of one group."""
    fit, design = made.fit, made.inputs.design
    numbers = design.numbers(name, group)
    shared = SHARED[name]
    start = starting_values(made.inputs, name, group)
    rows = design.members(name, group)
    found: dict[str, Any] = {
        "parameter": name,
        "group": made.inputs.groups[name][group],
        "particles": int(np.sum(rows & np.isfinite(fit.z))),
        "unit": shared.unit,
        "values": {},
    }
    known = [n for n in numbers if fit.determined[n]]
    for number, label, begun in zip(numbers, shared.labels, start, strict=True):
        change = fit.state.shared[number]
        value: dict[str, Any] = {"start": _number(begun)}
        if fit.determined[number]:
            value["value"] = _number(begun + change)
            value["standard_error"] = _number(np.sqrt(fit.covariance[number, number]))
            value["change"] = _number(change)
        else:
            value["determined"] = False
        found["values"][label] = value
    if known:
        away, block = fit.state.shared[known], fit.covariance[np.ix_(known, known)]
        chi2 = float(away @ np.linalg.solve(block, away))
        found["log_likelihood_gain"] = _number(chi2 / 2)
        found["degrees_of_freedom"] = len(known)
        found["p_value"] = _number(chdtrc(len(known), chi2))
        if (name, group) in made.gains:
            gain = made.gains[name, group]
            # Twice the gain is as large by chance as the variance of the gradient, F, is
            # relative to the curvature.
            ratio = max(2 * gain * fit.curvature, 0.0)
            found["likelihood_ratio_gain"] = _number(gain)
            found["likelihood_ratio_p_value"] = _number(chdtrc(len(known), ratio))
    if name == "defocus_plane" and len(known) == 2:
        found |= _tilt(made, numbers)
    return found


def _tilt(made: Calibration, numbers: list[int]) -> dict[str, Any]:
    """A plane as the tilt of a stage: its angle, and its axis from x towards y."""
    y, x = slope = made.fit.state.shared[numbers]
    steep2 = float(slope @ slope)
    along = slope / max(np.sqrt(steep2), 1e-12)
    variance = along @ made.fit.covariance[np.ix_(numbers, numbers)] @ along
    return {
        "tilt_deg": _number(np.rad2deg(np.arctan(np.sqrt(steep2)))),
        "tilt_standard_error_deg": _number(np.rad2deg(np.sqrt(variance) / (1 + steep2))),
        "tilt_axis_deg": _number(np.rad2deg(np.arctan2(-x, y)) % 180),
    }


def starting_values(inputs: CalibrationInputs, name: str, group: int) -> list[float]:
    """Means over the particles of a group, in the order of the parameter's labels."""
    design, start = inputs.design, inputs.run.start
    rows = design.members(name, group)
    optics = start.optics
    if name == "pixel_size":
        values = start.pixel_size_angstrom[:, None]
    elif name == "defocus":
        values = start.defocus_angstrom.mean(axis=1)[:, None]
    elif name == "defocus_plane":
        values = np.zeros((len(rows), 2))
    elif name == "astigmatism":
        half = (start.defocus_angstrom[:, 0] - start.defocus_angstrom[:, 1]) / 2
        double = np.deg2rad(2 * start.astigmatism_deg)
        values = np.stack([half * np.cos(double), half * np.sin(double)], axis=-1)
    elif name == "magnification":
        matrix = optics.mag_matrix
        values = np.zeros((len(rows), 2))
        if matrix is not None:
            matrix = np.asarray(matrix)
            a = (matrix[:, 0, 0] - matrix[:, 1, 1]) / 2
            values = np.stack([a, (matrix[:, 0, 1] + matrix[:, 1, 0]) / 2], axis=-1)
    else:
        labels, _, _, field = SHARED[name]
        there, size = getattr(optics, str(field)), len(labels)
        if there is None:
            there = np.zeros((len(rows), size))
        values = np.asarray(there).reshape(len(rows), -1)[:, -size:]
    return values[rows].mean(axis=0).tolist()


def _correlation(made: Calibration) -> dict[str, Any] | None:
    """Correlations of the values that the data determine; at most those of large groups."""
    fit, design = made.fit, made.inputs.design
    at = np.flatnonzero(fit.determined)
    if len(at) > _MOST_CORRELATED:
        groups = {name: len(names) for name, names in made.inputs.groups.items()}
        fewest = min(groups.values())
        at = np.array([n for n in at if groups[design.values[n].parameter] == fewest])
    if not 0 < len(at) <= _MOST_CORRELATED:
        return None
    sigma = np.sqrt(np.diagonal(fit.covariance)[at])
    matrix = fit.covariance[np.ix_(at, at)] / sigma[:, None] / sigma
    return {
        "values": [_name(made, number) for number in at.tolist()],
        "matrix": np.round(matrix, 3).tolist(),
    }


def _name(made: Calibration, number: int) -> str:
    value = made.inputs.design.values[number]
    groups = made.inputs.groups[value.parameter]
    return value.label if len(groups) == 1 else f"{value.label} of {groups[value.group]}"


def _number(value: float) -> float | None:
    """A number with six digits; None if it is not finite."""
    return float(f"{value:.6g}") if np.isfinite(value) else None
