"""The simulator, compared with slow sums, and its conventions with explicit geometry."""

import numpy as np
import pytest

from jaxrefine import simulate as sim

MICROSCOPE = sim.Microscope(b_factor_angstrom2=40.0)
SHAPE = (48, 40)


@pytest.fixture
def globule():
    return sim.random_globule(60, 16.0, np.random.default_rng(5)).blurred(30.0)


def one_atom(*xyz):
    b = 400.0  # wide enough to vanish at the Nyquist frequency
    return sim.Atoms(np.array([xyz], dtype=float), np.array([7.0]), np.array([b]))


def centre_of_mass(image):
    y, x = np.indices(image.shape)
    return np.array([np.sum(y * image), np.sum(x * image)]) / np.sum(image)


def project(atoms, rotation, shape, pixel_size, centre):
    spectrum = sim.exact_projection_rfft(atoms, rotation, shape, pixel_size, centre)
    return np.fft.irfft2(spectrum, s=shape)


# --- exactness ---------------------------------------------------------------------------


def test_volume_is_the_fourier_sum(globule):
    side, step = 12, 4.0
    spectrum = np.fft.rfftn(sim.potential_volume(globule, side, step).astype(float))
    frequency = np.fft.fftfreq(side, d=step)
    for iz, iy, ix in [(0, 0, 0), (1, 0, 2), (3, 10, 4), (11, 5, 1), (8, 2, 5), (0, 7, 3)]:
        k = np.array([frequency[ix], frequency[iy], frequency[iz]])
        wanted = 0.0
        for position, weight, b in zip(
            globule.positions_angstrom,
            globule.weights,
            globule.b_factor_angstrom2,
            strict=True,
        ):
            phase = -2j * np.pi * k @ (position + side // 2 * step)
            wanted += weight * np.exp(-0.25 * b * k @ k + phase)
        assert abs(spectrum[iz, iy, ix] - wanted) < 1e-4 * globule.weights.sum()


def test_projection_is_the_fourier_sum(globule):
    rotation = sim.random_rotations(1, np.random.default_rng(2))[0]
    step, centre = 1.7, (22.3, 19.6)
    got = sim.exact_projection_rfft(globule, rotation, SHAPE, step, centre)
    ky, kx = np.fft.fftfreq(SHAPE[0]), np.fft.rfftfreq(SHAPE[1])
    wanted = np.zeros_like(got)
    for position, weight, b in zip(
        globule.positions_angstrom, globule.weights, globule.b_factor_angstrom2, strict=True
    ):
        x, y, _ = np.linalg.inv(rotation) @ position / step
        gauss = np.exp(-0.25 * b * (ky[:, None] ** 2 + kx**2) / step**2)
        at = ky[:, None] * (y + centre[0]) + kx * (x + centre[1])
        wanted += weight * gauss * np.exp(-2j * np.pi * at)
    np.testing.assert_allclose(got, wanted, atol=1e-9)


def test_untilted_projection_is_the_volume_summed_along_z(globule):
    side, step = 32, 1.5
    volume = sim.potential_volume(globule, side, step)
    projection = project(globule, np.eye(3), (side, side), step, (side // 2, side // 2))
    np.testing.assert_allclose(projection, volume.sum(axis=0), atol=1e-4 * volume.max())


def test_blurring_adds_to_the_b_factors(globule):
    np.testing.assert_allclose(
        globule.blurred(12.0).b_factor_angstrom2 - globule.b_factor_angstrom2, 12.0
    )


# --- conventions -------------------------------------------------------------------------


def test_volume_axes_are_z_y_x_about_half_the_side():
    volume = sim.potential_volume(one_atom(2.0, -6.0, 8.0), 16, 2.0)
    assert np.unravel_index(np.argmax(volume), volume.shape) == (8 + 4, 8 - 3, 8 + 1)
    assert volume.sum() == pytest.approx(7.0, rel=1e-5)


@pytest.mark.parametrize("fraction", [0.0, 0.37])
def test_sub_pixel_centre(fraction):
    image = project(one_atom(0, 0, 0), np.eye(3), SHAPE, 1.5, (20.0 + fraction, 17.0))
    np.testing.assert_allclose(centre_of_mass(image), [20.0 + fraction, 17.0], atol=1e-3)


def test_in_plane_rotation():
    # The image's axes, taken into the volume, are x' = (cos, sin), y' = (-sin, cos): an
    # atom on the volume's x axis has the image coordinates p.x' and p.y'.
    psi = 30.0
    axis_x = np.array([np.cos(np.pi / 6), np.sin(np.pi / 6), 0.0])
    axis_y = np.array([-np.sin(np.pi / 6), np.cos(np.pi / 6), 0.0])
    atom = np.array([9.0, 0.0, 0.0])
    image = project(one_atom(*atom), sim.matrix_from_euler(0, 0, psi), SHAPE, 1.5, (24, 20))
    wanted = [24 + atom @ axis_y / 1.5, 20 + atom @ axis_x / 1.5]
    np.testing.assert_allclose(centre_of_mass(image), wanted, atol=1e-3)
    assert wanted[0] < 24  # that is, turned from x towards -y


def test_tilt():
    # Ry(90) takes the image's x axis to -z of the volume.
    image = project(
        one_atom(0, 3, 9), sim.matrix_from_euler(0, 90, 0), SHAPE, 1.5, (24, 20)
    )
    np.testing.assert_allclose(centre_of_mass(image), [24 + 2, 20 - 6], atol=1e-3)


def test_euler_order_is_intrinsic_zyz():
    phi, theta, psi = 20.0, 50.0, 100.0
    rotation = sim.matrix_from_euler(phi, theta, psi)
    sin, cos = (f(np.deg2rad([phi, theta, psi])) for f in (np.sin, np.cos))
    beam = [cos[0] * sin[1], sin[0] * sin[1], cos[1]]
    np.testing.assert_allclose(rotation @ [0, 0, 1], beam, atol=1e-12)
    np.testing.assert_allclose(
        rotation.T @ [0, 0, 1], [-sin[1] * cos[2], sin[1] * sin[2], cos[1]], atol=1e-12
    )


@pytest.mark.parametrize("theta", [0.0, 1e-5, 40.0, 179.99, 180.0])
def test_euler_round_trip(theta):
    rotation = sim.matrix_from_euler(200.0, theta, 310.0)
    phi, theta_back, psi = sim.euler_from_matrix(rotation)
    assert 0 <= phi < 360 and 0 <= theta_back <= 180 and 0 <= psi < 360
    again = sim.matrix_from_euler(phi, theta_back, psi)
    np.testing.assert_allclose(again, rotation, atol=1e-8)


def test_ctf_is_positive_at_low_frequency_in_underfocus():
    ctf = sim.ctf_rfft((256, 256), 1.0, (9000.0, 9000.0), 0.0, sim.Microscope())
    assert ctf[0, 0] == pytest.approx(0.07)
    assert np.all(ctf[0, :10] > 0)
    # Zeros lie where the phase is a multiple of pi; Cs hardly matters at the first.
    first_zero = np.argmax(ctf[0] < 0) / 256
    assert first_zero == pytest.approx(np.sqrt(0.977 / (0.019687 * 9000.0)), abs=1 / 256)


def test_wavelength():
    assert sim.electron_wavelength_angstrom(300.0) == pytest.approx(0.0196875, rel=1e-4)
    assert sim.electron_wavelength_angstrom(200.0) == pytest.approx(0.0250793, rel=1e-4)


def test_defocus_u_lies_along_the_angle_from_x_towards_y():
    shape, step, u, v = (64, 64), 2.0, 9000.0, 6000.0

    def ctf(defocus, angle):
        return sim.ctf_rfft(shape, step, defocus, angle, MICROSCOPE)

    along_x = (0, slice(None))
    np.testing.assert_allclose(ctf((u, v), 0.0)[along_x], ctf((u, u), 0.0)[along_x])
    along_y = (slice(None), 0)
    np.testing.assert_allclose(ctf((u, v), 0.0)[along_y], ctf((v, v), 0.0)[along_y])
    diagonal = (np.arange(1, 32), np.arange(1, 32))  # kx = ky > 0: 45 degrees
    np.testing.assert_allclose(ctf((u, v), 45.0)[diagonal], ctf((u, u), 0.0)[diagonal])
    other = (-np.arange(1, 32), np.arange(1, 32))
    np.testing.assert_allclose(ctf((u, v), 45.0)[other], ctf((v, v), 0.0)[other])
    np.testing.assert_allclose(ctf((u, v), 20.0), ctf((v, u), 110.0), atol=1e-9)


def test_ctf_envelope_and_phase_shift():
    plain = sim.ctf_rfft(SHAPE, 2.0, (5e3, 5e3), 0.0, sim.Microscope())
    damped = sim.ctf_rfft(SHAPE, 2.0, (5e3, 5e3), 0.0, MICROSCOPE)
    assert damped[0, 20] == pytest.approx(plain[0, 20] * np.exp(-40.0 / 4 / 4.0**2))
    plate = sim.Microscope(amplitude_contrast=0.0, phase_shift_deg=90.0)
    assert sim.ctf_rfft(SHAPE, 2.0, (5e3, 5e3), 0.0, plate)[0, 0] == pytest.approx(1.0)


# --- micrographs -------------------------------------------------------------------------


def micrograph(atoms, seed=1, shape=(96, 80), **keywords):
    particles = (
        sim.SimulatedParticle(
            np.eye(3), (50.3, 39.8), (6000.0, 5500.0), 20.0, snr_ideal=12.0
        ),
    )
    rng = np.random.default_rng(seed)
    return sim.simulate_micrograph(
        atoms, particles, shape, 2.0, MICROSCOPE, rng, **keywords
    )


def test_matter_is_dark(globule):
    made = micrograph(globule)
    assert made.signal[46:55, 36:44].mean() < -3 * abs(made.signal.mean())


def test_micrograph_is_reproducible_by_seed(globule):
    one, same, other = (micrograph(globule, seed) for seed in (1, 1, 2))
    assert one.image.dtype == np.float32 and one.image.shape == (96, 80)
    np.testing.assert_array_equal(one.image, same.image)
    assert np.abs(one.image - other.image).max() > 1.0
    np.testing.assert_array_equal(one.signal, other.signal)


@pytest.mark.parametrize("width", [80, 81])
def test_matched_filter_reaches_the_wanted_snr(globule, width):
    responses, noises = [], []
    for seed in range(24):
        made = micrograph(globule, seed, shape=(96, width), gain=2.5)
        whitened = np.fft.rfft2(made.signal) / made.noise_power_rfft
        whitened[0, 0] = 0.0
        template = np.fft.irfft2(whitened, s=made.image.shape)
        scale = np.sqrt(template.size / np.sum(template * made.signal))
        responses.append(np.sum(template * made.image) * scale)
        noises.append(np.sum(template * (made.image - made.signal)) * scale)
    # The filter's noise has standard deviation 1: four standard errors of 24 draws.
    assert np.mean(responses) == pytest.approx(12.0, abs=4 / np.sqrt(24))
    assert np.std(noises) == pytest.approx(1.0, abs=4 / np.sqrt(48))


def test_amplitude_does_not_depend_on_the_place(globule):
    particle = sim.SimulatedParticle(np.eye(3), (50.0, 40.0), (6000.0, 6000.0))
    moved = sim.SimulatedParticle(np.eye(3), (31.4, 52.7), (6000.0, 6000.0))
    norms = [
        np.linalg.norm(sim.particle_rfft(globule, p, (96, 80), 2.0, MICROSCOPE))
        for p in (particle, moved)
    ]
    assert norms[0] == pytest.approx(norms[1], rel=1e-9)


def test_a_margin_stops_the_wrap_around(globule):
    particles = [sim.SimulatedParticle(np.eye(3), (2.0, 2.0), (9000.0, 9000.0))]
    periodic, cut = (
        sim.simulate_micrograph(
            globule,
            particles,
            (96, 80),
            2.0,
            MICROSCOPE,
            np.random.default_rng(0),
            margin_px=margin,
        ).signal
        for margin in (0, 24)
    )
    far = (slice(-8, None), slice(-8, None))
    assert np.abs(periodic[far]).max() > 20 * np.abs(cut[far]).max()
    near = (slice(0, 16), slice(0, 16))
    assert np.corrcoef(periodic[near].ravel(), cut[near].ravel())[0, 1] > 0.99


def test_noise_has_its_spectrum():
    spectrum = sim.NoiseSpectrum(white=0.5, low=6.0, decay_cycles_per_px=0.08)
    shape, rng = (128, 96), np.random.default_rng(3)
    power = np.mean(
        [np.abs(np.fft.rfft2(spectrum.sample(shape, rng))) ** 2 for _ in range(8)], axis=0
    )
    ratio = power / spectrum.power_rfft(shape)
    k = np.hypot(np.fft.fftfreq(128)[:, None], np.fft.rfftfreq(96))
    for low in np.arange(0.05, 0.65, 0.1):
        ring = (k >= low) & (k < low + 0.1)
        error = 4 / np.sqrt(8 * ring.sum())
        assert ratio[ring].mean() == pytest.approx(1.0, abs=error)
    assert spectrum.power_rfft(shape)[0, 0] == pytest.approx(6.5 * 128 * 96)


def test_offset_and_gain(globule):
    # Noise power at zero frequency sets how far the mean may stray: 3 * 3 px / 88 px.
    assert micrograph(globule, gain=3.0, offset=40.0).image.mean() == pytest.approx(
        40, abs=0.5
    )
    assert micrograph(globule, gain=6.0).image.std() == pytest.approx(
        2 * micrograph(globule, gain=3.0).image.std(), rel=1e-5
    )


# --- rotations and atoms -----------------------------------------------------------------


def test_random_rotations_are_uniform():
    rotations = sim.random_rotations(4000, np.random.default_rng(0))
    np.testing.assert_allclose(
        rotations @ np.swapaxes(rotations, 1, 2),
        np.tile(np.eye(3), (4000, 1, 1)),
        atol=1e-12,
    )
    np.testing.assert_allclose(np.linalg.det(rotations), 1.0)
    # Every element has mean 0 and mean square 1/3; the trace has mean square 1.
    np.testing.assert_allclose(rotations.mean(axis=0), 0.0, atol=4 / np.sqrt(3 * 4000))
    np.testing.assert_allclose((rotations**2).mean(axis=0), 1 / 3, atol=0.02)
    assert np.mean(np.trace(rotations, axis1=1, axis2=2) ** 2) == pytest.approx(1, abs=0.1)


def test_perturbed_rotations_fill_their_cell():
    rng = np.random.default_rng(1)
    start = sim.random_rotations(1, rng)[0]
    offsets = [start.T @ sim.perturbed_rotation(start, rng, 2.5, 1.5) for _ in range(800)]
    tilts = np.rad2deg([np.arccos(offset[2, 2]) for offset in offsets])
    turns = np.rad2deg([np.arctan2(o[1, 0] - o[0, 1], o[0, 0] + o[1, 1]) for o in offsets])
    assert 2.4 < tilts.max() <= 2.5 and np.mean(tilts**2) == pytest.approx(
        2.5**2 / 2, rel=0.1
    )
    assert 1.45 < np.abs(turns).max() <= 1.5 and np.std(turns) == pytest.approx(
        0.87, abs=0.06
    )
    directions = np.array([offset[:2, 2] for offset in offsets])
    np.testing.assert_allclose(directions.mean(axis=0), 0.0, atol=0.005)


def test_angle_between():
    one = sim.random_rotations(1, np.random.default_rng(4))[0]
    for angle in (1e-4, 3.0, 179.0):
        other = one @ sim.matrix_from_euler(70.0, angle, -70.0)
        assert sim.angle_between_deg(one, other) == pytest.approx(angle, rel=1e-6)


def test_antibody():
    atoms = sim.load_antibody()
    assert atoms.positions_angstrom.shape == (10_252, 3)
    np.testing.assert_allclose(atoms.positions_angstrom.mean(axis=0), 0.0, atol=1e-9)
    assert 160 < 2 * np.linalg.norm(atoms.positions_angstrom, axis=1).max() < 170
    assert atoms.weights.sum() == 6 * 6430 + 7 * 1692 + 8 * 2076 + 16 * 54
    assert atoms.b_factor_angstrom2.min() >= 0


def test_globule_has_its_size_and_no_symmetry():
    atoms = sim.random_globule(500, 25.0, np.random.default_rng(7))
    radius = np.linalg.norm(atoms.positions_angstrom, axis=1)
    assert radius.max() == pytest.approx(25.0)
    moments = np.linalg.eigvalsh(np.cov(atoms.positions_angstrom.T))
    assert np.all(np.diff(moments) > 0.02 * moments[-1])
    # No centre of inversion either: that would make every Fourier coefficient real.
    directions = sim.random_rotations(50, np.random.default_rng(8))[:, 0]
    waves = np.exp(-2j * np.pi * directions @ atoms.positions_angstrom.T / 20.0)
    coefficients = waves @ atoms.weights
    assert np.sum(coefficients.imag**2) > 0.1 * np.sum(np.abs(coefficients) ** 2)
