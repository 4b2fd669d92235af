"""Conversion of the results of search and polish to columns of the particle table.

A field of `Refined` with a column in the schema needs no code here.
"""

import itertools
from collections.abc import Sequence

import jax
import numpy as np
from jaxtyping import Int

from jaxrefine.data import Alignment, Polished, Refined, SearchGrid, Status
from jaxrefine.io.table import StartingValues
from jaxrefine.io.table.schema import ANGLES, COLUMNS, REFINED_FIELDS
from jaxrefine.physics.rotations import matrix_to_euler
from jaxrefine.refine.refine import at_edges
from jaxrefine.refine.scoring import Score

Columns = dict[str, np.ndarray]

# Columns that a polish changes and whose value at the best grid point is kept.
_OF_GRID = [c.name.removeprefix("grid_") for c in COLUMNS if c.name.startswith("grid_")]
# Names of the aberrations that a polish can find, by their fields in `Polished`.
_ABERRATIONS = {
    "beam_tilt_mrad": ("beam_tilt_x", "beam_tilt_y"),
    "trefoil": ("z33c", "z33s"),
    "even_zernikes": ("z44c", "z44s", "z60"),
    "magnification": ("magnification_yy", "magnification_yx"),
}


def status_name(status: Status) -> str:
    """The name of a status in tables."""
    return status.name.lower()


def columns_of_search(
    refined: Refined,
    start: StartingValues,
    rows: Int[np.ndarray, " n"],
    grid: SearchGrid,
    score: Score,
) -> Columns:
    """Columns for the results of the search.

    Args:
        refined: Results for n particles, as numpy arrays.
        start: Starting values of all rows, as in the table.
        rows: Rows of these particles.
        grid: The grid that was searched.
        score: The score, whose box was searched.
    """
    # Exact numbers of the grid instead of float32 sums.
    at_pixel_size, at_defocus = refined.grid_index[:, 0], refined.grid_index[:, 1]
    defocus = np.asarray(grid.defocus_angstrom)[at_defocus]
    pixel_size = np.asarray(grid.pixel_size_angstrom)[at_pixel_size]
    return {
        **_of_fields(refined),
        **_of_pose(refined.alignment),
        "refined_relative_defocus": start.relative_defocus_angstrom[rows] + defocus,
        "refined_pixel_size": start.pixel_size_angstrom[rows] + pixel_size,
        "refined_at_edge": _edges(refined, grid, score),
    }


def columns_of_polish(
    polished: Polished, refined: Refined, searched: Columns, free: Sequence[str]
) -> Columns:
    """Columns for the results of the polish: new values, replaced values, standard errors.

    Args:
        polished: Results for the particles that were searched, as numpy arrays.
        refined: Results of the search.
        searched: The same as columns, from `columns_of_search`.
        free: The free parameters of the polish; columns of others are NaN.
    """
    best, errors = polished.refined, polished.errors
    there, before = best.alignment, refined.alignment
    gained = _mean_defocus(there) - _mean_defocus(before)
    relative_defocus = searched["refined_relative_defocus"] + gained
    larger = there.pixel_size_angstrom.astype(np.float64) - before.pixel_size_angstrom
    position = np.asarray(there.position_px, np.float64)
    whole = np.rint(position)
    shift = position - whole
    # Defocus of the micrograph: the absolute minus the relative defocus.
    astigmatism = np.asarray(there.defocus_angstrom, np.float64)
    astigmatism = astigmatism - relative_defocus[:, None]
    angle = np.asarray(there.astigmatism_deg, np.float64)
    if "astigmatism" not in free:
        astigmatism, angle = np.full_like(astigmatism, np.nan), np.full_like(angle, np.nan)
    columns = {
        **{f"grid_{name}": searched[f"refined_{name}"] for name in _OF_GRID},
        **_of_fields(best),
        **_of_pose(there),
        "refined_pos_x": whole[:, 1],
        "refined_pos_y": whole[:, 0],
        "refined_relative_defocus": relative_defocus,
        "refined_pixel_size": searched["refined_pixel_size"] + larger,
        "refined_shift_x": shift[:, 1],
        "refined_shift_y": shift[:, 0],
        "refined_defocus_u": astigmatism[:, 0],
        "refined_defocus_v": astigmatism[:, 1],
        "refined_astigmatism_angle": angle,
        "refined_tilt_x_sigma": errors.rotation_deg[:, 0],
        "refined_tilt_y_sigma": errors.rotation_deg[:, 1],
        "refined_in_plane_sigma": errors.rotation_deg[:, 2],
        "refined_orientation_sigma": errors.largest_rotation_deg,
        "refined_pos_x_sigma": errors.shift_px[:, 1],
        "refined_pos_y_sigma": errors.shift_px[:, 0],
        "refined_relative_defocus_sigma": errors.defocus_angstrom,
        "refined_pixel_size_sigma": errors.pixel_size_angstrom,
        "refined_astigmatism_sigma": errors.astigmatism_angstrom[:, 0],
        "refined_polish": _how_it_ended(polished),
        "refined_scaled_mip_expected": polished.expected_z,
    }
    for field, names in _ABERRATIONS.items():
        if getattr(polished, field) is not None:
            values = zip(
                names, getattr(polished, field).T, getattr(errors, field).T, strict=True
            )
            for name, value, sigma in values:
                columns |= {f"refined_{name}": value, f"refined_{name}_sigma": sigma}
    return {name: np.asarray(column) for name, column in columns.items()}


def _of_fields(refined: Refined) -> Columns:
    """Columns that are fields of `Refined`."""
    return {c.name: getattr(refined, field) for field, c in REFINED_FIELDS.items()}


def _of_pose(there: Alignment) -> Columns:
    """Position and angles."""
    y, x = there.position_px.T
    euler = matrix_to_euler(np.asarray(there.rotation, np.float64)).T
    angles = {f"refined_{name}": a for name, a in zip(ANGLES, euler, strict=True)}
    return {"refined_pos_x": x, "refined_pos_y": y, **angles}


def _mean_defocus(alignment: Alignment) -> np.ndarray:
    """Mean of u and v in Å."""
    return np.asarray(alignment.defocus_angstrom, np.float64).mean(axis=-1)


def _edges(refined: Refined, grid: SearchGrid, score: Score) -> np.ndarray:
    """Of each particle, what was found outermost of all that was searched."""
    # In NumPy: a program would be compiled for each size of a batch.
    grid, index = jax.device_get((grid, refined.grid_index))
    edges = at_edges(grid, score, index)
    flags = zip(*(np.asarray(flag).tolist() for flag in edges.values()), strict=True)
    return np.array([" ".join(itertools.compress(edges, each)) for each in flags], object)


def _how_it_ended(polished: Polished) -> np.ndarray:
    """A word of `POLISH_MEANING` for each particle."""
    stopped = np.where(polished.converged, "converged", "not_converged")
    ended = np.where(np.asarray(polished.optima) > 1, "multimodal", stopped)
    return np.where(polished.at_limit, "at_limit", ended)
