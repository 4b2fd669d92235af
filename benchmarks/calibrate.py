"""Validation of the standard errors of shared parameters on simulated data sets.

Each data set has particles at random poses in white noise, in several micrographs with a
defocus plane each, imaged by a microscope with parameters that differ from the table. The
errors of the fitted values, divided by the reported standard errors, should have a standard
deviation of 1.

    python benchmarks/calibrate.py --sets 200 --particles 100
    python benchmarks/calibrate.py --sets 20 --far
    python benchmarks/calibrate.py --sets 20 --false-picks 0.3

Two runs with different seeds give one table:

    python benchmarks/calibrate.py --sets 100 --seed 1 --save one.csv
    python benchmarks/calibrate.py --sets 100 --seed 2 --save two.csv
    python benchmarks/calibrate.py --tables one.csv two.csv
"""

import argparse
import time
from dataclasses import dataclass, replace
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pandas as pd

import jaxrefine as jr
from jaxrefine import simulate as sim
from jaxrefine.refine.design import Design
from jaxrefine.refine.joint import Model, State, fit_jointly
from jaxrefine.refine.joint_scan import Ranges, coarse_scan

SIDE, PIXEL_SIZE = 32, 2.0
MICROGRAPHS = 4
NOMINAL = sim.Microscope(b_factor_angstrom2=20.0)
DEFOCUS_U_V, ASTIGMATISM_DEG = (4100.0, 3900.0), 20.0
PARAMETERS = ("pixel_size", "magnification", "beam_tilt", "b_factor")
OF_MICROGRAPHS = ("defocus", "astigmatism", "defocus_plane")
DEFOCUS_SIGMA = 40.0
GRID = 128  # the CTF does not wrap around on it


@dataclass(frozen=True)
class DataSet:
    """Particles as in the table, and the truth about the shared parameters."""

    particles: jr.Particles
    micrograph: np.ndarray
    place_angstrom: np.ndarray
    strength: np.ndarray
    truth: dict[str, np.ndarray]  # label -> value of each group


def score_of() -> jr.ImageCTF:
    return jr.ImageCTF.for_particles(
        (SIDE + 4, SIDE + 4),
        SIDE,
        max_defocus_angstrom=6000.0,
        voltage_kv=300.0,
        spherical_aberration_mm=2.7,
        pixel_size_angstrom=PIXEL_SIZE,
    )


