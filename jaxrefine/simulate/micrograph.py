"""Micrographs of particles at known poses, in coloured noise."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from jaxrefine.simulate.arrays import ComplexArray, FloatArray
from jaxrefine.simulate.atoms import Atoms
from jaxrefine.simulate.ctf import Microscope, ctf_rfft, odd_phase_factor_rfft
from jaxrefine.simulate.frequencies import half_plane_frequencies
from jaxrefine.simulate.projection import exact_projection_rfft

# Thin enough for the phase of the CTF to change by 0.03 rad at 2 Å within half of it.
_SLAB_ANGSTROM = 1.0


@dataclass(frozen=True)
class SimulatedParticle:
    """A particle to simulate, which is also the known truth.

    Attributes:
        rotation: (3, 3), image frame to volume frame.
        centre_px: (y, x) of the volume's centre in the micrograph, not necessarily whole. A
            template of side n at this position has its top-left corner at
            centre_px - n // 2.
        defocus_angstrom: Absolute defocus (u, v), underfocus positive.
        astigmatism_deg: Direction of u, from the x axis towards y.
        snr_ideal: SNR of the ideal matched filter (exact pose, defocus and sub-pixel
            position, perfectly whitened noise); it sets the amplitude of the signal.
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
        low: Additional power at zero frequency.
        decay_cycles_per_px: Decay of this part.
    """

    white: float = 1.0
    low: float = 8.0
    decay_cycles_per_px: float = 0.06

    def power_rfft(self, shape: tuple[int, int]) -> FloatArray:
        """Expected |rfft2(noise)|² for an image of `shape`."""
        k = np.hypot(*half_plane_frequencies(shape))
        density = self.white + self.low * np.exp(-k / self.decay_cycles_per_px)
        return density * shape[0] * shape[1]

    def sample(self, shape: tuple[int, int], rng: np.random.Generator) -> FloatArray:
        """Sample one image of noise."""
        white = np.fft.rfft2(rng.standard_normal(shape)) / np.sqrt(shape[0] * shape[1])
        return np.fft.irfft2(white * np.sqrt(self.power_rfft(shape)), s=shape)


@dataclass(frozen=True)
class SimulatedMicrograph:
    """An image and the truth about it.

    Attributes:
        image: float32, as a detector would write it.
        signal: The image without noise and offset.
        noise_power_rfft: Expected |rfft2(image - signal)|², except at zero frequency.
        particles: The truth.
    """

    image: NDArray[np.float32]
    signal: FloatArray
    noise_power_rfft: FloatArray
    particles: tuple[SimulatedParticle, ...]


def particle_rfft(
    atoms: Atoms,
    particle: SimulatedParticle,
    shape: tuple[int, int],
    pixel_size_angstrom: float,
    microscope: Microscope,
) -> ComplexArray:
    """Half-plane transform of one particle's image with CTF, at the amplitude of the atoms.

    Computed on the Fourier grid of the whole image, so that the CTF can spread the particle
    over any distance.
    """
    step = pixel_size_angstrom
    # Atoms move to A⁻¹ x. The distortion of their blur is neglected.
    distortion = np.eye(3)
    distortion[:2, :2] = np.linalg.inv(microscope.mag_matrix)[::-1, ::-1].T
    rotation = particle.rotation @ distortion
    u, v = particle.defocus_angstrom
    image = 0.0
    for slab, height in _slabs(atoms, particle.rotation, microscope.ewald_sign):
        projection = exact_projection_rfft(slab, rotation, shape, step, particle.centre_px)
        defocus, angle = (u + height, v + height), particle.astigmatism_deg
        image -= projection * ctf_rfft(shape, step, defocus, angle, microscope)
    return image * odd_phase_factor_rfft(shape, step, microscope)


def _slabs(
    atoms: Atoms, rotation: FloatArray, ewald_sign: int
) -> Iterator[tuple[Atoms, float]]:
    """Parts of a particle, each with its additional defocus."""
    if ewald_sign == 0:
        yield atoms, 0.0
        return
    index = np.round(atoms.positions_angstrom @ rotation[:, 2] / _SLAB_ANGSTROM)
    for number in np.unique(index):
        inside = index == number
        slab = Atoms(*(values[inside] for values in vars(atoms).values()))
        yield slab, -ewald_sign * number * _SLAB_ANGSTROM


def ideal_snr(signal_rfft: ComplexArray, noise_power_rfft: FloatArray, width: int) -> float:
    """SNR of the matched filter: sqrt(Σ |signal|²/noise power), without zero frequency.

    Args:
        signal_rfft: Half-plane coefficients of the signal.
        noise_power_rfft: Expected |rfft2(noise)|² on the same grid.
        width: Width of the image, which determines the columns that count twice.
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
    particles: Sequence[SimulatedParticle],
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
    """Simulate a micrograph: particles in coloured noise, then detector gain and offset.

    Args:
        atoms: The structure of every particle.
        particles: Positions, orientations and strengths of the particles.
        shape: (height, width).
        pixel_size_angstrom: Pixel size.
        microscope: Optics that the particles share.
        rng: Random generator for the noise.
        noise: Power spectrum of the noise before the gain.
        margin_px: Simulate on a grid that is larger by this on every side, and crop. With 0
            the micrograph is periodic: what leaves on one side reappears on the other.
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
