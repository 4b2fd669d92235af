"""Simulated micrographs with known truth, in plain float64 numpy.

Made to check the rest of the package, so it shares no formula with it: every projection
is the exact Fourier sum over rotated atoms, never a slice of a sampled volume, and CTF,
rotations and noise are written out here a second time.

Conventions: a rotation takes xyz column vectors of the image frame into the volume frame,
so that an atom at p in the volume appears at rotation.T @ p in the image, x along the
columns and y along the rows. Volumes have axes z, y, x and their centre at voxel
side // 2. Images are what a detector counts: in underfocus, matter is dark.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from jaxrefine.app.atoms import Atoms as Atoms
from jaxrefine.app.atoms import load_antibody as load_antibody
from jaxrefine.app.atoms import random_globule as random_globule

FloatArray = NDArray[np.floating]
ComplexArray = NDArray[np.complexfloating]


@dataclass(frozen=True)
class Microscope:
    """What all particles of a micrograph share.

    Attributes:
        voltage_kv: Acceleration voltage.
        spherical_aberration_mm: Cs.
        amplitude_contrast: Fraction of amplitude contrast.
        phase_shift_deg: Extra phase, from a phase plate for instance.
        b_factor_angstrom2: B of the envelope exp(-B k²/4).
    """

    voltage_kv: float = 300.0
    spherical_aberration_mm: float = 2.7
    amplitude_contrast: float = 0.07
    phase_shift_deg: float = 0.0
    b_factor_angstrom2: float = 0.0


@dataclass(frozen=True)
class Planted:
    """A particle to be simulated, hence the truth about it.

    Attributes:
        rotation: (3, 3), image frame to volume frame.
        centre_px: (y, x) of the volume's centre in the micrograph, at any fraction. A
            template of side n in this place has its top-left corner at
            centre_px - n // 2.
        defocus_angstrom: Absolute defocus (u, v), underfocus positive.
        astigmatism_deg: Direction of u, from the x axis towards y.
        snr_ideal: SNR that the ideal matched filter reaches (the right pose, defocus and
            sub-pixel position, noise perfectly whitened); it sets the signal's amplitude.
    """

    rotation: FloatArray
    centre_px: tuple[float, float]
    defocus_angstrom: tuple[float, float]
    astigmatism_deg: float = 0.0
    snr_ideal: float = 15.0


@dataclass(frozen=True)
class NoiseSpectrum:
    """Radial power spectrum: white + low · exp(-k / decay), k in cycles/px.

    Attributes:
        white: Power of the flat part, as variance per pixel.
        low: Power that the rising part adds at zero frequency.
        decay_cycles_per_px: How fast the rising part falls.
    """

    white: float = 1.0
    low: float = 8.0
    decay_cycles_per_px: float = 0.06

    def power_rfft(self, shape: tuple[int, int]) -> FloatArray:
        """Expected |rfft2(noise)|² for an image of `shape`."""
        k = np.hypot(*_half_plane(shape))
        density = self.white + self.low * np.exp(-k / self.decay_cycles_per_px)
        return density * shape[0] * shape[1]

    def sample(self, shape: tuple[int, int], rng: np.random.Generator) -> FloatArray:
        """One image of noise."""
        white = np.fft.rfft2(rng.standard_normal(shape)) / np.sqrt(shape[0] * shape[1])
        return np.fft.irfft2(white * np.sqrt(self.power_rfft(shape)), s=shape)


@dataclass(frozen=True)
class SimulatedMicrograph:
    """An image and everything that is known about it.

    Attributes:
        image: float32, as a detector would write it.
        signal: The image without noise and offset.
        noise_power_rfft: Expected |rfft2(image - signal)|², zero frequency aside.
        particles: The truth.
    """

    image: NDArray[np.float32]
    signal: FloatArray
    noise_power_rfft: FloatArray
    particles: tuple[Planted, ...]


def potential_volume(
    atoms: Atoms, side: int, pixel_size_angstrom: float
) -> NDArray[np.float32]:
    """The atoms' density on a cubic grid, band-limited: its Fourier sum is exact.

    Args:
        atoms: What to draw; it must fit inside the cube.
        side: Side of the cube in voxels.
        pixel_size_angstrom: Voxel size.

    Returns:
        (side, side, side), axes z, y, x; the voxels add up to the atoms' weights.
    """
    xyz_px = atoms.positions_angstrom / pixel_size_angstrom + side // 2
    b_px2 = atoms.b_factor_angstrom2 / pixel_size_angstrom**2
    half = side // 2 + 1
    total = np.zeros((side * side, half), dtype=np.complex128)
    for some in _chunks(len(xyz_px), 256):
        x, y, z = xyz_px[some].T
        along_z = _waves(z, b_px2[some], side) * atoms.weights[some, None]
        along_y = _waves(y, b_px2[some], side)
        planes = (along_z[:, :, None] * along_y[:, None, :]).reshape(len(z), -1)
        total += planes.T @ _half_waves(x, b_px2[some], side)
    spectrum = total.reshape(side, side, half)
    return np.fft.irfftn(spectrum, s=(side, side, side), axes=(0, 1, 2)).astype(np.float32)


def exact_projection_rfft(
    atoms: Atoms,
    rotation: FloatArray,
    shape: tuple[int, int],
    pixel_size_angstrom: float,
    centre_px: tuple[float, float],
) -> ComplexArray:
    """Half-plane Fourier coefficients of the atoms' projection, by their exact sum.

    Args:
        atoms: What to project.
        rotation: Image frame to volume frame; the projection runs along the image's z.
        shape: (height, width) of the image.
        pixel_size_angstrom: Pixel size of the image.
        centre_px: (y, x) where the centroid lands, at any fraction.

    Returns:
        (height, width // 2 + 1), on the scale of numpy's rfft2; matter is positive and
        the zero frequency is the sum of the weights.
    """
    xyz_px = atoms.positions_angstrom @ rotation / pixel_size_angstrom
    b_px2 = atoms.b_factor_angstrom2 / pixel_size_angstrom**2
    half = shape[1] // 2 + 1
    total = np.zeros((shape[0], half), dtype=np.complex128)
    for some in _chunks(len(xyz_px), 2048):
        along_y = _waves(xyz_px[some, 1] + centre_px[0], b_px2[some], shape[0])
        along_x = _half_waves(xyz_px[some, 0] + centre_px[1], b_px2[some], shape[1])
        total += along_y.T @ (atoms.weights[some, None] * along_x)
    return total


def ctf_rfft(
    shape: tuple[int, int],
    pixel_size_angstrom: float,
    defocus_angstrom: tuple[float, float],
    astigmatism_deg: float,
    microscope: Microscope,
) -> FloatArray:
    """Contrast transfer function and envelope on the half plane.

    Positive at low frequencies in underfocus: the image is minus the projection times it.

    Args:
        shape: (height, width) of the image.
        pixel_size_angstrom: Pixel size of the image.
        defocus_angstrom: Defocus (u, v), underfocus positive.
        astigmatism_deg: Direction of u, from the x axis towards y.
        microscope: The remaining optics.
    """
    ky, kx = (k / pixel_size_angstrom for k in _half_plane(shape))
    k2 = ky**2 + kx**2
    u, v = defocus_angstrom
    direction = np.arctan2(ky, kx) - np.deg2rad(astigmatism_deg)
    defocus = 0.5 * (u + v) + 0.5 * (u - v) * np.cos(2.0 * direction)
    wavelength = electron_wavelength_angstrom(microscope.voltage_kv)
    cs_angstrom = microscope.spherical_aberration_mm * 1e7
    phase = np.pi * wavelength * defocus * k2
    phase -= 0.5 * np.pi * cs_angstrom * wavelength**3 * k2**2
    phase += np.deg2rad(microscope.phase_shift_deg) + np.arcsin(
        microscope.amplitude_contrast
    )
    return np.sin(phase) * np.exp(-0.25 * microscope.b_factor_angstrom2 * k2)


def electron_wavelength_angstrom(voltage_kv: float) -> float:
    """De Broglie wavelength of a relativistic electron: h c / sqrt(E (E + 2 m c²))."""
    energy_ev, rest_ev, hc_ev_angstrom = voltage_kv * 1e3, 510_998.95, 12_398.419_84
    return hc_ev_angstrom / np.sqrt(energy_ev * (energy_ev + 2.0 * rest_ev))


def particle_rfft(
    atoms: Atoms,
    particle: Planted,
    shape: tuple[int, int],
    pixel_size_angstrom: float,
    microscope: Microscope,
) -> ComplexArray:
    """Half-plane image of one particle, CTF included; its amplitude is that of the atoms.

    Computed on the whole image's Fourier grid, so that the CTF spreads the particle over
    as many pixels as it likes.
    """
    step = pixel_size_angstrom
    projection = exact_projection_rfft(
        atoms, particle.rotation, shape, step, particle.centre_px
    )
    defocus, angle = particle.defocus_angstrom, particle.astigmatism_deg
    return -projection * ctf_rfft(shape, step, defocus, angle, microscope)


def ideal_snr(signal_rfft: ComplexArray, noise_power_rfft: FloatArray, width: int) -> float:
    """SNR of the matched filter: sqrt(Σ |signal|²/noise power), zero frequency left out.

    Args:
        signal_rfft: Half-plane coefficients of the signal.
        noise_power_rfft: Expected |rfft2(noise)|² on the same grid.
        width: Width of the image, to know which columns stand for two.
    """
    multiplicity = np.full(signal_rfft.shape, 2.0)
    multiplicity[:, 0] = 1.0
    if width % 2 == 0:
        multiplicity[:, -1] = 1.0
    multiplicity[0, 0] = 0.0
    return float(
        np.sqrt(np.sum(multiplicity * np.abs(signal_rfft) ** 2 / noise_power_rfft))
    )


def simulate_micrograph(
    atoms: Atoms,
    particles: Sequence[Planted],
    shape: tuple[int, int],
    pixel_size_angstrom: float,
    microscope: Microscope,
    rng: np.random.Generator,
    *,
    noise: NoiseSpectrum = NoiseSpectrum(),
    margin_px: int = 0,
    offset: float = 40.0,
    gain: float = 3.0,
) -> SimulatedMicrograph:
    """A micrograph: particles in coloured noise, then the detector's gain and offset.

    Args:
        atoms: What every particle is made of.
        particles: Where they are, how they lie, and how strong they are.
        shape: (height, width).
        pixel_size_angstrom: Pixel size.
        microscope: Optics that the particles share.
        rng: Source of the noise.
        noise: Its power spectrum before the gain.
        margin_px: Simulate on a grid larger by this on every side and cut. With 0 the
            micrograph is periodic: what leaves on one side comes back on the other.
        offset: Mean of the image.
        gain: Factor on noise and signal.
    """
    grid = (shape[0] + 2 * margin_px, shape[1] + 2 * margin_px)
    power = noise.power_rfft(grid)
    total = np.zeros(power.shape, dtype=np.complex128)
    for particle in particles:
        y, x = particle.centre_px
        moved = replace(particle, centre_px=(y + margin_px, x + margin_px))
        one = particle_rfft(atoms, moved, grid, pixel_size_angstrom, microscope)
        total += one * (particle.snr_ideal / ideal_snr(one, power, grid[1]))
    total[0, 0] = 0.0
    inside = tuple(slice(margin_px, margin_px + n) for n in shape)
    signal = gain * np.fft.irfft2(total, s=grid)[inside]
    image = offset + signal + gain * noise.sample(grid, rng)[inside]
    return SimulatedMicrograph(
        image=image.astype(np.float32),
        signal=signal,
        noise_power_rfft=gain**2 * noise.power_rfft(shape),
        particles=tuple(particles),
    )


def matrix_from_euler(phi_deg: float, theta_deg: float, psi_deg: float) -> FloatArray:
    """Rotation of the intrinsic ZYZ angles: Rz(phi) Ry(theta) Rz(psi)."""
    return _about_z(phi_deg) @ _about_y(theta_deg) @ _about_z(psi_deg)


def euler_from_matrix(rotation: FloatArray) -> tuple[float, float, float]:
    """Intrinsic ZYZ angles (phi, theta, psi) in degrees; psi is 0 at the poles."""
    sine = np.hypot(rotation[0, 2], rotation[1, 2])
    theta = np.arctan2(sine, rotation[2, 2])
    if sine > 1e-9:
        phi = np.arctan2(rotation[1, 2], rotation[0, 2])
        psi = np.arctan2(rotation[2, 1], -rotation[2, 0])
    else:
        phi = np.arctan2(-rotation[0, 1], rotation[1, 1])
        psi = 0.0
    phi_deg, theta_deg, psi_deg = np.rad2deg([phi, theta, psi])
    return float(phi_deg % 360.0), float(theta_deg), float(psi_deg % 360.0)


def random_rotations(n: int, rng: np.random.Generator) -> FloatArray:
    """(n, 3, 3) rotations, uniform on SO(3): unit quaternions of Gaussian numbers."""
    w, x, y, z = (q := rng.standard_normal((n, 4))).T / np.linalg.norm(q, axis=1)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return np.moveaxis(np.array(rows), 2, 0)


def perturbed_rotation(
    rotation: FloatArray,
    rng: np.random.Generator,
    tilt_max_deg: float = 2.5,
    in_plane_max_deg: float = 1.5,
) -> FloatArray:
    """A rotation nearby, uniform in a cell: tilts fill a disk, in-plane angles an interval.

    The offset acts in the image frame, rotation @ Rz(a) Ry(tilt) Rz(-a) Rz(in-plane).
    """
    tilt = tilt_max_deg * np.sqrt(rng.uniform())
    direction = rng.uniform(0.0, 360.0)
    in_plane = rng.uniform(-in_plane_max_deg, in_plane_max_deg)
    return rotation @ matrix_from_euler(direction, tilt, in_plane - direction)


def angle_between_deg(one: FloatArray, other: FloatArray) -> float:
    """Angle of the rotation that leads from one rotation to the other."""
    # |one - other|² = 8 sin²(angle/2): exact at small angles, where the arccos is not.
    half_sine = np.linalg.norm(one - other) / np.sqrt(8.0)
    return float(np.rad2deg(2.0 * np.arcsin(min(1.0, half_sine))))


def _about_z(angle_deg: float) -> FloatArray:
    c, s = np.cos(np.deg2rad(angle_deg)), np.sin(np.deg2rad(angle_deg))
    return np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])


def _about_y(angle_deg: float) -> FloatArray:
    c, s = np.cos(np.deg2rad(angle_deg)), np.sin(np.deg2rad(angle_deg))
    return np.array([[c, 0.0, s], [0.0, 1.0, 0.0], [-s, 0.0, c]])


def _half_plane(shape: tuple[int, int]) -> tuple[FloatArray, FloatArray]:
    """ky (height, 1) and kx (1, width // 2 + 1) in cycles/px."""
    return np.fft.fftfreq(shape[0])[:, None], np.fft.rfftfreq(shape[1])[None, :]


def _half_waves(at_px: FloatArray, b_px2: FloatArray, n: int) -> ComplexArray:
    """Each atom's factors along one axis: exp(-2πi k at - B k²/4), k = rfftfreq(n)."""
    steps = np.ones((len(at_px), n // 2 + 1), dtype=np.complex128)
    steps[:, 1:] = np.exp(-2j * np.pi * at_px / n)[:, None]
    gauss = np.exp(-0.25 * b_px2[:, None] * np.fft.rfftfreq(n) ** 2)
    return np.cumprod(steps, axis=1) * gauss


def _waves(at_px: FloatArray, b_px2: FloatArray, n: int) -> ComplexArray:
    """The same for k = fftfreq(n)."""
    half = _half_waves(at_px, b_px2, n)
    return np.concatenate(
        [half[:, : (n + 1) // 2], half[:, n // 2 : 0 : -1].conj()], axis=1
    )


def _chunks(n: int, size: int) -> list[slice]:
    return [slice(start, start + size) for start in range(0, n, size)]
