"""Search grids, compared with a plain grid and Leopard-EM's frozen ones; and coverage."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxrefine.refine import grids
from tests.leopard_em_reference import frozen
from tests.oracles import local_grid as oracle
from tests.oracles import rotations

DOCUMENTED = dict(psi_coarse=1.5, psi_fine=0.1, theta_coarse=2.5, theta_fine=0.25)
COARSER = dict(psi_coarse=1.5, psi_fine=0.15, theta_coarse=2.5, theta_fine=0.25)


def rotation_vectors(matrices):
    """Rotation vectors in degrees, (k, 3) xyz, of rotations by less than 180 degrees."""
    matrices = np.asarray(matrices, np.float64)
    axis = np.stack(
        [
            matrices[:, 2, 1] - matrices[:, 1, 2],
            matrices[:, 0, 2] - matrices[:, 2, 0],
            matrices[:, 1, 0] - matrices[:, 0, 1],
        ],
        axis=1,
    )
    sine = np.linalg.norm(axis, axis=1) / 2
    angle = np.arctan2(sine, (np.trace(matrices, axis1=1, axis2=2) - 1) / 2)
    factor = np.where(sine > 1e-12, angle / np.maximum(sine, 1e-12), 1.0)
    return np.rad2deg(axis / 2 * factor[:, None])


def assert_same_set(ours, expected, atol):
    """Equal as sets of rotations, each once."""
    assert len(ours) == len(expected)
    distance = np.linalg.norm(
        rotation_vectors(ours)[:, None] - rotation_vectors(expected)[None], axis=-1
    )
    nearest = distance.argmin(axis=1)
    assert distance.min(axis=1).max() < atol
    assert len(set(nearest)) == len(expected)


def assert_rotations(matrices):
    np.testing.assert_allclose(
        matrices @ np.swapaxes(matrices, 1, 2),
        np.broadcast_to(np.eye(3), matrices.shape),
        0,
        1e-12,
    )
    assert np.all(np.linalg.det(matrices) > 0)


# --- uniform ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("psi", "theta", "count"),
    [
        ((1.5, 0.1), (2.5, 0.25), 31 * 347),  # the documented steps
        ((1.5, 0.15), (2.5, 0.25), 21 * 347),
        ((1.0, 0.3), (1.0, 0.4), 7 * (1 + 6 + 13)),  # no multiples: stay inside
        ((0.3, 0.1), (0.0, 0.5), 7),  # 0.3 / 0.1 is below 3 in floating point
        ((0.0, 0.1), (1.0, 0.5), 1 + 6 + 13),
        ((0.0, 1.0), (0.0, 1.0), 1),
        ((1.0, 2.0), (1.0, 2.0), 1),  # a step wider than the range
    ],
)
def test_uniform_counts_and_set(psi, theta, count):
    ours, at_edge = grids.uniform_orientations(
        psi_coarse=psi[0], psi_fine=psi[1], theta_coarse=theta[0], theta_fine=theta[1]
    )
    assert ours.shape == (count, 3, 3) and at_edge.shape == (count,)
    assert ours.dtype == np.float64
    assert_rotations(ours)
    if count < 1000:
        # float64 on both sides; no two orientations are as near as that
        assert_same_set(ours, oracle.uniform_grid(*psi, *theta), 1e-9)
    else:
        expected = oracle.uniform_grid(*psi, *theta)
        for one, other in ((ours, expected), (expected, ours)):
            # sorted by tilt and direction: compared as sorted lists of vectors
            np.testing.assert_allclose(
                sorted_vectors(one), sorted_vectors(other), atol=1e-8
            )


def sorted_vectors(matrices):
    vectors = np.round(rotation_vectors(matrices), 6) + 0.0
    return vectors[np.lexsort(vectors.T)]


def test_uniform_covers_three_axes():
    grid, _ = grids.uniform_orientations(**DOCUMENTED)
    vectors = rotation_vectors(grid)
    assert np.sum(np.linalg.norm(vectors, axis=1) < 1e-9) == 1  # the identity, once
    for axis, reach in ((0, 2.5), (1, 2.5), (2, 1.5)):
        # 63 directions on the outermost ring: one within 3 degrees of x, cos 3° = 0.9986
        assert vectors[:, axis].max() == pytest.approx(reach, abs=0.01)
        assert vectors[:, axis].min() == pytest.approx(-reach, abs=0.01)


def test_uniform_is_symmetric_in_plane():
    grid, _ = grids.uniform_orientations(**COARSER)
    by_tilt = grid.reshape(347, 21, 3, 3)
    spin = np.swapaxes(by_tilt[:, 10:11], -1, -2) @ by_tilt
    psi = np.rad2deg(np.arctan2(spin[..., 1, 0], spin[..., 0, 0]))
    np.testing.assert_allclose(psi, np.tile(0.15 * np.arange(-10, 11), (347, 1)), atol=1e-9)
    # A tilt by itself brings no rotation about the beam.
    bare = rotation_vectors(by_tilt[:, 10])
    np.testing.assert_allclose(bare[:, 2], 0, atol=1e-12)
    # The tilts' directions balance out on every ring but those that are too coarse.
    np.testing.assert_allclose(bare.mean(axis=0), 0, atol=1e-12)


def test_uniform_edges():
    grid, at_edge = grids.uniform_orientations(**COARSER)
    tilt = np.rad2deg(np.arccos(np.clip(grid[:, 2, 2], -1, 1)))
    psi = np.tile(0.15 * np.arange(-10, 11), 347)
    expected = (tilt > 2.5 - 1e-6) | (np.abs(psi) > 1.5 - 1e-9)
    np.testing.assert_array_equal(at_edge, expected)
    assert at_edge.sum() == 63 * 21 + 2 * (347 - 63)


@pytest.mark.parametrize(
    ("settings", "edges"),
    [
        (dict(psi_coarse=1.0, psi_fine=0.5, theta_coarse=0.0, theta_fine=0.5), 2),
        (dict(psi_coarse=0.0, psi_fine=0.5, theta_coarse=1.0, theta_fine=0.5), 13),
        (dict(psi_coarse=0.0, psi_fine=0.5, theta_coarse=0.0, theta_fine=0.5), 0),
    ],
)
def test_what_is_not_searched_has_no_edge(settings, edges):
    _, at_edge = grids.uniform_orientations(**settings)
    assert at_edge.sum() == edges


# --- what it is for: the best reachable orientation -------------------------------------


def best_errors(offsets, truths):
    """Angle in degrees from each truth to the nearest offset."""
    traces = np.einsum("tij,kij->tk", truths, offsets).max(axis=1)
    return np.rad2deg(np.arccos(np.clip((traces - 1) / 2, -1, 1)))


def random_offsets(n, tilt_max, psi_max, rng):
    """Truths around a coarse search's result: tilts fill a disk, in-plane an interval."""
    tilt = tilt_max * np.sqrt(rng.uniform(size=n))
    direction = rng.uniform(0, 360, n)
    psi = rng.uniform(-psi_max, psi_max, n)
    return np.stack(
        [oracle.tilt_offset(*one) for one in zip(tilt, direction, psi, strict=True)]
    )


