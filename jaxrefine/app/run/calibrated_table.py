"""The table of a calibration: the input rows with the fitted values."""

import json
from dataclasses import replace
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from jaxrefine.app.run.calibration import Calibration
from jaxrefine.app.run.columns import status_name
from jaxrefine.data import Status
from jaxrefine.io.paths import rebase_relative_paths
from jaxrefine.io.table import write_table
from jaxrefine.io.table.dataframe import DataFrame
from jaxrefine.io.table.refined import RefinedColumns, refined_table
from jaxrefine.io.table.schema import ANGLES, OPTICS_FIELDS
from jaxrefine.physics.rotations import (
    euler_to_matrix,
    matrix_to_euler,
    rotation_vector_to_matrix,
)
from jaxrefine.physics.symmetry import in_asymmetric_unit
from jaxrefine.refine.shared import SHARED

PROBABILITY = "particle_probability"


def write_calibrated_table(made: Calibration) -> Path:
    """Write the particles with all fitted values, as a refined table.

    Raises:
        InputError: The file cannot be written.
    """
    run = made.inputs.run
    output = made.inputs.output
    table = replace(run.table, raw=_with_optics(made))
    frame = refined_table(table, _columns(made))
    folders = (path.absolute().parent for path in (run.table.path, output))
    write_table(rebase_relative_paths(frame, *folders), output)
    return output


def _coordinates(made: Calibration) -> dict[str, Float[np.ndarray, "n c"]]:
    """Coordinates of all rows, by parameter."""
    state, design = made.fit.state, made.inputs.design
    at = design.coordinates(state.own, state.shared)
    return {name: at[:, part] for name, part in design.local.slices.items()}


def _columns(made: Calibration) -> RefinedColumns:
    """Columns of poses and scores of the particles that were read."""
    run, start, at = made.inputs.run, made.inputs.run.start, _coordinates(made)
    count = len(run.table)
    results = RefinedColumns.empty(count, run.template_side, polished=True)
    unreadable = status_name(Status.UNREADABLE)
    results.store(slice(None), {"refined_status": unreadable, PROBABILITY: 0.0})
    rows = np.flatnonzero(np.isfinite(made.fit.z))
    scores = made.scores
    turn = np.asarray(rotation_vector_to_matrix(jnp.asarray(at["orientation"])))
    rotation = in_asymmetric_unit(
        np.asarray(euler_to_matrix(start.euler_deg), np.float64) @ turn, run.point_group
    )
    euler = matrix_to_euler(rotation).T
    position = start.position_px + at["shift"]
    whole = np.rint(position)
    # If the defocus was not fitted, the start includes the relative defocus.
    own = run.table.start()
    started = start.defocus_angstrom.mean(axis=1) - own.defocus_angstrom.mean(axis=1)
    relative = own.relative_defocus_angstrom + started + at["defocus"][:, 0]
    pixel_size = start.pixel_size_angstrom
    if "pixel_size" in at:
        pixel_size = pixel_size + at["pixel_size"][:, 0]
    found = {
        **{f"refined_{name}": angle for name, angle in zip(ANGLES, euler, strict=True)},
        "refined_pos_x": whole[:, 1],
        "refined_pos_y": whole[:, 0],
        "refined_shift_x": (position - whole)[:, 1],
        "refined_shift_y": (position - whole)[:, 0],
        "refined_relative_defocus": relative,
        "refined_pixel_size": pixel_size,
        "refined_mip": scores[:, 0],
        "refined_scaled_mip": scores[:, 1],
        "refined_snr": scores[:, 2],
        "refined_status": np.full(count, status_name(Status.CONVERGED), object),
        "refined_polish": np.full(
            count, "converged" if made.fit.converged else "not_converged", object
        ),
        PROBABILITY: made.fit.weight,
    }
    extra_b = start.optics.b_factor_angstrom2 - own.optics.b_factor_angstrom2
    if np.any(extra_b != 0):
        found["template_envelope_b"] = extra_b
    if "astigmatism" in at:
        found |= _astigmatism(own, at["astigmatism"])
    results.store(rows, {name: values[rows] for name, values in found.items()})
    return results


def _astigmatism(own, change: Float[np.ndarray, "n 2"]) -> dict[str, np.ndarray]:
    """The micrograph's defocus after a change of astigmatism (u - v and its angle)."""
    micrograph = own.defocus_angstrom - own.relative_defocus_angstrom[:, None]
    mean = micrograph.mean(axis=1)
    half = (micrograph[:, 0] - micrograph[:, 1]) / 2
    double = np.deg2rad(2 * own.astigmatism_deg)
    vector = half[:, None] * np.stack([np.cos(double), np.sin(double)], -1) + change
    length = np.hypot(*vector.T)
    return {
        "refined_defocus_u": mean + length,
        "refined_defocus_v": mean - length,
        "refined_astigmatism_angle": np.rad2deg(np.arctan2(vector[:, 1], vector[:, 0])) / 2,
    }


def _with_optics(made: Calibration) -> DataFrame:
    """The input's cells, with those of fitted optics replaced."""
    table, at = made.inputs.run.table, _coordinates(made)
    optics, frame = table.start().optics, table.raw.copy()
    for name, (_, _, _, field) in SHARED.items():
        if name in at and field in OPTICS_FIELDS:
            values = np.asarray(getattr(optics, field)) + at[name][:, 0]
            frame[OPTICS_FIELDS[field].name] = [f"{value:.6g}" for value in values]
    if "beam_tilt" in at:
        tilt = at["beam_tilt"]
        if optics.beam_tilt_mrad is not None:
            tilt = tilt + np.asarray(optics.beam_tilt_mrad)
        for axis, values in zip("xy", tilt.T, strict=True):
            frame[f"beam_tilt_{axis}"] = [f"{value:.6g}" for value in values]
    if "magnification" in at:
        a, b = at["magnification"].T
        matrix = np.stack([a, b, b, -a], axis=-1)
        before = optics.mag_matrix
        matrix += np.eye(2).ravel() if before is None else before.reshape(-1, 4)
        frame["mag_matrix"] = [json.dumps(row) for row in np.round(matrix, 8).tolist()]
    for name in ("trefoil", "even_zernikes"):
        if name in at:
            terms, column = SHARED[name].labels, SHARED[name].field
            cells = frame[column] if column in frame.columns else [""] * len(frame)
            frame[column] = [
                _with_terms(text, dict(zip(terms, row, strict=True)))
                for text, row in zip(cells, at[name].tolist(), strict=True)
            ]
    return frame


def _with_terms(text: str, change: dict[str, float]) -> str:
    """A cell of Zernike terms with some of them changed."""
    found = json.loads(text) if text.strip().startswith("{") else {}
    return json.dumps(
        found | {n: round(found.get(n, 0.0) + c, 4) for n, c in change.items()}
    )
