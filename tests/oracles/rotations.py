"""Intrinsic ZYZ Euler angles as matrices that act on column vectors (x, y, z)."""

import numpy as np


def rotation_z(degrees: float) -> np.ndarray:
    """Rotation about z, anticlockwise seen from +z: x goes towards y."""
    c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    return np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])


def rotation_y(degrees: float) -> np.ndarray:
    """Rotation about y: z goes towards x."""
    c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    return np.array([[c, 0.0, s], [0.0, 1.0, 0.0], [-s, 0.0, c]])


def euler_matrix(phi: float, theta: float, psi: float) -> np.ndarray:
    """R = Rz(phi) Ry(theta) Rz(psi), angles in degrees.

    R takes the image frame (the slice's x, y and the beam's z) into the volume's frame.
    """
    return rotation_z(phi) @ rotation_y(theta) @ rotation_z(psi)


def euler_angles(matrix: np.ndarray) -> tuple[float, float, float]:
    """The inverse: phi and psi in [0, 360), theta in [0, 180], degrees.

    At the poles only phi + psi (theta = 0) or phi - psi (theta = 180) is defined; all
    of it is then put into phi.
    """
    theta = np.arctan2(np.hypot(matrix[0, 2], matrix[1, 2]), matrix[2, 2])
    if np.hypot(matrix[0, 2], matrix[1, 2]) > 1e-9:
        phi = np.arctan2(matrix[1, 2], matrix[0, 2])
        psi = np.arctan2(matrix[2, 1], -matrix[2, 0])
    elif matrix[2, 2] > 0:
        phi, psi = np.arctan2(matrix[1, 0], matrix[0, 0]), 0.0
    else:
        phi, psi = np.arctan2(-matrix[1, 0], -matrix[0, 0]), 0.0
    degrees = [float(np.rad2deg(angle)) for angle in (phi, theta, psi)]
    return degrees[0] % 360.0, degrees[1], degrees[2] % 360.0


def angle_between(a: np.ndarray, b: np.ndarray) -> float:
    """Angle in degrees of the rotation that takes a into b."""
    difference = np.asarray(a).T @ np.asarray(b)
    # sin from the antisymmetric part and cos from the trace: exact near 0 and near 180.
    axis = [
        difference[2, 1] - difference[1, 2],
        difference[0, 2] - difference[2, 0],
        difference[1, 0] - difference[0, 1],
    ]
    return float(np.rad2deg(np.arctan2(np.linalg.norm(axis), np.trace(difference) - 1)))