def test_the_best_reachable_error():
    """Coverage of true offsets within half a cell of the coarse search.

    The peer's grid hardly turns about one of the tilt axes and is left with that axis's
    mean error of 0.5 degrees and more, however fine its steps.
    """
    truths = random_offsets(600, 2.5 / 2, 1.5 / 2, np.random.default_rng(0))
    ours, _ = grids.uniform_orientations(**DOCUMENTED)
    peer, _ = grids.leopard_em_orientations(**DOCUMENTED)
    # 600 truths: the means are good to 0.002 and 0.02 degrees.
    assert best_errors(ours, truths).mean() == pytest.approx(0.11, abs=0.01)
    assert best_errors(peer, truths).mean() == pytest.approx(0.60, abs=0.05)
    # Nothing within reach is further than half the diagonal of a cell of the grid.
    cell = np.array([0.25, 0.25 * 1.05, 0.1])
    assert best_errors(ours, truths).max() < np.linalg.norm(cell) / 2 + 0.01


# --- cartesian -------------------------------------------------------------------------


def test_cartesian_is_the_product_of_three_axes():
    grid, at_edge = grids.cartesian_orientations(
        phi_coarse=1.0,
        phi_fine=0.5,
        theta_coarse=0.6,
        theta_fine=0.2,
        psi_coarse=2.0,
        psi_fine=1.0,
    )
    assert grid.shape == (5 * 7 * 5, 3, 3)
    assert_rotations(grid)
    x = 0.5 * np.arange(-2, 3)
    y = 0.2 * np.arange(-3, 4)
    psi = 1.0 * np.arange(-2, 3)
    by_axis = grid.reshape(5, 7, 5, 3, 3)
    bare = rotation_vectors(by_axis[:, :, 2].reshape(-1, 3, 3)).reshape(5, 7, 3)
    np.testing.assert_allclose(bare[..., 0], np.tile(x[:, None], (1, 7)), atol=1e-9)
    np.testing.assert_allclose(bare[..., 1], np.tile(y, (5, 1)), atol=1e-9)
    np.testing.assert_allclose(bare[..., 2], 0, atol=1e-9)
    for index, angle in enumerate(psi):
        np.testing.assert_allclose(
            by_axis[:, :, index], by_axis[:, :, 2] @ rotations.rotation_z(angle), atol=1e-12
        )
    edges = np.zeros((5, 7, 5), bool)
    edges[[0, -1]] = edges[:, [0, -1]] = edges[:, :, [0, -1]] = True
    np.testing.assert_array_equal(at_edge.reshape(5, 7, 5), edges)


