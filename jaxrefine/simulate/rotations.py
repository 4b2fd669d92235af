"""Rotations, implemented independently: Euler angles, distances, random rotations."""

import numpy as np

from jaxrefine.simulate.arrays import FloatArray


def matrix_from_euler(phi_deg: float, theta_deg: float, psi_deg: float) -> FloatArray:
    """Rotation of the intrinsic ZYZ angles: Rz(phi) Ry(theta) Rz(psi)."""
    return _about_z(phi_deg) @ _about_y(theta_deg) @ _about_z(psi_deg)


def euler_from_matrix(rotation: FloatArray) -> tuple[float, float, float]:
    """Intrinsic ZYZ angles (phi, theta, psi) in degrees; psi is 0 at the poles."""
    sine = np.hypot(rotation[0, 2], rotation[1, 2])
    theta = np.arctan2(sine, rotation[2, 2])
    if sine > 1e-9:
        phi = np.arctan2(rotation[1, 2], rotation[0, 2])
        psi = np.arctan2(rotation[2, 1], -rotation[2, 0])
    else:
        phi = np.arctan2(-rotation[0, 1], rotation[1, 1])
        psi = 0.0
    phi_deg, theta_deg, psi_deg = np.rad2deg([phi, theta, psi])
    return float(phi_deg % 360.0), float(theta_deg), float(psi_deg % 360.0)


def random_rotations(n: int, rng: np.random.Generator) -> FloatArray:
    """(n, 3, 3) rotations, uniform on SO(3), from normalised Gaussian quaternions."""
    w, x, y, z = (q := rng.standard_normal((n, 4))).T / np.linalg.norm(q, axis=1)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return np.moveaxis(np.array(rows), 2, 0)


def perturbed_rotation(
    rotation: FloatArray,
    rng: np.random.Generator,
    tilt_max_deg: float = 2.5,
    in_plane_max_deg: float = 1.5,
) -> FloatArray:
    """A random nearby rotation: tilts uniform in a disk, in-plane angles in an interval.

    The offset acts in the image frame, rotation @ Rz(a) Ry(tilt) Rz(-a) Rz(in-plane).
    """
    tilt = tilt_max_deg * np.sqrt(rng.uniform())
    direction = rng.uniform(0.0, 360.0)
    in_plane = rng.uniform(-in_plane_max_deg, in_plane_max_deg)
    return rotation @ matrix_from_euler(direction, tilt, in_plane - direction)


def angle_between_deg(one: FloatArray, other: FloatArray) -> float:
    """Angle of the rotation between two rotations."""
    # |one - other|² = 8 sin²(angle/2): accurate at small angles, unlike the arccosine.
    half_sine = np.linalg.norm(one - other) / np.sqrt(8.0)
    return float(np.rad2deg(2.0 * np.arcsin(min(1.0, half_sine))))


def _about_z(angle_deg: float) -> FloatArray:
    c, s = np.cos(np.deg2rad(angle_deg)), np.sin(np.deg2rad(angle_deg))
    return np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])


def _about_y(angle_deg: float) -> FloatArray:
    c, s = np.cos(np.deg2rad(angle_deg)), np.sin(np.deg2rad(angle_deg))
    return np.array([[c, 0.0, s], [0.0, 1.0, 0.0], [-s, 0.0, c]])
