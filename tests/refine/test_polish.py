"""The polish: truth between grid points, limits, failures, devices, errors."""

import functools
from dataclasses import replace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

import jaxrefine as jr
from jaxrefine import simulate as sim
from jaxrefine.data import PARAMETERS, Offsets, Refined, Status
from jaxrefine.refine import coordinates, polish, pose_errors
from jaxrefine.refine.information import pose_information, pose_rows
from jaxrefine.refine.near_score import near_z_score, near_z_score_at_start
from jaxrefine.refine.scoring import Score
from jaxrefine.refine.sharding import device_mesh, replicate
from tests import worlds
from tests.worlds import Imaging, batch_of, one_particle, single

SIDE, BOX, COUNT = 32, (36, 36), 8
IMAGING = Imaging(defocus=(5200.0, 4800.0), pixel_size=1.5)
SCORE = IMAGING.image_ctf(BOX, SIDE, defocus=200.0, pixel_size=0.1)
ATOMS = worlds.ball(SIDE, 1.5, b=40.0)
RNG = np.random.default_rng(8)
ROTATION = sim.random_rotations(COUNT, RNG)
# What a search leaves: a fraction of a step of each, so that the grid's best is known.
PLACE = RNG.uniform(-0.5, 0.5, (COUNT, 2))
DEFOCUS = RNG.uniform(-20.0, 20.0, COUNT)
TURN = np.stack([sim.perturbed_rotation(np.eye(3), RNG, 0.8, 0.6) for _ in range(COUNT)])
GRID = jr.local_grid(
    jr.uniform_orientations(psi_coarse=1.5, psi_fine=1.5, theta_coarse=2.0, theta_fine=2.0),
    np.array([-50.0, 0.0, 50.0]),
)
FREE = jr.Polish(bound_to_cell=False)
ALL = PARAMETERS[:5]  # without aberrations


@functools.cache
def template():
    volume = sim.potential_volume(ATOMS, SIDE, IMAGING.pixel_size)
    return jr.make_template(volume, "cubic")


@functools.cache
def clean(index):
    """A padded box without noise, with an ideal SNR of 1."""
    return worlds.signal_in_padded_box(
        SCORE, ATOMS, replace_defocus(index), ROTATION[index], 200, tuple(PLACE[index])
    )


def replace_defocus(index):
    u, v = IMAGING.defocus
    return replace(IMAGING, defocus=(u + DEFOCUS[index], v + DEFOCUS[index]))


@functools.cache
def particles(snr=16.0, noise=1.0, seed=0):
    rng = np.random.default_rng(seed)
    cuts = [
        snr * clean(i) + noise * rng.standard_normal(SCORE.padded_box) for i in range(COUNT)
    ]
    return batch_of(
        [
            one_particle(SCORE, cut, IMAGING, rotation=start)
            for cut, start in zip(cuts, ROTATION @ np.swapaxes(TURN, 1, 2), strict=True)
        ]
    )


def unsearched(batch):
    """A result of a search that equals each particle's start."""
    z, correlation = jr.score_particles(batch, template(), SCORE)
    index = jnp.zeros((len(z), 5), jnp.int32)
    status = jnp.zeros(len(z), jnp.int32)
    snr, no_error = correlation, jnp.zeros(len(z))
    return Refined(batch.alignment, z, correlation, snr, index, status, no_error)


def polished(batch, refined=None, settings=FREE, **more):
    refined = unsearched(batch) if refined is None else refined
    return jr.polish_particles(batch, refined, template(), GRID, SCORE, settings, **more)


@functools.cache
def found():
    return polished(particles())


def errors_deg(rotation):
    """Rotation vectors from the truth to what was found, in the image frame."""
    turn = np.swapaxes(ROTATION, 1, 2) @ np.asarray(rotation)
    skew = np.stack(
        [turn[:, i, j] - turn[:, j, i] for i, j in ((2, 1), (0, 2), (1, 0))], -1
    )
    return np.rad2deg(skew / 2)


def assert_same(one, other, keep=slice(None)):
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_array_equal(np.asarray(a)[keep], np.asarray(b)[keep])


# --- the truth -------------------------------------------------------------------------


