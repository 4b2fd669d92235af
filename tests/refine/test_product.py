"""The matrix products of the search: columns, nodes and norms."""

import functools
from dataclasses import replace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrefine import simulate as sim
from jaxrefine.physics.slices import central_slice, make_template
from jaxrefine.refine import nodes, norms, product
from jaxrefine.refine.grids import local_grid, uniform_orientations
from jaxrefine.refine.layout import Layout, count_defocus_nodes, plan_layout
from jaxrefine.refine.node_counts import count_orientation_nodes
from jaxrefine.refine.norms import measure_norms as measured
from jaxrefine.refine.search import pose_rotations, z_scores
from jaxrefine.refine.template_ctf import TemplateCTF
from tests.oracles import ctf, rotations
from tests.worlds import Imaging, ball, one_particle, single

pytestmark = pytest.mark.usefixtures("compiled_to_run_fast")

SIDE, BOX = 16, (20, 22)
IMAGING = Imaging(defocus=(3000.0, 2800.0), angle=20.0, pixel_size=2.0, b=0.0)
SCORES = {
    "image": IMAGING.image_ctf(BOX, SIDE, defocus=600.0, pixel_size=0.1),
    "template": TemplateCTF(BOX, SIDE),
    "peer": TemplateCTF(BOX, SIDE, pixel_size_changes_cs=True),
}
# One score is enough for a quick look.
SLOW = [pytest.param(kind, marks=pytest.mark.slow) for kind in ("template", "peer")]
KINDS = pytest.mark.parametrize("kind", ["image", *SLOW])
START = rotations.euler_matrix(30.0, 70.0, 110.0)


def uneven(k):
    return 0.4 + 1.2 * k


@functools.cache
def setting(kind):
    """Score, a particle of noise with an uneven filter, and a template."""
    score = SCORES[kind]
    cut = np.random.default_rng(0).standard_normal(score.padded_box) + 0.3
    particle = one_particle(
        score, cut, IMAGING, rotation=START, template_pixel_size=1.9, curve=uneven
    )
    volume = sim.potential_volume(ball(SIDE, IMAGING.pixel_size, b=100.0), SIDE, 2.0)
    return score, particle, make_template(volume, "padded")


# --- columns ---------------------------------------------------------------------------


@pytest.mark.slow
@KINDS
def test_slices_times_columns_are_the_correlation(kind):
    """At every position, and at offsets of pixel size and defocus."""
    score, particle, template = setting(kind)
    grid = local_grid(None, np.array([-600.0, 100.0]), np.array([0.0, 0.08]))

    corners = jnp.stack(jnp.indices(score.positions), axis=-1).reshape(-1, 2)

    @jax.jit
    def both(pose, m, l):
        prepared = score.prepare(particle, grid)
        exact = score.correlate(prepared, template, pose)
        norms = score.norms(prepared, template, pose)
        pixel_size = IMAGING.pixel_size + grid.pixel_size_angstrom[m]
        central = central_slice(template, pose, score.scale(particle, grid)[m])
        defocus = grid.defocus_angstrom[l]
        columns = score.columns(particle, pixel_size, defocus, corners)
        pairs = central.real * columns.real + central.imag * columns.imag
        product = jnp.sum(pairs, axis=(1, 2)).reshape(score.positions)
        return exact[m, l], product / norms[m, l]

    for m, l in ((0, 0), (0, 1), (1, 1)):
        exact, ours = both(single(START), m, l)
        assert exact.shape == (5, 7) and np.std(exact) > 0.3
        # Sums of 288 products in float32, in other orders; correlations of up to 3.
        np.testing.assert_allclose(ours, exact, rtol=0, atol=2e-5)


# --- nodes in defocus ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("half_range", "kv", "pixel_size"),
    [(100.0, 300.0, 1.0), (200.0, 300.0, 1.06), (1000.0, 200.0, 1.5), (3000.0, 300.0, 2.0)],
)
def test_enough_nodes_and_not_many_more(half_range, kv, pixel_size):
    """The CTF at Nyquist, the worst of all frequencies on an axis, over the whole range."""
    enough = count_defocus_nodes(half_range, kv, pixel_size)
    wavelength = ctf.electron_wavelength(kv)
    k2 = (0.5 / pixel_size) ** 2

    def at(defocus):
        return np.sin(np.pi * wavelength * k2 * defocus + 0.3)

    def error(count):
        offsets = np.linspace(-half_range, half_range, 60)
        places, weights = nodes.defocus_nodes(single(offsets), count)
        interpolated = np.asarray(weights, float) @ at(np.asarray(places, float))
        return np.abs(interpolated - at(offsets)).max()

    assert error(enough) < 0.03
    assert error(round(0.7 * enough) - 1) > 0.03


