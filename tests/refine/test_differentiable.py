"""The continuous score: equal to the search's at grid points, and its derivatives."""

import functools
from dataclasses import fields, replace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrefine as jr
from jaxrefine import simulate as sim
from jaxrefine.data import Offsets
from jaxrefine.refine.differentiable import feature, moved
from tests import worlds
from tests.worlds import Imaging, one_particle, single

SIDE, BOX = 24, (30, 28)
IMAGING = Imaging(defocus=(4200.0, 3800.0), pixel_size=2.0, phase=5.0)
SCORES = {
    "image": IMAGING.image_ctf(BOX, SIDE, defocus=400.0, pixel_size=0.1),
    "template": jr.TemplateCTF(BOX, SIDE),
}
KINDS = pytest.mark.parametrize("kind", SCORES)
ATOMS = worlds.ball(SIDE, 2.0, fill=0.7, b=60.0)
ROTATION = sim.random_rotations(1, np.random.default_rng(4))[0]


def gently(k):
    """A filter that is neither flat nor small anywhere."""
    return 0.5 + 0.8 * k


@functools.cache
def volume():
    return sim.potential_volume(ATOMS, SIDE, 2.0)


@functools.cache
def template(sampling="padded"):
    return jr.make_template(volume(), sampling)


@functools.cache
def particle(kind, offset_px=(0.0, 0.0), snr=20.0, seed=0):
    """Planted `offset_px` from the box's centre, in white noise of variance 1."""
    score = SCORES[kind]
    noise = np.random.default_rng(seed).standard_normal(score.padded_box)
    grid = 2 * max(SCORES["image"].padded_box)
    image = worlds.signal_in_padded_box(score, ATOMS, IMAGING, ROTATION, grid, offset_px)
    made = one_particle(
        score, snr * image + noise, IMAGING, rotation=ROTATION, curve=gently
    )
    return eqx.tree_at(
        lambda p: (p.corr_mean, p.corr_std),
        made,
        (made.corr_mean + 0.2, made.corr_std * 1.1),
    )


@functools.cache
def compiled(kind):
    """z and correlation of any offsets, one compilation each."""

    @eqx.filter_jit
    def z(offsets, particle, template):
        return jr.z_score(offsets, particle, template, SCORES[kind])

    return z


# --- what the search gives -------------------------------------------------------------


@KINDS
def test_offsets_mean_what_they_say(kind):
    """Each of them, against the search's own correlation of one grid point."""
    score, one = SCORES[kind], particle(kind)
    turn = jr.euler_to_matrix(np.array([10.0, 3.0, -8.0]))
    vector = np.array(
        [turn[2, 1] - turn[1, 2], turn[0, 2] - turn[2, 0], turn[1, 0] - turn[0, 1]]
    )
    angle = np.arccos((np.trace(turn) - 1) / 2)
    offsets = replace(
        Offsets.zeros(),
        rotation_deg=single(np.rad2deg(vector * angle / (2 * np.sin(angle)))),
        shift_px=single([2.0, -1.0]),
        defocus_angstrom=single([150.0, 150.0]),
        pixel_size_angstrom=single(0.02),
    )
    grid = jr.local_grid(None, np.array([150.0]), np.array([0.02]))
    rotation = single(ROTATION @ turn)

    @eqx.filter_jit
    def correlate(particle, template, grid, rotation):
        return score.correlate(score.prepare(particle, grid), template, rotation)[0, 0]

    correlation = correlate(one, template(), grid, rotation)
    y, x = score.margin
    expected = (correlation[y + 2, x - 1] - 0.2) / 1.1
    z = compiled(kind)(offsets, one, template())
    # whole pixels: the Fourier shift is exact; float32 of a correlation of 20
    assert float(z) == pytest.approx(float(expected), abs=1e-3)