@pytest.mark.slow
def test_the_truth_is_found_between_the_grid_s_points():
    """Without noise: pose, defocus and position to a small fraction of the grid step."""
    batch = particles(noise=0.0)
    start = unsearched(batch)
    result = polished(batch, start)
    there = result.refined.alignment
    assert np.all(result.converged) and not np.any(result.at_limit)
    # What is promised at the end is 5e-4 of z = 16: a tenth of these errors' σ of 0.5°,
    # 0.06 px and 30 Å.
    assert np.abs(errors_deg(there.rotation)).max() < 0.1
    place = np.asarray(there.position_px) - [100.0, 200.0]
    assert np.abs(place - PLACE).max() < 0.02
    defocus = np.asarray(there.defocus_angstrom) - np.array(IMAGING.defocus)
    assert np.abs(defocus - DEFOCUS[:, None]).max() < 6.0
    # nearly the ideal 16, where the start had lost a tenth of it
    assert np.all(result.refined.z_score > 15.8)
    assert np.mean(start.z_score) < 15.0
    # Beyond what was free nothing moves.
    np.testing.assert_array_equal(there.pixel_size_angstrom, IMAGING.pixel_size)
    np.testing.assert_array_equal(there.astigmatism_deg, IMAGING.angle)
    for name in ("rotation_deg", "largest_rotation_deg", "defocus_angstrom", "shift_px"):
        assert np.all(np.isfinite(getattr(result.errors, name))), name
    assert np.all(np.isnan(result.errors.pixel_size_angstrom))
    assert np.all(np.isnan(result.errors.astigmatism_angstrom))


@pytest.mark.slow
def test_the_length_on_the_cut_leads_to_the_score_s_own_optimum():
    """The approximate norm of the polish, compared with the z-score as objective."""

    def itself(offsets, particle, template, score):
        return jr.z_score(offsets, particle, template, score)

    exact = polished(particles(), settings=replace(FREE, objective=itself))
    here, there = found().refined.alignment, exact.refined.alignment
    turned = np.einsum("nij,nik->njk", there.rotation, here.rotation)
    skew = np.stack([turned[:, i, j] for i, j in ((2, 1), (0, 2), (1, 0))], -1)
    # Each climb ends where a step promises less than 2e-4 of z: 0.02 standard errors of
    # all coordinates together at z = 16, and once more for the shortcut.
    most = 0.04
    assert np.all(np.abs(np.rad2deg(skew)) < most * exact.errors.rotation_deg)
    moved = np.abs(there.position_px - here.position_px)
    assert np.all(moved < most * exact.errors.shift_px)
    defocus = np.abs(there.defocus_angstrom - here.defocus_angstrom)[:, 0]
    assert np.all(defocus < most * exact.errors.defocus_angstrom)


@pytest.mark.slow
def test_never_below_the_grid_and_in_ten_evaluations():
    result, start = found(), unsearched(particles())
    assert np.all(result.refined.z_score > start.z_score)
    assert np.all((result.evaluations >= 2) & (result.evaluations <= 10))
    np.testing.assert_allclose(result.refined.snr, result.refined.z_score)  # maps 0 and 1
    np.testing.assert_allclose(result.refined.correlation, result.refined.z_score)
    again = polished(particles(), result.refined)
    assert np.all(again.refined.z_score >= result.refined.z_score)
    # What came back is at its start, to the rounding of a position in float32.
    assert np.all(again.refined.z_score - result.refined.z_score < 0.02)


def test_in_the_cell():
    batch = particles()
    settings = replace(FREE, bound_to_cell=True)
    start = unsearched(batch)
    result = polished(batch, start, settings)
    limits = coordinates.cell_limits(GRID, FREE.parameters)
    np.testing.assert_allclose(limits, [1.0, 1.0, 0.75, 1.0, 1.0, 25.0], rtol=1e-3)
    old, new = start.alignment, result.refined.alignment
    moved = {
        "turn": np.abs(
            np.rad2deg(
                (np.swapaxes(old.rotation, 1, 2) @ np.asarray(new.rotation))[:, 1, 0]
            )
        )
        / 0.75,
        "shift": np.abs(np.asarray(new.position_px - old.position_px)).max(axis=1),
        "defocus": np.abs(np.asarray(new.defocus_angstrom - old.defocus_angstrom))[:, 0]
        / 25,
    }
    for name, share in moved.items():
        assert np.all(share <= 1 + 2e-2), name
    assert np.any(result.at_limit) and not np.any(found().at_limit)
    inside = ~np.asarray(result.at_limit)
    np.testing.assert_allclose(
        result.refined.z_score[inside], found().refined.z_score[inside], atol=2e-3
    )
    assert np.all(result.refined.z_score >= start.z_score)
    # A hair's breadth more at most: the bound one stopped earlier, or both arrived.
    assert np.all(result.refined.z_score <= found().refined.z_score + 2e-3)