def planned_nodes(grid):
    optics = {"voltage_kv": 300.0, "pixel_size_angstrom": 1.0}
    template = setting("template")[2]
    return plan_layout(grid, SCORES["template"], template, **optics).defocus_nodes


def test_the_plan_takes_the_widest_phase():
    """The lowest voltage and the smallest pixels, searched offsets included."""
    defoci = np.linspace(-500.0, 500.0, 41)
    plain = local_grid(None, defoci)
    smaller = local_grid(None, defoci, np.array([-0.2, 0.0, 0.2]))
    expected = count_defocus_nodes(500.0, 300.0, 0.8)
    assert planned_nodes(smaller) == expected
    assert planned_nodes(plain) < expected
    # never more than there are offsets
    few = local_grid(None, np.array([-5000.0, 0.0, 5000.0]))
    assert planned_nodes(few) == 3
    assert planned_nodes(local_grid()) == 1


def test_a_single_defocus_needs_a_single_node():
    assert count_defocus_nodes(0.0, 300.0, 1.0) == 1


def test_interpolation_weights():
    offsets = np.array([-300.0, -100.0, 0.0, 200.0, 500.0])
    places, weights = nodes.defocus_nodes(single(offsets), 3)
    assert places.shape == (3,) and weights.shape == (5, 3)
    assert np.all((places > -300) & (places < 500))
    # exact for every quadratic
    for power in range(3):
        np.testing.assert_allclose(
            np.asarray(weights) @ np.asarray(places) ** power,
            offsets**power,
            rtol=1e-5,
            atol=1e-5 * 500.0**power,
        )
    # as many nodes as offsets, or more: the offsets themselves
    for count in (5, 9):
        places, weights = nodes.defocus_nodes(single(offsets), count)
        np.testing.assert_array_equal(places, offsets)
        np.testing.assert_array_equal(weights, np.eye(5))


# --- norms -----------------------------------------------------------------------------


@pytest.mark.slow
@KINDS
@pytest.mark.parametrize("ewald_sign", [0, 1])
def test_norms_from_power(kind, ewald_sign):
    """Of all orientations, although eight are measured; norms themselves vary far more."""
    side, box = 32, (36, 36)
    score = {
        "image": IMAGING.image_ctf(box, side, defocus=600.0, pixel_size=0.1),
        "template": TemplateCTF(box, side),
        "peer": TemplateCTF(box, side, pixel_size_changes_cs=True),
    }[kind]
    score = replace(score, ewald_sign=ewald_sign)
    cut = np.random.default_rng(0).standard_normal(score.padded_box)
    particle = one_particle(score, cut, IMAGING, rotation=START, curve=uneven)
    atoms = sim.random_globule(300, 22.0, np.random.default_rng(4)).blurred(20.0)
    template = make_template(sim.potential_volume(atoms, side, IMAGING.pixel_size))
    offsets = uniform_orientations(
        psi_coarse=3.0, psi_fine=1.0, theta_coarse=5.0, theta_fine=1.0
    )
    grid = local_grid(offsets, np.array([-300.0, 300.0]), np.array([0.0, 0.08]))
    poses = pose_rotations(particle, grid.rotation, grid)

    @jax.jit
    def both():
        prepared = score.prepare(particle, grid)
        its_norms, error = measured(score, particle, prepared, template, poses, grid)
        bend = score.curvature(particle)

        def one(pose):
            def power(scale):
                bends = [None] if bend is None else [bend, -bend]
                slices = [central_slice(template, pose, scale, each) for each in bends]
                return jnp.abs(jnp.stack(slices)) ** 2

            powers = jnp.stack([power(scale) for scale in score.scale(particle, grid)])
            weights = its_norms.weights.reshape(2, 2, *powers.shape[1:])
            squares = jnp.sum(weights * powers[:, None], axis=(2, 3, 4))
            exact = score.norms(prepared, template, pose)
            return jnp.sqrt(squares) * its_norms.ratio, exact

        return *jax.lax.map(one, poses, batch_size=16), error, its_norms.ratio

    by_power, exact, error, ratio = map(np.asarray, both())
    # But for lags beyond half the side, it is the norm.
    np.testing.assert_allclose(ratio, 1, rtol=0, atol=0.02)
    off = np.abs(by_power / exact - 1).max()
    assert off < 0.1 * np.ptp(np.log(exact), axis=0).max()
    # what it says of its error is half of it at least: the search takes it twice
    assert off < 2 * error + 1e-5


def test_nothing_is_known_of_norms_that_are_not_finite():
    score, particle, template = setting("template")
    grid = local_grid()
    empty = jax.tree.map(jnp.zeros_like, template)
    prepared = score.prepare(particle, grid)
    _, error = measured(score, particle, prepared, empty, single(START)[None], grid)
    assert np.isinf(error)


