"""Refining batches: truth found, devices, failures, invariances, gradients."""

import dataclasses
import functools
import re

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrefine.data import Status
from jaxrefine.physics.filters import Filters
from jaxrefine.physics.slices import make_template
from jaxrefine.refine import refine
from jaxrefine.refine.grids import local_grid, uniform_orientations
from jaxrefine.refine.layout import plan_layout
from jaxrefine.refine.norms import measure_norms
from jaxrefine.refine.prepare import OUTSIDE_STD, cut_particles, prepare_micrograph
from jaxrefine.refine.refine import (
    refine_particles,
    score_particles,
    search_batch,
)
from jaxrefine.refine.search import pose_rotations
from jaxrefine.refine.sharding import device_mesh, replicate
from jaxrefine.refine.template_ctf import TemplateCTF
from tests.oracles import rotations
from tests.worlds import make_world, single

pytestmark = pytest.mark.usefixtures("compiled_to_run_fast")

WORLD = make_world()  # 12 particles, 36 px apart
COUNT = 12
BOX = (20, 22)  # 5 x 7 positions
IMAGING = WORLD.imaging
TRACES = []


class CountedTemplateCTF(TemplateCTF):
    """Records when it is traced, that is, compiled."""

    def prepare(self, particle, grid):
        TRACES.append(1)
        return super().prepare(particle, grid)


SCORES = {
    "image": IMAGING.image_ctf(BOX, WORLD.side, defocus=400.0),
    "template": CountedTemplateCTF(BOX, WORLD.side),
}
SCORE = SCORES["image"]
KINDS = pytest.mark.parametrize(
    "kind", ["image", pytest.param("template", marks=pytest.mark.slow)]
)
# 4 px of tilt at a radius of 6 px: steps that a particle of 25 Å can tell apart.
ORIENTATIONS = uniform_orientations(
    psi_coarse=30.0, psi_fine=15.0, theta_coarse=30.0, theta_fine=15.0
)
INSIDE = np.flatnonzero(~ORIENTATIONS[1])
DEFOCI = np.array([-400.0, -200.0, 0.0, 200.0, 400.0])
GRID = local_grid(ORIENTATIONS, DEFOCI)
RNG = np.random.default_rng(7)
# Where the truth lies in each particle's grid.
TRUE_K = RNG.choice(INSIDE, COUNT)
START = WORLD.rotation @ np.swapaxes(ORIENTATIONS[0][TRUE_K], 1, 2)


@functools.cache
def template():
    return make_template(WORLD.volume, "padded")


@functools.cache
def layout():
    optics = {"voltage_kv": IMAGING.kv, "pixel_size_angstrom": IMAGING.pixel_size}
    return plan_layout(GRID, SCORE, template(), **optics)


@functools.cache
def micrograph(gain=1.0, offset=0.0, roll=(0, 0)):
    image = np.roll(WORLD.image, roll, axis=(0, 1))
    return prepare_micrograph(single(gain * image + offset), *WORLD.maps, Filters())


def cut(score=SCORE, shift_px=(0, 0), defocus=0.0, seen=None, alignment=None):
    """The batch; it starts `shift_px` away, and at the wrong orientation."""
    if alignment is None:
        alignment = WORLD.alignment(START, shift_px, defocus)
    n = len(alignment.rotation)
    pixel_sizes = single([IMAGING.pixel_size] * n)
    return cut_particles(
        micrograph() if seen is None else seen,
        alignment,
        IMAGING.optics(n),
        pixel_sizes,
        score,
    )


@functools.cache
def found(kind="image"):
    """The reference: no mesh, start 1 px below and 2 px right of the truth."""
    return refine_particles(
        cut(SCORES[kind], (1, 2), 200.0), template(), GRID, SCORES[kind]
    )


def refined(particles, **more):
    """Always the same compiled search."""
    return refine_particles(particles, template(), GRID, SCORE, **more)


def assert_same(one, other, keep=slice(None)):
    """Equal bit by bit, with NaN equal to NaN."""
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_array_equal(np.asarray(a)[keep], np.asarray(b)[keep])