def test_cells_of_grids():
    inf = np.inf
    none = coordinates.cell_limits(jr.local_grid(), ALL)
    np.testing.assert_array_equal(none, [inf, inf, inf, 1, 1, inf, inf, inf, inf])
    assert np.all(coordinates.cell_limits(jr.local_grid(), PARAMETERS[5:]) == inf)
    fine = jr.local_grid(
        jr.uniform_orientations(
            psi_coarse=1.5, psi_fine=0.1, theta_coarse=2.5, theta_fine=0.25
        ),
        jr.search_offsets(-100.0, 100.0, 20.0),
        jr.search_offsets(-0.005, 0.005, 0.001),
    )
    expected = [0.125, 0.125, 0.05, 1, 1, 10.0, inf, inf, 0.0005]
    np.testing.assert_allclose(coordinates.cell_limits(fine, ALL), expected, rtol=1e-3)


@pytest.mark.parametrize("wrong", [("psi",), (), ("shift", "shift")])
def test_wrong_settings_are_refused(wrong):
    with pytest.raises(jr.InputError, match="orientation"):
        jr.Polish(parameters=wrong)
    with pytest.raises(jr.InputError, match="gauss_newton"):
        jr.Polish(method="newton")
    with pytest.raises(jr.InputError, match="max_evaluations"):
        jr.Polish(max_evaluations=0)


# --- failures, devices -----------------------------------------------------------------


def test_a_bad_particle_spoils_only_itself():
    batch = particles()
    refined = unsearched(batch)
    nan = jnp.float32(jnp.nan)
    refined = eqx.tree_at(
        lambda r: (r.status, r.z_score),
        refined,
        (
            refined.status.at[1].set(Status.NOT_FINITE).at[4].set(Status.BOX_OUTSIDE),
            refined.z_score.at[1].set(nan),
        ),
    )
    batch = eqx.tree_at(
        lambda p: (p.valid, p.image),
        batch,
        (batch.valid.at[6].set(False), batch.image.at[2, 3, 4].set(nan)),
    )
    result = polished(batch, refined)
    bad = np.isin(np.arange(COUNT), [1, 2, 4, 6])
    assert_same(result.refined, refined, bad)
    for leaf in jax.tree.leaves(result.errors):
        assert np.all(np.isnan(leaf[bad]))
    assert not np.any(np.asarray(result.converged)[bad])
    np.testing.assert_array_equal(result.evaluations[np.array([1, 4, 6])], 0)
    assert_same(result, found(), ~bad)


def test_where_results_lie_does_not_compile_the_polish_again(monkeypatch):
    """From a search on four devices, or from the host as for a second optimum."""
    mesh, seen = device_mesh(jax.devices()), []
    batch = particles()
    refined = unsearched(batch)
    searched = jax.device_put(refined, NamedSharding(mesh, PartitionSpec(mesh.axis_names)))

    def placed(particles, start, *_):
        seen.append(jax.tree.map(jax.typeof, start))
        raise StopIteration

    monkeypatch.setattr(polish, "polish_batch", placed)
    for start in (searched, refined):
        with pytest.raises(StopIteration):
            polish.polish_particles(batch, start, template(), GRID, SCORE, FREE, mesh=mesh)
    assert seen[0] == seen[1]


