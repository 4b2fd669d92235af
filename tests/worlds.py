"""Small problems: templates, particles and micrographs with known truth."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import jaxprs_in_params

from jaxrefine import simulate as sim
from jaxrefine.data import Alignment, Optics, Particles
from jaxrefine.io.table.aberrations import ZERNIKES
from jaxrefine.refine.image_ctf import ImageCTF
from jaxrefine.refine.scoring import Score
from jaxrefine.simulate import artefacts


def single(values) -> jnp.ndarray:
    """float32, on the device."""
    return jnp.asarray(values, jnp.float32)


@dataclass(frozen=True)
class Imaging:
    """Optics and defocus of one particle, for the package and for the oracles alike."""

    defocus: tuple[float, float] = (5200.0, 4700.0)
    angle: float = 30.0
    pixel_size: float = 1.5
    kv: float = 300.0
    cs: float = 2.7
    contrast: float = 0.07
    phase: float = 0.0
    b: float = 20.0
    # Of `Optics`, by name.
    aberrations: Mapping[str, Any] = field(default_factory=dict)
    # Of the simulated image only.
    ewald_sign: int = 0

    def optics(self, n: int | None = None) -> Optics:
        """For one particle, or for a batch of n."""
        values = (self.kv, self.cs, self.contrast, self.phase, self.b)

        def of_n(value):
            return single(value if n is None else [value] * n)

        more = {name: of_n(value) for name, value in self.aberrations.items()}
        return Optics(*map(of_n, values), **more)

    @property
    def microscope(self) -> sim.Microscope:
        terms = {}
        for name, names in ZERNIKES.items():
            terms |= dict(zip(names, self.aberrations.get(name, ()), strict=False))
        return sim.Microscope(
            self.kv,
            self.cs,
            self.contrast,
            self.phase,
            self.b,
            self.aberrations.get("beam_tilt_mrad", (0.0, 0.0)),
            terms,
            self.aberrations.get("mag_matrix", ((1.0, 0.0), (0.0, 1.0))),
            self.ewald_sign,
        )

    def image_ctf(self, box: tuple[int, int], side: int, **more: float) -> ImageCTF:
        """The default score, with grids wide enough for this microscope and offsets."""
        return ImageCTF.for_particles(
            box,
            side,
            max_defocus_angstrom=max(map(abs, self.defocus)) + more.get("defocus", 0.0),
            voltage_kv=self.kv,
            spherical_aberration_mm=self.cs,
            pixel_size_angstrom=self.pixel_size - more.get("pixel_size", 0.0),
        )


def radial_frequency(shape: Sequence[int]) -> np.ndarray:
    return np.hypot(np.fft.fftfreq(shape[0])[:, None], np.fft.rfftfreq(shape[1]))


def flat(k: np.ndarray) -> np.ndarray:
    """The filter of white noise."""
    return np.ones_like(k)


def one_particle(
    score: Score,
    image: np.ndarray,
    imaging: Imaging,
    *,
    rotation: np.ndarray | None = None,
    template_pixel_size: float | None = None,
    curve: Callable[[np.ndarray], np.ndarray] = flat,
) -> Particles:
    """A particle from its cut, with mean 0 and standard deviation 1 everywhere.

    Args:
        score: Whose cut and filter grids to use.
        image: The filtered cut.
        imaging: Optics and defocus.
        rotation: Start.
        template_pixel_size: Default: the image's.
        curve: The filter as a function of |k| in cycles per pixel.
    """
    return Particles(
        alignment=Alignment(
            rotation=single(np.eye(3) if rotation is None else rotation),
            position_px=single([100.0, 200.0]),
            defocus_angstrom=single(imaging.defocus),
            astigmatism_deg=single(imaging.angle),
            pixel_size_angstrom=single(imaging.pixel_size),
        ),
        optics=imaging.optics(),
        template_pixel_size_angstrom=single(template_pixel_size or imaging.pixel_size),
        image=single(image),
        filter_image=single(curve(radial_frequency(score.padded_box))),
        filter_template=single(curve(radial_frequency(score.filter_grid))),
        corr_mean=single(np.zeros(score.positions)),
        corr_std=single(np.ones(score.positions)),
        background_mean=single(0.0),
        background_std=single(1.0),
        noise_std=single(1.0),
        mean_peaks=jnp.asarray(False),
        valid=jnp.asarray(True),
    )


def batch_of(particles: Sequence[Particles]) -> Particles:
    """One leading axis."""
    # With numpy, so that nothing is compiled.
    return jax.tree.map(lambda *each: jnp.asarray(np.stack(each)), *particles)


def ball(
    side: int, pixel_size: float, fill: float = 0.78, b: float = 40.0, seed: int = 0
) -> sim.Atoms:
    """400 random atoms in a ball whose diameter is this fraction of a template's side."""
    rng = np.random.default_rng(seed)
    xyz = rng.standard_normal((400, 3))
    radius = fill * side * pixel_size / 2 * rng.uniform(size=400) ** (1 / 3)
    xyz *= (radius / np.linalg.norm(xyz, axis=1))[:, None]
    return sim.Atoms(xyz - xyz.mean(axis=0), np.full(400, 7.0), np.full(400, b))


