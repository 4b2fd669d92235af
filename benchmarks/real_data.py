"""Validation on a real exposure: its two halves, and particles planted in it.

The micrograph of β-galactosidase is part of the source distribution of the package mrcfile
1.5.4, which is downloaded; match, template and table are those of the given folder
(docs/accuracy.md describes how they were made).

    python benchmarks/real_data.py FOLDER [--table TABLES.md]

- Halves: the counts are Poisson-distributed, so that each electron can be assigned to one
  of two images with independent noise. The same particles are refined in both. Their poses
  should differ as the standard errors predict.
- Planted: antibodies are added to the full image, between its own particles, at known
  poses, with the table's B factor or a much larger one; `wrong_templates.py` uses templates
  with other errors.
"""

import argparse
import functools
import subprocess
import sys
import tarfile
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import mrcfile
import numpy as np
import pandas as pd

import jaxrefine as jr
from jaxrefine import simulate as sim
from jaxrefine.app.config import Config
from jaxrefine.app.refinement import Refinement
from jaxrefine.app.run.build import particle_optics, starting_alignment
from jaxrefine.data import Optics
from jaxrefine.physics.filters import Filters
from jaxrefine.refine.envelope import with_extra_b
from jaxrefine.refine.envelope_fit import EnvelopeFit
from jaxrefine.refine.envelope_study import FIRST_B_ANGSTROM2, EnvelopeStudy

Prior = Literal["none", "match"]
COUNTS_PER_ELECTRON = 104  # in the file
HOT_COUNT = 80  # far beyond a Poisson distribution of mean 34
PIXEL_ANGSTROM = 2.5613265  # three detector pixels
TOP, LEFT, HEIGHT, WIDTH = 29, 7, 3780, 3696  # the central part, divisible by three
DEFOCUS, ASTIGMATISM_DEG = (10646.0, 10427.0), -53.8
BEST = 55


def counts(scratch: Path) -> np.ndarray:
    """Electrons per pixel of the raw image."""
    command = [sys.executable, "-m", "pip", "download", "mrcfile==1.5.4", "--no-deps"]
    command += ["--no-binary", ":all:", "--dest", str(scratch), "--quiet"]
    subprocess.run(command, check=True)
    with tarfile.open(next(scratch.glob("mrcfile-*.tar.gz"))) as archive:
        (member,) = (m for m in archive if m.name.endswith("fei-extended.mrc"))
        archive.extract(member, scratch, filter="data")
    with mrcfile.open(scratch / member.name, permissive=True) as file:
        raw = np.rint(np.asarray(file.data, np.float64) / COUNTS_PER_ELECTRON)
    raw = raw.astype(np.int64)
    return raw[TOP : TOP + HEIGHT, LEFT : LEFT + WIDTH]


