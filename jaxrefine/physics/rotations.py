"""Rotations: ZYZ Euler angles in interfaces, matrices in computations.

Every function accepts numpy arrays (and keeps float64, for grids and tables) or JAX arrays
(and is then differentiable), through the namespace of the array API.

Euler angles are intrinsic ZYZ: (phi, theta, psi) is the matrix Rz(phi) Ry(theta) Rz(psi),
which left-multiplies xyz column vectors.
"""

from typing import Any, TypeVar

import jax
import numpy as np
from jaxtyping import Bool, Float

# Functions return the array type that they are given.
AnyArray = TypeVar("AnyArray", jax.Array, np.ndarray)

# Below this sine of theta, phi and psi rotate about the same axis, and phi is set to 0.
_POLE = 1e-6

# Generators of rotations about x, y and z: Σ wᵢ Gᵢ is the matrix [w] of w × v.
_GENERATORS = np.array(
    [
        [[0, 0, 0], [0, 0, -1], [0, 1, 0]],
        [[0, 0, 1], [0, 0, 0], [-1, 0, 0]],
        [[0, -1, 0], [1, 0, 0], [0, 0, 0]],
    ]
)


def _stack_matrix(xp: Any, rows: list[list[Any]]) -> Any:
    return xp.stack([xp.stack(row, axis=-1) for row in rows], axis=-2)


def _product(xp: Any, first: Any, second: Any) -> Any:
    """Matrix product in full precision, also on devices that round its inputs."""
    return xp.sum(first[..., :, :, None] * second[..., None, :, :], axis=-2)


def rotation_x(angle_deg: Float[AnyArray, "*n"]) -> Float[AnyArray, "*n 3 3"]:
    """Rotation about x, right-handed."""
    xp = angle_deg.__array_namespace__()
    c, s = xp.cos(xp.deg2rad(angle_deg)), xp.sin(xp.deg2rad(angle_deg))
    zero, one = xp.zeros_like(c), xp.ones_like(c)
    return _stack_matrix(xp, [[one, zero, zero], [zero, c, -s], [zero, s, c]])


def rotation_y(angle_deg: Float[AnyArray, "*n"]) -> Float[AnyArray, "*n 3 3"]:
    """Rotation about y, right-handed."""
    xp = angle_deg.__array_namespace__()
    c, s = xp.cos(xp.deg2rad(angle_deg)), xp.sin(xp.deg2rad(angle_deg))
    zero, one = xp.zeros_like(c), xp.ones_like(c)
    return _stack_matrix(xp, [[c, zero, s], [zero, one, zero], [-s, zero, c]])


def rotation_z(angle_deg: Float[AnyArray, "*n"]) -> Float[AnyArray, "*n 3 3"]:
    """Rotation about z, right-handed: x rotates towards y."""
    xp = angle_deg.__array_namespace__()
    c, s = xp.cos(xp.deg2rad(angle_deg)), xp.sin(xp.deg2rad(angle_deg))
    zero, one = xp.zeros_like(c), xp.ones_like(c)
    return _stack_matrix(xp, [[c, -s, zero], [s, c, zero], [zero, zero, one]])


def euler_to_matrix(euler_deg: Float[AnyArray, "*n 3"]) -> Float[AnyArray, "*n 3 3"]:
    """Matrix of intrinsic ZYZ Euler angles (phi, theta, psi) in degrees."""
    xp = euler_deg.__array_namespace__()
    phi, theta, psi = (euler_deg[..., i] for i in range(3))
    return _product(xp, _product(xp, rotation_z(phi), rotation_y(theta)), rotation_z(psi))


