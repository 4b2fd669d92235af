"""Point groups: their orders, axes and asymmetric units."""

import numpy as np
import pytest

from jaxrefine.physics.rotations import angle_between_deg, euler_to_matrix, rotation_z
from jaxrefine.physics.symmetry import in_asymmetric_unit, point_group, smallest_turn_deg

ORDERS = {
    **{"C1": 1, "C7": 7, "D1": 2, "D2": 4, "D6": 12},
    **{"T": 12, "O": 24, "I": 60, "I1": 60, "I2": 60},
}


def angles(*rotations):
    return angle_between_deg(*np.broadcast_arrays(*rotations))


@pytest.mark.parametrize(("name", "order"), ORDERS.items())
def test_groups_are_groups(name, order):
    group = point_group(name)
    assert group.shape == (order, 3, 3)
    np.testing.assert_array_equal(group[0], np.eye(3))
    np.testing.assert_allclose(np.linalg.det(group), 1)
    products = np.einsum("aij,bjk->abik", group, group).reshape(-1, 1, 3, 3)
    nearest = angles(products, group[None]).min(axis=1)
    assert nearest.max() < 1e-5  # closed; sums of 60 products round by some 1e-7


@pytest.mark.parametrize("name", ["C0", "D", "c4", "X", "C1000", "I3", "O4"])
def test_what_is_no_group_is_refused(name):
    with pytest.raises(ValueError, match="no point group"):
        point_group(name)


@pytest.mark.parametrize(
    ("name", "axis", "order"),
    [
        ("C5", (0, 0, 1), 5),
        ("D3", (1, 0, 0), 2),
        ("T", (0, 0, 1), 3),
        ("T", (0, 0.816497, 0.577350), 2),
        ("O", (1, 0, 0), 4),
        ("O", (0, 0, 1), 4),
        ("O", (1, 1, 1), 3),
        ("I", (0, 0, 1), 2),
        ("I", (1, 0, 0), 2),
        ("I", (0.525731, 0, 0.850651), 5),
        ("I", (0, 0.356822, 0.934172), 3),
        ("I1", (1, 0, 0), 2),
        ("I1", (0.850651, 0, -0.525731), 5),
        ("I1", (0.934172, 0.356822, 0), 3),
    ],
)
def test_axes_lie_where_other_programs_have_them(name, axis, order):
    # RELION's and XMIPP's axes, to the digits that they are written with.
    group = point_group(name)
    direction = np.asarray(axis) / np.linalg.norm(axis)
    about = group[np.linalg.norm(group @ direction - direction, axis=-1) < 1e-5]
    assert len(about) == order


@pytest.mark.parametrize("name", ["C1", "C4", "D2", "T", "O", "I"])
def test_copies_are_reported_as_one(name):
    group = point_group(name)
    rng = np.random.default_rng(0)
    rotation = euler_to_matrix(rng.uniform(0, 180, (20, 3)))
    reported = in_asymmetric_unit(rotation, group)
    for copy in group:
        again = in_asymmetric_unit(copy @ rotation, group)
        np.testing.assert_allclose(again, reported, atol=1e-9)
    # None of the copies has a smaller rotation.
    copies = np.einsum("gij,njk->ngik", group, rotation)
    smallest = angles(copies, np.eye(3)).min(axis=1)
    np.testing.assert_allclose(angles(reported, np.eye(3)), smallest, atol=1e-6)


def test_the_volume_is_turned_not_the_image():
    # With C4 a pose and the same turned by 90° about the volume's z are copies; turned by
    # 90° in the image they are not.
    group = point_group("C4")
    rotation = euler_to_matrix(np.array([20.0, 50.0, 70.0]))
    quarter = rotation_z(np.array(90.0))
    reported = in_asymmetric_unit(rotation, group)
    np.testing.assert_allclose(in_asymmetric_unit(quarter @ rotation, group), reported)
    assert angles(in_asymmetric_unit(rotation @ quarter, group), reported) > 10


def test_smallest_turns():
    assert smallest_turn_deg(point_group("C1")) == 360
    assert smallest_turn_deg(point_group("C8")) == pytest.approx(45)
    assert smallest_turn_deg(point_group("I")) == pytest.approx(72)