def assert_same_best(one, other):
    """Except for approximation errors, since different products were computed."""
    # As far as interpolation between nodes is off in a world as small as this.
    np.testing.assert_allclose(one.orientation_z, other.orientation_z, rtol=0, atol=1.0)
    error = jnp.zeros(len(one.status))
    assert_same(
        *(
            dataclasses.replace(r, approximation_error=error, orientation_z=None)
            for r in (one, other)
        )
    )


def some(tree, index):
    return jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf)[index]), tree)


# --- the truth -------------------------------------------------------------------------


@pytest.mark.slow
@KINDS
def test_planted_particles_are_found(kind):
    result = found(kind)
    assert np.all(result.status == Status.CONVERGED)
    np.testing.assert_array_equal(result.grid_index[:, 2], TRUE_K)
    np.testing.assert_array_equal(result.alignment.position_px, WORLD.corner_px)
    np.testing.assert_array_equal(result.grid_index[:, 3:], np.tile([1, 1], (COUNT, 1)))
    # The start was 200 Å too high; a CTF that slow takes it to the neighbour at times.
    np.testing.assert_allclose(
        result.alignment.defocus_angstrom, np.tile(IMAGING.defocus, (COUNT, 1)), atol=200.5
    )
    np.testing.assert_allclose(result.alignment.rotation, WORLD.rotation, rtol=0, atol=1e-6)
    # Of the ideal 40. Twelve strong particles in a small micrograph make most of its
    # power, and whitening takes it for noise.
    assert np.all(result.z_score > 15)


@pytest.mark.slow
def test_scores_of_the_result():
    result = found()
    np.testing.assert_array_equal(result.z_score, result.correlation)  # maps 0 and 1
    np.testing.assert_array_equal(result.snr, result.correlation)
    assert result.grid_index.dtype == jnp.int32 and result.status.dtype == jnp.int32
    np.testing.assert_array_equal(result.grid_index[:, 0], 0)
    offsets = single(DEFOCI)[result.grid_index[:, 1]]
    np.testing.assert_allclose(
        result.alignment.defocus_angstrom,
        single(IMAGING.defocus) + 200.0 + offsets[:, None],
    )
    np.testing.assert_array_equal(result.alignment.astigmatism_deg, IMAGING.angle)


def test_statistics_enter_the_scores():
    particles = cut(shift_px=(1, 2), defocus=200.0)
    particles = eqx.tree_at(
        lambda p: (p.corr_mean, p.corr_std, p.background_mean, p.background_std),
        particles,
        (
            particles.corr_mean + 0.5,
            particles.corr_std * 1.25,
            particles.background_mean + 0.25,
            particles.background_std * 2.0,
        ),
    )
    result, plain = refined(particles), found()
    np.testing.assert_array_equal(result.grid_index, plain.grid_index)
    correlation = np.asarray(result.correlation)
    np.testing.assert_allclose(correlation, plain.correlation, rtol=1e-6)
    np.testing.assert_allclose(result.z_score, (correlation - 0.5) / 1.25, rtol=1e-6)
    np.testing.assert_allclose(result.snr, (correlation - 0.25) / 2.0, rtol=1e-6)


# --- devices ---------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    "devices", [*(pytest.param(n, marks=pytest.mark.nightly) for n in (1, 2)), 3]
)
def test_devices_make_no_difference(devices):
    mesh = device_mesh(jax.devices()[:devices])
    result = refined(cut(shift_px=(1, 2), defocus=200.0), mesh=mesh)
    assert len(result.z_score.sharding.device_set) == devices
    assert_same(result, found())


@pytest.mark.slow
def test_four_devices_need_not_talk():
    """The same results once more, and no collective in the compiled program."""
    mesh = device_mesh(jax.devices())
    particles = cut(shift_px=(1, 2), defocus=200.0)
    arguments = (particles, replicate(template(), mesh), GRID, SCORE, mesh, layout())
    compiled = search_batch.lower(*arguments).compile()
    result = compiled(*arguments)
    assert len(result.z_score.sharding.device_set) == 4
    assert_same(result, found())
    text = compiled.compiled.as_text()
    assert "while" in text  # that is where the search is
    for word in ("all-gather", "all-reduce", "all-to-all", "collective-permute"):
        assert word not in text