def test_cartesian_with_axes_switched_off():
    grid, at_edge = grids.cartesian_orientations(
        phi_coarse=0.0,
        phi_fine=0.5,
        theta_coarse=1.0,
        theta_fine=0.5,
        psi_coarse=0.0,
        psi_fine=1.0,
    )
    vectors = rotation_vectors(grid)
    np.testing.assert_allclose(vectors[:, 1], [-1, -0.5, 0, 0.5, 1], atol=1e-9)
    np.testing.assert_allclose(vectors[:, [0, 2]], 0, atol=1e-9)
    np.testing.assert_array_equal(at_edge, [True, False, False, False, True])


# --- the peer's ------------------------------------------------------------------------

PEER = frozen("grids")


@pytest.mark.parametrize("index", range(len(PEER["steps_deg"])))
def test_leopard_em_grid(index):
    psi_coarse, psi_fine, theta_coarse, theta_fine = (
        float(x) for x in PEER["steps_deg"][index]
    )
    ours, at_edge = grids.leopard_em_orientations(
        psi_coarse=psi_coarse,
        psi_fine=psi_fine,
        theta_coarse=theta_coarse,
        theta_fine=theta_fine,
    )
    euler = PEER[f"euler_deg_{index}"]
    expected = np.stack([rotations.euler_matrix(*angles) for angles in euler])
    assert ours.shape == expected.shape and at_edge.shape == (len(euler),)
    # Same order; the peer's angles are float32, good to 1e-6 degrees at 20.
    np.testing.assert_allclose(ours, expected, rtol=0, atol=5e-8)


def test_leopard_em_counts():
    rows = PEER["steps_deg"]
    counts = [
        len(
            grids.leopard_em_orientations(
                psi_coarse=float(a),
                psi_fine=float(b),
                theta_coarse=float(c),
                theta_fine=float(d),
            )[0]
        )
        for a, b, c, d in rows[:8]
    ]
    assert counts == [651, 441, 221, 143, 121, 77, 25, 9]


def test_leopard_em_hardly_turns_about_one_axis():
    grid, at_edge = grids.leopard_em_orientations(**COARSER)
    vectors = rotation_vectors(grid)
    reach = np.abs(vectors).max(axis=0)
    assert reach[0] < 0.1 and reach[1] > 2.4
    assert 0 < at_edge.sum() < len(at_edge)
    tilt = np.rad2deg(np.arccos(np.clip(grid[:, 2, 2], -1, 1)))
    assert np.all(at_edge[tilt > 2.5 - 1e-4])


