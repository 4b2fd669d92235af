"""Each oracle against frozen output of Leopard-EM 1.2 (float32), or against itself.

The peer's documentation and code disagree in one place that is tested here, the axis
from which astigmatism is measured; there the code decides.
"""

import json
from pathlib import Path

import numpy as np
import pytest

from . import boxes, ctf, filters, local_grid, rotations, scores, slices

PEER = Path(__file__).resolve().parents[1] / "data" / "peer"


def frozen(name: str) -> dict[str, np.ndarray]:
    with np.load(PEER / f"{name}.npz") as file:
        return dict(file)


def settings(data: dict[str, np.ndarray], key: str = "settings"):
    return json.loads(str(data[key]))


def assert_close(ours, peer, atol):
    np.testing.assert_allclose(ours, peer, rtol=0, atol=atol)


def rfft_without_dc(image):
    transform = np.fft.rfft2(image.astype(np.float64))
    transform[0, 0] = 0.0
    return transform


# --- rotations -------------------------------------------------------------------------


def test_euler_matrices():
    data = frozen("rotations")
    for angles, matrix in zip(data["euler_deg"], data["matrices"], strict=True):
        assert_close(rotations.euler_matrix(*angles), matrix, 1e-14)  # float64 there too


def test_composition_is_the_matrix_product():
    data = frozen("rotations")
    matrices = [rotations.euler_matrix(*angles) for angles in data["euler_deg"]]
    for a, b, angles in zip(
        matrices, matrices[::-1], data["combined_euler_deg"], strict=True
    ):
        # 1e-6: the peer's way back to Euler angles is ill-conditioned at the poles.
        assert_close(a @ b, rotations.euler_matrix(*angles), 1e-6)


def test_euler_angles_invert_the_matrix_also_at_the_poles():
    for angles in frozen("rotations")["euler_deg"]:
        matrix = rotations.euler_matrix(*angles)
        phi, theta, psi = rotations.euler_angles(matrix)
        assert 0 <= phi < 360 and 0 <= theta <= 180 and 0 <= psi < 360
        again = rotations.euler_matrix(phi, theta, psi)
        assert rotations.angle_between(matrix, again) < 1e-9


# --- slices ----------------------------------------------------------------------------


def test_central_slices():
    data = frozen("slices")
    half = slices.half_volume(data["volume"])
    for angles, peer in zip(data["euler_deg"], data["slices"], strict=True):
        ours = slices.central_slice(half, rotations.euler_matrix(*angles))
        # float32 coordinates are good to about 1e-6 px; neighbouring samples of this
        # white volume differ by 100 to 200.
        assert_close(ours, peer, 4e-4)


def test_an_unrotated_slice_is_the_volume_s_own_plane():
    volume = frozen("slices")["volume"].astype(np.float64)
    centred = np.fft.ifftshift(volume.sum(axis=0))
    expected = np.fft.rfft2(centred)
    ours = slices.central_slice(slices.half_volume(volume), np.eye(3))
    assert_close(ours, expected, 1e-10)
    assert_close(slices.exact_projection_slice(volume, np.eye(3)), expected, 1e-10)


def test_the_direct_sum_and_the_samples_agree_on_the_lattice():
    volume = frozen("slices")["volume"].astype(np.float64)
    half = slices.half_volume(volume)
    for angles in ((90, 0, 0), (180, 0, 0), (0, 180, 0), (90, 90, 0), (0, 90, 180)):
        rotation = rotations.euler_matrix(*angles)
        exact = slices.exact_projection_slice(volume, rotation)
        ours = slices.central_slice(half, rotation)
        stored = ours != 0  # +Nyquist along y or z has no place in the half volume
        assert np.sum(~stored) < 25
        assert_close(ours[stored], exact[stored], 1e-10)


def test_trilinear_samples_approximate_the_direct_sum():
    volume = frozen("correlation")["volume"].astype(np.float64)
    padded = np.pad(volume, 8)
    for angles in ((31.836, 76.935, 78.359), (250.1, 140.2, 5.6)):
        rotation = rotations.euler_matrix(*angles)
        exact = slices.exact_projection_slice(volume, rotation)
        for half, least in (
            # Trilinear errors fall with padding; the cube's cut at Nyquist stays.
            (slices.half_volume(volume), 0.99),
            (slices.half_volume(padded), 0.995),
        ):
            ours = slices.central_slice(half, rotation, side=16)
            product = np.vdot(exact[1:], ours[1:]).real
            norms = np.linalg.norm(exact[1:]) * np.linalg.norm(ours[1:])
            assert product / norms > least


