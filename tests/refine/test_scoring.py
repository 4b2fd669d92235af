"""Both scores, compared with brute-force oracles, Leopard-EM, and known signals."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrefine import simulate as sim
from jaxrefine.physics.slices import make_template
from jaxrefine.refine.grids import local_grid
from jaxrefine.refine.image_ctf import ImageCTF
from jaxrefine.refine.template_ctf import TemplateCTF
from tests import worlds
from tests.leopard_em_reference import frozen, settings
from tests.oracles import ctf, rotations, scores, slices
from tests.worlds import Imaging, one_particle, single

PEER = frozen("correlation")
SIDE = 16
POSES = np.stack([rotations.euler_matrix(*angles) for angles in PEER["euler_deg"]])
VOLUME = PEER["volume"]


@eqx.filter_jit
def correlations(score, particle, template, grid, poses):
    """(pixel size, defocus, orientation, y, x)"""
    prepared = score.prepare(particle, grid)
    each = jax.vmap(score.correlate, in_axes=(None, None, 0), out_axes=2)
    return each(prepared, template, poses)


def uneven(k):
    """A filter that is neither flat nor small anywhere."""
    return 0.4 + 1.2 * k


def transfer_of(imaging, curve, pixel_size, defocus):
    """F·CTF·B on any grid, float64."""

    def transfer(shape):
        return curve(worlds.radial_frequency(shape)) * ctf.ctf_2d(
            shape,
            pixel_size,
            imaging.defocus[0] + defocus,
            imaging.defocus[1] + defocus,
            imaging.angle,
            imaging.kv,
            imaging.cs,
            imaging.contrast,
            imaging.phase,
            imaging.b,
            signed_astigmatism=True,
        )

    return transfer


def noise(shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


IMAGINGS = {
    "astigmatic": Imaging(),
    "u below v": Imaging(defocus=(4700.0, 5400.0), angle=75.0, phase=30.0, b=0.0),
}


@pytest.mark.parametrize("imaging", IMAGINGS.values(), ids=IMAGINGS)
@pytest.mark.parametrize("kind", ["image", "template"])
def test_correlations_are_the_oracle_s(kind, imaging):
    box = (26, 28)
    defoci, pixel_sizes = np.array([-300.0, 0.0, 150.0]), np.array([-0.06, 0.0, 0.03])
    if kind == "image":
        score = imaging.image_ctf(box, SIDE, defocus=300.0, pixel_size=0.06)
    else:
        score = TemplateCTF(box, SIDE)
    assert score.positions == (11, 13)
    cut = noise(score.padded_box)
    particle = one_particle(score, cut, imaging, template_pixel_size=1.47, curve=uneven)
    grid = local_grid(None, defoci, pixel_sizes)
    template = make_template(VOLUME, "trilinear")
    ours = correlations(score, particle, template, grid, single(POSES))
    assert ours.shape == (3, 3, 3, *score.positions)

    half = slices.half_volume(VOLUME)
    for m, l, k in np.ndindex(3, 3, 3):
        if m != 1 and l != 1:
            continue  # each offset alone and with one other is enough
        pixel_size = imaging.pixel_size + pixel_sizes[m]
        transfer = transfer_of(imaging, uneven, pixel_size, defoci[l])
        scale = 1.47 / pixel_size
        # The unit is the standard deviation of noise, 1. float32: sums of 256 products of
        # order 1, after two transforms, are good to some 1e-5 of it.
        if kind == "image":
            # An odd side: on the Nyquist lines of an even one an astigmatic CTF is not
            # Hermitian, which costs the oracle's norm 1e-4 of itself.
            expected = scores.image_ctf_correlation(
                half, POSES[k], cut, box, transfer, scale, large_side=8 * SIDE + 1
            )
        else:
            expected = scores.template_ctf_correlation(
                half,
                POSES[k],
                cut / np.sqrt(box[0] * box[1]),  # the peer's unit
                uneven(worlds.radial_frequency((SIDE, SIDE))),
                transfer((SIDE, SIDE)) / uneven(worlds.radial_frequency((SIDE, SIDE))),
                scale,
            )
        assert np.abs(expected).max() > 0.1
        np.testing.assert_allclose(ours[m, l, k], expected, rtol=0, atol=1e-4)


def test_template_ctf_is_the_peer_s():
    """Its pixel-size search too, which changes Cs and nothing else."""
    optics = settings(PEER, "optics")
    imaging = Imaging(
        defocus=(optics["defocus_u"], optics["defocus_v"]),
        angle=optics["astigmatism_angle"],
        pixel_size=optics["pixel_size"],
        b=optics["ctf_B_factor"],
    )
    score = TemplateCTF((24, 24), SIDE, pixel_size_changes_cs=True)
    box = np.fft.irfft2(PEER["box_rfft"].astype(np.complex128), s=(24, 24))
    particle = one_particle(score, box * 24, imaging)  # ours has pixel variance 1
    particle = eqx.tree_at(
        lambda p: p.filter_template, particle, single(PEER["projective_filter"])
    )
    grid = local_grid(
        None,
        PEER["defocus_offsets"].astype(float),
        PEER["pixel_size_offsets"].astype(float),
    )
    template = make_template(VOLUME, "trilinear")
    ours = correlations(score, particle, template, grid, single(POSES))
    # Standard deviation 1 here. Two float32 programs, each some 4e-5 from float64.
    np.testing.assert_allclose(ours, PEER["correlation"][..., :9, :9], rtol=0, atol=8e-5)

    # Without that switch the pixel size rescales the template, and the result differs.
    scaled = TemplateCTF((24, 24), SIDE)
    other = correlations(scaled, particle, template, grid, single(POSES))
    np.testing.assert_allclose(other[0], ours[0], rtol=0, atol=1e-5)
    assert np.abs(other[1] - ours[1]).max() > 0.1


# --- the norm of the image score -------------------------------------------------------


@pytest.mark.parametrize("defocus", [(8200.0, 7800.0), (20200.0, 19800.0)])
def test_the_norm_is_the_unwrapped_one(defocus):
    """In a tight box, where the CTF's spread is many times the template."""
    imaging = Imaging(defocus=defocus, angle=40.0, pixel_size=1.2, b=0.0)
    side = 32
    score = imaging.image_ctf((side + 4, side + 4), side)
    particle = one_particle(score, np.zeros(score.padded_box), imaging, curve=uneven)
    prepared = eqx.filter_jit(score.prepare)(particle, local_grid())
    weights = np.asarray(prepared.norm_weights[0][0, 0], np.float64)
    half = slices.half_volume(sim.potential_volume(worlds.ball(side, 1.2), side, 1.2))
    transfer = transfer_of(imaging, uneven, imaging.pixel_size, 0.0)
    # Twice the spread at the corner of the Fourier plane, 116 or 280 px, and the template.
    large = 605 if max(defocus) > 1e4 else 275
    for rotation in POSES:
        template = scores.bare_template(half, rotation)
        spectrum = np.abs(np.fft.rfft2(template, s=(2 * side, 2 * side))) ** 2
        ours = np.sqrt(np.sum(weights * spectrum))
        expected = scores.unwrapped_norm(template, transfer, large)
        assert ours == pytest.approx(expected, rel=1e-4)
        # What it would be on the template's own grid is something else altogether.
        wrapped = scores.unwrapped_norm(template, transfer, side)
        assert abs(wrapped / expected - 1) > 1e-2