def make_set(
    atoms: sim.Atoms,
    score: jr.ImageCTF,
    count: int,
    snr: tuple[float, float],
    false_picks: float,
    far: bool,
    rng: np.random.Generator,
) -> DataSet:
    pixel = PIXEL_SIZE * (1 + (rng.choice([-0.02, 0.02]) if far else rng.normal(0, 0.003)))
    a, b = rng.normal(0, 0.004, 2)
    tilt = rng.normal(0, 0.7, 2)
    if far:
        tilt /= np.hypot(*tilt)
    microscope = sim.Microscope(
        b_factor_angstrom2=20.0 + rng.normal(0, 10),
        beam_tilt_mrad=(tilt[0], tilt[1]),
        mag_matrix=((1 + a, b), (b, 1 - a)),
    )
    defocus = rng.normal(0, 60, MICROGRAPHS)
    if far:
        defocus = rng.choice([-300.0, 300.0], MICROGRAPHS)
    astigmatism = rng.normal(0, 60, (MICROGRAPHS, 2))
    slope = rng.normal(0, 0.1, (MICROGRAPHS, 2))
    of = np.arange(count) % MICROGRAPHS
    place = rng.uniform(-2000, 2000, (count, 2))
    images, starts = [], []
    strengths = np.where(rng.uniform(size=count) < false_picks, 0, rng.uniform(*snr, count))
    half = (DEFOCUS_U_V[0] - DEFOCUS_U_V[1]) / 2
    double = np.deg2rad(2 * ASTIGMATISM_DEG)
    nominal_vector = half * np.array([np.cos(double), np.sin(double)])
    for number in range(count):
        m = of[number]
        rotation = sim.random_rotations(1, rng)[0]
        mean = np.mean(DEFOCUS_U_V) + defocus[m] + slope[m] @ place[number]
        mean += rng.normal(0, DEFOCUS_SIGMA)
        vector = nominal_vector + astigmatism[m]
        length, angle = np.hypot(*vector), np.rad2deg(np.arctan2(*vector[::-1])) / 2
        offset = rng.uniform(-0.4, 0.4, 2)
        middle = GRID // 2
        particle = sim.SimulatedParticle(
            rotation,
            (middle + offset[0], middle + offset[1]),
            (mean + length, mean - length),
            angle,
        )
        rfft = sim.particle_rfft(atoms, particle, (GRID, GRID), pixel, microscope)
        white = np.full(rfft.shape, float(GRID * GRID))
        image = np.fft.irfft2(rfft / sim.ideal_snr(rfft, white, GRID), s=(GRID, GRID))
        cut = score.padded_box[0]
        first = middle - SIDE // 2 - 2 - (cut - SIDE - 4) // 2
        image = image[first : first + cut, first : first + cut]
        images.append(strengths[number] * image + rng.standard_normal(image.shape))
        starts.append(sim.perturbed_rotation(rotation, rng, 1.5, 1.0))
    truth = {
        "pixel_size": np.array([pixel - PIXEL_SIZE]),
        "magnification_yy": np.array([a]),
        "magnification_yx": np.array([b]),
        "beam_tilt_x": tilt[:1],
        "beam_tilt_y": tilt[1:],
        "b_factor": np.array([microscope.b_factor_angstrom2 - 20.0]),
        "defocus": defocus,
        "astigmatism_0": astigmatism[:, 0],
        "astigmatism_45": astigmatism[:, 1],
        "defocus_slope_y": slope[:, 0],
        "defocus_slope_x": slope[:, 1],
    }
    return DataSet(_particles(images, starts, score), of, place, strengths, truth)


