"""Central slices, compared with float64 sums, exact projections, and Leopard-EM."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrefine import simulate as sim
from jaxrefine.data import InputError, Template
from jaxrefine.physics import slices
from jaxrefine.physics.ctf import electron_wavelength_angstrom
from jaxrefine.physics.rotations import rotation_vector_to_matrix
from tests.leopard_em_reference import frozen
from tests.oracles import rotations, scores
from tests.oracles import slices as oracle
from tests.worlds import single

PEER = frozen("slices")
SIDE = 16
POSES = [rotations.euler_matrix(*angles) for angles in PEER["euler_deg"]]
central_slice = jax.jit(slices.central_slice)


def blob(side, seed=0):
    """Smooth, without symmetry, and 0 at the faces: a few Gaussians within a ball."""
    rng = np.random.default_rng(seed)
    z, y, x = np.indices((side, side, side)) - side // 2
    volume = np.zeros((side, side, side))
    for _ in range(25):
        centre = rng.standard_normal(3)
        centre *= 0.3 * side * rng.uniform() ** (1 / 3) / np.linalg.norm(centre)
        r2 = (z - centre[0]) ** 2 + (y - centre[1]) ** 2 + (x - centre[2]) ** 2
        volume += rng.uniform(0.5, 1.5) * np.exp(-r2 / (2 * 1.3**2))
    return volume.astype(np.float32)


SMOOTH = blob(SIDE)


def ours(template, rotation, scale=1.0):
    return np.asarray(central_slice(template, jnp.asarray(rotation, jnp.float32), scale))


def compensated(volume):
    """What "padded" slices, in float64: padded twice, divided by sinc² along each axis.

    The background, the mean over the cube's faces, is subtracted beforehand.
    """
    side = volume.shape[0]
    faces = [np.take(volume, i, axis) for axis in range(3) for i in (0, -1)]
    volume = volume - np.mean(faces)
    window = np.sinc((np.arange(side) - side // 2) / (2 * side)) ** 2
    product = window[:, None, None] * window[:, None] * window
    return oracle.half_volume(np.pad(volume / product, side // 2))


# --- trilinear -------------------------------------------------------------------------


def test_the_transform_is_the_oracle_s():
    template = slices.make_template(PEER["volume"], "trilinear")
    assert template.side == SIDE
    expected = oracle.half_volume(PEER["volume"])
    # values of 64 on average, float32 transform
    np.testing.assert_allclose(template.volume_rfft, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("flipped", [False, True])
def test_curved_slices_of_the_peer(flipped):
    template = slices.make_template(PEER["volume"], "trilinear")
    half_wavelength = electron_wavelength_angstrom(300.0) / 2
    curvature = (-1 if flipped else 1) * half_wavelength / PEER["curved_pixel_size"]
    for expected, pose in zip(PEER["curved"][int(flipped)], POSES[-3:], strict=True):
        got = central_slice(template, single(pose), 1.0, curvature)
        # As for flat slices. On a face of the cube, the peer takes two as outside.
        inside = expected != 0
        assert np.sum(got[~inside] != 0) <= 2
        np.testing.assert_allclose(got[inside], expected[inside], rtol=0, atol=2e-3)
        flat = central_slice(template, single(pose))
        assert np.abs(flat - expected).max() > 10


@pytest.mark.parametrize("index", range(len(POSES)))
def test_trilinear_slices_of_the_peer(index):
    """White noise, for which any wrong coordinate matters.

    Quarter and half turns, the first 13 and 14 of the poses, put whole lines on ties
    (kx = 0) and on the faces of the stored cube; the rule there is the peer's too.
    """
    template = slices.make_template(PEER["volume"], "trilinear")
    got = ours(template, POSES[index])
    # Neighbouring samples differ by 100 to 200, and float32 coordinates are good to
    # 1e-6 of a voxel, in the peer too; and a position within 1e-5 voxels below a whole
    # one counts as that, an extrapolation by that share of a second difference.
    np.testing.assert_allclose(got, PEER["slices"][index], rtol=0, atol=1e-3)
    expected = oracle.central_slice(oracle.half_volume(PEER["volume"]), POSES[index])
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-3)


@pytest.mark.parametrize("sampling", ["trilinear", "padded"])
def test_rounding_of_a_quarter_turn_costs_no_line(sampling):
    """Made in float32, cos 90 degrees is -4e-8: the line kx = 0 must not become 0."""
    template = slices.make_template(SMOOTH, sampling)
    half = oracle.half_volume(SMOOTH) if sampling == "trilinear" else compensated(SMOOTH)
    for euler in ((90.0, 0.0, 0.0), (0.0, 90.0, 0.0), (0.0, 180.0, 0.0), (90.0, 90.0, 0.0)):
        rotation = rotations.euler_matrix(*euler)
        expected = oracle.central_slice(half, rotation, side=SIDE)
        for noise in (0.0, 6e-8, -6e-8, 1e-9, -1e-9):
            got = ours(template, rotation + noise)
            # The row and column of the Nyquist frequency may lie on a face: left out.
            inner = np.ix_([*range(8), *range(9, 16)], range(8))
            atol = 2e-5 * np.abs(expected).max()
            np.testing.assert_allclose(got[inner], expected[inner], rtol=0, atol=atol)


def test_an_unrotated_slice_is_the_projection():
    template = slices.make_template(SMOOTH, "trilinear")
    expected = np.fft.rfft2(np.fft.ifftshift(SMOOTH.astype(np.float64).sum(axis=0)))
    atol = 1e-6 * np.abs(expected).max()
    np.testing.assert_allclose(ours(template, np.eye(3)), expected, rtol=0, atol=atol)


# --- padded ----------------------------------------------------------------------------


@pytest.mark.parametrize("index", [0, 4, 15, 16, 18, 20, 22])
def test_padded_slices_are_samples_of_the_compensated_volume(index):
    template = slices.make_template(SMOOTH, "padded")
    assert template.volume_rfft.shape == (32, 32, 17) and template.side == SIDE
    half, rotation = compensated(SMOOTH), POSES[index]
    clear = ~oracle.rounding_decides(32, rotation, side=SIDE)
    expected = oracle.central_slice(half, rotation, side=SIDE)
    atol = 1e-6 * np.abs(expected).max() * 4  # float32 coordinates, slopes of 2 per voxel
    np.testing.assert_allclose(ours(template, rotation)[clear], expected[clear], 0, atol)


def correlation(one, other):
    """Of two projections, from their half planes: DC left out, inner columns twice."""
    weights = np.full(one.shape, 2.0)
    weights[:, [0, -1]] = 1.0
    weights[0, 0] = 0.0
    product = np.sum(weights * (np.conj(one) * other).real)
    return product / np.sqrt(
        np.sum(weights * np.abs(one) ** 2) * np.sum(weights * np.abs(other) ** 2)
    )


@pytest.mark.parametrize("index", [13, 15, 16, 17, 18, 19, 20, 21, 23])
def test_padded_slices_are_nearly_exact_projections(index):
    exact = oracle.exact_projection_slice(SMOOTH, POSES[index])
    by = {
        sampling: correlation(
            exact, ours(slices.make_template(SMOOTH, sampling), POSES[index])
        )
        for sampling in ("padded", "trilinear")
    }
    assert by["padded"] > 0.9997
    assert 1 - by["padded"] < 0.1 * (1 - by["trilinear"])


@pytest.mark.parametrize("index", [0, 1, 4, 7, 8, 22])
def test_padded_slices_on_the_lattice(index):
    """Their worst case: nothing is interpolated there, so the compensation is wrong."""
    exact = oracle.exact_projection_slice(SMOOTH, POSES[index])
    got = ours(slices.make_template(SMOOTH, "padded"), POSES[index])
    assert correlation(exact, got) > 0.9995


@pytest.mark.parametrize("index", [0, 4, 8, 13, 15, 17, 20, 22])
def test_cubic_slices_are_exact_projections(index):
    """Also on the lattice. What is left is the background's, at the volume's faces."""
    exact = oracle.exact_projection_slice(SMOOTH, POSES[index])
    got = ours(slices.make_template(SMOOTH, "cubic"), POSES[index])
    assert correlation(exact, got) > 0.9999


def test_cubic_slices_turn_smoothly():
    """Their slopes have no jumps: they hardly bend over a step of 0.03 voxels."""
    axis = jnp.asarray(rotations.rotation_z(30.0)[:, 0], jnp.float32)
    angles = jnp.arange(30) * jnp.float32(0.1)

    def slopes(sampling):
        template = slices.make_template(SMOOTH, sampling)

        def real_part(angle):
            turn = rotation_vector_to_matrix(axis * angle)
            pose = turn @ jnp.asarray(POSES[15], jnp.float32)
            return slices.central_slice(template, pose).real

        one = jax.jit(lambda angle: jax.jvp(real_part, (angle,), (jnp.float32(1),))[1])
        return np.stack([one(angle) for angle in angles])

    def bend(slopes):
        return np.abs(np.diff(slopes, 2, axis=0)).max() / np.abs(slopes).max()

    assert bend(slopes("cubic")) < 0.01 < 0.1 < bend(slopes("padded"))


# --- scale -----------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [0.5, 0.97, 1.003, 1.5, 2.0])
@pytest.mark.parametrize("sampling", ["trilinear", "padded"])
def test_scale(sampling, scale):
    template = slices.make_template(SMOOTH, sampling)
    half = oracle.half_volume(SMOOTH) if sampling == "trilinear" else compensated(SMOOTH)
    for index in (0, 15, 18):
        expected = oracle.central_slice(half, POSES[index], scale, SIDE)
        clear = ~oracle.rounding_decides(half.shape[0], POSES[index], scale, SIDE)
        atol = 8e-6 * np.abs(expected).max()
        got = ours(template, POSES[index], scale)
        np.testing.assert_allclose(got[clear], expected[clear], rtol=0, atol=atol)
    if scale <= 1:  # beyond, the exact sum repeats where the template ends
        exact = oracle.exact_projection_slice(SMOOTH, POSES[15], scale)
        assert correlation(exact, ours(template, POSES[15], scale)) > 0.98


def test_a_coarser_image_sees_a_smaller_particle():
    """A template of 1 Å in an image of 1.25 Å: scale 0.8, and fewer pixels."""
    template = slices.make_template(blob(SIDE, seed=3), "padded")

    def radius(scale):
        central = oracle_projection(ours(template, np.eye(3), scale))
        weight = np.clip(central - scores.border_mean(central), 0, None)
        y, x = np.indices(central.shape)
        cy, cx = (np.sum(weight * c) / weight.sum() for c in (y, x))
        return np.sqrt(np.sum(weight * ((y - cy) ** 2 + (x - cx) ** 2)) / weight.sum())

    assert radius(1.0) / radius(0.8) == pytest.approx(1.25, abs=0.02)


def oracle_projection(central):
    return np.fft.ifftshift(np.fft.irfft2(central, s=(SIDE, SIDE)))


# --- the rest --------------------------------------------------------------------------


def test_the_centre_is_voxel_half_side():
    """A point at n//2 + (1, 2, 3) in zyx projects onto n//2 + (2, 3) in yx."""
    volume = np.zeros((SIDE,) * 3, np.float32)
    volume[SIDE // 2 + 1, SIDE // 2 + 2, SIDE // 2 + 3] = 1.0
    for sampling in ("trilinear", "padded", "cubic"):
        template = slices.make_template(volume, sampling)
        image = oracle_projection(ours(template, np.eye(3)))
        peak = np.unravel_index(image.argmax(), image.shape)
        assert peak == (SIDE // 2 + 2, SIDE // 2 + 3)


def test_a_rotated_slice_is_the_slice_of_a_rotated_point():
    """The image shows R.T p: the rotation maps the image frame to the volume frame."""
    volume = np.zeros((SIDE,) * 3, np.float32)
    volume[SIDE // 2, SIDE // 2, SIDE // 2 + 4] = 1.0  # p = (4, 0, 0)
    template = slices.make_template(volume, "padded")
    for psi, shown in ((90.0, (0, -4)), (180.0, (-4, 0)), (270.0, (0, 4))):
        image = oracle_projection(ours(template, rotations.rotation_z(psi)))
        x, y = shown
        peak = np.unravel_index(image.argmax(), image.shape)
        assert peak == (SIDE // 2 + y, SIDE // 2 + x)


def test_friedel_mates_make_no_difference():
    """A slice rotated by 180 degrees about y is the mirror image."""
    template = slices.make_template(SMOOTH, "padded")
    front = oracle_projection(ours(template, POSES[15]))
    back = oracle_projection(ours(template, POSES[15] @ rotations.rotation_y(180.0)))
    # x -> -x about n//2; the column without a partner (the first) is left out
    np.testing.assert_allclose(
        back[:, 1:], front[:, :0:-1], rtol=0, atol=2e-3 * np.abs(front).max()
    )


@pytest.mark.parametrize("shape", [(8, 8, 6), (7, 7, 7), (8, 6, 8), (6, 8, 8)])
def test_bad_volumes_are_refused(shape):
    with pytest.raises(InputError, match="cube of even side") as error:
        slices.make_template(np.zeros(shape, np.float32))
    assert str(shape) in str(error.value)


@pytest.mark.parametrize("shape", [(8, 8), (8,), (1, 8, 8, 8)])
def test_other_dimensions_are_refused(shape):
    with pytest.raises(InputError, match="cube of even side"):
        slices.make_template(np.zeros(shape, np.float32))


def test_gradients_are_finite_everywhere():
    """Also on the lattice, where every sample is at a kink or a tie."""
    template = slices.make_template(SMOOTH, "padded")

    @jax.jit
    @jax.grad
    def slope(rotation_and_scale):
        rotation, scale = rotation_and_scale
        return jnp.sum(jnp.abs(slices.central_slice(template, rotation, scale)) ** 2)

    for pose in (np.eye(3), POSES[8], POSES[15]):
        rotation, scale = slope((jnp.asarray(pose, jnp.float32), jnp.float32(1.01)))
        assert jnp.all(jnp.isfinite(rotation)) and jnp.isfinite(scale)
        assert jnp.any(rotation != 0)


def test_a_constant_background_changes_no_padded_slice():
    """Padded with zeros, it would otherwise become a cube's edges."""
    plain = slices.make_template(SMOOTH)
    raised = slices.make_template(SMOOTH + 3.0)
    # float32 holds the raised volume to 2e-7 of 3, times the number of voxels.
    atol = 1e-3 * float(np.abs(plain.real).max())
    np.testing.assert_allclose(raised.volume_rfft, plain.volume_rfft, rtol=0, atol=atol)


@pytest.mark.parametrize("stored", [96, 192, 256, 384])
def test_nothing_inside_the_cube_is_lost(stored, rng):
    """Slices of ones are 1 everywhere inside, also just beside whole positions."""
    ones = jnp.ones((stored, stored, stored // 2 + 1), jnp.float32)
    template = Template(ones, jnp.zeros_like(ones), side=stored // 2)
    # At half the scale the corners are at 0.35 of the cube's side.
    slice_of = jax.jit(lambda rotation: slices.central_slice(template, rotation, 0.5))
    for rotation in sim.random_rotations(30, rng):
        found = np.asarray(slice_of(jnp.asarray(rotation, jnp.float32)))
        # Weights add up to 1, each rounded.
        np.testing.assert_allclose(found, 1.0, atol=1e-5)