def test_elsewhere_rounding_does_not_matter():
    data = frozen("slices")
    half = slices.half_volume(data["volume"])
    nudge = rotations.euler_matrix(2e-6, 3e-6, -1e-6)
    for angles in data["euler_deg"]:
        rotation = rotations.euler_matrix(*angles)
        continuous = ~slices.rounding_decides(16, rotation)
        ours = slices.central_slice(half, rotation)
        nudged = slices.central_slice(half, rotation @ nudge)
        assert_close(ours[continuous], nudged[continuous], 1e-3)


def test_scale_stretches_the_frequencies():
    volume = frozen("correlation")["volume"].astype(np.float64)
    half = slices.half_volume(volume)
    # A template of 3 Å sampled for a micrograph of 1.5 Å: every second frequency.
    rotation = rotations.rotation_z(0)
    wide = slices.central_slice(half, rotation, scale=2.0)
    plain = slices.central_slice(half, rotation)
    assert_close(wide[:4, :5], plain[:8:2, :9:2], 1e-10)
    assert np.all(wide[5:12] == 0)  # beyond the template's Nyquist
    exact = slices.exact_projection_slice(volume, rotation, scale=2.0)
    assert_close(wide[:4, :5], exact[:4, :5], 1e-10)


# --- CTF -------------------------------------------------------------------------------


def ctf_of(setting, **changes):
    s = setting | changes
    return ctf.ctf_2d(
        s["shape"],
        s["pixel_size"],
        s["u"],
        s["v"],
        s["angle"],
        s["kv"],
        s["cs"],
        s["ac"],
        s["phase"],
        s["b"],
    )


def test_ctf():
    data = frozen("ctf")
    for index, setting in enumerate(settings(data)):
        peer = data[f"ctf_{index}"].astype(np.float64) * data[f"envelope_{index}"]
        # float32 phases reach 200 rad, where one rounding is 1.5e-5.
        assert_close(ctf_of(setting), peer, 1.5e-4)


def test_astigmatism_is_measured_from_x_towards_y():
    """torch-ctf's docstring: "0 places defocus_u along the y-axis". Its code: along x."""
    data = frozen("ctf")
    setting = settings(data)[0]
    peer = data["ctf_0"]
    assert np.abs(ctf_of(setting, angle=90 - setting["angle"]) - peer).max() > 0.1

    # Along kx only defocus_u counts where the angle is 0.
    along_x = ctf_of(setting, angle=0.0)[0]
    only_u = ctf_of(setting, v=setting["u"])[0]
    assert_close(along_x, only_u, 1e-12)


def test_the_peer_takes_the_modulus_of_the_astigmatism():
    """So defocus_u need not be the larger one, and swapping u and v changes nothing."""
    data = frozen("ctf")
    first, _, swapped = settings(data)[:3]
    assert (first["u"], first["v"]) == (swapped["v"], swapped["u"])
    assert np.array_equal(data["ctf_0"], data["ctf_2"])

    def signed(angle):
        return ctf.ctf_2d(
            (32, 32), 1.5, 4950.0, 5200.0, angle, 300.0, 2.7, 0.07, signed_astigmatism=True
        )

    # u <-> v with the angle turned by 90 degrees is the same lens.
    assert_close(signed(25.0 + 90.0), ctf_of(first), 1e-12)
    assert np.abs(signed(25.0) - ctf_of(first)).max() > 0.1


def test_wavelength():
    # Kirkland, Advanced Computing in Electron Microscopy, table: 300 and 200 kV
    assert_close(ctf.electron_wavelength(300.0), 0.019687, 1e-6)
    assert_close(ctf.electron_wavelength(200.0), 0.025079, 1e-6)


# --- filters ---------------------------------------------------------------------------

FILTERS = frozen("filters")
SHAPES = settings(FILTERS)["shapes"]


def bandpass_arguments(setting):
    return dict(
        low=setting.get("low_freq_cutoff"),
        high=setting.get("high_freq_cutoff"),
        falloff=setting.get("falloff"),
    )