@pytest.mark.nightly
def test_four_devices_need_not_talk():
    """The same results, and no collective in the compiled program."""
    mesh = device_mesh(jax.devices())
    batch = particles()
    cell = jnp.full(6, jnp.inf), jnp.zeros(6)  # without limits, and without a prior
    settings = replace(FREE, at_once=1)
    arguments = (batch, unsearched(batch), replicate(template(), mesh), cell, SCORE)
    compiled = polish.polish_batch.lower(*arguments, settings, mesh).compile()
    result = compiled(*arguments, settings, mesh)
    assert len(result.refined.z_score.sharding.device_set) == 4
    # Two programs, each rounding its own way: to a thousandth of the errors.
    ours, theirs = result.refined, found().refined
    np.testing.assert_allclose(ours.z_score, theirs.z_score, rtol=1e-5)
    np.testing.assert_allclose(
        ours.alignment.rotation, theirs.alignment.rotation, rtol=0, atol=2e-5
    )
    np.testing.assert_array_equal(result.evaluations, found().evaluations)
    text = compiled.compiled.as_text()
    assert "while" in text
    for word in ("all-gather", "all-reduce", "all-to-all", "collective-permute"):
        assert word not in text


# --- errors ----------------------------------------------------------------------------


@pytest.mark.slow
def test_standard_errors_of_many_particles():
    """64 noises at SNR 16: errors over their σ have an RMS of 1."""
    ratios = []
    for seed in range(8):
        result = polished(particles(seed=seed))
        there, sigma = result.refined.alignment, result.errors
        defocus = np.mean(there.defocus_angstrom, axis=1) - np.mean(IMAGING.defocus)
        ratios.append(
            np.column_stack(
                [
                    errors_deg(there.rotation) / sigma.rotation_deg,
                    (np.asarray(there.position_px) - [100.0, 200.0] - PLACE)
                    / sigma.shift_px,
                    (defocus - DEFOCUS) / sigma.defocus_angstrom,
                ]
            )
        )
        assert np.all(
            sigma.largest_rotation_deg >= 0.999 * jnp.max(sigma.rotation_deg, axis=1)
        )
    ratios = np.concatenate(ratios)
    # An RMS of 64 is good to 9 %, one of all 384 to 4 %; at this SNR true errors are some
    # 3 % larger than the linear theory's (docs/accuracy.md).
    np.testing.assert_allclose(np.sqrt(np.mean(ratios**2, axis=0)), 1.0, atol=0.3)
    assert np.sqrt(np.mean(ratios**2)) == pytest.approx(1.03, abs=0.1)


@pytest.mark.slow
def test_information_is_the_curvature():
    """Without noise, at the truth, minus the score's Hessian is z JᵀJ."""
    imaging = replace_defocus(0)
    one = one_particle(SCORE, 20 * clean(0), imaging, rotation=ROTATION[0])
    smooth, at = template(), jnp.zeros(9).at[3:5].set(single(PLACE[0]))

    def z(at):
        offsets = coordinates.offsets_from(at, ALL, one.alignment)
        return jr.z_score(offsets, one, smooth, SCORE)

    @jax.jit
    def both(at):
        curvature = jax.lax.map(lambda e: jax.jvp(jax.grad(z), (at,), (e,))[1], jnp.eye(9))
        return z(at), curvature, pose_information(at, one, smooth, SCORE, ALL)

    value, curvature, information = both(at)
    unit = np.sqrt(np.diag(information))
    ours = np.asarray(information) / np.outer(unit, unit)
    theirs = -np.asarray(curvature) / float(value) / np.outer(unit, unit)
    # Of a model that explains 99.9 % of the signal.
    np.testing.assert_allclose(theirs, ours, rtol=0, atol=0.03)
    assert value == pytest.approx(20.0, rel=0.01)


def test_errors_are_of_the_summit_s_own_curvature():
    """At a maximum; at a saddle or a flat place, the expected information.

    As they are at a summit that is sharper than the signal's: noise has made it so.
    """
    expected = single([[4.0, 1.0], [1.0, 9.0]])
    bend = single([[3.0, 0.0], [0.0, 9.0]])
    sharper = single([[5.0, 0.0], [0.0, 9.0]])  # a determinant of 45 against 35

    def known(bend):
        def z(at):
            return 10.0 * (1 - at @ bend @ at / 2)

        return jax.jit(pose_errors.observed_or_expected, static_argnums=0)(
            z, jnp.zeros(2), expected
        )

    np.testing.assert_allclose(known(bend), bend, rtol=1e-6)
    np.testing.assert_allclose(known(0.3 * expected), 0.3 * expected, rtol=1e-6)
    np.testing.assert_array_equal(known(sharper), expected)
    np.testing.assert_array_equal(known(bend * single([[1, 0], [0, -1]])), expected)
    np.testing.assert_array_equal(known(0.1 * expected), expected)
    np.testing.assert_array_equal(known(jnp.nan * bend), expected)