def signal_in_padded_box(
    score: Score,
    atoms: sim.Atoms,
    imaging: Imaging,
    rotation: np.ndarray,
    grid: int,
    offset_px: tuple[float, float] = (0.0, 0.0),
) -> np.ndarray:
    """A particle's cut without noise, in units in which the ideal SNR is 1.

    Made by the exact projection of atoms on a grid that the CTF does not wrap around.
    """
    centre = grid // 2
    place = (centre + offset_px[0], centre + offset_px[1])
    simulated = sim.SimulatedParticle(rotation, place, imaging.defocus, imaging.angle)
    shape = (grid, grid)
    rfft = sim.particle_rfft(
        atoms, simulated, shape, imaging.pixel_size, imaging.microscope
    )
    white = np.full(rfft.shape, float(grid * grid))
    image = np.fft.irfft2(rfft / sim.ideal_snr(rfft, white, grid), s=shape)
    top, left = (
        centre - score.side // 2 - (box - score.side) // 2 - (cut - box) // 2
        for box, cut in zip(score.box, score.padded_box, strict=True)
    )
    assert min(top, left) >= 0, "the grid is too small"
    return image[top : top + score.padded_box[0], left : left + score.padded_box[1]]


def matrix_products(function: Callable, *arguments: object) -> list:
    """Precision of every matrix product in a function, those of inner functions too."""

    def walk(jaxpr):
        for equation in jaxpr.eqns:
            if equation.primitive.name == "dot_general":
                yield equation.params["precision"]
            for inner in jaxprs_in_params(equation.params):
                yield from walk(inner)

    return list(walk(jax.make_jaxpr(function)(*arguments).jaxpr))


@dataclass(frozen=True)
class World:
    """A micrograph with particles on a grid of positions, and their true values.

    Attributes:
        imaging: What all particles share.
        side: Side of the template.
        atoms: What every particle is made of.
        image: Raw micrograph.
        corner_px: (n, 2) top-left corners (y, x), whole numbers.
        rotation: (n, 3, 3).
    """

    imaging: Imaging
    side: int
    atoms: sim.Atoms
    image: np.ndarray
    corner_px: np.ndarray
    rotation: np.ndarray

    @property
    def volume(self) -> np.ndarray:
        return sim.potential_volume(self.atoms, self.side, self.imaging.pixel_size)

    @property
    def maps(self) -> tuple[jnp.ndarray, jnp.ndarray]:
        """Mean 0 and standard deviation 1, of the valid mode's shape."""
        shape = tuple(length - self.side + 1 for length in self.image.shape)
        return jnp.zeros(shape), jnp.ones(shape)

    def alignment(self, rotation=None, shift_px=(0, 0), defocus: float = 0.0) -> Alignment:
        """The truth, except for given values; `shift_px` moves the corners."""
        n = len(self.corner_px)
        rotation = self.rotation if rotation is None else rotation
        return Alignment(
            rotation=single(rotation),
            position_px=single(self.corner_px + np.asarray(shift_px)),
            defocus_angstrom=single(np.tile(self.imaging.defocus, (n, 1)) + defocus),
            astigmatism_deg=single([self.imaging.angle] * n),
            pixel_size_angstrom=single([self.imaging.pixel_size] * n),
        )


def make_world(
    *,
    imaging: Imaging | None = None,
    side: int = 16,
    places: tuple[int, int] = (3, 4),
    spacing: int = 36,
    snr: float = 40.0,
    seed: int = 0,
) -> World:
    """Particles, `spacing` px apart, in coloured noise; periodic at the edges."""
    imaging = imaging or Imaging(
        defocus=(3000.0, 2800.0), angle=20.0, pixel_size=2.0, b=0.0
    )
    rng = np.random.default_rng(seed)
    atoms = ball(side, imaging.pixel_size, b=120.0, seed=seed)
    shape = (places[0] * spacing, places[1] * spacing)
    rows, columns = np.indices(places).reshape(2, -1)
    corner = np.stack([rows, columns], axis=-1) * spacing + (spacing - side) // 2
    rotation = sim.random_rotations(len(corner), rng)
    simulated = [
        sim.SimulatedParticle(
            turn, (float(y), float(x)), imaging.defocus, imaging.angle, snr
        )
        for turn, (y, x) in zip(rotation, corner + side // 2, strict=True)
    ]
    made = sim.simulate_micrograph(
        atoms, simulated, shape, imaging.pixel_size, imaging.microscope, rng
    )
    return World(imaging, side, atoms, made.image, corner, rotation)


# Artefacts of micrographs: functions from an image to a changed copy.
ARTEFACTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "gradient": lambda image: artefacts.with_slope(image, 20.0),
    "carbon edge": lambda image: artefacts.with_carbon(
        image, 0.4, 2.0, 0.5, np.random.default_rng(2)
    ),
    "contamination": lambda image: artefacts.with_spots(image, _spots(image), 10.0, 15.0),
    "fiducials": lambda image: artefacts.with_spots(image, _spots(image), 5.0, -15.0),
    "hot pixels": lambda image: artefacts.with_single_pixels(
        image, 1e-4, 100.0, np.random.default_rng(3)
    ),
    "dead block": lambda image: artefacts.with_block(image, _corner(image), 12, 0.0),
}


def _corner(image: np.ndarray) -> tuple[int, int]:
    """Of a block between particles that are a fifth of the image apart."""
    return 2 * image.shape[0] // 5 - 6, 3 * image.shape[1] // 5 - 6


def _spots(image: np.ndarray) -> np.ndarray:
    """Two places between the particles."""
    return np.array([[2, 1], [3, 4]]) / 5 * image.shape