# --- offsets ---------------------------------------------------------------------------

SEARCHES = frozen("searches")


@pytest.mark.parametrize("index", range(len(SEARCHES["ranges"])))
def test_offsets_of_the_peer(index):
    low, high, step, skip = SEARCHES["ranges"][index]
    ours = grids.search_offsets(
        float(low),
        float(high),
        float(step),
        skip_enforce_zero=bool(skip),
        past_maximum=True,
    )
    peer = SEARCHES[f"offsets_{index}"]
    assert ours.shape == peer.shape
    # float32 on the peer's side
    np.testing.assert_allclose(ours, peer, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((-100.0, 100.0, 20.0), np.arange(-100, 101, 20)),
        ((-100.0, 100.0, 30.0), [-100, -70, -40, -10, 0, 20, 50, 80]),  # not 110
        ((20.0, 60.0, 20.0), [0, 20, 40, 60]),
        ((-60.0, -20.0, 20.0), [-60, -40, -20, 0]),
        ((-30.0, 50.0, 20.0), [-30, -10, 0, 10, 30, 50]),
        ((0.0, 0.0, 1.0), [0]),
        ((5.0, 5.0, 1.0), [0, 5]),
        ((0.0, 0.5, 1.0), [0]),
        ((-0.005, 0.005, 0.001), 0.001 * np.arange(-5, 6)),
        ((-0.3, 0.3, 0.1), 0.1 * np.arange(-3, 4)),
        ((-1.0, 1.0, 0.1), 0.1 * np.arange(-10, 11)),
    ],
)
def test_our_offsets_stop_at_the_maximum(arguments, expected):
    offsets = grids.search_offsets(*arguments)
    np.testing.assert_allclose(offsets, expected, rtol=0, atol=1e-12)
    assert np.sum(offsets == 0.0) == 1  # exactly, not nearly
    assert np.all(np.diff(offsets) > 0)


def test_zero_is_left_out_on_demand():
    left_out = grids.search_offsets(20.0, 60.0, 20.0, skip_enforce_zero=True)
    np.testing.assert_array_equal(left_out, [20, 40, 60])
    missed = grids.search_offsets(-100.0, 100.0, 30.0, skip_enforce_zero=True)
    assert 0.0 not in missed and len(missed) == 7
    # where the spacing meets it, it stays
    assert 0.0 in grids.search_offsets(-40.0, 40.0, 20.0, skip_enforce_zero=True)


@pytest.mark.parametrize("arguments", [(0.0, 1.0, 0.0), (0.0, 1.0, -1.0), (1.0, 0.0, 0.1)])
def test_senseless_ranges_are_refused(arguments):
    with pytest.raises(ValueError, match="min ≤ max, step > 0"):
        grids.search_offsets(*arguments)


# --- put together ----------------------------------------------------------------------


def test_local_grid():
    orientations = grids.uniform_orientations(
        psi_coarse=1.0, psi_fine=1.0, theta_coarse=1.0, theta_fine=1.0
    )
    defocus = grids.search_offsets(-40.0, 40.0, 20.0)
    grid = grids.local_grid(orientations, defocus, np.array([-0.01, 0.0]), "volume")
    assert grid.shape == (2, 5, 21) and grid.frame == "volume"
    assert all(
        leaf.dtype == jnp.float32
        for leaf in (grid.rotation, grid.defocus_angstrom, grid.pixel_size_angstrom)
    )
    np.testing.assert_allclose(grid.rotation, orientations[0], atol=1e-7)
    np.testing.assert_array_equal(grid.rotation_at_edge, orientations[1])


def test_what_is_left_out_is_a_single_zero():
    grid = grids.local_grid()
    assert grid.shape == (1, 1, 1) and grid.frame == "image"
    np.testing.assert_array_equal(grid.rotation[0], np.eye(3))
    assert grid.defocus_angstrom[0] == 0 and grid.pixel_size_angstrom[0] == 0
    assert not grid.rotation_at_edge[0]
