"""What a polish returned, as the particle table has it."""

from collections.abc import Sequence

import numpy as np

from jaxrefine.data import Alignment, Polished

# How a polish may end, and what that means.
POLISH_MEANING = {
    "converged": "an optimum: no further step promised a gain",
    "at_limit": "it stopped where the grid's cell ends: search a finer grid, or set "
    "bound_to_cell: false; the standard errors are not those of an optimum",
    "not_converged": "max_steps were not enough: the best so far",
}


def mean_defocus(alignment: Alignment) -> np.ndarray:
    """Mean of u and v in Å."""
    return np.asarray(alignment.defocus_angstrom, np.float64).mean(axis=-1)


def polish_statuses(polished: Polished) -> list[str]:
    """How the polish of each particle ended."""
    ended = zip(polished.at_limit, polished.converged, strict=True)
    return [
        "at_limit" if limit else "converged" if converged else "not_converged"
        for limit, converged in ended
    ]


def polished_numbers(
    polished: Polished, relative_defocus_angstrom: np.ndarray, free: Sequence[str]
) -> dict[str, np.ndarray]:
    """Columns of a polish, but for the grid's; NaN for what was not free.

    Args:
        polished: Of some particles.
        relative_defocus_angstrom: Their refined relative defocus.
        free: The parameters that were polished.
    """
    there, errors = polished.refined.alignment, polished.errors
    position = np.asarray(there.position_px, np.float64)
    shift = position - np.rint(position)
    # The micrograph's defocus: the rest is the relative one's.
    astigmatism = np.asarray(there.defocus_angstrom, np.float64)
    astigmatism = astigmatism - relative_defocus_angstrom[:, None]
    angle = np.asarray(there.astigmatism_deg, np.float64)
    if "astigmatism" not in free:
        astigmatism, angle = np.full_like(astigmatism, np.nan), np.full_like(angle, np.nan)
    columns = {
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
    }
    return {name: np.asarray(column) for name, column in columns.items()}
