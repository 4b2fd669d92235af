"""The ``uniform`` orientation grid: a full three-axis ball around the identity."""

import numpy as np

from .rotations import rotation_y, rotation_z


def tilt_offset(tilt: float, direction: float, in_plane: float) -> np.ndarray:
    """Rz(direction) Ry(tilt) Rz(-direction) Rz(in_plane), degrees.

    The tilt's axis lies in the image plane, so a tilt brings no in-plane rotation along.
    """
    return (
        rotation_z(direction)
        @ rotation_y(tilt)
        @ rotation_z(-direction)
        @ rotation_z(in_plane)
    )


def steps(coarse: float, fine: float) -> int:
    """How many whole fine steps fit into the coarse one."""
    return int(np.floor(coarse / fine + 1e-6)) if coarse > 0 and fine > 0 else 0


def in_plane_angles(psi_step_coarse: float, psi_step_fine: float) -> list[float]:
    """-coarse ... +coarse in steps of fine, symmetric and holding 0."""
    most = steps(psi_step_coarse, psi_step_fine)
    return [index * psi_step_fine for index in range(-most, most + 1)]


def tilts(theta_step_coarse: float, theta_step_fine: float) -> list[tuple[float, float]]:
    """(tilt, direction) in degrees: the pole once, then rings of round(2 pi ring)."""
    result = [(0.0, 0.0)]
    for ring in range(1, steps(theta_step_coarse, theta_step_fine) + 1):
        count = round(2 * np.pi * ring)
        for index in range(count):
            result.append((ring * theta_step_fine, index * 360.0 / count))
    return result


def uniform_grid(
    psi_step_coarse: float = 1.5,
    psi_step_fine: float = 0.1,
    theta_step_coarse: float = 2.5,
    theta_step_fine: float = 0.25,
) -> np.ndarray:
    """Offsets (k, 3, 3) in the image frame: R = R_particle @ offset.

    As a set: the order, and where on its ring each ring begins, is the implementation's
    own affair. Here tilts change slowly and in-plane rotations fast.
    """
    return np.stack(
        [
            tilt_offset(tilt, direction, in_plane)
            for tilt, direction in tilts(theta_step_coarse, theta_step_fine)
            for in_plane in in_plane_angles(psi_step_coarse, psi_step_fine)
        ]
    )