@pytest.mark.slow
def test_the_norms_of_a_template_that_is_narrower_than_its_ctf():
    """The power of slices, without most of the lags, is positive, and near the norm."""
    particle = jax.tree.map(lambda leaf: leaf[0], cut())
    assert min(SCORE.padded_shape) > 2 * SCORE.side
    poses = pose_rotations(particle, GRID.rotation, GRID)

    @jax.jit
    def measured(particle):
        prepared = SCORE.prepare(particle, GRID)
        norms, error = measure_norms(SCORE, particle, prepared, template(), poses, GRID)
        exact = jax.lax.map(lambda p: SCORE.norms(prepared, template(), p), poses)
        return norms, error, exact

    norms, error, exact = measured(particle)
    assert np.all(norms.weights >= 0) and np.all(np.isfinite(norms.ratio))
    assert 0 < error < 0.5 * np.ptp(np.log(exact), axis=0).max()


@pytest.mark.nightly
@pytest.mark.parametrize(("particles", "devices"), [(1, 2), (1, 3), (2, 4), (3, 4)])
def test_fewer_particles_than_devices(particles, devices):
    """Orientations are split: equal results, and devices communicate once, at the end."""
    mesh = device_mesh(jax.devices()[:devices], particles)
    rows = mesh.shape["particles"]
    assert rows < devices
    count = rows * -(-particles // rows)
    batch = some(cut(shift_px=(1, 2), defocus=200.0), slice(count))
    arguments = (batch, replicate(template(), mesh), GRID, SCORE, mesh, layout())
    compiled = search_batch.lower(*arguments).compile()
    result = compiled(*arguments)
    assert_same_best(result, some(found(), slice(count)))
    # Each share scores orientations of its own again.
    assert np.all(result.approximation_error > 0)
    text = compiled.compiled.as_text()
    for word in ("all-reduce", "all-to-all", "collective-permute"):
        assert word not in text
    # Of a particle's best: z-score, correlation, index; of each orientation its z-score,
    # but not the scores of all poses.
    share = -(-GRID.rotation.shape[0] // (devices // rows))
    gathers = re.findall(r"= (\w+)\[([\d,]*)\]\S* all-gather\(", text)
    assert gathers
    sizes = sorted(np.prod([int(n) for n in s.split(",")]) for _, s in gathers)
    assert sizes[-1] <= share * devices and all(n <= 5 * devices for n in sizes[:-1])


@pytest.mark.slow
def test_ties_between_the_shares_go_to_the_lowest_index():
    """Every orientation is the same one. Both searches are compiled already."""
    mesh = device_mesh(jax.devices()[:3], 1)
    grid = eqx.tree_at(
        lambda g: g.rotation, GRID, jnp.broadcast_to(jnp.eye(3), GRID.rotation.shape)
    )

    def refined_on_it(particles, **more):
        return refine_particles(particles, template(), grid, SCORE, layout=layout(), **more)

    split = refined_on_it(some(cut(), slice(1)), mesh=mesh)
    assert split.grid_index[0, 2] == 0
    assert_same_best(split, some(refined_on_it(cut()), slice(1)))


# --- memory ----------------------------------------------------------------------------


def exhausted(most, error="RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes."):
    """A device with memory for so many orientations, and a record of requests."""
    asked = []

    def search(particles, template, grid, score, mesh, layout):
        asked.append(layout)
        if layout.orientations > most:
            raise jax.errors.JaxRuntimeError(error)
        return search_batch(particles, template, grid, score, mesh, layout)

    return search, asked


def test_out_of_memory_halves_and_tries_again(monkeypatch):
    search, asked = exhausted(150)
    monkeypatch.setattr(refine, "search_batch", search)
    smaller = dataclasses.replace(layout(), orientations=512, column_bytes=1 << 22)
    particles = cut(shift_px=(1, 2), defocus=200.0)
    result, fitting = refine.refine_within_memory(
        particles, template(), GRID, SCORE, mesh=None, layout=smaller
    )
    assert [each.orientations for each in asked] == [512, 256, 128]
    assert [each.column_bytes >> 20 for each in asked] == [4, 2, 1]
    assert fitting == asked[-1]
    assert_same(result, found())


@pytest.mark.parametrize(
    ("error", "tries"), [("RESOURCE_EXHAUSTED: no", 8), ("INTERNAL: something else", 1)]
)
def test_some_errors_are_not_for_halving(monkeypatch, error, tries):
    """512 -> 8 orientations are 6 halvings, 64 -> 1 MiB of columns too; then no more."""
    search, asked = exhausted(0, error)
    monkeypatch.setattr(refine, "search_batch", search)
    smaller = dataclasses.replace(layout(), orientations=512, column_bytes=1 << 27)
    with pytest.raises(jax.errors.JaxRuntimeError, match=error[:8]):
        refine.refine_within_memory(
            cut(), template(), GRID, SCORE, mesh=None, layout=smaller
        )
    assert len(asked) == tries


@pytest.mark.slow
def test_a_batch_that_does_not_divide_is_filled_up():
    mesh = device_mesh(jax.devices()[:2])
    batch = some(cut(shift_px=(1, 2), defocus=200.0), slice(COUNT - 1))
    odd = refine_particles(batch, template(), GRID, SCORE, mesh=mesh)
    assert len(odd.status) == COUNT - 1
    assert_same_best(odd, some(found(), slice(COUNT - 1)))


@pytest.mark.nightly
def test_several_at_once_on_a_device():
    """Searched together as on an accelerator: the same results, with padding."""
    batch = some(cut(shift_px=(1, 2), defocus=200.0), slice(5))
    batch = eqx.tree_at(lambda p: p.valid, batch, jnp.arange(5) != 1)
    together = refined(batch, layout=dataclasses.replace(layout(), particles=3))
    real = np.array([0, 2, 3, 4])
    # Products of other shapes are rounded otherwise, and so are transforms of many images:
    # some units in the last place of a z-score of 10.
    best, alone = some(together, real), some(found(), real)
    np.testing.assert_array_equal(best.grid_index, alone.grid_index)
    np.testing.assert_array_equal(best.status, alone.status)
    np.testing.assert_allclose(best.z_score, alone.z_score, rtol=1e-5)
    assert np.isnan(together.z_score[1])


@pytest.mark.slow
def test_one_compilation_serves_every_batch():
    score = SCORES["template"]
    found("template")
    before = len(TRACES)
    batches = (
        cut(score),
        cut(score, (1, 1), 100.0),
        eqx.tree_at(lambda p: p.valid, cut(score), jnp.arange(COUNT) < 5),
        some(cut(score), slice(None, None, -1)),
    )
    for factor, particles in enumerate(batches, start=1):
        grid = eqx.tree_at(lambda g: g.rotation, GRID, jnp.roll(GRID.rotation, factor))
        other = eqx.tree_at(lambda t: t.real, template(), template().real / factor)
        refine_particles(particles, other, grid, score)
    assert len(TRACES) == before > 0


# --- failures --------------------------------------------------------------------------


def test_padding_costs_nothing_and_changes_nothing():
    particles = cut(shift_px=(1, 2), defocus=200.0)
    valid = np.arange(COUNT) % 3 > 0
    zeros = jax.tree.map(
        lambda leaf: jnp.where(
            valid.reshape(-1, *[1] * (leaf.ndim - 1)), leaf, jnp.zeros_like(leaf)
        ),
        particles,
    )
    for padded in (particles, zeros):
        padded = eqx.tree_at(lambda p: p.valid, padded, jnp.asarray(valid))
        result = refined(padded)
        assert_same(result, found(), valid)
        np.testing.assert_array_equal(result.status[~valid], Status.NOT_FINITE)
        assert np.all(np.isnan(result.z_score[~valid]))
        assert np.all(np.isnan(result.correlation[~valid]) & np.isnan(result.snr[~valid]))
        assert_same(result.alignment, padded.alignment, ~valid)


BROKEN = {
    "NaN in the image": lambda p: p.image.at[3, 7, 8].set(jnp.nan),
    "infinity in the image": lambda p: p.image.at[3, 0, 0].set(jnp.inf),
}


def broken(particles, kind):
    """Particle 3, invalid in one of many ways."""

    def put(where, value):
        return eqx.tree_at(where, particles, where(particles).at[3].set(value))

    return {
        "NaN in the image": lambda: eqx.tree_at(
            lambda p: p.image, particles, particles.image.at[3, 7, 8].set(jnp.nan)
        ),
        "infinity in the image": lambda: eqx.tree_at(
            lambda p: p.image, particles, particles.image.at[3, 0, 0].set(jnp.inf)
        ),
        "NaN in the mean map": lambda: put(lambda p: p.corr_mean, jnp.nan),
        "NaN in the variance map": lambda: put(lambda p: p.corr_std, jnp.nan),
        "no variance": lambda: put(lambda p: p.corr_std, 0.0),
        "NaN in the filter": lambda: put(lambda p: p.filter_image, jnp.nan),
        "NaN defocus": lambda: put(lambda p: p.alignment.defocus_angstrom, jnp.nan),
        "NaN rotation": lambda: put(lambda p: p.alignment.rotation, jnp.nan),
        "NaN pixel size": lambda: put(lambda p: p.alignment.pixel_size_angstrom, jnp.nan),
        "no pixel size": lambda: put(lambda p: p.alignment.pixel_size_angstrom, 0.0),
        "NaN voltage": lambda: put(lambda p: p.optics.voltage_kv, jnp.nan),
        "no voltage": lambda: put(lambda p: p.optics.voltage_kv, 0.0),
        "outside": lambda: put(lambda p: p.corr_std, OUTSIDE_STD),
    }[kind]()


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind",
    [
        "NaN in the image",
        "infinity in the image",
        "NaN in the mean map",
        "NaN in the variance map",
        "no variance",
        "NaN in the filter",
        "NaN defocus",
        "NaN rotation",
        "NaN pixel size",
        "no pixel size",
        "NaN voltage",
        "no voltage",
        "outside",
    ],
)
def test_a_bad_particle_spoils_only_itself(kind):
    particles = broken(cut(shift_px=(1, 2), defocus=200.0), kind)
    result = refined(particles)
    expected = Status.BOX_OUTSIDE if kind == "outside" else Status.NOT_FINITE
    assert result.status[3] == expected
    assert np.isnan(result.z_score[3]) and np.isnan(result.snr[3])
    assert np.isnan(result.correlation[3])
    assert_same(result.alignment, particles.alignment, slice(3, 4))
    others = np.arange(COUNT) != 3
    assert_same(result, found(), others)


def test_an_image_without_variance_is_not_refined():
    """All through the preparation: local filtering of a box that is flat."""
    image = WORLD.image.copy()
    y, x = WORLD.corner_px[3]
    wide = SCORE.padded_box[0]
    image[max(0, y - wide) : y + wide, x - 20 : x + 40] = 40.0
    seen = prepare_micrograph(single(image), *WORLD.maps, Filters(), global_filtering=False)
    result = refined(cut(seen=seen))
    assert result.status[3] == Status.NOT_FINITE
    assert np.isnan(result.z_score[3])
    assert result.status[11] in (Status.CONVERGED, Status.EDGE_OF_GRID)


def test_positions_without_a_score_are_passed_over():
    """A hole in a map: the best of the other positions is used."""
    particles = cut(shift_px=(1, 2), defocus=200.0)
    std = particles.corr_std.at[:, 1, 1].set(jnp.nan)
    result = refined(eqx.tree_at(lambda p: p.corr_std, particles, std))
    assert np.all(np.isfinite(result.z_score))
    assert not np.any(np.all(result.grid_index[:, 3:] == 1, axis=1))
    assert np.all(result.z_score < found().z_score)


def edges_of(result):
    return refine.at_edges(GRID, SCORE, result.grid_index)


def test_statuses_of_edges():
    """The truth on the rim of the grid; then the position on the rim of the box."""
    particles = cut(shift_px=(1, 2), defocus=200.0)
    rim = np.flatnonzero(ORIENTATIONS[1])
    chosen = np.random.default_rng(3).choice(rim, COUNT)
    start = WORLD.rotation @ np.swapaxes(ORIENTATIONS[0][chosen], 1, 2)
    turned = eqx.tree_at(lambda p: p.alignment.rotation, particles, single(start))
    result = refined(turned)
    np.testing.assert_array_equal(result.grid_index[:, 2], chosen)
    assert np.all(result.status == Status.EDGE_OF_GRID)
    assert np.all(edges_of(result)["orientation"])

    # 600 Å too high: found at the lowest offset, or its neighbour
    low = refined(cut(shift_px=(1, 2), defocus=600.0))
    at_edge = np.asarray(low.grid_index[:, 1]) == 0
    assert at_edge.sum() >= 6
    assert np.all(low.status[at_edge] == Status.EDGE_OF_GRID)
    assert np.all(low.status[~at_edge] == Status.CONVERGED)
    np.testing.assert_array_equal(edges_of(low)["defocus"], at_edge)
    assert not np.any(edges_of(low)["orientation"] | edges_of(low)["pixel_size"])

    # two or three pixels off: the outermost position, and that says more than the grid
    for shift in ((2, 0), (-2, 0), (0, 3), (0, -3)):
        moved = refined(cut(shift_px=shift))
        assert np.all(moved.status == Status.MOVED_TO_EDGE)
        assert np.all(edges_of(moved)["position"])
        np.testing.assert_array_equal(moved.alignment.position_px, WORLD.corner_px)
    at_both = eqx.tree_at(
        lambda p: p.alignment.rotation, cut(shift_px=(2, 0)), single(start)
    )
    assert np.all(refined(at_both).status == Status.MOVED_TO_EDGE)


# --- invariances -----------------------------------------------------------------------


def test_particles_can_be_permuted():
    order = np.random.default_rng(5).permutation(COUNT)
    result = refined(some(cut(shift_px=(1, 2), defocus=200.0), order))
    assert_same(result, some(found(), order))


def test_gain_and_offset_of_the_image_do_not_matter():
    other = refined(cut(shift_px=(1, 2), defocus=200.0, seen=micrograph(70.0, -5000.0)))
    np.testing.assert_array_equal(other.grid_index, found().grid_index)
    # z of 35; the image is float32, its mean 40 and later -2200 of a contrast of 210
    np.testing.assert_allclose(other.z_score, found().z_score, rtol=0, atol=1e-3)


def test_whole_pixel_shifts_move_the_position_and_nothing_else():
    """The micrograph is periodic: if rolled, particles are found shifted equally."""
    other = refined(cut(shift_px=(1, 2), defocus=200.0, seen=micrograph(roll=(1, -1))))
    moved = other.alignment.position_px - found().alignment.position_px
    np.testing.assert_array_equal(moved, np.tile([1, -1], (COUNT, 1)))
    np.testing.assert_array_equal(other.grid_index[:, :3], found().grid_index[:, :3])
    # The box and its cut lie otherwise about the particle: signal finer than 4 Å, which
    # the cut does not wholly hold, is another part.
    np.testing.assert_allclose(other.z_score, found().z_score, rtol=5e-3)


def test_the_start_moves_with_the_particle():
    """Image and start shifted together: the same score at the same index."""
    particles = cut(shift_px=(1, 2), defocus=200.0)
    together = cut(shift_px=(4, -3), defocus=200.0, seen=micrograph(roll=(3, -5)))
    inner = slice(5, 7)  # two particles whose cut lies inside both times
    np.testing.assert_allclose(
        together.image[inner], particles.image[inner], rtol=0, atol=2e-5
    )
    result = refined(together)
    np.testing.assert_array_equal(result.grid_index[inner], found().grid_index[inner])
    np.testing.assert_allclose(result.z_score[inner], found().z_score[inner], rtol=1e-5)


@KINDS
@pytest.mark.parametrize("shift_px", [(0, 0), (1, 2)])
def test_refining_again_never_lowers_the_score(kind, shift_px):
    """The grid holds its own middle, so the second round starts at the first's best."""
    score = SCORES[kind]
    first = refine_particles(cut(score, shift_px, 200.0), template(), GRID, score)
    again = cut(score, alignment=first.alignment)
    second = refine_particles(again, template(), GRID, score)
    # Where the box stays in its place only the rotation's rounding is new. Where it moves
    # by 2 px, TemplateCTF takes off another mean of the box, and ImageCTF's cut holds
    # another part of the signal finer than 4 Å.
    loss = 1e-5 if shift_px == (0, 0) else 1e-2
    assert np.all(second.z_score >= first.z_score * (1 - loss))


# --- one pose, and gradients -----------------------------------------------------------


def test_scoring_is_refining_on_a_grid_of_one_pose():
    """One pose many times over, which is the search that is compiled already."""
    particles = cut(alignment=WORLD.alignment())
    middle = (slice(None), *SCORE.margin)
    std = jnp.full_like(particles.corr_std, jnp.nan)  # no other position counts
    particles = eqx.tree_at(lambda p: p.corr_std, particles, std.at[middle].set(1.1))
    z, correlation = score_particles(particles, template(), SCORE)
    grid = eqx.tree_at(
        lambda g: (g.rotation, g.defocus_angstrom),
        GRID,
        (jnp.broadcast_to(jnp.eye(3), GRID.rotation.shape), jnp.zeros(len(DEFOCI))),
    )
    result = refine_particles(particles, template(), grid, SCORE, layout=layout())
    np.testing.assert_allclose(z, result.z_score, rtol=1e-5)
    np.testing.assert_allclose(correlation, result.correlation, rtol=1e-5)
    np.testing.assert_array_equal(result.grid_index[:, :3], 0)
    np.testing.assert_array_equal(result.alignment.position_px, WORLD.corner_px)


@pytest.mark.slow
def test_scoring_is_refining_on_a_box_of_one_position():
    score = TemplateCTF((WORLD.side, WORLD.side), WORLD.side)
    particles = cut(score, alignment=WORLD.alignment())
    z, correlation = score_particles(particles, template(), score)
    result = refine_particles(particles, template(), local_grid(), score)
    np.testing.assert_allclose(z, result.z_score, rtol=1e-5)
    np.testing.assert_allclose(correlation, result.correlation, rtol=1e-5)
    np.testing.assert_array_equal(result.grid_index, 0)
    np.testing.assert_array_equal(result.alignment.position_px, WORLD.corner_px)
    # What is not searched has no edge.
    assert np.all(result.status == Status.CONVERGED)


@pytest.mark.slow
@KINDS
def test_gradients(kind):
    """Finite everywhere, also on the lattice; and accurate where z is smooth."""
    score = SCORES[kind]
    particles = some(cut(score, alignment=WORLD.alignment()), slice(4))
    special = rotations.euler_matrix(90.0, 90.0, 0.0)
    rotation = particles.alignment.rotation.at[0].set(single(special))
    particles = eqx.tree_at(lambda p: p.alignment.rotation, particles, rotation)

    @eqx.filter_jit
    def z_and_slopes(particles):
        def total(floats, rest):
            whole = eqx.combine(floats, rest)
            z, _ = score_particles(whole, template(), score)
            return jnp.sum(z), z

        floats, rest = eqx.partition(particles, eqx.is_inexact_array)
        return jax.value_and_grad(total, has_aux=True)(floats, rest)

    _, slopes = z_and_slopes(particles)
    for leaf in jax.tree.leaves(slopes):
        assert np.all(np.isfinite(leaf))
    for leaf in (
        slopes.alignment.rotation,
        slopes.alignment.defocus_angstrom,
        slopes.alignment.pixel_size_angstrom,
        slopes.optics.b_factor_angstrom2,
        slopes.image,
        slopes.filter_image if kind == "image" else slopes.filter_template,
    ):
        assert np.all(np.any(np.asarray(leaf).reshape(4, -1) != 0, axis=1))

    for where, step in (
        (lambda p: p.alignment.defocus_angstrom, 20.0),
        (lambda p: p.alignment.pixel_size_angstrom, 2e-3),
        (lambda p: p.optics.b_factor_angstrom2, 2.0),
    ):
        up, down = (
            z_and_slopes(eqx.tree_at(where, particles, where(particles) + side * step))[0][
                1
            ]
            for side in (1, -1)
        )
        numerical = (np.asarray(up) - np.asarray(down)) / (2 * step)
        slope = np.asarray(where(slopes)).reshape(4, -1).sum(axis=1)
        # z of 40 in float32 is good to 1e-5, hence the quotient to 1e-5 / step; slices
        # are piecewise linear in the pixel size, which adds kinks.
        scale = np.abs(numerical).max()
        np.testing.assert_allclose(
            slope[1:], numerical[1:], rtol=0, atol=0.05 * scale + 2e-5 / step
        )
