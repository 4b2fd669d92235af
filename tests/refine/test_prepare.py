"""From micrographs to particles: filters, boxes, statistics, against the oracles."""

from concurrent.futures import ThreadPoolExecutor

import jax.numpy as jnp
import numpy as np
import pytest

from jaxrefine.data import Alignment
from jaxrefine.physics.filters import Bandpass, Curve, Filters, Whitening
from jaxrefine.refine.prepare import (
    OUTSIDE_STD,
    cut_particles,
    mean_map_peaks,
    prepare_micrograph,
)
from jaxrefine.refine.template_ctf import TemplateCTF
from tests.oracles import boxes, filters
from tests.worlds import Imaging, single

SIDE, BOX = 16, (20, 24)
SCORE = TemplateCTF(BOX, SIDE)
IMAGING = Imaging(defocus=(1200.0, 1000.0), pixel_size=2.5)
WIDE = IMAGING.image_ctf(BOX, SIDE)
FILTERS = {
    "whitening": (Filters(), dict(whitening={})),
    "all": (
        Filters(
            Whitening(),
            Bandpass(low=0.05, high=0.35, falloff=0.05),
            Curve((0.0, 0.2, 0.6), (0.5, 1.0, 0.3)),
        ),
        dict(
            whitening={},
            bandpass=dict(low=0.05, high=0.35, falloff=0.05),
            curve=dict(frequencies=[0.0, 0.2, 0.6], amplitudes=[0.5, 1.0, 0.3]),
        ),
    ),
    "none": (Filters(whitening=None), dict()),
}


def coloured(shape, seed=0, offset=40.0, gain=3.0):
    rng = np.random.default_rng(seed)
    spectrum = np.fft.rfft2(rng.standard_normal(shape))
    spectrum *= np.exp(-6 * filters.radial_frequency(shape)) + 0.1
    image = np.fft.irfft2(spectrum, s=shape)
    return (offset + gain * image / image.std()).astype(np.float32)


IMAGE = coloured((70, 64))
MEAN_MAP = np.random.default_rng(1).standard_normal((55, 49)).astype(np.float32) * 0.1
STD_MAP = np.random.default_rng(2).uniform(0.9, 1.2, (55, 49)).astype(np.float32)


def alignment_at(corners):
    n = len(corners)
    return Alignment(
        rotation=single(np.tile(np.eye(3), (n, 1, 1))),
        position_px=single(corners),
        defocus_angstrom=single(np.tile(IMAGING.defocus, (n, 1))),
        astigmatism_deg=single(np.full(n, IMAGING.angle)),
        pixel_size_angstrom=single(np.full(n, IMAGING.pixel_size)),
    )


def cut_at(corners, filters, score=SCORE, image=IMAGE, std=STD_MAP, **more):
    prepare = {
        k: more.pop(k) for k in ("global_filtering", "second_square_root") if k in more
    }
    micrograph = prepare_micrograph(
        jnp.asarray(image), jnp.asarray(MEAN_MAP), jnp.asarray(std), filters, **prepare
    )
    n = len(corners)
    pixel_sizes = single(np.full(n, IMAGING.pixel_size))
    return cut_particles(
        micrograph, alignment_at(corners), IMAGING.optics(n), pixel_sizes, score, **more
    )


def rfft(image):
    transform = np.fft.rfft2(np.asarray(image, np.float64))
    transform[0, 0] = 0.0
    return transform


def box_corner(corner, score):
    return [
        boxes.box_corner(int(at), box, SIDE) - (cut - box) // 2
        for at, box, cut in zip(corner, score.box, score.padded_box, strict=True)
    ]


# The filters one by one, which are a part of all, are left out of a quick look.
FILTERED = pytest.mark.parametrize(
    ("name", "score"),
    [
        pytest.param("none", SCORE, marks=pytest.mark.slow),
        pytest.param("whitening", SCORE, marks=pytest.mark.slow),
        ("all", SCORE),
        ("all", WIDE),
    ],
)
# inside; beyond two edges; in a corner; wholly outside of the map on one side
CORNERS = np.array([[20, 22], [0, 0], [54, 48], [-3, 30], [30, 60]])