def test_the_grids_of_the_image_score():
    """The padded box holds the box and twice the CTF's spread at 4 Å, at a fast size."""
    imaging = Imaging(defocus=(10000.0, 9000.0), pixel_size=1.0)
    score = imaging.image_ctf((40, 36), 32)
    # λΔk + Cs λ³ k³ at 1/4 Å = 49.2 + 3.2 px
    assert score.padded_box == (150, 144) and score.box == (40, 36)
    assert score.norm_side % 2 == 1
    # At pixels of 3 Å it is Nyquist that is kept, 6 Å: 10.9 + 0.3 px.
    assert Imaging(defocus=(1e4, 1e4), pixel_size=3.0).image_ctf(
        (40, 36), 32
    ).padded_box == (64, 60)
    # Underfocus or overfocus, it spreads the same.
    over = Imaging(defocus=(-10000.0, -9000.0), pixel_size=1.0).image_ctf((40, 36), 32)
    assert over == score
    wide = ImageCTF.for_particles(
        (40, 36),
        32,
        max_defocus_angstrom=0.0,
        voltage_kv=300.0,
        spherical_aberration_mm=0.0,
        pixel_size_angstrom=1.0,
    )
    assert wide.padded_box == (40, 36) and wide.norm_side >= 64


# --- noise and signal ------------------------------------------------------------------