def _particles(images: list, starts: list, score: jr.ImageCTF) -> jr.Particles:
    """A batch in white noise of variance 1, with everything else as in the table."""
    n, single = len(images), jnp.float32

    def each(value) -> jnp.ndarray:
        return jnp.asarray(np.broadcast_to(value, (n, *np.shape(value))), single)

    return jr.Particles(
        alignment=jr.Alignment(
            rotation=jnp.asarray(np.stack(starts), single),
            position_px=each([0.0, 0.0]),
            defocus_angstrom=each(DEFOCUS_U_V),
            astigmatism_deg=each(ASTIGMATISM_DEG),
            pixel_size_angstrom=each(PIXEL_SIZE),
        ),
        optics=jr.Optics(*map(each, (300.0, 2.7, 0.07, 0.0, 20.0))),
        template_pixel_size_angstrom=each(PIXEL_SIZE),
        image=jnp.asarray(np.stack(images), single),
        filter_image=each(np.ones((score.padded_box[0], score.padded_box[1] // 2 + 1))),
        filter_template=each(np.ones((score.norm_side, score.norm_side // 2 + 1))),
        corr_mean=each(np.zeros(score.positions)),
        corr_std=each(np.ones(score.positions)),
        background_mean=each(0.0),
        background_std=each(1.0),
        noise_std=each(1.0),
        mean_peaks=jnp.zeros(n, bool),
        valid=jnp.ones(n, bool),
    )


def model_of(data: DataSet, template: jr.Template, score: jr.ImageCTF) -> Model:
    count = len(data.micrograph)
    groups = dict.fromkeys(PARAMETERS, np.zeros(count, int))
    groups |= dict.fromkeys(OF_MICROGRAPHS, data.micrograph)
    design = Design.of(tuple(groups), groups, data.place_angstrom, DEFOCUS_SIGMA)

    def source():
        yield np.arange(count), data.particles

    return Model(source, design, template, score)


def fit_sets(options: argparse.Namespace) -> pd.DataFrame:
    """One row for each fitted value of each data set; written after every set."""
    rng = np.random.default_rng(options.seed)
    atoms = sim.random_globule(400, 0.39 * SIDE * PIXEL_SIZE, rng).blurred(60.0)
    template = jr.make_template(sim.potential_volume(atoms, SIDE, PIXEL_SIZE), "cubic")
    score = score_of()
    rows, seconds, passes, ended, held, z = [], [], [], [], 0, []
    for number in range(options.sets):
        arguments = (tuple(options.snr), options.false_picks, options.far, rng)
        data = make_set(atoms, score, options.particles, *arguments)
        model = model_of(data, template, score)
        values = model.design.values
        free, none = np.ones(len(values), bool), State.start(model.design)
        began = time.perf_counter()
        before = fit_jointly(model, none, ~free)
        start = coarse_scan(model, before.state, Ranges(0.03, 450.0, 2.0), PIXEL_SIZE)
        fit = fit_jointly(model, start, free)
        seconds.append(time.perf_counter() - began)
        passes.append(before.passes + fit.passes)
        ended.append(fit.converged)
        truth = np.array([data.truth[value.label][value.group] for value in values])
        ideal = fit_jointly(model, replace(none, shared=truth), ~free)
        real = data.strength > 0
        z.append([one.z[real].mean() for one in (before, fit, ideal)])
        errors = np.sqrt(np.diagonal(fit.covariance))
        held += int((~fit.determined).sum())
        wrong = fit.state.shared - truth
        for index in np.flatnonzero(fit.determined):
            label, group = values[index].label, values[index].group
            row = (options.seed, number, label, group, wrong[index], errors[index])
            rows.append(row)
        columns = ["seed", "set", "parameter", "group", "error", "standard_error"]
        table = pd.DataFrame(rows, columns=columns)
        if options.save:
            table.to_csv(options.save, index=False)
    print(
        f"{options.sets} sets of {options.particles} particles, SNR {options.snr}, "
        f"{options.false_picks:.0%} false picks: {np.mean(seconds[1:]):.1f} s and "
        f"{np.mean(passes):.1f} passes each, {np.mean(ended):.0%} converged, {held} held"
    )
    start, fitted, best = np.mean(z, axis=0)
    print(
        f"mean z of particles, poses fitted: {start:.3f} with the starting values, "
        f"{fitted:.3f} with the fitted ones, {best:.3f} with the true ones"
    )
    return table


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--sets", type=int, default=200)
    parser.add_argument("--particles", type=int, default=100)
    parser.add_argument("--snr", type=float, nargs=2, default=(8.0, 16.0))
    parser.add_argument("--false-picks", type=float, default=0.0)
    parser.add_argument("--far", action="store_true", help="2 %%, 300 Å and 1 mrad off")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--save", type=Path, help="write each error, so far, as CSV")
    parser.add_argument("--tables", type=Path, nargs="+", help="saved errors")
    options = parser.parse_args()
    if options.tables:
        table = pd.concat([pd.read_csv(path) for path in options.tables])
    else:
        table = fit_sets(options)
    print(
        "| parameter | n | mean error | RMS error | mean standard error | mean error/σ "
        "| SD of error/σ | within 1σ | within 2σ |\n" + "|---" * 9 + "|"
    )
    for label, rows in table.groupby("parameter", sort=False):
        z, wrong = rows.error / rows.standard_error, rows.error
        print(
            f"| {label} | {len(z)} | {wrong.mean():.3g} | {np.sqrt(np.mean(wrong**2)):.3g} "
            f"| {rows.standard_error.mean():.3g} | {z.mean():+.2f} | {z.std(ddof=0):.2f} "
            f"| {np.mean(abs(z) < 1):.2f} | {np.mean(abs(z) < 2):.2f} |"
        )


if __name__ == "__main__":
    main()
