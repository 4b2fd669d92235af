"""The problem of the self-test: particles in noise, with known truth."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from jaxrefine import simulate as sim
from jaxrefine.data import Alignment, Optics, Particles, SearchGrid, Template
from jaxrefine.physics.filters import Bandpass, Filters, Whitening
from jaxrefine.physics.slices import make_template
from jaxrefine.refine.grids import local_grid, search_offsets, uniform_orientations
from jaxrefine.refine.image_ctf import ImageCTF
from jaxrefine.refine.prepare import cut_particles, prepare_micrograph

SIDE, PIXEL_SIZE_ANGSTROM = 32, 2.0
DEFOCUS_ANGSTROM, ASTIGMATISM_DEG = (6200.0, 5800.0), 30.0
MICROSCOPE = sim.Microscope(b_factor_angstrom2=20.0)
_BOX = (38, 40)
_PARTICLES, _SNR = 4, 30.0
# Slices end at the template's Nyquist frequency, but the particles do not.
_FILTERS = Filters(Whitening(), Bandpass(0.0, 0.4, 0.1))
# Steps are so wide that the true pose is clearly the best.
_ORIENTATIONS = uniform_orientations(
    psi_coarse=6.0, psi_fine=1.5, theta_coarse=9.0, theta_fine=1.5
)
_DEFOCI = search_offsets(-1200.0, 1200.0, 600.0)


class World(eqx.Module):
    """Particles, and their true grid points around the starting values.

    Attributes:
        particles: The particles, ready to score.
        template: Their template.
        score: The score.
        grid: The search grid.
        rotation: (n, 3, 3), the true rotations.
        truth: (n, 5), the truth as indices of the grid.
    """

    particles: Particles
    template: Template
    score: ImageCTF
    grid: SearchGrid
    rotation: sim.FloatArray
    truth: NDArray[np.int64]


def some_atoms() -> sim.Atoms:
    """An asymmetric structure that fills most of the template."""
    radius = 0.4 * SIDE * PIXEL_SIZE_ANGSTROM
    return sim.random_globule(300, radius, np.random.default_rng(0)).blurred(40.0)


def make_problem(atoms: sim.Atoms) -> World:
    """Four particles in one micrograph, each at a grid point around its starting values."""
    rng = np.random.default_rng(1)
    score = ImageCTF.for_particles(
        _BOX,
        SIDE,
        max_defocus_angstrom=max(DEFOCUS_ANGSTROM) + 2 * _DEFOCI.max(),
        voltage_kv=MICROSCOPE.voltage_kv,
        spherical_aberration_mm=MICROSCOPE.spherical_aberration_mm,
        pixel_size_angstrom=PIXEL_SIZE_ANGSTROM,
    )
    grid = local_grid(_ORIENTATIONS, _DEFOCI)
    # Lengths of pixel size (which is not searched), defocus, orientation, y and x.
    lengths = (1, *grid.shape[1:], *score.positions)
    truth = np.stack([rng.integers(0, length, _PARTICLES) for length in lengths], axis=-1)

    start = sim.random_rotations(_PARTICLES, rng)
    rotation = start @ _ORIENTATIONS[0][truth[:, 2]]
    spacing = max(score.padded_box)
    corner = spacing * np.indices((2, 2)).reshape(2, -1).T + (spacing - SIDE) // 2
    defocus = np.asarray(DEFOCUS_ANGSTROM) + _DEFOCI[truth[:, 1], None]
    simulated = [
        sim.SimulatedParticle(turn, (float(y), float(x)), (u, v), ASTIGMATISM_DEG, _SNR)
        for turn, (y, x), (u, v) in zip(
            rotation, corner + SIDE // 2, defocus.tolist(), strict=True
        )
    ]
    made = sim.simulate_micrograph(
        atoms, simulated, (2 * spacing, 2 * spacing), PIXEL_SIZE_ANGSTROM, MICROSCOPE, rng
    )
    maps = (2 * spacing - SIDE + 1,) * 2
    micrograph = prepare_micrograph(
        jnp.asarray(made.image), jnp.zeros(maps), jnp.ones(maps), _FILTERS
    )

    def each(value: float) -> jnp.ndarray:
        return jnp.full(_PARTICLES, value, jnp.float32)

    particles = cut_particles(
        micrograph,
        Alignment(
            rotation=jnp.asarray(start, jnp.float32),
            position_px=jnp.asarray(
                corner - truth[:, 3:] + np.asarray(score.margin), jnp.float32
            ),
            defocus_angstrom=jnp.tile(jnp.asarray(DEFOCUS_ANGSTROM), (_PARTICLES, 1)),
            astigmatism_deg=each(ASTIGMATISM_DEG),
            pixel_size_angstrom=each(PIXEL_SIZE_ANGSTROM),
        ),
        optics(_PARTICLES),
        each(PIXEL_SIZE_ANGSTROM),
        score,
    )
    template = make_template(sim.potential_volume(atoms, SIDE, PIXEL_SIZE_ANGSTROM))
    return World(particles, template, score, grid, rotation, truth)


def optics(*batch: int) -> Optics:
    """The optics, for one particle or for a batch."""
    values = (
        MICROSCOPE.voltage_kv,
        MICROSCOPE.spherical_aberration_mm,
        MICROSCOPE.amplitude_contrast,
        MICROSCOPE.phase_shift_deg,
        MICROSCOPE.b_factor_angstrom2,
    )
    return Optics(*(jnp.full(batch, value, jnp.float32) for value in values))