@pytest.mark.slow
def test_noise_makes_errors_of_their_own():
    """With cubic slices alone; others' second derivatives leave the kinks out."""
    batch = particles()
    volume = sim.potential_volume(ATOMS, SIDE, IMAGING.pixel_size)
    linear = jr.make_template(volume, "padded")
    differ = []
    for smooth in (template(), linear):
        result = jr.polish_particles(batch, unsearched(batch), smooth, GRID, SCORE, FREE)

        def expected(particle, found, smooth=smooth):
            particle = jr.recentred(
                particle,
                eqx.tree_at(
                    lambda r: r.alignment.position_px,
                    found,
                    jnp.round(found.alignment.position_px),
                ),
                SCORE,
            )
            shift = found.alignment.position_px - particle.alignment.position_px
            at = jnp.zeros(6).at[3:5].set(shift)
            information = pose_information(at, particle, smooth, SCORE, FREE.parameters)
            return pose_errors.standard_errors(information, found.snr, FREE.parameters)

        theirs = eqx.filter_jit(eqx.filter_vmap(expected))(batch, result.refined)
        ratio = result.errors.rotation_deg / theirs.rotation_deg
        differ.append(float(jnp.max(jnp.abs(ratio - 1))))
    # A third of the curvature at z = 10 is noise's; from the same pose a few percent
    # are left, which the pose's own uncertainty adds.
    assert 0.1 < differ[0] < 0.5 and differ[1] < 0.05


def test_astigmatism_has_two_plain_components():
    """Also without astigmatism, and with v larger than u."""
    for u, v in ((5000.0, 5000.0), (5200.0, 4800.0), (4800.0, 5200.0)):
        start = eqx.tree_at(
            lambda a: a.defocus_angstrom,
            jax.tree.map(lambda leaf: leaf[0], particles().alignment),
            single([u, v]),
        )

        @jax.jit
        def vector(at, start=start):
            offsets = coordinates.offsets_from(at, ("astigmatism",), start)
            u_v = start.defocus_angstrom + offsets.defocus_angstrom
            double = 2 * jnp.deg2rad(offsets.astigmatism_deg)
            half = (u_v[0] - u_v[1]) / 2
            mean = jnp.sum(u_v) / 2
            return jnp.stack([half * jnp.cos(double), half * jnp.sin(double), mean])

        slopes = jax.jit(jax.jacobian(vector))(jnp.zeros(2))
        # float32's rounding of a defocus
        np.testing.assert_allclose(slopes, [[1, 0], [0, 1], [0, 0]], atol=5e-3)
        moved = vector(single([30.0, -40.0]))
        np.testing.assert_allclose(moved, [(u - v) / 2 + 30.0, -40.0, 5000.0], atol=0.2)


@pytest.mark.slow
@pytest.mark.parametrize("parameters", [FREE.parameters, ("pixel_size", "shift")])
def test_the_first_evaluation_is_known_from_the_slopes(parameters):
    """Value and gradient at the start, without another evaluation."""
    particle = jax.tree.map(lambda leaf: leaf[1], particles())
    maps = 0.3 + particle.corr_mean, 1.4 * particle.corr_std
    particle = replace(particle, corr_mean=maps[0], corr_std=maps[1])
    free = coordinates.count(parameters)

    @jax.jit
    def both(particle, template):
        rows, norm = pose_rows(jnp.zeros(free), particle, template, SCORE, parameters)
        near = near_z_score(particle, template, SCORE, parameters, norm)
        known = near_z_score_at_start(rows, norm, particle, SCORE)
        exact = jr.z_score(Offsets.zeros(), particle, template, SCORE)
        return known, jax.value_and_grad(near)(jnp.zeros(free)), exact

    (z, slope), (near, slope_of_near), exact = both(particle, template())
    assert abs(exact) > 2
    np.testing.assert_allclose([z, near], [exact, exact], rtol=1e-5)
    scale = np.abs(slope_of_near).max()
    np.testing.assert_allclose(slope, slope_of_near, rtol=1e-4, atol=1e-4 * scale)