@pytest.mark.parametrize("name", SHAPES)
def test_whitening(name):
    transform = rfft_without_dc(FILTERS[f"image_{name}"])
    shape = tuple(SHAPES[name])
    for index, setting in enumerate(settings(FILTERS)["whitening"]):
        for grid, grid_shape in settings(FILTERS)["grids"].items():
            ours = filters.whitening_filter(transform, shape, grid_shape, **setting)
            # Values up to 1. A bin that holds few coefficients has small, cancelling
            # float32 weights.
            assert_close(ours, FILTERS[f"whitening_{name}_{grid}_{index}"], 1e-5)


@pytest.mark.parametrize("name", SHAPES)
def test_bandpass(name):
    for index, setting in enumerate(settings(FILTERS)["bandpass"]):
        ours = filters.bandpass_filter(SHAPES[name], **bandpass_arguments(setting))
        # float32: an error of 3e-8 in k over a ramp of 0.04
        assert_close(ours, FILTERS[f"bandpass_{name}_{index}"], 5e-6)


@pytest.mark.parametrize("name", SHAPES)
def test_curve(name):
    for index, setting in enumerate(settings(FILTERS)["curve"]):
        ours = filters.curve_filter(SHAPES[name], **setting)
        assert_close(ours, FILTERS[f"curve_{name}_{index}"], 2e-6)


@pytest.mark.parametrize("name", SHAPES)
def test_combined_filter_and_normalisation(name):
    transform = rfft_without_dc(FILTERS[f"image_{name}"])
    shape = tuple(SHAPES[name])
    stored = settings(FILTERS)
    bandpass = bandpass_arguments(stored["bandpass"][0])
    switches = dict(whitening={}, bandpass=bandpass, curve=stored["curve"][1])

    own = filters.combined_filter(transform, shape, **switches)
    assert_close(own, FILTERS[f"combined_{name}_own"], 1e-5)
    template = filters.combined_filter(
        transform, shape, tuple(stored["grids"]["template"]), **switches
    )
    assert_close(template, FILTERS[f"combined_{name}_template"], 1e-5)

    band = filters.bandpass_filter(shape, **bandpass)
    box = tuple(stored["box_shape"])
    for area, peer_box_area in (("box", False), ("box_plus_one", True)):
        ours = filters.normalise_image(transform, own, band, shape, box, peer_box_area)
        # Values up to 7; the float32 FFT of an image with mean 3 loses a few 1e-6.
        assert_close(ours, FILTERS[f"normalised_{name}_{area}"], 5e-5)

    white = filters.combined_filter(transform, shape, whitening={})
    ours = filters.normalise_image(transform, white, None, shape, box)
    assert_close(ours, FILTERS[f"normalised_{name}_no_bandpass"], 5e-5)
    # Without a bandpass: pixel variance 1 / (box area).
    variance = np.fft.irfft2(ours, s=shape).var()
    assert_close(variance * box[0] * box[1], 1.0, 1e-10)


# --- boxes -----------------------------------------------------------------------------


def test_boxes():
    data = frozen("boxes")
    shape = tuple(data["shape"])
    for corner, reflected, padded in zip(
        data["corners"], data["reflect"], data["constant"], strict=True
    ):
        top, left = (int(c) for c in corner)
        assert np.array_equal(boxes.reflect_cut(data["image"], top, left, shape), reflected)
        assert np.array_equal(
            boxes.constant_cut(data["image"], top, left, shape, 1e10), padded
        )


def test_the_statistics_outside_their_maps_cannot_win():
    mean, std = boxes.statistic_cuts(np.ones((5, 6)), np.full((5, 6), 4.0), -1, 3, (3, 4))
    assert np.array_equal(mean, [[0] * 4, [1, 1, 1, 0], [1, 1, 1, 0]])
    assert np.array_equal(std, [[1e5] * 4, [2, 2, 2, 1e5], [2, 2, 2, 1e5]])
    assert boxes.box_corner(position=10, box=80, template=64) == 2


# --- scores ----------------------------------------------------------------------------


def test_projection_normalisation():
    data = frozen("normalisation")
    for index, box_shape in enumerate(data["box_shapes"]):
        for projection, peer in zip(
            data["projections"], data[f"normalised_{index}"], strict=True
        ):
            ours = scores.normalise_projection(
                projection.astype(np.float64), tuple(box_shape)
            )
            assert_close(ours, peer, 5e-6)  # values up to 5