# --- nodes in orientation ---------------------------------------------------------------


def test_nodes_of_orientation():
    """Exact for polynomials of the rotation vector, and rotations are rotations."""
    offsets = uniform_orientations(
        psi_coarse=4.0, psi_fine=2.0, theta_coarse=6.0, theta_fine=2.0
    )[0]
    around = eqx.filter_jit(nodes.OrientationNodes.around)(single(offsets), (4, 2))
    count = nodes.OrientationNodes.count((4, 2))
    assert count == 20 and around.rotation.shape == (count, 3, 3)
    np.testing.assert_allclose(
        around.rotation @ jnp.swapaxes(around.rotation, 1, 2),
        np.tile(np.eye(3), (count, 1, 1)),
        rtol=0,
        atol=1e-6,
    )
    weights = eqx.filter_jit(type(around).weights)(around, single(offsets))
    weights = np.asarray(weights, float)
    at_nodes = np.asarray(nodes.turn(around.rotation), float)
    at_offsets = np.asarray(nodes.turn(single(offsets)), float)
    assert np.all(np.abs(at_nodes) < np.abs(at_offsets).max(axis=0))
    for powers in np.ndindex(4, 4, 2):
        if powers[0] + powers[1] > 3:
            continue
        scale = np.prod(np.abs(at_offsets).max(axis=0) ** powers)
        np.testing.assert_allclose(
            weights @ np.prod(at_nodes**powers, axis=1),
            np.prod(at_offsets**powers, axis=1),
            rtol=0,
            atol=1e-5 * scale,
        )


@pytest.mark.slow
def test_an_axis_about_which_nothing_turns():
    offsets = uniform_orientations(
        psi_coarse=4.0, psi_fine=1.0, theta_coarse=0.0, theta_fine=1.0
    )[0]
    around = eqx.filter_jit(nodes.OrientationNodes.around)(single(offsets), (1, 9))
    assert around.rotation.shape == (9, 3, 3)
    back = around.weights(single(offsets)) @ around.rotation.reshape(9, 9)
    np.testing.assert_allclose(back, offsets.reshape(-1, 9), rtol=0, atol=1e-6)


@pytest.mark.slow
@KINDS
def test_interpolated_promises(kind):
    """Few nodes for many orientations, with errors far below the differences of z."""
    score, particle, template = setting(kind)
    orientations = uniform_orientations(
        psi_coarse=3.0, psi_fine=0.5, theta_coarse=5.0, theta_fine=1.0
    )
    grid = local_grid(orientations, np.array([-100.0, 0.0, 100.0]))
    counts = count_orientation_nodes(orientations[0], template, 0.05)
    assert nodes.OrientationNodes.count(counts) < len(orientations[0]) / 10

    @jax.jit
    def both():
        prepared = score.prepare(particle, grid)
        poses = pose_rotations(particle, grid.rotation, grid)
        its_norms, _ = measured(score, particle, prepared, template, poses, grid)
        around = nodes.OrientationNodes.around(grid.rotation, counts)
        rows = pose_rotations(particle, around.rotation, grid)
        fixed = (score, particle, template, grid, its_norms, Layout(3))
        rough = product.approximate_best_z(*fixed, rows, (around, grid.rotation))
        return rough, product.approximate_best_z(*fixed, poses)

    rough, each = both()
    # A template of 16 px, whose slices are bent most: errors of 5 % of the change.
    assert np.std(rough - each) < 0.2 * np.std(each)
    np.testing.assert_allclose(rough, each, rtol=0, atol=0.15 * np.ptp(each))


# --- the whole -------------------------------------------------------------------------


def promised(score, particle, template, grid, layout):
    """A product for every orientation; and the error of the norms."""
    prepared = score.prepare(particle, grid)
    poses = pose_rotations(particle, grid.rotation, grid)
    its_norms, error = measured(score, particle, prepared, template, poses, grid)
    fixed = (score, particle, template, grid, its_norms, layout)
    return product.approximate_best_z(*fixed, poses), error


