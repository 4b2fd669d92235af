"""Motion from the score: errors of the shifts, and what they gain, on a simulated movie.

Particles move with the ice, in a smooth field that slows down with the exposure, and a
little by themselves; their signal decays with the exposure, and each frame has noise of its
own. They are summed without shifts, with the mean shift of each frame (as an ideal
alignment of whole frames finds it), with shifts fitted to the scores from there, and with
the true shifts; each time they are searched and polished.

    python benchmarks/motion.py [--particles 49] [--frames 24]
"""

import argparse
from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np
from simulated import (
    ASTIGMATISM_ANGSTROM,
    ASTIGMATISM_DEG,
    IN_PLANE_DEG,
    MICROSCOPE,
    TILT_DEG,
    rotation_vectors_deg,
    structures,
)

import jaxrefine as jr
from jaxrefine import simulate as sim
from jaxrefine.physics.exposure import exposure_weights, frame_exposures
from jaxrefine.refine.motion import (
    MotionPrior,
    box_transfer,
    fit_motion,
    frame_correlations,
    unit_features,
)
from jaxrefine.refine.movies import (
    FrameOptics,
    add_to_boxes,
    add_to_image,
    finished,
    finished_boxes,
)
from jaxrefine.refine.scoring import padded_corner

DEFOCUS_ANGSTROM, FLUENCE, SNR_RANGE = 6000.0, 1.25, (9.0, 16.0)
MARGIN_PX, REACH_PX = 16, 6
# RELION's defaults: Å per electron/Å², Å, and Å per electron/Å².
VELOCITY, DIVERGENCE, ACCELERATION = 0.5, 5000.0, 2.0


@dataclass(frozen=True)
class Movie:
    """A simulated movie, and the truth about it."""

    frames: np.ndarray
    corner: np.ndarray
    rotation: np.ndarray
    defocus: np.ndarray
    shift: np.ndarray


def planted_motion(place: np.ndarray, size: int, frames: int, rng) -> np.ndarray:
    """(t, n, 2): displacement of each particle from where it is on average."""
    exposure = frame_exposures(frames, 0.0, FLUENCE)
    y, x = (place / size - 0.5).T
    dome = np.stack([2.5 + 3.0 * y - 1.5 * x, -1.5 + 1.0 * y + 3.5 * x], axis=-1)
    path = np.exp(-exposure / 6.0)[:, None, None] * dome
    path = path + np.cumsum(rng.normal(0.0, 0.05, (frames, *dome.shape)), axis=0)
    return path - path.mean(axis=0)