@KINDS
def test_noise_has_variance_1_everywhere(kind):
    """The feature over its norm has length 1, at sub-pixel shifts and other poses too."""
    one, there = particle(kind), template()

    @eqx.filter_jit
    def length_of(offsets, particle, template):
        values, norm = feature(offsets, particle, template, SCORES[kind])
        return jnp.sqrt(jnp.sum(jnp.abs(values) ** 2)) / norm

    for shift in ([0.0, 0.0], [0.5, -0.3]):
        offsets = replace(
            Offsets.zeros(), shift_px=single(shift), rotation_deg=single([2.0, 1.0, -3.0])
        )
        length = float(length_of(offsets, one, there))
        # Leopard-EM's norm is off by the mean's square, the other's grid is finite.
        assert length == pytest.approx(1.0, abs=0.02 if kind == "template" else 2e-3)


@KINDS
def test_sub_pixel_shifts(kind):
    """A particle between pixels is found at its place, without loss of signal."""
    place = (0.4, -0.3)
    between, smooth = particle(kind, place, snr=500.0), template("cubic")
    shifts = np.stack(np.meshgrid(np.arange(-2, 3), np.arange(-2, 3), indexing="ij"), -1)
    shifts = place + 0.1 * shifts.reshape(-1, 2)

    def at(shift, particle):
        offsets = replace(Offsets.zeros(), shift_px=single(shift))
        return float(compiled(kind)(offsets, particle, smooth))

    z = np.array([at(shift, between) for shift in shifts])
    np.testing.assert_allclose(shifts[z.argmax()], place, atol=1e-6)
    # noise of 1, the same in both, and the edge of the cut
    assert z.max() == pytest.approx(at((0, 0), particle(kind, snr=500.0)), rel=0.01)
    assert at((0, 0), between) < 0.95 * z.max()


# --- derivatives -----------------------------------------------------------------------


def in_double(tree):
    return jax.tree.map(
        lambda leaf: jnp.asarray(leaf, jnp.float64) if eqx.is_inexact_array(leaf) else leaf,
        tree,
    )


@pytest.fixture
def double():
    with jax.enable_x64(True):
        yield


# Steps in each one's unit. In float64 the quotient is good to some 1e-8 of z, and no step
# leaves a voxel, where trilinear slices would have a kink.
STEP = {
    "rotation_deg": 1e-6,
    "shift_px": 1e-5,
    "defocus_angstrom": 1e-2,
    "astigmatism_deg": 1e-4,
    "pixel_size_angstrom": 1e-7,
    "phase_shift_deg": 1e-4,
    "spherical_aberration_mm": 1e-4,
    "amplitude_contrast": 1e-5,
    "b_factor_angstrom2": 1e-3,
    "beam_tilt_mrad": 1e-4,
    "even_zernikes": 1e-3,
    "odd_zernikes": 1e-3,
    "mag_matrix": 1e-8,
}


def test_every_offset_is_tested():
    assert set(STEP) == {field.name for field in fields(Offsets)}