@pytest.mark.slow
def test_what_is_promised_is_nearly_so():
    score, particle, template = setting("image")
    orientations = uniform_orientations(
        psi_coarse=3.0, psi_fine=1.0, theta_coarse=5.0, theta_fine=1.0
    )
    grid = local_grid(orientations, np.arange(-400.0, 401.0, 100.0), np.array([0.0, 0.08]))
    std = np.random.default_rng(1).uniform(0.9, 1.1, score.positions)
    std[2, 3] = np.nan  # one position without a score
    particle = eqx.tree_at(lambda p: p.corr_std, particle, single(std))
    layout = Layout(count_defocus_nodes(400.0, 300.0, 2.0))
    assert layout.defocus_nodes < 9  # so that there is something to interpolate

    @eqx.filter_jit
    def both(particle):
        prepared = score.prepare(particle, grid)
        poses = pose_rotations(particle, grid.rotation, grid)
        approximate_z = promised(score, particle, template, grid, layout)

        def exactly(pose):
            return jnp.max(z_scores(score.correlate(prepared, template, pose), particle))

        return *approximate_z, jax.lax.map(exactly, poses, batch_size=16)

    approximate_z, norm_error, exact = both(particle)
    assert approximate_z.shape == (len(orientations[0]),)
    # The nodes are good to 3 % of the highest frequencies; z is about 3. The ball fills its
    # box, so that the border's mean, which norms by power lack, matters.
    assert 0 < norm_error < 0.05
    allowed = 0.01 + 2 * norm_error * (np.abs(exact) + 1)
    assert np.all(np.abs(approximate_z - exact) < allowed)
    assert np.abs(np.asarray(approximate_z) - np.asarray(exact)).max() > 1e-7


@pytest.mark.slow
def test_more_of_everything_than_a_block():
    """Blocks are padded; the padding must not count."""
    score, particle, template = setting("template")
    grid = local_grid(
        uniform_orientations(psi_coarse=2.0, psi_fine=1.0, theta_coarse=3.0, theta_fine=1.0)
    )
    # The best position of most orientations must be among the first and the last by turns.
    std = np.ones(score.positions)
    std[0, 0] = std[4, 6] = 0.3
    particle = eqx.tree_at(lambda p: p.corr_std, particle, single(std))

    @functools.partial(jax.jit, static_argnums=0)
    def approximate_z(layout):
        return promised(score, particle, template, grid, layout)[0]

    whole = approximate_z(Layout(1))
    column = 8 * SIDE * (SIDE // 2 + 1)
    for layout in (
        # 144 frequencies in three chunks of 48; 195 poses in four
        Layout(1, orientations=64, frequencies=50),
        # five chunks, one zero too many; 35 positions in four
        Layout(1, orientations=195, frequencies=29, column_bytes=9 * column),
        # one position at a time
        Layout(1, orientations=1000, frequencies=1000, column_bytes=1),
    ):
        np.testing.assert_allclose(approximate_z(layout), whole, rtol=0, atol=2e-5)


@pytest.mark.slow
def test_shared_columns_are_those_of_each_call():
    """They are shared only if all of them fit, which is not so for several pixel sizes."""
    score, particle, template = setting("image")
    grid = local_grid(
        uniform_orientations(psi_coarse=2.0, psi_fine=1.0, theta_coarse=3.0, theta_fine=1.0)
    )

    @jax.jit
    def both():
        layout = Layout(1)
        poses = pose_rotations(particle, grid.rotation, grid)
        prepared = score.prepare(particle, grid)
        its_norms, _ = measured(score, particle, prepared, template, poses, grid)
        shared = product.shared_columns(score, particle, grid, its_norms, layout)
        assert shared is not None
        fixed = (score, particle, template, grid, its_norms, layout, poses)
        z = functools.partial(product.approximate_best_z, *fixed)
        return z(shared=shared), z()

    np.testing.assert_array_equal(*both())
    unused = norms.Norms(jnp.zeros((1, 1, 1, 1)), jnp.ones((1, 1)))
    in_pieces = Layout(1, column_bytes=34 * 8 * SIDE * (SIDE // 2 + 1))
    assert product.shared_columns(score, particle, grid, unused, in_pieces) is None
    sizes = local_grid(None, pixel_size_angstrom=np.array([0.0, 0.08]))
    assert product.shared_columns(score, particle, sizes, unused, Layout(1)) is None


@pytest.mark.slow
@pytest.mark.parametrize(("precision", "worst"), [("float16", 2e-3), ("bfloat16", 2e-2)])
def test_half_precision_promises_nearly_the_same(precision, worst):
    """Inputs of 11 and 8 bits, sums in float32."""
    score, particle, template = setting("image")
    orientations = uniform_orientations(
        psi_coarse=2.0, psi_fine=1.0, theta_coarse=3.0, theta_fine=1.0
    )
    grid = local_grid(orientations, np.arange(-400.0, 401.0, 100.0))
    # Half precision alone would hold neither of these volumes.
    for factor in (1e-9, 1.0, 1e9):
        scaled = jax.tree.map(lambda leaf, f=factor: leaf * f, template)

        @functools.partial(jax.jit, static_argnums=0)
        def approximate_z(layout, scaled):
            return promised(score, particle, scaled, grid, layout)[0]

        exact = np.asarray(approximate_z(Layout(5), scaled))
        rounded = np.asarray(approximate_z(Layout(5, precision=precision), scaled))
        assert 0 < np.abs(rounded - exact).max() < worst
