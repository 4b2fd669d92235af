"""Orientations of a constrained search: rotations of a partner about a volume axis.

They are described as in Leopard-EM's constrained_search: by Euler angles about the z axis
of the volume, which `rotation_axis_euler_angles` then rotates to the actual axis.
"""

import math
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float

from jaxrefine.physics.rotations import euler_to_matrix
from jaxrefine.refine.grids import search_offsets

ConstrainedMethod = Literal["uniform", "cartesian", "roll"]
# Minimum, maximum and step in degrees.
AngleRange = tuple[float, float, float]


def about_axis(
    offset_euler_deg: Float[np.ndarray, "k 3"], axis_euler_deg: tuple[float, float, float]
) -> Float[np.ndarray, "k 3 3"]:
    """Convert offsets about z to offsets about the axis A·z: A · R_offset · Aᵀ.

    Args:
        offset_euler_deg: Offsets about z as Euler angles (degrees).
        axis_euler_deg: Euler angles of A (degrees).
    """
    axis = euler_to_matrix(np.asarray(axis_euler_deg, np.float64))
    return axis @ euler_to_matrix(offset_euler_deg) @ axis.T


def constrained_offsets(
    method: ConstrainedMethod,
    *,
    phi: AngleRange,
    theta: AngleRange,
    psi: AngleRange,
    roll_axis: tuple[float, float] | None,
    roll_step: float,
    as_leopard_em: bool = False,
) -> tuple[Float[np.ndarray, "k 3"], Bool[np.ndarray, " k"]]:
    """Compute the offsets as Euler angles (phi, theta, psi) about z, in degrees.

    Args:
        method: `uniform`: theta and psi in steps, phi as densely as theta. `cartesian`:
            phi, theta and psi in steps. `roll`: a rotation by theta about an axis
            perpendicular to z, then one by psi about z.
        phi: Minimum, maximum and step; `uniform` ignores the step.
        theta: Minimum, maximum and step of the tilt.
        psi: Minimum, maximum and step of the rotation about z.
        roll_axis: x, y of the axis of `roll`; None tries axes every `roll_step` degrees
            over 180 degrees, and the untilted orientations once.
        roll_step: In degrees.
        as_leopard_em: Use the grid of Leopard-EM 1.2: `uniform` omits the maximum of psi
            and phi, and theta exceeds its maximum if the range is no multiple of the step;
            the axis of `roll` is 90 degrees from the direction of `roll_axis`, and the
            untilted orientations occur once for each axis.

    Returns:
        The offsets, and a mask of those at an end of theta or psi (for `cartesian` also
        phi).
    """
    if method == "roll":
        return _roll_offsets(theta, psi, roll_axis, roll_step, as_leopard_em)
    thetas = search_offsets(*theta, skip_enforce_zero=True, past_maximum=as_leopard_em)
    if method == "cartesian":
        grids = np.meshgrid(_steps(phi), thetas, _steps(psi), indexing="ij")
        euler = np.stack([grid.ravel() for grid in grids], axis=-1)
        edge = _at_end(euler[:, 0]) | _at_end(euler[:, 1]) | _at_end(euler[:, 2])
        return euler, edge
    psis = _half_open(psi) if as_leopard_em else _steps(psi)
    pairs = [
        (value, angle)
        for angle in thetas
        for value in _phis_at(float(angle), phi, theta[2], as_leopard_em)
    ]
    phis, tilts = np.asarray(pairs, np.float64).T
    euler = np.stack(
        [
            np.tile(phis, len(psis)),
            np.tile(tilts, len(psis)),
            np.repeat(psis, len(phis)),
        ],
        axis=-1,
    )
    return euler, _at_end(euler[:, 1]) | _at_end(euler[:, 2])


def _roll_offsets(
    theta: AngleRange,
    psi: AngleRange,
    roll_axis: tuple[float, float] | None,
    roll_step: float,
    as_leopard_em: bool,
) -> tuple[Float[np.ndarray, "k 3"], Bool[np.ndarray, " k"]]:
    """Rz(psi) · (rotation by theta about Rz(roll)·y), as Euler angles in degrees."""
    if roll_axis is None:
        rolls = np.arange(0.0, 180.0, roll_step)
    else:
        direction = math.degrees(math.atan2(roll_axis[1], roll_axis[0]))
        if as_leopard_em:
            rolls = np.array([direction + 180.0 if direction < 0 else direction])
        else:
            rolls = np.array([direction - 90.0])  # then Rz(roll)·y points along the axis
    thetas = search_offsets(*theta, skip_enforce_zero=True)
    grids = np.meshgrid(rolls, thetas, _steps(psi), indexing="ij")
    roll, tilt, turn = (grid.ravel() for grid in grids)
    edge = _at_end(tilt) | _at_end(turn)
    euler = np.stack([(roll + turn) % 360.0, tilt, 360.0 - roll], axis=-1)
    once = (tilt != 0) | (roll == rolls[0]) | as_leopard_em
    return euler[once], edge[once]


def _phis_at(
    theta: float, phi: AngleRange, theta_step: float, as_leopard_em: bool
) -> Float[np.ndarray, " n"]:
    """Values of phi at a tilt, spaced on the sphere about as widely as the tilts."""
    low, high, _ = phi
    span = high - low
    if span <= 0:
        return np.array([low])
    if abs(theta) < 1e-8:  # there phi and psi rotate about the same axis
        return np.array([0.0 if low < 0 <= high else low])
    step = abs(theta_step / (math.sin(math.radians(theta)) + 1e-6))
    count = round(span / min(step, span))
    ends = 0 if as_leopard_em or span >= 360.0 else 1
    return low + span / count * np.arange(count + ends)


def _steps(limits: AngleRange) -> Float[np.ndarray, " n"]:
    """Minimum to maximum, both included, but without the maximum for a full turn."""
    angles = search_offsets(*limits, skip_enforce_zero=True)
    full = len(angles) > 1 and angles[-1] - angles[0] >= 360.0
    return angles[:-1] if full else angles


def _half_open(limits: AngleRange) -> Float[np.ndarray, " n"]:
    """Minimum to maximum without the maximum, as in Leopard-EM."""
    low, high, step = limits
    return np.array([low]) if low >= high else np.arange(low, high, step)


def _at_end(angles: Float[np.ndarray, " k"]) -> Bool[np.ndarray, " k"]:
    """Mask of the smallest and the largest angle, if there are several."""
    low, high = angles.min(), angles.max()
    return ((angles == low) | (angles == high)) & (high > low)
