"""Number of nodes from which slices are interpolated over orientations."""

import functools
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrefine import simulate as sim
from jaxrefine.physics.rotations import euler_to_matrix, rotation_vector_to_matrix
from jaxrefine.physics.slices import central_slice, make_template
from jaxrefine.refine.grids import uniform_orientations
from jaxrefine.refine.node_counts import count_orientation_nodes
from jaxrefine.refine.nodes import OrientationNodes, reach, turn
from tests.worlds import single

OFFSETS = uniform_orientations(
    psi_coarse=1.5, psi_fine=0.5, theta_coarse=2.5, theta_fine=0.5
)[0]


def atoms(radius, blur=20.0, stretch=(1.0, 1.0, 1.0)):
    """A particle of 1 Å per voxel; positions are x, y, z."""
    made = sim.random_globule(500, radius, np.random.default_rng(0)).blurred(blur)
    return replace(made, positions_angstrom=made.positions_angstrom * np.array(stretch))


@functools.cache
def template(side, *of):
    return make_template(sim.potential_volume(atoms(*of), side, 1.0))


def rms_of_slices(template, counts):
    """Root mean squares of interpolation errors, of changes over the grid, of slices."""
    some = single(OFFSETS[:: max(len(OFFSETS) // 100, 1)])
    starts = single(sim.random_rotations(4, np.random.default_rng(1)))

    @jax.jit
    def both(start):
        nodes = OrientationNodes.around(single(OFFSETS), counts)
        rows, wanted = (
            jnp.matmul(start, r, precision="highest") for r in (nodes.rotation, some)
        )
        at_nodes = jax.lax.map(lambda r: central_slice(template, r), rows, batch_size=16)
        exact = jax.lax.map(lambda r: central_slice(template, r), wanted, batch_size=16)
        weights = nodes.weights(some).astype(at_nodes.dtype)
        return exact, jnp.einsum("bn,nyx->byx", weights, at_nodes, precision="highest")

    side = template.side
    k2 = np.fft.fftfreq(side)[:, None] ** 2 + np.fft.rfftfreq(side) ** 2
    weight = np.sin(np.pi / 2 * np.minimum(400 * k2, 1)) * (k2 < 0.25)
    squares = []
    for start in starts:
        exact, interpolated = (weight * np.asarray(each) for each in both(start))
        parts = interpolated - exact, exact - exact.mean(axis=0), exact
        squares.append([np.mean(np.abs(part) ** 2) for part in parts])
    return np.sqrt(np.mean(squares, axis=0))


@pytest.mark.slow
@pytest.mark.parametrize("tolerance", [0.15, 0.05])
@pytest.mark.parametrize("stretch", [(1.0, 1.0, 1.0), (0.4, 0.4, 1.5)])
def test_enough_nodes_and_not_many_more(tolerance, stretch):
    """For a round particle, and for an elongated one."""
    made = template(64, 22.0, 20.0, stretch)
    counts = count_orientation_nodes(OFFSETS, made, tolerance)
    wrong, change, whole = rms_of_slices(made, counts)
    allowed = max(tolerance * change, 0.006 * whole)
    # As much is allowed for each of the three axes, whose errors add up.
    assert wrong < np.sqrt(3) * allowed
    fewer = (counts[0] - 1, counts[1] - 1)
    assert rms_of_slices(made, fewer)[0] > np.sqrt(3) * allowed


def test_nodes_follow_the_signal():
    """Not the cube around it: its extent, and its detail."""
    counts = [
        count_orientation_nodes(OFFSETS, template(*of), 0.05)
        for of in ((48, 16.0), (96, 16.0), (96, 32.0), (96, 32.0, 300.0))
    ]
    same, in_more_space, larger, blurred = (OrientationNodes.count(c) for c in counts)
    assert abs(in_more_space - same) <= 0.35 * same  # one degree less, for better samples
    assert larger > 1.5 * in_more_space
    assert blurred < 0.6 * larger


def test_no_nodes_without_rotation():
    in_plane = uniform_orientations(
        psi_coarse=1.5, psi_fine=0.5, theta_coarse=0.0, theta_fine=1.0
    )[0]
    tilts, angles = count_orientation_nodes(in_plane, template(48, 16.0), 0.05)
    assert tilts == 1 < angles
    assert count_orientation_nodes(np.eye(3)[None], template(48, 16.0), 0.05) == (1, 1)


def test_large_rotations_are_not_interpolated():
    far = euler_to_matrix(np.array([[0.0, 0.0, 0.0], [0.0, 60.0, 0.0]]))
    assert count_orientation_nodes(far, template(48, 16.0), 0.05) is None


@pytest.mark.parametrize("square", [False, True])
def test_all_tilts_are_inside(square):
    """Nodes surround the tilts, also those in the corners of a square."""
    tilt = np.linspace(-4.0, 4.0, 9)
    x, y = (axis.ravel() for axis in np.meshgrid(tilt, 2 * tilt))
    inside = np.full(x.shape, square) | (x**2 + (y / 2) ** 2 <= 16)
    angle = np.stack([x, y, 0 * x], axis=-1)[inside]
    offsets = np.asarray(rotation_vector_to_matrix(single(angle)))
    unit = np.asarray(turn(single(offsets)) / reach(single(offsets)))[:, :2]
    assert np.linalg.norm(unit, axis=1).max() == pytest.approx(1.0, abs=2e-3)