@pytest.mark.slow
@KINDS
def test_slopes(kind, double):
    """Of everything, against finite differences.

    Each component of each offset, and the others along random directions: image, volume,
    statistics, filter, voltage, pixel sizes, and the matrix of the start.
    """
    score = SCORES[kind]

    def z_of(point):
        offsets, particle, volume = point
        return jr.z_score(offsets, particle, jr.make_template(volume), score)

    value_of, slope_of = eqx.filter_jit(z_of), eqx.filter_jit(eqx.filter_grad(z_of))
    elsewhere = Offsets(
        jnp.asarray([1.1, -0.7, 2.3]),
        jnp.asarray([0.31, -0.17]),
        jnp.asarray([33.0, -21.0]),
        *(jnp.asarray(value) for value in (4.0, 0.011, 2.0, 0.1, 0.01, 7.0)),
        jnp.asarray([0.3, -0.2]),
        jnp.asarray([2.0, -1.0, 3.0]),
        jnp.asarray([1.0, 2.0, -1.0, 0.5]),
        jnp.asarray([[0.004, 0.001], [-0.002, -0.003]]),
    )
    # With those that are left out of `zeros`.
    nowhere = jax.tree.map(jnp.zeros_like, elsewhere)
    one, start = in_double(particle(kind)), jnp.asarray(volume(), jnp.float64)
    filtered = "filter_image" if kind == "image" else "filter_template"
    places = {
        "volume": (lambda point: point[2], 1e-5 * float(jnp.abs(start).max())),
        "image": (lambda point: point[1].image, 1e-4),
        "filter": (lambda point: getattr(point[1], filtered), 1e-6),
        "mean": (lambda point: point[1].corr_mean, 1e-4),
        "std": (lambda point: point[1].corr_std, 1e-5),
        "rotation": (lambda point: point[1].alignment.rotation, 1e-8),
        "voltage": (lambda point: point[1].optics.voltage_kv, 1e-4),
        "voxel": (lambda point: point[1].template_pixel_size_angstrom, 1e-7),
        "pixel": (lambda point: point[1].alignment.pixel_size_angstrom, 1e-7),
    }
    for name, step in STEP.items():
        places[name] = (lambda point, name=name: getattr(point[0], name), step)
    rng = np.random.default_rng(3)
    for offsets in (nowhere, elsewhere):
        point = (offsets, one, start)
        slopes = slope_of(point)
        for name, (where, step) in places.items():
            value = where(point)
            if name in STEP:
                directions = jnp.eye(value.size).reshape(-1, *value.shape)
            else:
                directions = jnp.asarray(rng.standard_normal((1, *value.shape)))
            for direction in directions:
                up, down = (
                    value_of(eqx.tree_at(where, point, value + side * step * direction))
                    for side in (1, -1)
                )
                numerical = float(up - down) / (2 * step)
                ours = float(jnp.sum(where(slopes) * direction))
                # truncation; and z of 20, rounded at 1e-15 of sums a hundred times larger
                assert ours == pytest.approx(numerical, rel=1e-4, abs=1e-12 / step), name
                assert ours != 0


@pytest.mark.slow
def test_second_derivatives(double):
    """Along a direction, under vmap, against differences of the slopes; cubic slices."""
    one, there = in_double((particle("template"), template("cubic")))

    def z_of(x, one, there):
        offsets = replace(
            Offsets.zeros(),
            rotation_deg=x[:3],
            shift_px=x[3:5],
            defocus_angstrom=jnp.stack([x[5], x[5]]),
        )
        return jr.z_score(offsets, one, there, SCORES["template"])

    def along(x, direction, one, there):
        return jax.jvp(lambda x: jax.grad(z_of)(x, one, there), (x,), (direction,))

    points = jnp.asarray([[0.0] * 6, [0.5, -0.3, 0.8, 0.2, 0.1, 20.0]])
    direction = jnp.asarray([0.4, -0.5, 0.3, 0.07, 0.05, 30.0])
    bent = jax.jit(jax.vmap(along, in_axes=(0, None, None, None)))
    _, ours = bent(points, direction, one, there)
    step = 1e-4
    up, down = (
        bent(points + side * step * direction, direction, one, there)[0] for side in (1, -1)
    )
    numerical = (up - down) / (2 * step)
    # Truncation at step²; and samples at the template cube's faces come and go.
    np.testing.assert_allclose(ours, numerical, rtol=1e-3, atol=1e-5)


def test_moving_is_additive_where_it_should_be():
    one = particle("image")
    offsets = jax.tree.map(lambda leaf: leaf + 0.5, Offsets.zeros())
    there = moved(one, offsets)
    np.testing.assert_allclose(there.optics.b_factor_angstrom2, IMAGING.b + 0.5)
    np.testing.assert_allclose(there.optics.phase_shift_deg, IMAGING.phase + 0.5)
    np.testing.assert_allclose(there.optics.spherical_aberration_mm, IMAGING.cs + 0.5)
    np.testing.assert_allclose(there.optics.amplitude_contrast, IMAGING.contrast + 0.5)
    np.testing.assert_allclose(there.alignment.astigmatism_deg, IMAGING.angle + 0.5)
    np.testing.assert_allclose(
        there.alignment.defocus_angstrom, np.array(IMAGING.defocus) + 0.5
    )
    assert jax.tree.leaves(Offsets.zeros(3))[0].shape == (3, 3)