def binned(image: np.ndarray) -> np.ndarray:
    """The image at a third of the size, by Fourier cropping."""
    height, width = (length // 3 for length in image.shape)
    rfft = np.fft.rfft2(image)
    kept = np.concatenate([rfft[: height // 2], rfft[-(height // 2) :]])
    return np.fft.irfft2(kept[:, : width // 2 + 1], s=(height, width)) / 9


def thinned(raw: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Assign each electron to one of two images."""
    raw = np.where(raw > HOT_COUNT, rng.poisson(raw.mean(), raw.shape), raw)
    one = rng.binomial(raw, 0.5)
    return binned(one.astype(np.float64)), binned((raw - one).astype(np.float64))


@dataclass(frozen=True, eq=False)
class Problem:
    """Particles of one image, and the objects for their refinement.

    Attributes:
        particles: The extracted particles.
        template: Template for the search.
        smooth: Template with cubic slices.
        grid: The search grid.
        score: The score.
    """

    particles: jr.Particles
    template: jr.Template
    smooth: jr.Template
    grid: jr.SearchGrid
    score: jr.Score

    @functools.cache  # noqa: B019
    def search(self, extra_b: float) -> jr.Refined:
        """The best grid points."""
        blurred = with_extra_b(self.particles, extra_b)
        others = (self.template, self.grid, self.score)
        return jr.refine_particles(blurred, *others, adaptive=True)

    def refine(
        self, extra_b: float, prior: Prior = "none", *, bound: bool = False
    ) -> jr.Polished:
        """Search and polish; with the errors of the Cramér-Rao bound if `bound`."""
        blurred = with_extra_b(self.particles, extra_b)
        polish = jr.Polish(prior=prior, errors=not bound)
        found = self.search(extra_b)
        others = (self.smooth, self.grid, self.score, polish)
        return jr.polish_particles(blurred, found, *others)

    def envelope(self) -> EnvelopeFit:
        """The estimate of the envelope."""
        batches = [(self.particles, self.search(FIRST_B_ANGSTROM2))]
        return EnvelopeStudy(batches, self.smooth, self.grid, self.score).fit()[0]


@eqx.filter_jit
def scores_at(
    particles: jr.Particles, found: jr.Refined, template: jr.Template, score: jr.Score
) -> jax.Array:
    """z-scores of some images at given poses."""

    def one(both: tuple[jr.Particles, jr.Refined]) -> jax.Array:
        particle, there = both
        move = there.alignment.position_px - particle.alignment.position_px
        offsets = eqx.tree_at(
            lambda o: o.shift_px, jr.Offsets.zeros(), move - jnp.round(move)
        )
        return jr.z_score(offsets, jr.recentred(particle, there, score), template, score)

    return jax.lax.map(one, (particles, found))


def differences(one: jr.Alignment, other: jr.Alignment) -> np.ndarray:
    """(n, 6): rotation vector (degrees), y and x (px), defocus (Å)."""
    turn = np.swapaxes(np.asarray(one.rotation, np.float64), 1, 2) @ np.asarray(
        other.rotation, np.float64
    )
    pairs = ((2, 1), (0, 2), (1, 0))
    axis = np.stack([turn[:, i, j] - turn[:, j, i] for i, j in pairs], axis=-1) / 2
    sine = np.linalg.norm(axis, axis=1, keepdims=True)
    vector = np.rad2deg(axis * np.arcsin(np.clip(sine, 0, 1)) / np.maximum(sine, 1e-9))
    place = np.asarray(other.position_px) - np.asarray(one.position_px)
    defocus = np.mean(other.defocus_angstrom - one.defocus_angstrom, axis=1)
    return np.concatenate([vector, place, defocus[:, None]], axis=1)


def sigmas(polished: jr.Polished) -> np.ndarray:
    """(n, 6): standard errors of the same."""
    errors = polished.errors
    each = (errors.rotation_deg, errors.shift_px, errors.defocus_angstrom[:, None])
    return np.concatenate([np.asarray(e) for e in each], axis=1)


def mean_errors(difference: np.ndarray) -> tuple[float, float]:
    """Mean angle in degrees, and distance in px."""
    angle, place = (
        np.linalg.norm(difference[:, part], axis=1).mean()
        for part in (slice(0, 3), slice(3, 5))
    )
    return float(angle), float(place)


def shares(ratio: np.ndarray) -> str:
    """Fractions of errors below one and two standard errors, over all coordinates."""
    return f"{np.mean(np.abs(ratio) < 1):.2f} | {np.mean(np.abs(ratio) < 2):.2f}"


def promised_angle(*errors: np.ndarray) -> float:
    """Median angle between poses of the halves, predicted from standard errors (n, 3)."""
    rng = np.random.default_rng(0)
    turn = np.hypot(*errors) * rng.standard_normal((400, *errors[0].shape))
    return float(np.median(np.linalg.norm(turn, axis=-1)))


def real_problem(folder: Path, image: np.ndarray) -> Problem:
    """The best particles of the folder's match, in an image of the same exposure."""
    config = Config.load(folder / "bgal_config.yaml")
    # The envelope is estimated here.
    run = Refinement(
        replace(config, template_envelope="none"), output=Path("unwritten.csv")
    )
    inputs = run._inputs
    table = pd.read_csv(folder / "bgal_match_results.csv")
    rows = np.argsort(-table.scaled_mip.to_numpy(), kind="stable")[:BEST]
    maps = [
        jnp.asarray(mrcfile.read(folder / f"bgal_{name}_f16.mrc").astype(np.float32))
        for name in ("mean", "sd")
    ]
    micrograph = jr.prepare_micrograph(
        jnp.asarray(image, jnp.float32), maps[0], maps[1], inputs.filters
    )
    particles = jr.cut_particles(
        micrograph,
        starting_alignment(inputs.start, rows),
        particle_optics(inputs.start, rows),
        jnp.asarray(inputs.template_pixel_size_angstrom[rows], jnp.float32),
        run.score,
    )
    volume = mrcfile.read(folder / "bgal_template.mrc").astype(np.float32)
    smooth = jr.make_template(volume, "cubic")
    return Problem(particles, run.template, smooth, run.grid, run.score)


def halves_table(folder: Path, raw: np.ndarray, rng: np.random.Generator) -> str:
    """Poses of the same particles in two independent images."""
    fit = real_problem(folder, binned(raw.astype(np.float64))).envelope()
    one, other = (real_problem(folder, image) for image in thinned(raw, rng))
    b, sigma = fit.extra_b_angstrom2, fit.sigma_angstrom2
    lines = [
        f"Estimated in the full image: B = {b:.0f} ± {sigma:.0f} Å² beside the table's.\n",
        "| refined with | median angle between halves | by the standard errors | by the "
        "bound | below 1 σ | below 2 σ | z | expected in other data | z at the other "
        "half's poses |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    cases: list[tuple[str, float, Prior]] = [("the estimate", b, "none")]
    cases.append(("the estimate, prior: match", b, "match"))
    for extra in (600.0, 300.0, 0.0):
        cases.insert(0, (f"B = {extra:g}", extra, "none"))
    for name, extra, prior in cases:
        first, second = one.refine(extra, prior), other.refine(extra, prior)
        change = differences(first.refined.alignment, second.refined.alignment)
        both = np.hypot(sigmas(first), sigmas(second))
        angle = np.median(np.linalg.norm(change[:, :3], axis=1))
        promised = promised_angle(sigmas(first)[:, :3], sigmas(second)[:, :3])
        # For both halves, from the information in the image only.
        bound = promised_angle(
            *(sigmas(half.refine(extra, bound=True))[:, :3] for half in (one, other))
        )
        crossed = [
            scores_at(with_extra_b(p.particles, extra), f.refined, p.smooth, p.score)
            for p, f in ((one, second), (other, first))
        ]
        own, expected = (
            np.mean([first_, second_])
            for first_, second_ in (
                (first.refined.z_score, second.refined.z_score),
                (first.expected_z, second.expected_z),
            )
        )
        lines.append(
            f"| {name} | {angle:.2f}° | {promised:.2f}° | {bound:.2f}° | "
            f"{shares(change / both)} | {own:.2f} | "
            f"{expected:.2f} | {np.mean(crossed):.2f} |"
        )
        print(lines[-1], flush=True)
    return "\n".join(lines)


def planted_problem(
    folder: Path, raw: np.ndarray, b: float, count: int, rng: np.random.Generator
) -> tuple[Problem, jr.Alignment]:
    """Antibodies between the image's own particles, and their true poses."""
    side, table_b = 80, 60.0
    image = binned(raw.astype(np.float64))
    image /= image.std()
    shape, (u, v) = image.shape, DEFOCUS
    own = pd.read_csv(folder / "bgal_match_results.csv").nlargest(40, "scaled_mip")
    centres = own[["pos_y", "pos_x"]].to_numpy() + 44
    places = np.stack(np.meshgrid(*(np.arange(80, n - 80, 86) for n in shape)), axis=-1)
    places = places.reshape(-1, 2)
    apart = np.linalg.norm(places[:, None] - centres, axis=-1).min(axis=1)
    places = places[np.argsort(-apart)[:count]]
    centre = places + rng.uniform(-0.5, 0.5, places.shape)
    u_v = np.array([u, v]) + rng.uniform(-100, 100, (count, 1))
    rotation, strength = sim.random_rotations(count, rng), rng.uniform(8, 12, count)
    atoms = sim.load_antibody().blurred(20.0)
    microscope = sim.Microscope(300.0, 2.7, 0.07, 0.0, b)
    k = np.hypot(np.fft.fftfreq(shape[0])[:, None], np.fft.rfftfreq(shape[1]))
    ring = (600 * k).astype(int)
    power = np.bincount(ring.ravel(), np.abs(np.fft.rfft2(image)).ravel() ** 2)
    power = (power / np.maximum(np.bincount(ring.ravel()), 1))[ring]
    total = np.zeros(power.shape, complex)
    for turn, c, d, snr in zip(rotation, centre, u_v, strength, strict=True):
        one = sim.SimulatedParticle(turn, tuple(c), tuple(d), ASTIGMATISM_DEG, snr)
        rfft = sim.particle_rfft(atoms, one, shape, PIXEL_ANGSTROM, microscope)
        total += rfft * (snr / sim.ideal_snr(rfft, power, shape[1]))
    total[0, 0] = 0
    image = image + np.fft.irfft2(total, s=shape)

    def single(values):
        return jnp.asarray(values, jnp.float32)

    def alignment(rotation, corner, u_v):
        same = (single([ASTIGMATISM_DEG] * count), single([PIXEL_ANGSTROM] * count))
        return jr.Alignment(single(rotation), single(corner), single(u_v), *same)

    start = alignment(
        np.stack([sim.perturbed_rotation(r, rng, 2.4, 1.7) for r in rotation]),
        np.rint(centre - side // 2 + rng.uniform(-1.5, 1.5, centre.shape)),
        u_v + rng.uniform(-100, 100, (count, 1)),
    )
    score = jr.ImageCTF.for_particles(
        (side + 8, side + 8),
        side,
        max_defocus_angstrom=u + 600,
        voltage_kv=300.0,
        spherical_aberration_mm=2.7,
        pixel_size_angstrom=PIXEL_ANGSTROM,
    )
    flat = [np.full([n - side + 1 for n in shape], value, np.float32) for value in (0, 1)]
    micrograph = jr.prepare_micrograph(
        single(image), single(flat[0]), single(flat[1]), Filters()
    )
    optics = Optics(*(single([x] * count) for x in (300.0, 2.7, 0.07, 0.0, table_b)))
    sizes = single([PIXEL_ANGSTROM] * count)
    particles = jr.cut_particles(micrograph, start, optics, sizes, score)
    grid = jr.local_grid(
        jr.uniform_orientations(psi_coarse=4, psi_fine=1, theta_coarse=4, theta_fine=1),
        jr.search_offsets(-200.0, 200.0, 50.0),
    )
    volume = sim.potential_volume(atoms, side, PIXEL_ANGSTROM)
    search, smooth = (jr.make_template(volume, name) for name in ("padded", "cubic"))
    truth = alignment(rotation, centre - side // 2, u_v)
    return Problem(particles, search, smooth, grid, score), truth


def planted_table(
    folder: Path, raw: np.ndarray, count: int, rng: np.random.Generator
) -> str:
    """Errors of planted antibodies, with B = 60 in the table."""
    lines = [
        "| planted with | refined with | z | mean angle | position | below 1 σ | 2 σ |",
        "|---|---|---|---|---|---|---|",
    ]
    for b in (400.0, 60.0):
        problem, truth = planted_problem(folder, raw, b, count, rng)
        start = differences(truth, problem.particles.alignment)
        angle = np.linalg.norm(start[:, :3], axis=1).mean()
        lines.append(f"| B = {b:g} | (the start) | | {angle:.2f}° | | | |")
        fit = problem.envelope()
        found, sigma = fit.extra_b_angstrom2, fit.sigma_angstrom2
        cases: list[tuple[str, float, Prior]] = [
            ("the table's B", 0.0, "none"),
            ("the right B", b - 60.0, "none"),
            (f"the estimate, {60 + found:.0f} ± {sigma:.0f}", found, "none"),
            ("the estimate, prior: match", found, "match"),
        ]
        for name, extra, prior in cases:
            result = problem.refine(extra, prior)
            error = differences(truth, result.refined.alignment)
            angle, place = mean_errors(error)
            lines.append(
                f"| B = {b:g} | {name} | {np.mean(result.refined.z_score):.2f} | "
                f"{angle:.2f}° | {place:.2f} px | {shares(error / sigmas(result))} |"
            )
            print(lines[-1], flush=True)
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("folder", type=Path, help="the match, its template and its maps")
    parser.add_argument("--planted", type=int, default=60, help="antibodies; 0 for none")
    parser.add_argument("--seed", type=int, default=3)
    parser.add_argument("--table", type=Path, help="write the tables here as well")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        raw = counts(Path(scratch))
    rng = np.random.default_rng(options.seed)
    tables = [halves_table(options.folder, raw, rng)]
    if options.planted:
        tables.append(planted_table(options.folder, raw, options.planted, rng))
    text = "\n\n".join(tables) + "\n"
    print(text)
    if options.table:
        options.table.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