@pytest.mark.slow
@FILTERED
def test_global_filtering(name, score):
    ours, switches = FILTERS[name]
    particles = cut_at(CORNERS, ours, score)

    transform = rfft(IMAGE)
    total = filters.combined_filter(transform, IMAGE.shape, **switches)
    band = None
    if "bandpass" in switches:
        band = filters.bandpass_filter(IMAGE.shape, **switches["bandpass"])
    normalised = filters.normalise_image(transform, total, band, IMAGE.shape, BOX)
    # The peer's boxes have pixel variance 1/(H W), ours 1.
    expected = np.fft.irfft2(normalised, s=IMAGE.shape) * np.sqrt(BOX[0] * BOX[1])
    for index, corner in enumerate(CORNERS):
        cut = boxes.reflect_cut(expected, *box_corner(corner, score), score.padded_box)
        # values up to 4; float32 transforms of numbers with mean 40
        np.testing.assert_allclose(particles.image[index], cut, rtol=0, atol=5e-5)
    for got, shape in (
        (particles.filter_image, score.padded_box),
        (particles.filter_template, score.filter_grid),
    ):
        grid = filters.combined_filter(transform, IMAGE.shape, shape, **switches)
        for each in got:
            np.testing.assert_allclose(each, grid, rtol=0, atol=2e-5)


@FILTERED
def test_local_filtering(name, score):
    """Filter and scale are measured in each box; a wider cut gets the same."""
    ours, switches = FILTERS[name]
    particles = cut_at(CORNERS, ours, score, global_filtering=False)
    for index, corner in enumerate(CORNERS):
        box = boxes.reflect_cut(IMAGE, *box_corner(corner, SCORE), BOX)
        transform = rfft(box)
        total = filters.combined_filter(transform, BOX, **switches)
        band = None
        if "bandpass" in switches:
            band = filters.bandpass_filter(BOX, **switches["bandpass"])
        normalised = filters.normalise_image(transform, total, band, BOX, BOX)
        projective = filters.combined_filter(transform, BOX, score.filter_grid, **switches)
        np.testing.assert_allclose(
            particles.filter_template[index], projective, rtol=0, atol=2e-5
        )
        if score is SCORE:
            expected = np.fft.irfft2(normalised, s=BOX) * np.sqrt(BOX[0] * BOX[1])
        else:
            # the box's filter and factor on the whole cut, about the box's mean
            cut = boxes.reflect_cut(IMAGE, *box_corner(corner, score), score.padded_box)
            own = filters.combined_filter(transform, BOX, score.padded_box, **switches)
            some = np.abs(transform * total) > 1e-6
            factor = np.median(np.abs(normalised[some] / (transform * total)[some]))
            spectrum = np.fft.rfft2(cut - box.mean()) * own * factor
            expected = np.fft.irfft2(spectrum, s=score.padded_box) * np.sqrt(
                BOX[0] * BOX[1]
            )
        # A box whitened by itself: values up to 4, its filter good to 2e-5 of 1.
        np.testing.assert_allclose(particles.image[index], expected, rtol=0, atol=2e-4)


