"""Loss of z due to artefacts, with and without cleaning, on simulated and real micrographs.

    pip download --no-binary :all: --no-deps mrcfile==1.5.4 && tar xf mrcfile-1.5.4.tar.gz
    .venv/bin/python benchmarks/artefacts.py mrcfile-1.5.4/tests/test_data [more.mrc]

In each micrograph 16 globules of equal strength are planted and scored at their true poses.
The loss is 1 - (mean z with the artefact) / (mean z without); before: for the unchanged
micrograph; after: for the cleaned one. Particles are included if the artefact does not
cover them; for slopes and carbon, all are.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

import jax.numpy as jnp
import mrcfile
import numpy as np

import jaxrefine as jr
from jaxrefine import simulate as sim
from jaxrefine.refine.clean import clean_micrograph
from jaxrefine.simulate import artefacts

DEFOCUS = (10500.0, 10300.0)
MICROSCOPE = sim.Microscope(b_factor_angstrom2=20.0)
SIDE, MARGIN, PLACES, MEAN_Z = 64, 8, 4, 15.0

# Fractions of changed pixels: of a template, above which it is excluded; and of the image,
# above which none is excluded.
_TOUCHED, _EVERYWHERE = 1e-3, 0.3


@dataclass(frozen=True)
class Problem:
    """A micrograph with planted particles, and how to score them."""

    image: np.ndarray
    corner_px: np.ndarray
    particles: dict
    template: jr.Template
    score: jr.ImageCTF

    def z(self, image: np.ndarray, *, cleaned: bool) -> np.ndarray:
        """z-scores at the true poses; the noise has standard deviation 1."""
        more, image = {}, image.astype(np.float32)
        if cleaned:
            clean = clean_micrograph(image)
            image, share = clean.image, clean.noise_share
            filled, noise = jnp.asarray(clean.filled), jnp.asarray(clean.noise)
            more = {"filled": filled, "noise": noise, "noise_share": share}
        shape = tuple(n - SIDE + 1 for n in image.shape)
        maps = jnp.zeros(shape), jnp.ones(shape)
        micrograph = jr.prepare_micrograph(jnp.asarray(image), *maps, jr.Filters(), **more)
        cut = jr.cut_particles(micrograph, score=self.score, **self.particles)
        return np.asarray(jr.score_particles(cut, self.template, self.score)[0])


def plant(image: np.ndarray, pixel_size: float) -> Problem:
    """Plant globules of the template's size at grid positions in one micrograph."""
    rng = np.random.default_rng(0)
    radius = 0.375 * SIDE * pixel_size
    atoms = sim.random_globule(800, radius, rng).blurred(10 * pixel_size**2)
    corner = np.stack(
        np.meshgrid(
            *((np.arange(PLACES) + 0.5) * n / PLACES - SIDE // 2 for n in image.shape),
            indexing="ij",
        ),
        -1,
    )
    corner = corner.reshape(-1, 2).round()
    rotations = sim.random_rotations(len(corner), rng)
    window = 8 * SIDE
    signal = np.zeros(image.shape)
    for rotation, at in zip(rotations, corner.astype(int), strict=True):
        centre = (window // 2, window // 2)
        one = sim.SimulatedParticle(rotation, centre, DEFOCUS)
        rfft = sim.particle_rfft(atoms, one, (window, window), pixel_size, MICROSCOPE)
        rfft[0, 0] = 0
        patch = np.fft.irfft2(rfft, s=(window, window))
        start = at + SIDE // 2 - window // 2
        rows, columns = (np.arange(window) + s for s in start)
        inside = tuple(
            np.flatnonzero((r >= 0) & (r < n))
            for r, n in zip((rows, columns), image.shape, strict=True)
        )
        signal[np.ix_(rows[inside[0]], columns[inside[1]])] += patch[np.ix_(*inside)]
    n = len(corner)
    score = jr.ImageCTF.for_particles(
        (SIDE + MARGIN, SIDE + MARGIN),
        SIDE,
        max_defocus_angstrom=max(DEFOCUS),
        voltage_kv=MICROSCOPE.voltage_kv,
        spherical_aberration_mm=MICROSCOPE.spherical_aberration_mm,
        pixel_size_angstrom=pixel_size,
    )
    tile = lambda values: jnp.asarray(np.tile(values, (n, 1)), jnp.float32)  # noqa: E731
    each = lambda value: jnp.full(n, value, jnp.float32)  # noqa: E731
    particles = {
        "alignment": jr.Alignment(
            jnp.asarray(rotations, jnp.float32),
            jnp.asarray(corner, jnp.float32),
            tile(DEFOCUS),
            each(0.0),
            each(pixel_size),
        ),
        "optics": jr.Optics(each(300.0), each(2.7), each(0.07), each(0.0), each(20.0)),
        "template_pixel_size_angstrom": each(pixel_size),
    }
    volume = sim.potential_volume(atoms, SIDE, pixel_size)
    problem = Problem(image, corner, particles, jr.make_template(volume), score)
    sigma = artefacts.noise_deviation(image)
    empty = problem.z(image, cleaned=False).mean()
    signal *= sigma / signal.std() / 10
    per_strength = problem.z(image + signal, cleaned=False).mean() - empty
    planted = image + signal * (MEAN_Z / per_strength)
    return Problem(planted.astype(np.float32), corner, particles, problem.template, score)


def spoilt(image: np.ndarray) -> dict[str, np.ndarray]:
    """The micrograph with each artefact."""
    rng = np.random.default_rng(1)
    height, width = image.shape
    places = rng.uniform(0, image.shape, (20, 2))
    corner, side = (height // 2 - height // 40, width // 2), height // 20
    made = {
        f"band of {px} px, {name}": artefacts.with_band(image, edge, px, value)
        for px, edge, name, value in (
            (2, "left", "zeros", 0),
            (4, "top", "zeros", 0),
            (16, "right", "the maximum", image.max()),
            (64, "bottom", "the mean", image.mean()),
            (64, "top", "1e4", 1e4),
        )
    }
    made |= {
        "block of zeros": artefacts.with_block(image, corner, side, 0),
        "hot pixels of 50 σ, 1 in 10,000": artefacts.with_single_pixels(
            image, 1e-4, 50, rng
        ),
        "one pixel of 10,000 σ": artefacts.with_block(
            image, corner, 1, 1e4 * artefacts.noise_deviation(image)
        ),
        "gradient of 5 σ": artefacts.with_slope(image, 5),
        "gradient of 40 σ": artefacts.with_slope(image, 40),
        "carbon edge of 2 σ, 0.5 σ of noise": artefacts.with_carbon(
            image, 0.4, 2, 0.5, rng
        ),
        "contamination of 5 σ": artefacts.with_spots(image, places[:5], height / 40, -5),
        "contamination of 20 σ": artefacts.with_spots(image, places[:5], height / 40, 20),
        "gold of 10 σ": artefacts.with_spots(image, places, 12, -10),
    }
    return made


def lost(problem: Problem, changed: np.ndarray, *, cleaned: bool) -> tuple[float, int]:
    """Loss of z in percent, and the number of particles that it is measured on."""
    deviation = artefacts.noise_deviation(problem.image)
    touched = np.abs(changed - problem.image) > 0.5 * deviation
    templates = [
        touched[max(0, y) : y + SIDE, max(0, x) : x + SIDE]
        for y, x in problem.corner_px.astype(int)
    ]
    everywhere = touched.mean() > _EVERYWHERE
    away = np.array([everywhere or part.mean() < _TOUCHED for part in templates])
    before = problem.z(problem.image, cleaned=cleaned)[away]
    after = problem.z(changed, cleaned=cleaned)[away]
    return 100 * (1 - after.mean() / before.mean()), int(away.sum())


def main() -> None:
    """Print a table for each micrograph."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("paths", nargs="+", type=Path)
    given = parser.parse_args().paths
    files = [f for p in given for f in (sorted(p.glob("*.mrc")) if p.is_dir() else [p])]
    for path in files:
        with mrcfile.open(path, permissive=True) as file:
            image = np.squeeze(np.asarray(file.data, np.float32))
            pixel_size = float(file.voxel_size.x) or 1.0
        if image.ndim != 2 or min(image.shape) < 256:
            continue
        problem = plant(image, pixel_size)
        z = [problem.z(problem.image, cleaned=cleaned).mean() for cleaned in (False, True)]
        print(f"\n{path.name}, {image.shape}: mean z {z[0]:.2f}, cleaned {z[1]:.2f}")
        print("| artefact | particles | z lost before | after |\n|---|---|---|---|")
        for name, changed in spoilt(problem.image).items():
            before, count = lost(problem, changed, cleaned=False)
            after, _ = lost(problem, changed, cleaned=True)
            print(f"| {name} | {count} | {before:.1f} % | {after:.1f} % |", flush=True)


if __name__ == "__main__":
    main()