def matrix_to_euler(rotation: Float[AnyArray, "*n 3 3"]) -> Float[AnyArray, "*n 3"]:
    """Intrinsic ZYZ Euler angles in degrees: phi, psi in [0, 360), theta in [0, 180].

    At the poles, where only one in-plane angle is defined, phi is 0.
    """
    xp = rotation.__array_namespace__()
    sine = xp.hypot(rotation[..., 0, 2], rotation[..., 1, 2])
    at_pole = sine < _POLE
    theta = xp.atan2(sine, rotation[..., 2, 2])
    phi = xp.atan2(rotation[..., 1, 2], rotation[..., 0, 2])
    phi = xp.where(at_pole, xp.zeros_like(phi), phi)
    # Near a pole, phi is mostly rounding error. Psi is computed after undoing this phi, so
    # that the two together still describe the rotation.
    c, s = xp.cos(phi), xp.sin(phi)
    psi = xp.atan2(
        c * rotation[..., 1, 0] - s * rotation[..., 0, 0],
        c * rotation[..., 1, 1] - s * rotation[..., 0, 1],
    )
    angles = xp.rad2deg(xp.stack([phi % (2 * np.pi), theta, psi % (2 * np.pi)], axis=-1))
    return xp.where(angles >= 360.0, xp.zeros_like(angles), angles)


def rotation_vector_to_matrix(
    vector_deg: Float[AnyArray, "*n 3"],
) -> Float[AnyArray, "*n 3 3"]:
    """Matrix of a rotation vector: direction = axis (xyz), length = angle in degrees.

    Rodrigues' formula, with series at small angles so that gradients stay finite at 0.
    """
    xp = vector_deg.__array_namespace__()
    vector = xp.deg2rad(vector_deg)
    generators = xp.asarray(_GENERATORS, dtype=vector.dtype)
    cross = xp.sum(vector[..., :, None, None] * generators, axis=-3)
    squared = xp.sum(vector * vector, axis=-1)[..., None, None]
    # The truncation error at angle² = 1e-4 rad² is below 1e-13; both branches are finite.
    small = squared < 1e-4
    safe = xp.where(small, xp.ones_like(squared), squared)
    angle = xp.sqrt(safe)
    sinc = xp.where(small, 1 - squared / 6 + squared**2 / 120, xp.sin(angle) / angle)
    cosc = xp.where(
        small, 0.5 - squared / 24 + squared**2 / 720, (1 - xp.cos(angle)) / safe
    )
    return xp.eye(3, dtype=vector.dtype) + sinc * cross + cosc * _product(xp, cross, cross)


def matrix_to_rotation_vector(
    rotation: Float[AnyArray, "*n 3 3"],
) -> Float[AnyArray, "*n 3"]:
    """Rotation vector in degrees of a matrix: the inverse of `rotation_vector_to_matrix`.

    For a rotation by 180 degrees, whose axis has no sign, it is 0.
    """
    xp = rotation.__array_namespace__()
    pairs = ((2, 1), (0, 2), (1, 0))
    sines = xp.stack([rotation[..., i, j] - rotation[..., j, i] for i, j in pairs], axis=-1)
    sine = xp.sqrt(xp.sum(sines * sines, axis=-1))
    cosine = sum(rotation[..., i, i] for i in range(3)) - 1
    small = sine < 1e-6
    safe = xp.where(small, xp.ones_like(sine), sine)
    factor = xp.where(small, xp.full_like(sine, 0.5), xp.atan2(safe, cosine) / safe)
    return xp.rad2deg(sines * factor[..., None])


def angle_between_deg(
    first: Float[AnyArray, "*n 3 3"], second: Float[AnyArray, "*n 3 3"]
) -> Float[AnyArray, "*n"]:
    """Angle in degrees of the rotation between two orientations.

    From the Frobenius norm of the difference, |A - B| = 2√2 sin(angle/2), which is accurate
    at small angles, unlike the formula with the trace.
    """
    xp = first.__array_namespace__()
    norm = xp.sqrt(xp.sum((first - second) ** 2, axis=(-2, -1)))
    half_sine = xp.clip(norm / (2 * np.sqrt(2.0)), 0.0, 1.0)
    return xp.asarray(xp.rad2deg(2 * xp.asin(half_sine)))


def is_rotation(matrix: Float[np.ndarray, "*n 3 3"]) -> Bool[np.ndarray, "*n"]:
    """Whether matrices are rotations: orthonormal within 0.001, and not mirrored."""
    error = np.swapaxes(matrix, -1, -2) @ matrix - np.eye(3)
    return (np.abs(error).max(axis=(-1, -2)) < 1e-3) & (np.linalg.det(matrix) > 0)