def simulate(structure, count: int, frames: int, rng) -> Movie:
    side, pixel = structure.side, structure.pixel_size
    columns = int(np.ceil(np.sqrt(count)))
    spread = structure.spread_px(DEFOCUS_ANGSTROM)
    spacing, edge = side + spread // 2, side // 2 + spread + 8
    size = (columns - 1) * spacing + 2 * edge
    size += size % 2
    grid = np.stack(np.divmod(np.arange(count), columns), axis=-1) * spacing + edge
    centre = grid + rng.uniform(-0.5, 0.5, (count, 2))
    move = planted_motion(centre, size, frames, rng)
    rotation = sim.random_rotations(count, rng)
    u_v = DEFOCUS_ANGSTROM + rng.uniform(-100, 100, (count, 1))
    u_v = u_v + ASTIGMATISM_ANGSTROM / 2 * np.array([1, -1])
    snr = rng.uniform(*SNR_RANGE, count)
    shape, noise = (size, size), sim.NoiseSpectrum()
    weights = np.stack(
        [
            np.asarray(exposure_weights(shape, pixel, e, MICROSCOPE.voltage_kv))
            for e in frame_exposures(frames, 0.0, FLUENCE)
        ]
    )
    kept, power = np.sqrt((weights**2).sum(axis=0)), noise.power_rfft(shape)
    ky, kx = np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)
    signal = np.zeros((frames, size, size // 2 + 1), np.complex64)
    for n in range(count):
        particle = sim.SimulatedParticle(
            rotation[n], tuple(centre[n]), tuple(u_v[n]), ASTIGMATISM_DEG
        )
        one = sim.particle_rfft(structure.atoms, particle, shape, pixel, MICROSCOPE)
        one *= snr[n] / sim.ideal_snr(one * kept, power, size)
        for t in range(frames):
            y, x = move[t, n]
            signal[t] += one * np.exp(-2j * np.pi * (ky * y + kx * x))
    images = [
        np.fft.irfft2(signal[t] * weights[t], s=shape) + noise.sample(shape, rng)
        for t in range(frames)
    ]
    # A frame is moved back by what its particles have moved.
    return Movie(np.float32(images), centre - side // 2, rotation, u_v, -move)


class Refinement:
    """The particles of a movie, summed with any shifts, and their refinement."""

    def __init__(self, structure, movie: Movie, rng) -> None:
        self.movie, self.structure, side = movie, structure, structure.side
        self.score = jr.ImageCTF.for_particles(
            (side + 8, side + 8),
            side,
            max_defocus_angstrom=DEFOCUS_ANGSTROM + 600.0,
            voltage_kv=MICROSCOPE.voltage_kv,
            spherical_aberration_mm=MICROSCOPE.spherical_aberration_mm,
            pixel_size_angstrom=structure.pixel_size,
        )
        volume = sim.potential_volume(structure.atoms, side, structure.pixel_size)
        self.template = jr.make_template(volume, "padded")
        self.smooth = jr.make_template(volume, "cubic")
        self.grid = jr.local_grid(
            jr.uniform_orientations(
                psi_coarse=1.5, psi_fine=0.5, theta_coarse=2.5, theta_fine=0.5
            ),
            jr.search_offsets(-150.0, 150.0, 50.0),
        )
        self.start = np.stack(
            [sim.perturbed_rotation(r, rng, TILT_DEG, IN_PLANE_DEG) for r in movie.rotation]
        )
        count = len(movie.corner)
        self.exposures = np.float32(frame_exposures(len(movie.frames), 0.0, FLUENCE))
        self.lens = FrameOptics(
            jnp.float32(structure.pixel_size), jnp.float32(MICROSCOPE.voltage_kv)
        )
        self.lenses = jax.tree.map(lambda x: jnp.full(count, x), self.lens)
        cut = self.score.padded_box
        self.box = cut[0] + 2 * MARGIN_PX, cut[1] + 2 * MARGIN_PX
        corner = padded_corner(self.score, side, np.round(movie.corner))
        self.corner = (corner - MARGIN_PX).astype(np.int32)

    def refined(self, shift: np.ndarray):
        """Micrograph, particles and polished result with these shifts (t, n, 2)."""
        frames, count = self.movie.frames, len(self.movie.corner)
        shape = frames[0].shape
        total = jnp.zeros((shape[0], shape[1] // 2 + 1), jnp.complex64)
        sums = jnp.zeros((count, self.box[0], self.box[1] // 2 + 1), jnp.complex64)
        shift = jnp.asarray(shift, jnp.float32)
        for t, frame in enumerate(frames):
            exposure = self.exposures[t]
            sums = add_to_boxes(sums, frame, self.corner, shift[t], exposure, self.lenses)
            total = add_to_image(total, frame, shift[t].mean(axis=0), exposure, self.lens)
        boxes = finished_boxes(sums, self.exposures, self.lenses, self.box)
        image = finished(total, self.exposures, self.lens, shape)
        maps = (shape[0] - self.structure.side + 1,) * 2
        micrograph = jr.prepare_micrograph(
            image, jnp.zeros(maps), jnp.ones(maps), jr.Filters()
        )

        def single(values):
            return jnp.asarray(values, jnp.float32)

        pixel = jnp.full(count, self.structure.pixel_size)
        mean = self.movie.defocus - (
            self.movie.defocus.mean(axis=1, keepdims=True) - DEFOCUS_ANGSTROM
        )
        alignment = jr.Alignment(
            rotation=single(self.start),
            position_px=single(np.round(self.movie.corner)),
            defocus_angstrom=single(mean),
            astigmatism_deg=jnp.full(count, ASTIGMATISM_DEG),
            pixel_size_angstrom=pixel,
        )
        optics = jr.Optics(
            *(
                jnp.full(count, value)
                for value in (
                    MICROSCOPE.voltage_kv,
                    MICROSCOPE.spherical_aberration_mm,
                    MICROSCOPE.amplitude_contrast,
                    MICROSCOPE.phase_shift_deg,
                    MICROSCOPE.b_factor_angstrom2,
                )
            )
        )
        particles = jr.cut_particles(
            micrograph, alignment, optics, pixel, self.score, boxes=boxes
        )
        found = jr.refine_particles(
            particles, self.template, self.grid, self.score, adaptive=True
        )
        polished = jr.polish_particles(particles, found, self.smooth, self.grid, self.score)
        return micrograph, particles, polished.refined

    def fitted(self, given: np.ndarray, micrograph, particles, refined) -> np.ndarray:
        """Shifts that are fitted to the scores of refined particles."""
        there = replace(particles, alignment=refined.alignment)
        moved = refined.alignment.position_px - particles.alignment.position_px
        features = unit_features(there, moved, self.smooth, self.score)
        transfer = box_transfer(
            micrograph.filter, micrograph.gain, self.exposures, self.lens, self.box
        )
        correlations = [
            frame_correlations(
                frame,
                self.corner,
                np.float32(given[t]),
                self.exposures[t],
                self.lens,
                transfer,
                features,
                self.box,
                REACH_PX,
            )
            for t, frame in enumerate(self.movie.frames)
        ]
        per_frame = FLUENCE / self.structure.pixel_size
        prior = MotionPrior(
            VELOCITY * per_frame,
            DIVERGENCE / self.structure.pixel_size,
            ACCELERATION * per_frame,
        )
        position = jnp.asarray(self.movie.corner, jnp.float32)
        fit = fit_motion(jnp.stack(correlations), position, prior)
        print(f"fitted in {fit.steps} steps, converged: {bool(fit.converged)}", flush=True)
        return given + np.asarray(fit.shift_px)


def row(name: str, shift: np.ndarray, refinement: Refinement, refined) -> str:
    """One row of the table."""
    movie = refinement.movie
    error = shift - movie.shift
    error = error - error.mean(axis=0)  # the mean is the particle's position
    early = len(shift) // 4
    rms = [np.sqrt((each**2).sum(axis=-1).mean()) for each in (error, error[:early])]
    angle = rotation_vectors_deg(movie.rotation, np.asarray(refined.alignment.rotation))
    return (
        f"| {name} | {rms[0]:.2f} | {rms[1]:.2f} | {np.mean(refined.z_score):.2f} | "
        f"{np.median(np.linalg.norm(angle, axis=1)):.2f}° |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--particles", type=int, default=49)
    parser.add_argument("--frames", type=int, default=24)
    options = parser.parse_args()
    rng, structure = np.random.default_rng(8), structures()[0]
    movie = simulate(structure, options.particles, options.frames, rng)
    refinement = Refinement(structure, movie, rng)
    common = np.repeat(movie.shift.mean(axis=1, keepdims=True), options.particles, axis=1)
    rows = []

    def with_shifts(name: str, shift: np.ndarray):
        found = refinement.refined(shift)
        rows.append(row(name, shift, refinement, found[2]))
        print(rows[-1], flush=True)
        return found

    with_shifts("none", np.zeros_like(movie.shift))
    found = with_shifts("of whole frames", common)
    shift = refinement.fitted(common, *found)
    found = with_shifts("fitted to the scores", shift)
    shift = refinement.fitted(shift, *found)
    with_shifts("fitted again", shift)
    with_shifts("true", movie.shift)
    print("\n| shifts | error, px | of the first quarter | mean z | angle |")
    print("|---|---|---|---|---|\n" + "\n".join(rows))


if __name__ == "__main__":
    main()