# --- a user's own ----------------------------------------------------------------------


class Weighted(Score):
    """A custom score: another one with low frequencies at half weight."""

    inner: jr.ImageCTF

    box = property(lambda self: self.inner.box)
    side = property(lambda self: self.inner.side)
    padded_box = property(lambda self: self.inner.padded_box)
    filter_grid = property(lambda self: self.inner.filter_grid)

    def weighted(self, particle):
        def weigh(values, shape):
            k = jnp.asarray(worlds.radial_frequency(shape), jnp.float32)
            return values * jnp.where(k < 0.1, 0.5, 1.0)

        return eqx.tree_at(
            lambda p: (p.filter_image, p.filter_template),
            particle,
            (
                weigh(particle.filter_image, self.padded_box),
                weigh(particle.filter_template, self.filter_grid),
            ),
        )

    def prepare(self, particle, grid):
        return self.inner.prepare(self.weighted(particle), grid)

    def correlate(self, prepared, template, rotation):
        return self.inner.correlate(prepared, template, rotation)

    def norms(self, prepared, template, rotation):
        return self.inner.norms(prepared, template, rotation)

    def power_weights(self, prepared):
        return self.inner.power_weights(prepared)

    def columns(self, particle, pixel_size, defocus, corners):
        return self.inner.columns(self.weighted(particle), pixel_size, defocus, corners)

    def matched_filter(self, particle, template, pixel_size):
        return self.inner.matched_filter(self.weighted(particle), template, pixel_size)


@pytest.mark.slow
def test_an_own_score_is_searched_and_polished():
    """Offsets of zero at the best grid point give the grid's score, wherever it is."""
    score = Weighted(SCORE)
    batch = jax.tree.map(lambda leaf: leaf[:3], particles())
    moved = eqx.tree_at(
        lambda p: p.image, batch, jnp.roll(batch.image, (1, -2), axis=(1, 2))
    )
    refined = jr.refine_particles(moved, template(), GRID, score)
    assert np.all(np.abs(np.asarray(refined.grid_index[:, 3:]) - [3, 0]) <= 1)
    there = eqx.filter_vmap(lambda p, r: jr.recentred(p, r, score))(moved, refined)
    z = eqx.filter_jit(eqx.filter_vmap(jr.z_score, in_axes=(None, 0, None, None)))(
        Offsets.zeros(), there, template(), score
    )
    np.testing.assert_allclose(z, refined.z_score, rtol=1e-5)

    result = jr.polish_particles(moved, refined, template(), GRID, score, FREE)
    assert np.all(result.refined.z_score > refined.z_score)
    np.testing.assert_array_equal(result.refined.grid_index, refined.grid_index)
    # The optimum of another score, from another start, and further off in the box.
    assert np.all(np.abs(result.refined.z_score - found().refined.z_score[:3]) > 0.01)
    np.testing.assert_allclose(
        result.refined.alignment.position_px - np.array([1.0, -2.0]),
        found().refined.alignment.position_px[:3],
        atol=0.2,
    )


@pytest.mark.slow
def test_an_own_objective_by_adam():
    """The score with a prior on the shift; a callback in it counts its calls."""
    seen = []

    def objective(offsets, particle, template, score):
        jax.debug.callback(lambda x: seen.append(float(x)), particle.image[0, 0])
        prior = 1e4 * jnp.sum(offsets.shift_px**2)
        return jr.z_score(offsets, particle, template, score) - prior

    batch = jax.tree.map(lambda leaf: leaf[:2], particles())
    settings = replace(FREE, objective=objective, method="adam", max_evaluations=60)
    result = polished(batch, settings=settings)
    jax.effects_barrier()
    for image, count in zip(batch.image, result.evaluations, strict=True):
        assert np.sum(np.isclose(seen, float(image[0, 0]))) == count == 60
    moved = result.refined.alignment.position_px - batch.alignment.position_px
    assert np.abs(moved).max() < 0.01
    start = unsearched(batch)
    assert np.all(result.refined.z_score > start.z_score)
    assert np.all(result.refined.z_score < found().refined.z_score[:2])