def test_template_ctf_correlation():
    data = frozen("correlation")
    optics = settings(data, "optics")
    half = slices.half_volume(data["volume"])
    box = np.fft.irfft2(data["box_rfft"].astype(np.complex128), s=(24, 24))
    for p, pixel_size_offset in enumerate(data["pixel_size_offsets"]):
        for d, defocus_offset in enumerate(data["defocus_offsets"]):
            # The peer's pixel-size search changes Cs and nothing else.
            cs_scale = (1 + pixel_size_offset / optics["pixel_size"]) ** 4
            transfer = ctf.ctf_2d(
                (16, 16),
                optics["pixel_size"],
                optics["defocus_u"],
                optics["defocus_v"],
                optics["astigmatism_angle"],
                optics["voltage"],
                optics["spherical_aberration"] / cs_scale,
                optics["amplitude_contrast_ratio"],
                optics["phase_shift"],
                optics["ctf_B_factor"],
                defocus_offset=defocus_offset,
            )
            assert_close(transfer, data["ctf"][p, d], 2e-5)
            for k, angles in enumerate(data["euler_deg"]):
                ours = scores.template_ctf_correlation(
                    half,
                    rotations.euler_matrix(*angles),
                    box,
                    data["projective_filter"],
                    transfer,
                )
                # Correlations have std 1 here; two float32 FFTs and float32 slices.
                assert_close(ours, data["correlation"][p, d, k, :9, :9], 4e-5)


def white(shape):
    """F = 1, an astigmatic CTF and a B factor on any grid."""
    return ctf.ctf_2d(shape, 1.5, 5200.0, 4700.0, 30.0, 300.0, 2.7, 0.07, 0.0, 20.0)


HALF = slices.half_volume(frozen("correlation")["volume"])
POSE = rotations.euler_matrix(31.836, 76.935, 78.359)


def test_noise_has_unit_correlation_in_both_scores():
    generator = np.random.default_rng(0)
    template_ctf, image_ctf = [], []
    for _ in range(40):
        noise = generator.standard_normal((128, 128))
        box = noise[52:76, 52:76] / 24
        template_ctf.append(
            scores.template_ctf_correlation(HALF, POSE, box, 1.0, white((16, 16)))
        )
        image_ctf.append(scores.image_ctf_correlation(HALF, POSE, noise, (24, 24), white))
    # 40 corners of 9 x 9 correlated values; the peer's norm is off by the mean's square.
    assert 0.9 < np.std(template_ctf) < 1.1
    assert 0.9 < np.std(image_ctf) < 1.1


def test_a_particle_s_own_image_correlates_to_its_norm():
    """With the CTF on the image: cc = <t, CTF CTF t> / |CTF t| = |CTF t| at its place."""
    template = scores.bare_template(HALF, POSE)
    image = np.zeros((128, 128))
    image[57 : 57 + 16, 55 : 55 + 16] = template
    image = np.fft.irfft2(np.fft.rfft2(image) * white(image.shape), s=image.shape)
    correlation = scores.image_ctf_correlation(HALF, POSE, image, (24, 24), white)
    # the box begins at (52, 52)
    assert np.unravel_index(correlation.argmax(), correlation.shape) == (5, 3)
    # The CTF is real, so the circular convolution by it on this grid is exact but for
    # the imaginary part at Nyquist.
    norm = scores.unwrapped_norm(template, white, large_side=128)
    np.testing.assert_allclose(correlation[5, 3], norm, rtol=1e-6)


def test_the_norm_does_not_depend_on_the_large_grid():
    template = scores.bare_template(HALF, POSE)
    norms = [scores.unwrapped_norm(template, white, side) for side in (128, 160, 256)]
    np.testing.assert_allclose(norms, norms[-1], rtol=1e-4)
    # On the template's own grid the point spread wraps around, and the norm is another.
    wrapped = scores.unwrapped_norm(template, white, 16)
    assert abs(wrapped / norms[-1] - 1) > 5e-3


def test_the_norm_from_band_limited_power_on_the_doubled_grid():
    """nu^2 = sum of w |T|^2 G / (2n)^2 on 2n, G's lags beyond n cut off."""
    template = scores.bare_template(HALF, POSE)
    n = template.shape[0]

    def round_ctf(shape):
        return ctf.ctf_2d(shape, 1.5, 5200.0, 5200.0, 0.0, 300.0, 2.7, 0.07)

    # Without astigmatism the two are the same number. With it they differ by some 4e-5:
    # on the Nyquist lines of an even grid an astigmatic CTF is not Hermitian.
    assert_norms_agree(template, n, round_ctf, 1e-10)
    assert_norms_agree(template, n, white, 1e-4)