@pytest.mark.parametrize("global_filtering", [True, False])
def test_the_wide_cut_holds_the_box_in_its_middle(global_filtering):
    narrow = cut_at(CORNERS[:1], Filters(None), global_filtering=global_filtering)
    wide = cut_at(CORNERS[:1], Filters(None), WIDE, global_filtering=global_filtering)
    top, left = ((c - b) // 2 for c, b in zip(WIDE.padded_box, BOX, strict=True))
    assert top > 0 and left > 0
    middle = wide.image[0, top : top + BOX[0], left : left + BOX[1]]
    np.testing.assert_allclose(middle, narrow.image[0], rtol=0, atol=2e-5)


# --- statistics ------------------------------------------------------------------------


def test_statistic_maps_are_cut_at_the_box_s_corner():
    particles = cut_at(CORNERS, Filters(None), WIDE)  # the wide cut must not matter
    shape = SCORE.positions
    assert shape == (5, 9)
    for index, corner in enumerate(CORNERS):
        top, left = box_corner(corner, SCORE)
        mean, std = boxes.statistic_cuts(MEAN_MAP, STD_MAP**2, top, left, shape)
        np.testing.assert_array_equal(particles.corr_mean[index], mean.astype(np.float32))
        std[std == 1e5] = OUTSIDE_STD  # the peer's number for the same
        np.testing.assert_allclose(particles.corr_std[index], std, rtol=1e-6)
    outside = np.asarray(particles.corr_std) == OUTSIDE_STD
    assert not outside[0].any() and outside[4].all()
    assert outside[1].sum() == 5 * 9 - 3 * 5
    np.testing.assert_array_equal(np.asarray(particles.corr_mean)[outside], 0)


def test_outside_is_a_matter_of_place_and_not_of_values():
    """Within the map any standard deviation counts; if none does, there is no score."""

    def std_of(value):
        std_map = np.full(STD_MAP.shape, value, np.float32)
        return np.asarray(cut_at(CORNERS[[0, 1, 4]], Filters(None), std=std_map).corr_std)

    middle, edge, beyond = std_of(3e7)
    assert (middle == np.float32(3e7)).all() and (beyond == OUTSIDE_STD).all()
    assert set(edge.ravel().tolist()) == {float(np.float32(3e7)), OUTSIDE_STD}
    for value in (np.inf, np.nan, 0.0, -1.0):
        middle, edge, beyond = std_of(value)
        assert not (middle > 0).any() and np.isnan(edge).all()
        assert (beyond == OUTSIDE_STD).all()


def test_the_map_belongs_to_the_template_s_corner():
    """The central position of a box is the particle's position in the map."""
    particles = cut_at(CORNERS[:1], Filters(None))
    y, x = CORNERS[0]
    assert particles.corr_std[0][SCORE.margin] == STD_MAP[y, x]


def test_the_background_is_the_median_map():
    particles = cut_at(CORNERS[:2], Filters(None))
    np.testing.assert_allclose(particles.background_mean, np.median(MEAN_MAP), rtol=1e-6)
    np.testing.assert_allclose(particles.background_std, np.median(STD_MAP), rtol=1e-6)


def test_noise_is_what_orientations_and_positions_have_together():
    """For noise: a part that all orientations share, and a separate part of each."""
    shared = np.random.default_rng(4).normal(0.1, 0.6, MEAN_MAP.shape).astype(np.float32)
    shared[:2] = 40.0  # particles
    own = np.full_like(STD_MAP, 0.8)
    micrograph = prepare_micrograph(
        jnp.asarray(IMAGE), jnp.asarray(shared), jnp.asarray(own), Filters(None)
    )
    assert micrograph.noise_std == pytest.approx(1.0, abs=0.05)
    assert micrograph.background_std == pytest.approx(0.8, rel=1e-6)


def test_nan_in_a_map_does_not_spoil_the_background():
    holed = STD_MAP.copy()
    holed[:3] = np.nan
    micrograph = prepare_micrograph(
        jnp.asarray(IMAGE), jnp.asarray(MEAN_MAP), jnp.asarray(holed), Filters(None)
    )
    expected = np.median(holed[np.isfinite(holed)])
    assert micrograph.background_std == pytest.approx(expected, rel=1e-6)


def test_the_peer_s_second_square_root():
    """It divides by the root of the standard deviation; outside and background stay."""
    particles = cut_at(CORNERS, Filters(None), second_square_root=True)
    plain = cut_at(CORNERS, Filters(None))
    outside = np.asarray(plain.corr_std) == OUTSIDE_STD
    np.testing.assert_array_equal(np.asarray(particles.corr_std)[outside], OUTSIDE_STD)
    np.testing.assert_allclose(
        particles.corr_std[~outside], np.sqrt(plain.corr_std[~outside]), rtol=1e-6
    )
    np.testing.assert_array_equal(particles.background_std, plain.background_std)


# --- the rest --------------------------------------------------------------------------


@pytest.mark.parametrize("global_filtering", [True, False])
def test_gain_and_offset_do_not_matter(global_filtering):
    ours = FILTERS["all"][0]
    plain = cut_at(CORNERS, ours, global_filtering=global_filtering)
    for offset, gain, atol in (
        (2000.0, 3000.0, 1e-4),
        # An offset 10,000 times the contrast leaves float32 with 3 digits of the signal:
        # the image itself has lost them, not the program.
        (-700.0, 0.07, 0.01),
    ):
        image = coloured(IMAGE.shape, offset=offset, gain=gain)
        changed = cut_at(CORNERS, ours, image=image, global_filtering=global_filtering)
        np.testing.assert_allclose(changed.image, plain.image, rtol=0, atol=atol)


def test_image_scale_changes_the_unit():
    """Leopard-EM's, say, in which a globally filtered box counts as (H+1)(W+1)."""
    scale = float(np.sqrt(BOX[0] * BOX[1] / ((BOX[0] + 1) * (BOX[1] + 1))))
    plain = cut_at(CORNERS, Filters(None))
    scaled = cut_at(CORNERS, Filters(None), image_scale=scale)
    np.testing.assert_allclose(scaled.image, scale * plain.image, rtol=1e-6)
    np.testing.assert_array_equal(scaled.filter_image, plain.filter_image)


def test_positions_are_rounded_to_whole_pixels():
    particles = cut_at(CORNERS[:3] + np.array([[0.4, -0.4]]), Filters(None))
    np.testing.assert_array_equal(particles.alignment.position_px, CORNERS[:3])
    np.testing.assert_array_equal(particles.image, cut_at(CORNERS[:3], Filters(None)).image)


def test_validity_is_passed_on():
    assert np.all(cut_at(CORNERS, Filters(None)).valid)
    flags = jnp.asarray([True, False, True, True, False])
    particles = cut_at(CORNERS, Filters(None), valid=flags)
    np.testing.assert_array_equal(particles.valid, flags)


def test_random_phases_leave_power_and_template_alone():
    plain = cut_at(CORNERS[:1], Filters(), global_filtering=False)
    randomized = Filters(randomize_phases_from=0.2)
    got = cut_at(CORNERS[:1], randomized, global_filtering=False)
    np.testing.assert_allclose(got.filter_template, plain.filter_template, atol=1e-5)
    before, after = (np.fft.rfft2(p.image[0]) for p in (plain, got))
    np.testing.assert_allclose(np.abs(after), np.abs(before), rtol=0, atol=1e-3)
    fine = filters.radial_frequency(BOX) >= 0.2
    np.testing.assert_allclose(after[~fine], before[~fine], rtol=0, atol=1e-3)
    assert np.mean(np.abs(after - before)[fine] > 1) > 0.8


def test_nan_in_a_micrograph_stays_local_with_local_filtering():
    image = IMAGE.copy()
    image[2, 2] = np.nan
    local = cut_at(CORNERS, Filters(), image=image, global_filtering=False)
    bad = ~np.isfinite(np.asarray(local.image)).all(axis=(1, 2))
    np.testing.assert_array_equal(bad, [False, True, False, False, False])


@pytest.mark.slow
@pytest.mark.parametrize("exponent", [-110, -40, 50, 110])
def test_any_gain_within_float32(exponent):
    """A power of two changes no digit, whatever its size."""
    image = coloured((48, 40)).astype(np.float32)
    maps = (jnp.zeros((33, 25)), jnp.ones((33, 25)))
    plain = prepare_micrograph(jnp.asarray(image), *maps, Filters()).image
    scaled = jnp.asarray(np.ldexp(image, exponent))
    np.testing.assert_array_equal(prepare_micrograph(scaled, *maps, Filters()).image, plain)


def test_the_same_to_the_last_bit_every_time():
    """An interrupted run continues to the same table, byte for byte."""
    rng = np.random.default_rng(0)
    image, mean = rng.standard_normal((512, 520)), rng.standard_normal((481, 489))

    def filtered(_):
        maps = single(0.01 * mean), single(1 + 0.01 * mean)
        made = prepare_micrograph(single(image), *maps, Filters())
        return np.asarray(made.image), float(made.noise_std)

    first = filtered(0)
    with ThreadPoolExecutor(3) as pool:
        for again in pool.map(filtered, range(15)):
            np.testing.assert_array_equal(again[0], first[0])
            assert again[1] == first[1]


def test_peaks_of_the_mean_map():
    """With arrays of NumPy as with those of JAX; positions without a value are no peaks."""
    maps = np.zeros((4, 5, 6), np.float32)
    maps[1, 2, 3] = 3.1
    maps[2, 2, 3] = 2.9
    maps[2, 0, 0] = maps[3] = np.nan
    for array in (np.asarray, jnp.asarray):
        background = array(np.float32(1.0)), array(np.float32(1.0))
        peaks = mean_map_peaks(array(maps), *background)
        np.testing.assert_array_equal(peaks, [False, True, False, False])
