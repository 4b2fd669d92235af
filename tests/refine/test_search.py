"""The exhaustive search, compared with plain loops: best, ties, exact scores."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from jaxrefine import simulate as sim
from jaxrefine.data import SearchGrid
from jaxrefine.physics.slices import make_template
from jaxrefine.refine import search
from jaxrefine.refine.grids import local_grid, uniform_orientations
from jaxrefine.refine.layout import Layout
from jaxrefine.refine.scoring import Score
from jaxrefine.refine.search import pose_rotations, search_particle, z_scores
from jaxrefine.refine.template_ctf import TemplateCTF
from tests.oracles import local_grid as oracle
from tests.oracles import rotations
from tests.oracles.plain_search import plain_search
from tests.worlds import Imaging, ball, batch_of, one_particle, signal_in_padded_box, single

pytestmark = pytest.mark.usefixtures("compiled_to_run_fast")

# --- a score that reads from a table: ties and counts are exact --------------------------

SHAPE = (2, 3, 21, 2, 4)  # pixel sizes, defoci, orientations, y, x


class TableScore(Score):
    """Correlations that are looked up; an orientation's matrix holds its number.

    Attributes:
        table: (m, l, k, Y, X).
        approximate_z: What the fast product says of each orientation, (k,).
        norm_error: Its estimate of its error.
        visits: Called with the number of each orientation that is scored exactly.
    """

    table: jax.Array
    approximate_z: jax.Array
    norm_error: jax.Array
    box: tuple[int, int] = eqx.field(static=True, default=(17, 19))
    side: int = eqx.field(static=True, default=16)
    visits: object = eqx.field(static=True, default=None)

    @property
    def padded_box(self):
        return self.box

    @property
    def filter_grid(self):
        return self.side, self.side

    def prepare(self, particle, grid):
        return self

    def correlate(self, prepared, template, rotation):
        number = rotation[0, 0].astype(int)
        if self.visits is not None:
            jax.debug.callback(self.visits, number)
        return prepared.table[:, :, number]

    def norms(self, prepared, template, rotation):
        raise NotImplementedError

    def power_weights(self, prepared):
        raise NotImplementedError

    def matched_filter(self, particle, template, pixel_size):
        raise NotImplementedError

    def columns(self, particle, pixel_size, defocus, corners):
        raise NotImplementedError


GRID = SearchGrid(
    rotation=jnp.arange(21, dtype=jnp.float32)[:, None, None] * jnp.eye(3),
    rotation_at_edge=jnp.zeros(21, bool),
    defocus_angstrom=jnp.arange(3.0),
    pixel_size_angstrom=jnp.arange(2.0),
)
ANY_TEMPLATE = make_template(np.indices((16,) * 3, np.float32)[0], "trilinear")
ANYONE = one_particle(TemplateCTF((17, 19), 16), np.zeros((17, 19)), Imaging())


@pytest.fixture(scope="module")
def promised():
    """The product is replaced by the approximate scores of the table."""
    product = search._approximate_scores

    def approximate_z(score, particle, template, grid, prepared, *more):
        if isinstance(score, TableScore):
            return prepared.approximate_z, prepared.approximate_z, prepared.norm_error
        return product(score, particle, template, grid, prepared, *more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(search, "_approximate_scores", approximate_z)
        yield eqx.filter_jit(
            lambda score, particle: search_particle(
                score, particle, ANY_TEMPLATE, GRID, Layout(3)
            )[:2]
        )


def table_score(table, approximate_z=None, norm_error=0.0, visits=None):
    if approximate_z is None:
        approximate_z = np.max(
            np.where(np.isfinite(table), table, -np.inf), axis=(0, 1, 3, 4)
        )
    return TableScore(
        single(table), single(approximate_z), single(norm_error), visits=visits
    )


def best_of(promised, score, particle=ANYONE):
    (z, correlation, index), _ = promised(score, particle)
    return float(z), float(correlation), tuple(int(i) for i in index)


def first_best(table):
    """The rule: the largest, ties to the lowest flat index."""
    return tuple(int(i) for i in np.unravel_index(np.argmax(table), table.shape))


@given(seed=st.integers(0, 10_000), levels=st.integers(1, 4))
@hypothesis_settings(max_examples=100, deadline=None, derandomize=True)
def test_ties_go_to_the_lowest_index(promised, seed, levels):
    """Tables of few whole numbers, so that most of them hold their maximum many times."""
    table = np.random.default_rng(seed).integers(0, levels, SHAPE).astype(np.float32)
    z, correlation, index = best_of(promised, table_score(table))
    assert index == first_best(table)
    assert z == correlation == table.max()


@given(seed=st.integers(0, 10_000), error=st.floats(0.01, 3.0))
@hypothesis_settings(max_examples=100, deadline=None, derandomize=True)
def test_the_best_is_exact_though_the_promise_is_not(promised, seed, error):
    """Approximate scores wrong by up to `error`, which the first 16 exact scores reveal."""
    rng = np.random.default_rng(seed)
    table = rng.integers(0, 5, SHAPE) + rng.integers(0, 2) * rng.uniform(size=SHAPE)
    exact = table.max(axis=(0, 1, 3, 4))
    approximate_z = exact + error * rng.uniform(-1, 1, 21)
    # Of 16 such errors the largest is above half the bound, but for 1 in 65,000.
    assert best_of(promised, table_score(table, approximate_z))[2] == first_best(
        single(table)
    )


def test_the_norms_error_counts_from_the_start(promised):
    """One wrong norm: only the error of the fit reveals it."""
    table = np.zeros(SHAPE)
    table[0, 0, :16] = 9.0
    table[1, 1, 20, 1, 1] = 10.0
    approximate_z = np.append(np.full(16, 9.0), np.full(5, 8.0))
    assert best_of(promised, table_score(table, approximate_z))[2] == (0, 0, 0, 0, 0)
    # 2 · 0.06 · (9 + 1) is more than the 1 by which the promise falls short
    assert best_of(promised, table_score(table, approximate_z, 0.06))[2] == (1, 1, 20, 1, 1)


def test_all_are_scored_if_nothing_is_known_of_the_norms(promised):
    """An infinite error: the worst of all promises must not be left out."""
    table = np.zeros(SHAPE)
    table[1, 1, 20, 1, 1] = 10.0
    approximate_z = np.arange(21.0)[::-1]
    assert best_of(promised, table_score(table, approximate_z, np.inf))[2] == (
        1,
        1,
        20,
        1,
        1,
    )


def test_how_far_off_the_products_were(promised):
    """Of the 16 orientations that are scored again, and of no others."""
    table = np.zeros(SHAPE)
    table[1, 1, :, 1, 1] = np.arange(21.0)
    approximate_z = np.arange(21.0)
    approximate_z[12] -= 0.25
    approximate_z[2] -= 0.5  # not among them
    best, error = promised(table_score(table, approximate_z), ANYONE)
    assert int(best[2][2]) == 20 and float(error) == 0.25


def test_products_that_fail_altogether(promised):
    """No approximate score is finite although a particle exists: the error is infinite."""
    table = np.zeros(SHAPE)
    table[1, 1, 3, 1, 1] = 5.0
    approximate_z = np.full(21, -np.inf)
    (z, _, index), error = promised(table_score(table, approximate_z), ANYONE)
    assert float(z) == 5.0 and int(index[2]) == 3 and float(error) == np.inf
    nothing = table_score(np.full(SHAPE, np.nan), approximate_z)
    assert float(promised(nothing, ANYONE)[1]) == 0.0


def test_two_equal_peaks(promised):
    """A later orientation wins only by an earlier pixel size or defocus."""
    for first, second in (
        ((0, 1, 20, 1, 3), (0, 2, 0, 0, 0)),
        ((0, 2, 20, 1, 3), (1, 0, 0, 0, 0)),
        ((1, 1, 2, 1, 3), (1, 1, 3, 0, 0)),
        ((1, 1, 2, 0, 3), (1, 1, 2, 1, 0)),
        ((1, 1, 2, 1, 1), (1, 1, 2, 1, 2)),
    ):
        for approximate_z in (None, np.arange(21.0), -np.arange(21.0)):
            table = np.zeros(SHAPE, np.float32)
            table[first] = table[second] = 5.0
            if approximate_z is not None:  # everything is open, in either order
                approximate_z = 5.0 + approximate_z
            assert best_of(promised, table_score(table, approximate_z))[2] == first


def test_every_point_of_the_grid_can_win(promised):
    """Each of the 1008 points in turn holds the maximum, so none is omitted."""
    count = int(np.prod(SHAPE))

    @jax.jit
    def all_of_them(numbers):
        def one(number):
            table = (jnp.arange(count) == number).astype(jnp.float32).reshape(SHAPE)
            approximate_z = jnp.max(table, axis=(0, 1, 3, 4))
            score = TableScore(table, approximate_z, jnp.float32(0))
            return search_particle(score, ANYONE, ANY_TEMPLATE, GRID, Layout(3))[0][2]

        return jax.lax.map(one, numbers)

    expected = np.stack(np.unravel_index(np.arange(count), SHAPE), axis=-1)
    np.testing.assert_array_equal(all_of_them(jnp.arange(count)), expected)


@pytest.mark.parametrize(
    ("levels", "expected"),
    [
        ([*range(21)], [*range(20, 4, -1)]),  # clear at once: the 16 that are due
        ([5.0] * 21, [*range(21), 20, 20, 20]),  # all tie; filled up with the last
    ],
)
def test_orientations_that_are_scored_again(promised, levels, expected):
    seen = []
    table = np.zeros(SHAPE, np.float32)
    table[1, 1, :, 1, 1] = levels
    best_of(promised, table_score(table, visits=lambda k: seen.append(int(k))))
    jax.effects_barrier()
    assert sorted(seen) == sorted(expected)


def test_an_adaptive_search_scores_no_more_than_the_promising(promised):
    """The last orientation is the best but has the lowest approximate score."""
    seen = []
    table = np.zeros(SHAPE, np.float32)
    table[1, 1, :, 1, 1] = [5.0] * 20 + [6.0]
    approximate_z = np.arange(21.0)[::-1] / 100 + 4.5
    score = table_score(table, approximate_z, visits=lambda k: seen.append(int(k)))
    assert best_of(promised, score)[2] == (1, 1, 20, 1, 1)
    seen.clear()
    layout = Layout(3, thorough=False)
    found = eqx.filter_jit(search_particle)(score, ANYONE, ANY_TEMPLATE, GRID, layout)
    jax.effects_barrier()
    assert tuple(int(i) for i in found[0][2]) == (1, 1, 0, 1, 1)
    assert sorted(seen) == [*range(16)]


def test_what_is_not_finite_never_wins(promised):
    table = np.random.default_rng(0).standard_normal(SHAPE).astype(np.float32)
    table[0, 0, 0] = np.nan
    table[:, :, 5] = np.nan
    table[1, 2, 6, 0] = np.inf
    table[0, 1] = -np.inf
    finite = np.where(np.isfinite(table), table, -np.inf)
    z, correlation, index = best_of(promised, table_score(table))
    assert index == first_best(finite) and z == correlation == finite.max()


def test_nothing_finite(promised):
    z, correlation, index = best_of(promised, table_score(np.full(SHAPE, np.nan)))
    assert z == -np.inf and np.isnan(correlation) and index == (0, 0, 0, 0, 0)


def test_all_negative_scores_have_a_best(promised):
    table = -1 - np.random.default_rng(0).uniform(size=SHAPE).astype(np.float32)
    assert best_of(promised, table_score(table))[2] == first_best(table)


def test_the_best_z_is_not_the_best_correlation(promised):
    """The mean and standard deviation of each position decide; its correlation is kept."""
    table = np.zeros(SHAPE, np.float32)
    table[0, 0, 0, 0, 0] = 10.0
    table[1, 1, 1, 1, 1] = 6.0
    mean, std = np.zeros((2, 4)), np.ones((2, 4))
    std[0, 0], mean[1, 1], std[1, 1] = 4.0, 2.0, 0.5
    particle = eqx.tree_at(
        lambda p: (p.corr_mean, p.corr_std), ANYONE, (single(mean), single(std))
    )
    approximate_z = np.zeros(21)
    approximate_z[:2] = 2.5, 8.0
    z, correlation, index = best_of(promised, table_score(table, approximate_z), particle)
    assert index == (1, 1, 1, 1, 1)
    assert z == 8.0 and correlation == 6.0


def test_z_scores():
    std = np.ones((2, 4))
    std[0, 0], std[0, 1], std[0, 2] = 0.0, np.nan, 2.0
    particle = eqx.tree_at(
        lambda p: (p.corr_mean, p.corr_std), ANYONE, (jnp.full((2, 4), 0.5), single(std))
    )
    z = z_scores(jnp.full((2, 2, 4), 3.0), particle)
    np.testing.assert_array_equal(z[1, 0], [-np.inf, -np.inf, 1.25, 2.5])
    np.testing.assert_array_equal(z[0, 1], np.full(4, 2.5))


# --- frames ----------------------------------------------------------------------------


def test_offsets_turn_in_the_image_s_frame_or_in_the_volume_s():
    start = rotations.euler_matrix(30.0, 70.0, 110.0)
    offset = oracle.tilt_offset(2.0, 40.0, 1.0)
    particle = eqx.tree_at(lambda p: p.alignment.rotation, ANYONE, single(start))
    for frame, expected in (("image", start @ offset), ("volume", offset @ start)):
        grid = local_grid((offset[None], np.zeros(1, bool)), frame=frame)
        for offsets in (grid.rotation, grid.rotation[0]):
            pose = pose_rotations(particle, offsets, grid)
            assert pose.shape == offsets.shape
            np.testing.assert_allclose(pose.reshape(3, 3), expected, rtol=0, atol=2e-7)


# --- real scores, against a loop over the grid ------------------------------------------

SIDE = 16
IMAGING = Imaging(defocus=(3000.0, 2800.0), angle=20.0, pixel_size=2.0, b=0.0)
SCORE = IMAGING.image_ctf((20, 22), SIDE, defocus=600.0, pixel_size=0.05)
ORIENTATIONS = uniform_orientations(
    psi_coarse=6.0, psi_fine=6.0, theta_coarse=9.0, theta_fine=3.0
)
DEFOCI, PIXEL_SIZES = np.arange(-600.0, 601.0, 300.0), np.array([-0.05, 0.0])
# Everything twice, so that every score ties with its copies: orientations one list after
# the other, defoci side by side.
TWICE = tuple(np.concatenate([part, part]) for part in ORIENTATIONS)
REAL_GRID = local_grid(TWICE, np.repeat(DEFOCI, 2), PIXEL_SIZES)


@functools.cache
def real():
    """Template, and six particles: three in noise, three of noise alone."""
    atoms = ball(SIDE, IMAGING.pixel_size, b=100.0)
    rng = np.random.default_rng(0)
    particles = []
    for snr in (8.0, 8.0, 40.0, 0.0, 0.0, 0.0):
        start = sim.random_rotations(1, rng)[0]
        truth = start @ ORIENTATIONS[0][58]
        cut = signal_in_padded_box(
            SCORE, atoms, IMAGING, truth, grid=128, offset_px=(1, -2)
        )
        cut = snr * cut + rng.standard_normal(cut.shape)
        particle = one_particle(SCORE, cut, IMAGING, rotation=start)
        std = rng.uniform(0.9, 1.1, SCORE.positions)
        particles.append(eqx.tree_at(lambda p: p.corr_std, particle, single(std)))
    template = make_template(
        sim.potential_volume(atoms, SIDE, IMAGING.pixel_size), "padded"
    )
    return template, batch_of(particles)


@functools.cache
def plainly():
    """The result with transforms only, sixteen orientations at a time."""
    template, particles = real()

    @jax.jit
    def each(particles):
        def one(particle):
            return plain_search(SCORE, particle, template, REAL_GRID, 16)

        return jax.lax.map(one, particles)

    return each(particles)


@pytest.mark.slow
def test_the_plain_search_is_a_loop_over_the_grid():
    """The oracle's own oracle: numpy's argmax over every pose, one at a time."""
    template, particles = real()
    particle = jax.tree.map(lambda leaf: leaf[0], particles)
    prepared = eqx.filter_jit(SCORE.prepare)(particle, REAL_GRID)

    @jax.jit
    def one(pose):
        return z_scores(SCORE.correlate(prepared, template, pose), particle)

    poses = np.asarray(particle.alignment.rotation, np.float64) @ TWICE[0]
    z = np.stack([one(pose) for pose in single(poses)], axis=2)
    best_z, correlation, index = (leaf[0] for leaf in plainly())
    assert tuple(int(i) for i in index) == first_best(z)
    # float32 transforms, compiled in two ways; z is about 8
    assert float(best_z) == pytest.approx(z.max(), abs=1e-5)
    std = float(particle.corr_std[int(index[3]), int(index[4])])
    assert float(correlation) == pytest.approx(float(best_z) * std, abs=1e-5)


# One is enough for a quick look.
OTHER_LAYOUTS = [
    Layout(2),  # nodes in defocus, far too few of them
    Layout(3, precision="float16"),
    Layout(3, precision="bfloat16"),
    Layout(3, orientations=7, frequencies=40, column_bytes=1 << 14),
    # Nodes first: then more candidates than are left to try, or one at a time.
    Layout(3, (4, 3), candidates=40),
    Layout(3, (2, 2), candidates=1),
]


@pytest.mark.parametrize(
    "layout",
    [
        Layout(3, (4, 3), candidates=40, thorough=False),
        *(pytest.param(layout, marks=pytest.mark.slow) for layout in OTHER_LAYOUTS[:2]),
        *(pytest.param(layout, marks=pytest.mark.nightly) for layout in OTHER_LAYOUTS[2:]),
    ],
)
def test_the_search_finds_what_the_plain_search_finds(layout):
    """Whatever the layout."""
    template, particles = real()

    @jax.jit
    def each(particles):
        def one(particle):
            return search_particle(SCORE, particle, template, REAL_GRID, layout)

        return jax.lax.map(one, particles)

    (z, correlation, index), _, of_each = each(particles)
    plain_z, plain_correlation, plain_index = plainly()
    np.testing.assert_array_equal(index, plain_index)
    np.testing.assert_allclose(z, plain_z, rtol=0, atol=1e-5)
    np.testing.assert_allclose(correlation, plain_correlation, rtol=0, atol=1e-5)
    # By the product, some layouts having fewer nodes than are planned: 0.29 and 4 % seen.
    own = np.take_along_axis(of_each, index[:, 2:3], axis=1)[:, 0]
    np.testing.assert_allclose(own, z, rtol=0.05, atol=0.3)
    # The first of the copies each time; and the strongest is where it was put, at
    # (1, -2) from the middle of 5 x 7.
    assert np.all(index[:, 1] % 2 == 0) and np.all(index[:, 2] < len(ORIENTATIONS[0]))
    np.testing.assert_array_equal(index[2, 2:], [58, 3, 1])