def assert_norms_agree(template, n, transfer, rtol):
    lags = np.fft.irfft2(transfer((8 * n, 8 * n)) ** 2, s=(8 * n, 8 * n))
    keep = np.arange(-n, n)
    power = np.fft.rfft2(lags[np.ix_(keep, keep)][np.ix_(keep, keep)]).real
    spectrum = np.abs(np.fft.rfft2(template, s=(2 * n, 2 * n))) ** 2
    weights = filters.half_plane_weights(2 * n)
    squared = np.sum(weights * spectrum * power) / (2 * n) ** 2
    np.testing.assert_allclose(
        np.sqrt(squared), scores.unwrapped_norm(template, transfer), rtol=rtol
    )


# --- orientation grids -----------------------------------------------------------------


def rotation_vector(matrix):
    """Rotation vector in degrees; for small rotations."""
    axis = np.array(
        [
            matrix[2, 1] - matrix[1, 2],
            matrix[0, 2] - matrix[2, 0],
            matrix[1, 0] - matrix[0, 1],
        ]
    )
    sine = np.linalg.norm(axis) / 2
    angle = np.arctan2(sine, (np.trace(matrix) - 1) / 2)
    return np.rad2deg(axis / 2 * (angle / sine if sine > 1e-12 else 1.0))


def test_uniform_grid_fills_three_axes():
    grid = local_grid.uniform_grid()
    assert grid.shape == (347 * 31, 3, 3)
    vectors = np.array([rotation_vector(matrix) for matrix in grid])
    lengths = np.linalg.norm(vectors, axis=1)
    assert np.sum(lengths < 1e-9) == 1  # the identity, once
    tilts = np.degrees(np.arccos(np.clip(grid[:, 2, 2], -1, 1)))
    assert_close(tilts.max(), 2.5, 1e-6)
    for axis, reach in ((0, 2.5), (1, 2.5), (2, 1.5)):
        # The rings begin on y; along x the outermost has a direction within 3 degrees.
        assert_close(vectors[:, axis].max(), reach, 0.01)
        assert_close(vectors[:, axis].min(), -reach, 0.01)
    # A tilt by itself brings no rotation about the beam.
    bare = vectors.reshape(347, 31, 3)[:, 15]
    assert_close(bare[:, 2], 0.0, 1e-12)


@pytest.mark.parametrize(
    ("psi", "theta", "count"),
    [
        ((1.5, 0.15), (2.5, 0.25), 347 * 21),
        ((1.0, 0.3), (1.0, 0.4), (1 + 6 + 13) * 7),  # no multiples: stay inside
        ((0.0, 0.1), (1.0, 0.5), 1 + 6 + 13),
        ((1.0, 0.5), (0.0, 0.5), 5),
    ],
)
def test_uniform_grid_counts(psi, theta, count):
    grid = local_grid.uniform_grid(*psi, *theta)
    assert len(grid) == count
    for matrix in grid:
        assert_close(matrix @ matrix.T, np.eye(3), 1e-12)


def test_frozen_grids_of_the_peer():
    data = frozen("grids")
    counts = [len(data[f"euler_deg_{i}"]) for i in range(len(data["steps_deg"]))]
    assert counts[:8] == [651, 441, 221, 143, 121, 77, 25, 9]
    # Why it is not the default: one of the two tilt axes is not searched.
    vectors = [
        rotation_vector(rotations.euler_matrix(*angles)) for angles in data["euler_deg_1"]
    ]
    reach = np.abs(vectors).max(axis=0)
    assert reach[0] < 0.1 and reach[1] > 2.4 and reach[2] > 2.9


def test_frozen_searches_of_the_peer():
    data = frozen("searches")
    assert_close(data["offsets_0"], np.arange(-100, 101, 20), 0)
    assert data["offsets_1"].max() == 110  # past the maximum of 100
    assert 0 in data["offsets_1"] and 0 not in data["offsets_2"]
    scale = (1 + data["pixel_size_offsets"].astype(np.float64) / data["pixel_size"]) ** 4
    assert_close(data["cs_range"], data["cs_mm"] / scale, 5e-6)  # float32
