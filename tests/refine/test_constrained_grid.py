"""The orientations of a constrained search, against Leopard-EM's and against geometry."""

import json

import numpy as np
import pytest

from jaxrefine import simulate as sim
from jaxrefine.physics.rotations import euler_to_matrix
from jaxrefine.refine.constrained_grid import about_axis, constrained_offsets
from tests.reference import ROOT

FROZEN = np.load(ROOT / "tests" / "data" / "peer" / "constrained" / "grids.npz")
SETTINGS = json.loads(str(FROZEN["settings"]))
SMALL = {"phi": (0.0, 0.0, 2.5), "theta": (-4.0, 4.0, 2.0), "psi": (-6.0, 6.0, 3.0)}


def offsets(method, **changed):
    roll = {"roll_axis": (0.0, 1.0), "roll_step": 45.0}
    return constrained_offsets(method, **SMALL | roll | changed)


@pytest.mark.parametrize("number", range(len(SETTINGS) - 1))
def test_the_peer_s_offsets(number):
    """Its order, too: ties go to the first. Its angles are float32 at up to 400."""
    s = SETTINGS[number]
    euler, _ = constrained_offsets(
        s.get("base_grid_method", "uniform"),
        phi=(s["phi_min"], s["phi_max"], 2.5),
        theta=(s["theta_min"], s["theta_max"], s["theta_step"]),
        psi=(s["psi_min"], s["psi_max"], s["psi_step"]),
        roll_axis=None if s["search_roll_axis"] else tuple(s.get("roll_axis", (0, 1))),
        roll_step=s.get("roll_step", 2.0),
        as_leopard_em=True,
    )
    np.testing.assert_allclose(euler, FROZEN[f"offsets_{number}"], atol=1e-4)
    ours = about_axis(euler, tuple(s.get("rotation_axis_euler_angles", (0, 0, 0))))
    theirs = euler_to_matrix(FROZEN[f"turned_{number}"].astype(np.float64))
    # By float32's Euler angles, which near a pole lose half their digits.
    np.testing.assert_allclose(ours, theirs, atol=1e-3)


def test_both_ends_are_searched():
    """Where Leopard-EM omits the last psi and exceeds the last theta."""
    theta, psi = (-4.0, 3.0, 2.0), (-6.0, 6.0, 3.0)
    euler, at_edge = offsets("uniform", theta=theta, psi=psi)
    assert set(euler[:, 1]) == {-4, -2, 0, 2} and set(euler[:, 2]) == {-6, -3, 0, 3, 6}
    assert len(euler) == 20 and not euler[:, 0].any()
    inner = (np.abs(euler[:, 2]) < 6) & np.isin(euler[:, 1], (-2, 0))
    np.testing.assert_array_equal(at_edge, ~inner)


def test_a_full_turn_has_no_angle_twice():
    euler, _ = offsets("cartesian", psi=(0.0, 360.0, 90.0), theta=(0.0, 0.0, 1.0))
    np.testing.assert_array_equal(euler[:, 2], [0, 90, 180, 270])


@pytest.mark.parametrize("axis", [(0.0, 1.0), (1.0, 0.0), (0.6, -0.8), (-1.0, -1.0)])
def test_theta_of_roll_turns_about_the_axis_that_is_named(axis):
    euler, _ = offsets("roll", psi=(0.0, 0.0, 1.0), roll_axis=axis)
    direction = np.array([*axis, 0.0]) / np.hypot(*axis)
    for rotation, theta in zip(euler_to_matrix(euler), (-4, -2, 0, 2, 4), strict=True):
        twist = rotation - rotation.T
        vector = np.array([twist[2, 1], twist[0, 2], twist[1, 0]]) / 2
        expected = direction * np.sin(np.deg2rad(theta))
        np.testing.assert_allclose(vector, expected, atol=1e-12)


def test_where_axes_are_tried_the_untilted_come_once():
    euler, _ = offsets("roll", roll_axis=None)
    rotations = euler_to_matrix(euler)
    assert len(euler) == 4 * 4 * 5 + 5
    distance = np.abs(rotations[:, None] - rotations[None]).max(axis=(2, 3))
    assert (distance < 1e-9).sum() == len(euler)


def test_psi_turns_about_the_rotated_axis():
    angles = (30.0, 40.0, 0.0)
    turned = about_axis(np.array([[0.0, 0.0, 25.0]]), angles)[0]
    axis = sim.matrix_from_euler(*angles)[:, 2]
    np.testing.assert_allclose(turned @ axis, axis, atol=1e-12)
    assert sim.angle_between_deg(turned, np.eye(3)) == pytest.approx(25.0)
