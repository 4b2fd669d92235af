"""Point groups: the rotations that leave a template unchanged.

Axes are as in RELION (and XMIPP), through the centre of the volume, along its x, y, z:

- Cn: n-fold along z. Dn: the same, and 2-fold along x.
- T: 3-fold along z, 2-fold along (0, √2, 1). O: 4-fold along z, 3-fold along (1, 1, 1).
- I or I2: 2-fold along z, 5-fold along (1, 0, φ), φ the golden ratio, and so 3-fold along
  (0, 1, φ²). I1: the same rotated by 90° about y, 5-fold along (φ, 0, -1).

A rotation R maps the image frame to the volume frame, so the equivalent poses are S R for
all S of the group.
"""

import math
import re

import numpy as np
from jaxtyping import Float

from jaxrefine.physics.rotations import angle_between_deg, rotation_vector_to_matrix

GROUPS = re.compile(r"[CD][1-9][0-9]{0,2}|T|O|I[12]?")
_GOLDEN = (1 + math.sqrt(5)) / 2
_SAME_DEG = 1e-3

Vector = tuple[float, float, float]
_X: Vector = (1.0, 0.0, 0.0)
_Z: Vector = (0.0, 0.0, 1.0)


def point_group(name: str) -> Float[np.ndarray, "g 3 3"]:
    """All rotations of a point group, the identity first.

    Args:
        name: Cn, Dn, T, O, I, I1 or I2; capitals.

    Raises:
        ValueError: The group is unknown.
    """
    if not GROUPS.fullmatch(name):
        raise ValueError(f"no point group {name!r}")
    found = [np.eye(3)]
    generators = [_turn(axis, order) for order, axis in _axes(name)]
    for rotation in found:  # the list grows during the loop
        for generator in generators:
            product = generator @ rotation
            if _angles_deg(np.stack(found), product).min() > _SAME_DEG:
                found.append(product)
    return np.stack(found)


def _axes(name: str) -> list[tuple[int, Vector]]:
    """(order, direction) of axes that generate a group."""
    kind, number = name[0], name[1:]
    if kind == "C":
        return [(int(number), _Z)]
    if kind == "D":
        return [(int(number), _Z), (2, _X)]
    if kind == "T":
        return [(3, _Z), (2, (0.0, math.sqrt(2), 1.0))]
    if kind == "O":
        return [(4, _Z), (3, (1.0, 1.0, 1.0))]
    if number == "1":
        return [(2, _X), (5, (_GOLDEN, 0.0, -1.0))]
    return [(2, _Z), (5, (1.0, 0.0, _GOLDEN))]


def _turn(axis: Vector, order: int) -> Float[np.ndarray, "3 3"]:
    vector = np.asarray(axis) / np.linalg.norm(axis)
    return rotation_vector_to_matrix(vector * (360.0 / order))


def _angles_deg(
    rotations: Float[np.ndarray, "n 3 3"], one: Float[np.ndarray, "3 3"]
) -> Float[np.ndarray, " n"]:
    return angle_between_deg(rotations, np.broadcast_to(one, rotations.shape))


def smallest_turn_deg(group: Float[np.ndarray, "g 3 3"]) -> float:
    """Angle of the smallest rotation except the identity; 360 if there is no other."""
    if len(group) == 1:
        return 360.0
    return float(_angles_deg(group[1:], np.eye(3)).min())


def in_asymmetric_unit(
    rotation: Float[np.ndarray, "*n 3 3"], group: Float[np.ndarray, "g 3 3"]
) -> Float[np.ndarray, "*n 3 3"]:
    """For each pose, the equivalent pose nearest to the identity.

    It has the largest trace, 1 + 2 cos(angle); of equal ones the first of the group.
    """
    traces = np.einsum("gij,...ji->...g", group, rotation)
    # Rounding makes traces equal that differ by rounding errors only.
    best = np.argmax(np.round(traces, 9), axis=-1)
    return group[best] @ rotation
