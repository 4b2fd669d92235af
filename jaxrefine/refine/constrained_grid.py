"""Orientations of a constrained search: turns of a partner about an axis of the volume.

As Leopard-EM's constrained_search describes them: Euler angles about the volume's z axis,
which `rotation_axis_euler_angles` then takes to the axis that is meant.
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
    """Offsets about z as offsets about the axis A·z: A · R_offset · Aᵀ.

    Args:
        offset_euler_deg: Offsets as Euler angles about z.
        axis_euler_deg: Euler angles of A.
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
    """Offsets as Euler angles (phi, theta, psi) about z.

    Args:
        method: `uniform`: theta and psi in steps, phi as densely as theta. `cartesian`:
            phi, theta and psi in steps. `roll`: a turn by theta about an axis in the plane
            across z, then one by psi about z.
        phi: Of `uniform` only the ends count.
        theta: The tilt.
        psi: The turn about z.
        roll_axis: x, y of the axis of `roll`; None: axes every `roll_step` degrees over
            half a turn, the untilted orientations once.
        roll_step: In degrees.
        as_leopard_em: As Leopard-EM 1.2 has them: psi of `uniform` without its maximum,
            theta past its own where the range is no multiple of the step, phi without its
            maximum; the axis of `roll` a quarter turn from where `roll_axis` points, and
            the untilted orientations once for each axis that is tried.

    Returns:
        Offsets, and which of them lie at an end of theta or psi (or phi, of `cartesian`).
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
    """Rz(psi) · (a turn by theta about Rz(roll)·y), as Euler angles."""
    if roll_axis is None:
        rolls = np.arange(0.0, 180.0, roll_step)
    else:
        direction = math.degrees(math.atan2(roll_axis[1], roll_axis[0]))
        if as_leopard_em:
            rolls = np.array([direction + 180.0 if direction < 0 else direction])
        else:
            rolls = np.array([direction - 90.0])  # Rz(roll)·y points there
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
    """Values of phi at a tilt, about as far apart on the sphere as the tilts are."""
    low, high, _ = phi
    span = high - low
    if span <= 0:
        return np.array([low])
    if abs(theta) < 1e-8:  # where phi and psi turn about one axis
        return np.array([0.0 if low < 0 <= high else low])
    step = abs(theta_step / (math.sin(math.radians(theta)) + 1e-6))
    count = round(span / min(step, span))
    ends = 0 if as_leopard_em or span >= 360.0 else 1
    return low + span / count * np.arange(count + ends)


def _steps(limits: AngleRange) -> Float[np.ndarray, " n"]:
    """Minimum to maximum, both included; of a full turn without its end."""
    angles = search_offsets(*limits, skip_enforce_zero=True)
    full = len(angles) > 1 and angles[-1] - angles[0] >= 360.0
    return angles[:-1] if full else angles


def _half_open(limits: AngleRange) -> Float[np.ndarray, " n"]:
    """Minimum to maximum without the latter, which Leopard-EM leaves out."""
    low, high, step = limits
    return np.array([low]) if low >= high else np.arange(low, high, step)


def _at_end(angles: Float[np.ndarray, " k"]) -> Bool[np.ndarray, " k"]:
    """Which are the first or the last of several."""
    low, high = angles.min(), angles.max()
    return ((angles == low) | (angles == high)) & (high > low)
