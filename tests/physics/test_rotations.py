"""Rotations, compared with float64 formulas, Leopard-EM's matrices, and themselves."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from jaxrefine.physics import rotations
from tests.leopard_em_reference import frozen
from tests.oracles import rotations as oracle
from tests.worlds import matrix_products

few = settings(max_examples=60, deadline=None, derandomize=True)
angle = st.floats(-720.0, 720.0)
# Poles, their neighbourhood down to angles far below rounding, and everything else.
tilt = st.one_of(
    st.sampled_from([0.0, 180.0, 1e-12, 1e-7, 1e-5, 1e-3, 180.0 - 1e-5, 180.0 - 1e-3]),
    st.floats(0.0, 180.0),
)


def rotation_x_oracle(degrees):
    c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    return np.array([[1.0, 0.0, 0.0], [0.0, c, -s], [0.0, s, c]])


@given(angle)
@few
def test_rotations_about_the_axes(degrees):
    for ours, expected in (
        (rotations.rotation_x, rotation_x_oracle),
        (rotations.rotation_y, oracle.rotation_y),
        (rotations.rotation_z, oracle.rotation_z),
    ):
        np.testing.assert_allclose(
            ours(np.asarray(degrees)), expected(degrees), rtol=0, atol=1e-14
        )


def test_axes_are_right_handed():
    quarter = np.asarray(90.0)
    x, y, z = np.eye(3)
    np.testing.assert_allclose(rotations.rotation_x(quarter) @ y, z, atol=1e-15)
    np.testing.assert_allclose(rotations.rotation_y(quarter) @ z, x, atol=1e-15)
    np.testing.assert_allclose(rotations.rotation_z(quarter) @ x, y, atol=1e-15)


def test_euler_matrices_of_the_peer():
    data = frozen("rotations")
    # float64 on both sides
    np.testing.assert_allclose(
        rotations.euler_to_matrix(data["euler_deg"]), data["matrices"], rtol=0, atol=1e-14
    )


@given(angle, tilt, angle)
@few
def test_euler_matrix_is_the_oracle_s(phi, theta, psi):
    ours = rotations.euler_to_matrix(np.array([phi, theta, psi]))
    # Angles up to 720 degrees are 13 rad, where one rounding is 2e-15.
    np.testing.assert_allclose(
        ours, oracle.euler_matrix(phi, theta, psi), rtol=0, atol=1e-14
    )


@given(angle, tilt, angle)
@example(123.0, 0.0, 77.0)
@example(123.0, 180.0, 77.0)
@example(0.0, 0.0, 0.0)
@example(-1e-14, 30.0, -1e-14)  # must not come back as 360
@few
def test_euler_round_trip(phi, theta, psi):
    matrix = rotations.euler_to_matrix(np.array([phi, theta, psi]))
    back = rotations.matrix_to_euler(matrix)
    assert 0 <= back[0] < 360 and 0 <= back[1] <= 180 and 0 <= back[2] < 360
    again = rotations.euler_to_matrix(back)
    # At a pole theta is reported within sqrt(eps) or not at all: below a sine of 1e-6
    # (6e-5 degrees) the tilt's direction is dropped, its angle kept.
    np.testing.assert_allclose(again, matrix, rtol=0, atol=3e-6)
    if np.hypot(matrix[0, 2], matrix[1, 2]) > 1e-5:
        np.testing.assert_allclose(again, matrix, rtol=0, atol=1e-9)


def test_phi_is_zero_at_the_poles():
    for theta in (0.0, 180.0):
        matrix = rotations.euler_to_matrix(np.array([40.0, theta, 30.0]))
        phi, back, psi = rotations.matrix_to_euler(matrix)
        assert phi == 0.0
        assert back == pytest.approx(theta, abs=1e-6)
        # phi + psi counts at one pole, psi - phi at the other.
        assert psi == pytest.approx(70.0 if theta == 0 else 350.0, abs=1e-9)


@pytest.mark.parametrize("theta", [1e-4, 1e-3, 1e-2, 179.999, 179.9999])
def test_euler_angles_of_single_precision_matrices_near_the_poles(theta):
    """A refined rotation is a float32 product; its angles must describe that product.

    Near a pole phi and psi by themselves are lost in rounding (6e-8 over the sine of
    theta); what must not be lost is the rotation that they stand for together.
    """
    rng = np.random.default_rng(2)
    for _ in range(20):
        phi, psi, other = rng.uniform(0, 360, 3)
        start = oracle.euler_matrix(other, 50.0, 120.0)
        rest = start.T @ oracle.euler_matrix(phi, theta, psi)
        product = start.astype(np.float32) @ rest.astype(np.float32)
        back = rotations.matrix_to_euler(product.astype(np.float64))
        again = oracle.euler_matrix(*back)
        # A few float32 roundings of 6e-8 rad = 3e-6 degrees; sine below 1e-6 is a pole.
        assert oracle.angle_between(again, product) < 1e-4


def test_angles_match_the_oracle_away_from_the_poles():
    rng = np.random.default_rng(1)
    for _ in range(20):
        euler = rng.uniform([0, 1, 0], [360, 179, 360])
        matrix = oracle.euler_matrix(*euler)
        ours = rotations.matrix_to_euler(matrix)
        np.testing.assert_allclose(ours, oracle.euler_angles(matrix), atol=1e-9)
        np.testing.assert_allclose(ours, euler, atol=1e-9)


def rodrigues(vector_deg):
    """Rotate each basis vector v: a(a.v) + cos (v - a(a.v)) + sin (a x v)."""
    angle = np.linalg.norm(np.deg2rad(vector_deg))
    if angle == 0:
        return np.eye(3)
    axis = np.deg2rad(vector_deg) / angle
    columns = []
    for v in np.eye(3):
        along = axis * (axis @ v)
        columns.append(
            along + np.cos(angle) * (v - along) + np.sin(angle) * np.cross(axis, v)
        )
    return np.stack(columns, axis=1)


@pytest.mark.parametrize("length", [0.0, 1e-9, 1e-4, 0.3, 0.5729, 0.5730, 2.5, 90.0, 179.9])
def test_rotation_vectors(length):
    rng = np.random.default_rng(3)
    for _ in range(5):
        direction = rng.standard_normal(3)
        vector = length * direction / np.linalg.norm(direction)
        # The formulas switch at 0.573 degrees; both sides are good to rounding.
        np.testing.assert_allclose(
            rotations.rotation_vector_to_matrix(vector),
            rodrigues(vector),
            rtol=0,
            atol=1e-13,
        )


def test_rotation_vectors_along_the_axes_are_the_rotations_about_them():
    for axis, rotation in enumerate(
        (rotations.rotation_x, rotations.rotation_y, rotations.rotation_z)
    ):
        vector = np.zeros(3)
        vector[axis] = 12.5
        np.testing.assert_allclose(
            rotations.rotation_vector_to_matrix(vector),
            rotation(np.asarray(12.5)),
            atol=1e-15,
        )


@pytest.mark.parametrize("length", [0.0, 1e-5, 1.0, 60.0, 120.0, 179.0])
def test_back_to_rotation_vectors(length):
    rng = np.random.default_rng(3)
    axis = rng.standard_normal((5, 3))
    vector = length * axis / np.linalg.norm(axis, axis=1, keepdims=True)
    back = rotations.matrix_to_rotation_vector(rotations.rotation_vector_to_matrix(vector))
    np.testing.assert_allclose(back, vector, rtol=0, atol=1e-9)


def test_gradient_of_the_rotation_vector_at_zero():
    jacobian = jax.jit(jax.jacfwd(rotations.rotation_vector_to_matrix))(jnp.zeros(3))
    for axis in range(3):
        generator = np.cross(np.eye(3)[axis], np.eye(3)).T
        np.testing.assert_allclose(
            jacobian[..., axis], np.deg2rad(generator), rtol=0, atol=1e-9
        )
    # R00 = 1 - (y² + z²)/2: second derivatives are there too.
    second = jax.jit(jax.hessian(lambda v: rotations.rotation_vector_to_matrix(v)[0, 0]))
    expected = -np.diag([0, 1, 1]) * np.deg2rad(1.0) ** 2
    np.testing.assert_allclose(second(jnp.zeros(3)), expected, rtol=1e-5, atol=1e-9)


@given(angle, tilt, angle, st.floats(0.0, 180.0))
@few
def test_angle_between(phi, theta, psi, turned):
    matrix = oracle.euler_matrix(phi, theta, psi)
    other = matrix @ oracle.rotation_z(10.0) @ oracle.rotation_y(turned)
    other = other @ oracle.rotation_z(-10.0)
    measured = rotations.angle_between_deg(matrix, other)
    # asin is steep at 180 degrees: rounding of 1e-16 becomes 1e-8 rad = 1e-6 degrees.
    np.testing.assert_allclose(measured, turned, rtol=0, atol=3e-6)
    if turned < 170:
        np.testing.assert_allclose(measured, turned, rtol=0, atol=1e-10)


EVERY = [
    (rotations.rotation_x, ()),
    (rotations.rotation_y, ()),
    (rotations.rotation_z, ()),
    (rotations.euler_to_matrix, (3,)),
    (rotations.rotation_vector_to_matrix, (3,)),
    (rotations.matrix_to_euler, (3, 3)),
]


@pytest.mark.parametrize(("function", "shape"), EVERY)
@pytest.mark.parametrize("batch", [(), (4,), (2, 3)])
def test_numpy_stays_float64_and_jax_agrees(function, shape, batch):
    rng = np.random.default_rng(4)
    values = rng.uniform(10, 170, (*batch, *shape))
    if shape == (3, 3):
        values = rotations.euler_to_matrix(rng.uniform(10, 170, (*batch, 3)))
    ours = function(values)
    assert isinstance(ours, np.ndarray) and ours.dtype == np.float64
    assert ours.shape[: len(batch)] == batch
    single = jax.jit(function)(jnp.asarray(values))
    assert isinstance(single, jax.Array) and single.dtype == jnp.float32
    # float32: 1e-7 of 360 degrees, or of 1 in a matrix after 3 rad of argument
    atol = 2e-4 if shape == (3, 3) else 2e-6
    np.testing.assert_allclose(single, ours, rtol=0, atol=atol)


@pytest.mark.parametrize(("function", "shape"), EVERY)
def test_jax_gradients(function, shape):
    rng = np.random.default_rng(5)
    values = rng.uniform(10, 170, shape)
    if shape == (3, 3):
        values = rotations.euler_to_matrix(rng.uniform(10, 170, 3))
    direction = rng.standard_normal(shape)
    tangent = jax.jit(lambda x, dx: jax.jvp(function, (x,), (dx,))[1])
    slope = tangent(jnp.asarray(values), jnp.asarray(direction))
    step = 1e-4
    above = function(np.asarray(values + step * direction))
    below = function(np.asarray(values - step * direction))
    numerical = (above - below) / (2 * step)
    # central differences in float64 err by step²; the gradient is float32's
    scale = np.abs(numerical).max()
    np.testing.assert_allclose(slope, numerical, rtol=0, atol=2e-5 * scale)


def test_angle_between_is_finite_in_single_precision():
    rotation = jnp.asarray(oracle.euler_matrix(12.0, 34.0, 56.0), jnp.float32)
    assert rotations.angle_between_deg(rotation, rotation) == 0.0
    turned = jnp.asarray(oracle.euler_matrix(12.0, 34.0, 56.1), jnp.float32)
    # float32 matrices differ by 6e-8 per element: some 1e-5 degrees.
    assert rotations.angle_between_deg(rotation, turned) == pytest.approx(0.1, abs=3e-5)


@pytest.mark.parametrize(("function", "shape"), EVERY)
def test_no_matrix_product_loses_digits_on_accelerators(function, shape):
    """By default a GPU multiplies float32 matrices with 11 bits: 0.03 degrees."""
    highest = jax.lax.Precision.HIGHEST
    for precision in matrix_products(function, jnp.ones(shape)):
        assert precision == (highest, highest)
