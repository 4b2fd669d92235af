"""Simulated particles with known truth, for the other benchmarks.

Each particle is the exact projection of its atoms at a random pose and sub-pixel position,
in coloured noise whose spectrum must be estimated.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

import jaxrefine as jr
from jaxrefine import simulate as sim
from jaxrefine.physics.ctf import ctf_spread_px

DEFOCI_ANGSTROM = (3000.0, 6000.0, 10000.0, 20000.0)
SNR_RANGE = (7.0, 20.0)
MICROSCOPE = sim.Microscope(b_factor_angstrom2=20.0)
ASTIGMATISM_ANGSTROM, ASTIGMATISM_DEG = 300.0, 25.0
# Ranges of the uniform errors of the starting values; the grid has steps of this order.
TILT_DEG, IN_PLANE_DEG, DEFOCUS_ANGSTROM = 2.0, 1.5, 100.0


@dataclass(frozen=True)
class Structure:
    """A structure, and its search grid. One score is used for all its micrographs."""

    name: str
    atoms: sim.Atoms
    side: int
    pixel_size: float

    @property
    def score(self) -> jr.ImageCTF:
        return jr.ImageCTF.for_particles(
            (self.side + 8, self.side + 8),
            self.side,
            max_defocus_angstrom=max(DEFOCI_ANGSTROM) + 2 * DEFOCUS_ANGSTROM,
            voltage_kv=MICROSCOPE.voltage_kv,
            spherical_aberration_mm=MICROSCOPE.spherical_aberration_mm,
            pixel_size_angstrom=self.pixel_size,
        )

    def spread_px(self, defocus: float) -> int:
        """Distance over which the CTF spreads signal at 4 Å."""
        return round(
            ctf_spread_px(
                defocus,
                MICROSCOPE.voltage_kv,
                MICROSCOPE.spherical_aberration_mm,
                self.pixel_size,
                max(4.0, 2 * self.pixel_size),
            )
        )


def structures() -> list[Structure]:
    rng = np.random.default_rng(11)

    def globule(side: int, pixel_size: float, fill: float) -> sim.Atoms:
        radius = fill * side * pixel_size / 2
        atoms = round(0.035 * radius**3 / 8)
        return sim.random_globule(atoms, radius, rng).blurred(20.0)

    antibody = sim.load_antibody().blurred(20.0)
    return [
        Structure("globule, 64 px of 1.5 Å", globule(64, 1.5, 0.75), 64, 1.5),
        Structure("globule, 80 px of 1.0 Å", globule(80, 1.0, 0.85), 80, 1.0),
        Structure("antibody 1IGY, 96 px of 2.0 Å", antibody, 96, 2.0),
        Structure("globule, 128 px of 1.5 Å", globule(128, 1.5, 0.75), 128, 1.5),
    ]


def large_structure() -> Structure:
    """A globule in a box of 256 px, with few enough atoms to simulate within a minute."""
    atoms = sim.random_globule(20_000, 96.0, np.random.default_rng(12)).blurred(20.0)
    return Structure("globule, 256 px of 1.0 Å", atoms, 256, 1.0)


@dataclass(frozen=True)
class Case:
    """The particles of a micrograph, and their true poses."""

    particles: jr.Particles
    truth: jr.Particles
    shift_px: np.ndarray
    snr: np.ndarray


def make_case(
    structure: Structure,
    defocus: float,
    count: int,
    rng: np.random.Generator,
    snr_range: tuple[float, float] = SNR_RANGE,
    microscope: sim.Microscope = MICROSCOPE,
) -> Case:
    """One micrograph, with particles on a grid and all their signal inside the image.

    The optics of the particles do not include the microscope's aberrations.
    """
    s, n, score = structure, structure.side, structure.score
    columns = int(np.ceil(np.sqrt(count)))
    spread = s.spread_px(defocus)
    spacing, edge = n + spread // 2, n // 2 + spread + 8
    places = np.stack(np.divmod(np.arange(count), columns), axis=-1) * spacing + edge
    size = (columns - 1) * spacing + 2 * edge
    size += size % 2
    centre = places + rng.uniform(-0.5, 0.5, (count, 2))
    relative = rng.uniform(-1, 1, count) * DEFOCUS_ANGSTROM
    u_v = defocus + relative[:, None] + ASTIGMATISM_ANGSTROM / 2 * np.array([1, -1])
    rotation = sim.random_rotations(count, rng)
    snr = rng.uniform(*snr_range, count)
    simulated = [
        sim.SimulatedParticle(r, tuple(c), tuple(d), ASTIGMATISM_DEG, a)
        for r, c, d, a in zip(rotation, centre.tolist(), u_v.tolist(), snr, strict=True)
    ]
    made = sim.simulate_micrograph(
        s.atoms, simulated, (size, size), s.pixel_size, microscope, rng, margin_px=32
    )
    maps = (size - n + 1,) * 2
    micrograph = jr.prepare_micrograph(
        jnp.asarray(made.image), jnp.zeros(maps), jnp.ones(maps), jr.Filters()
    )

    def single(values) -> jax.Array:
        return jnp.asarray(values, jnp.float32)

    def cut(rotation, u_v, corner) -> jr.Particles:
        alignment = jr.Alignment(
            rotation=single(rotation),
            position_px=single(corner),
            defocus_angstrom=single(u_v),
            astigmatism_deg=jnp.full(count, ASTIGMATISM_DEG),
            pixel_size_angstrom=jnp.full(count, s.pixel_size),
        )
        optics = jr.Optics(
            jnp.full(count, MICROSCOPE.voltage_kv),
            jnp.full(count, MICROSCOPE.spherical_aberration_mm),
            jnp.full(count, MICROSCOPE.amplitude_contrast),
            jnp.full(count, MICROSCOPE.phase_shift_deg),
            jnp.full(count, MICROSCOPE.b_factor_angstrom2),
        )
        pixel_sizes = jnp.full(count, s.pixel_size)
        return jr.cut_particles(micrograph, alignment, optics, pixel_sizes, score)

    corner = centre - n // 2
    start = [sim.perturbed_rotation(r, rng, TILT_DEG, IN_PLANE_DEG) for r in rotation]
    moved = np.round(corner) + rng.integers(-2, 3, (count, 2))
    mean = u_v - relative[:, None]
    return Case(
        particles=cut(start, mean, moved),
        truth=cut(rotation, u_v, np.round(corner)),
        shift_px=corner - np.round(corner),
        snr=snr,
    )


def rotation_vectors_deg(true: np.ndarray, found: np.ndarray) -> np.ndarray:
    """Rotation vectors in the image frame from the true to the found orientations."""
    turn = np.swapaxes(true, 1, 2) @ found
    vector = np.stack(
        [
            turn[:, 2, 1] - turn[:, 1, 2],
            turn[:, 0, 2] - turn[:, 2, 0],
            turn[:, 1, 0] - turn[:, 0, 1],
        ],
        axis=-1,
    )
    return np.rad2deg(vector / 2)  # sine of the angle, which is small


NAMES = ("tilt about x", "tilt about y", "in-plane angle", "y", "x", "defocus")
UNITS = ("°", "°", "°", "px", "px", "Å")
MORE_NAMES = ("astigmatism along", "astigmatism across", "pixel size")
MORE_UNITS = ("Å", "Å", "Å")
EVERYTHING = ("orientation", "shift", "defocus", "astigmatism", "pixel_size")


def errors_of(found: jr.Alignment, case: Case, pixel_size: float) -> np.ndarray:
    """(n, 9): true errors, in the order of the names."""
    true = case.truth.alignment
    position = np.asarray(true.position_px, np.float64) + case.shift_px
    u_v = np.asarray(found.defocus_angstrom, np.float64)
    true_u_v = np.asarray(true.defocus_angstrom, np.float64)
    turn = 2 * np.deg2rad(np.asarray(found.astigmatism_deg) - ASTIGMATISM_DEG)
    half = (u_v[:, 0] - u_v[:, 1]) / 2
    return np.column_stack(
        [
            rotation_vectors_deg(np.asarray(true.rotation), np.asarray(found.rotation)),
            np.asarray(found.position_px) - position,
            (u_v - true_u_v).mean(axis=1),
            half * np.cos(turn) - ASTIGMATISM_ANGSTROM / 2,
            half * np.sin(turn),
            np.asarray(found.pixel_size_angstrom) - pixel_size,
        ]
    )


def sigmas(errors: jr.PoseErrors) -> np.ndarray:
    """(n, 9): standard errors in the same order."""
    return np.column_stack(
        [
            errors.rotation_deg,
            errors.shift_px,
            errors.defocus_angstrom,
            errors.astigmatism_angstrom,
            errors.pixel_size_angstrom,
        ]
    )