TIGHT = Imaging(defocus=(12000.0, 12000.0), angle=0.0, pixel_size=1.2, b=0.0)
TIGHT_SCORES = {
    "image": TIGHT.image_ctf((36, 36), 32),
    "template": TemplateCTF((36, 36), 32),
}


@pytest.mark.parametrize("kind", TIGHT_SCORES)
def test_snr_in_a_tight_box(kind):
    """At 12,000 Å, the particle filling 0.78 of the template, the box 4 px larger.

    The correlation is linear in the image, so its gradient is the filter that it applies:
    white noise of variance 1 gives it the variance of that gradient's sum of squares.
    """
    score = TIGHT_SCORES[kind]
    atoms = worlds.ball(32, 1.2)
    rotation = sim.random_rotations(1, np.random.default_rng(1))[0]
    template = make_template(sim.potential_volume(atoms, 32, 1.2), "padded")
    cut = worlds.signal_in_padded_box(score, atoms, TIGHT, rotation, grid=400)
    particle = one_particle(score, cut, TIGHT)

    @eqx.filter_jit
    @eqx.filter_value_and_grad(has_aux=True)
    def at_the_particle(image):
        changed = eqx.tree_at(lambda p: p.image, particle, image)
        found = correlations(score, changed, template, local_grid(), single(rotation[None]))
        return found[0, 0, 0, *score.margin], found[0, 0, 0]

    (signal, everywhere), gradient = at_the_particle(single(cut))
    noise_std = float(jnp.linalg.norm(gradient))
    # Exact but for float32, and for the peer's own norm, which is off by the mean's
    # square: 1.4 % here.
    assert noise_std == pytest.approx(1.0, abs=1e-3 if kind == "image" else 0.02)
    assert np.unravel_index(everywhere.argmax(), everywhere.shape) == score.margin
    if kind == "image":
        assert signal / noise_std > 0.98
    else:
        assert signal / noise_std < 0.70


# --- precision -------------------------------------------------------------------------


@pytest.mark.parametrize("kind", TIGHT_SCORES)
def test_matrix_products_are_exact_on_accelerators(kind):
    """By default a GPU multiplies float32 matrices with 11 bits: 1e-3 of the norm."""
    score = (
        TemplateCTF((24, 24), SIDE)
        if kind == "template"
        else Imaging().image_ctf((24, 24), SIDE)
    )
    template = make_template(VOLUME, "trilinear")
    particle = one_particle(score, np.zeros(score.padded_box), Imaging())

    def whole(rotation):
        return correlations(score, particle, template, local_grid(), rotation[None])

    products = worlds.matrix_products(whole, single(np.eye(3)))
    assert len(products) == (1 if kind == "image" else 0)
    highest = jax.lax.Precision.HIGHEST
    assert all(precision == (highest, highest) for precision in products)
