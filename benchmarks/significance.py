"""Calibration of the p-values of a local search: boxes of noise, random poses.

    python benchmarks/significance.py [--boxes 2000] [--real CONFIG.yaml] [--table T.md]

White noise: boxes of normal numbers, maps of mean 0 and standard deviation 1. Real noise:
boxes of a real micrograph (that of `benchmarks/real_data.py`), with its own filters and
maps, 5 px apart and more than 60 px from everything above 5.5 in a match. If p-values are
right, the fraction of boxes with p < 0.01 is 0.01. Also printed: z at p = 0.01 as observed,
from p-values, with every pose of the search as an independent trial (as Leopard-EM and
cisTEM count those of a match), and from a generalised extreme value distribution fitted to
all boxes (as Leopard-EM fits one to a match's map).
"""

import argparse
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import yaml
from scipy.special import ndtr
from scipy.stats import genextreme

import jaxrefine as jr
from jaxrefine import simulate as sim
from jaxrefine.app.config import Config
from jaxrefine.app.run.inputs import load_inputs
from jaxrefine.app.run.pipeline import read_and_prepare
from jaxrefine.refine.significance import SearchSpace, p_values, score_metric
from tests import worlds

LEVELS = (0.1, 0.05, 0.01, 0.001)
LEVEL = 0.01
BATCH = 100
AWAY_PX, APART_PX = 60, 5
IMAGING = worlds.Imaging(defocus=(2500.0, 2300.0), pixel_size=2.0, b=0.0)


def grid_of(coarse, fine, defocus=None):
    orientations = jr.uniform_orientations(
        psi_coarse=coarse, psi_fine=fine, theta_coarse=coarse, theta_fine=fine
    )
    return jr.local_grid(orientations, defocus)


def searched(batches, template, grid, score):
    """z-scores of batches of noise, their p-values, and z at p = 0.01.

    The last from p-values (at the mean metric), and with every pose as a trial.
    """
    space, z_score, p_value, metrics = SearchSpace.of(grid, score), [], [], []
    for particles in batches:
        found = jr.refine_particles(particles, template, grid, score, adaptive=True)
        metric = np.asarray(score_metric(particles, template, score))
        z = np.asarray(found.z_score, np.float64)
        z_score.append(z)
        p_value.append(p_values(z, metric, space))
        metrics.append(metric.mean(axis=0))
    at = np.linspace(2, 7, 501)
    mean = np.broadcast_to(np.mean(metrics, axis=0), (len(at), 7, 7))
    ours = at[np.argmax(p_values(at, mean, space) < LEVEL)]
    poses = np.prod(grid.shape) * np.prod(score.positions)
    every = at[np.argmax(poses * ndtr(-at) < LEVEL)]
    return np.concatenate(z_score), np.concatenate(p_value), (ours, every)


def white(boxes, box, side, b_factor, grid, seed):
    """Noise of variance 1, and a template of 400 atoms."""
    score = IMAGING.image_ctf((box, box), side, defocus=400.0)
    atoms = worlds.ball(side, IMAGING.pixel_size, b=b_factor)
    volume = sim.potential_volume(atoms, side, IMAGING.pixel_size)
    rng = np.random.default_rng(seed)

    def batches():
        for _ in range(0, boxes, BATCH):
            made = [
                worlds.one_particle(
                    score, rng.standard_normal(score.padded_box), IMAGING, rotation=turn
                )
                for turn in sim.random_rotations(BATCH, rng)
            ]
            yield worlds.batch_of(made)

    return searched(batches(), jr.make_template(volume), grid, score)


def real(boxes, path, grid):
    """Positions of a micrograph where a match found nothing, with random orientations."""
    data = yaml.safe_load(path.read_text())
    side = data["particle_stack"]["original_template_size"][0]
    data["particle_stack"]["extracted_box_size"] = [side + 4, side + 4]
    inputs = load_inputs(Config.from_dict(data, str(path)))
    (files,) = inputs.groups
    micrograph = read_and_prepare(inputs, files)
    rows, columns = micrograph.corr_mean.shape
    rng = np.random.default_rng(0)
    places = np.stack(
        np.meshgrid(*(np.arange(8, n - 8, APART_PX) for n in (rows, columns))), -1
    ).reshape(-1, 2)
    found = inputs.start.position_px
    apart = np.linalg.norm(places[:, None] - found, axis=-1).min(axis=1)
    places = rng.permutation(places[apart > AWAY_PX])[:boxes]
    print(f"{len(places)} places of {rows} x {columns} px")
    turns = sim.random_rotations(len(places), rng)
    start = inputs.start

    def batches():
        for first in range(0, len(places) // BATCH * BATCH, BATCH):
            some = slice(first, first + BATCH)

            def same(values):
                return jnp.asarray(np.repeat(values[:1], BATCH, axis=0), jnp.float32)

            alignment = jr.Alignment(
                jnp.asarray(turns[some], jnp.float32),
                jnp.asarray(places[some], jnp.float32),
                same(start.defocus_angstrom),
                same(start.astigmatism_deg),
                same(start.pixel_size_angstrom),
            )
            yield jr.cut_particles(
                micrograph,
                alignment,
                jax.tree.map(same, start.optics),
                same(inputs.template_pixel_size_angstrom),
                inputs.score,
            )

    template = jax.device_put(inputs.template, jax.devices()[0])
    return searched(batches(), template, grid, inputs.score)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--boxes", type=int, default=2000)
    parser.add_argument("--real", type=Path)
    parser.add_argument("--only-real", action="store_true")
    parser.add_argument("--table", type=Path)
    options = parser.parse_args()
    defoci = np.array([-400.0, -200.0, 0.0, 200.0, 400.0])
    cases = {
        "white, one position, 1,045 orientations, sharp template": lambda: white(
            options.boxes, 16, 16, 20.0, grid_of(20.0, 4.0), 0
        ),
        "white, 25 positions, 273 orientations, 5 defoci": lambda: white(
            options.boxes, 20, 16, 120.0, grid_of(12.0, 4.0, defoci), 1
        ),
        "the same, sharp template": lambda: white(
            options.boxes, 20, 16, 20.0, grid_of(12.0, 4.0, defoci), 2
        ),
    }
    if options.only_real:
        cases = {}
    if options.real is not None:
        cases["real, 25 positions, 65 orientations, 3 defoci"] = lambda: real(
            options.boxes, options.real, grid_of(4.0, 2.0, np.array([-200.0, 0.0, 200.0]))
        )
    rows = []
    for name, run in cases.items():
        z_score, p_value, (ours, every) = run()
        fitted = genextreme(*genextreme.fit(z_score)).isf(LEVEL)
        row = {"noise": name, "boxes": len(z_score)}
        row["trials"] = f"{np.log1p(-LEVEL) / np.log1p(-ndtr(-ours)):.0f}"
        thresholds = {
            "z observed": np.quantile(z_score, 1 - LEVEL),
            "p-value": ours,
            "all poses": every,
            "GEV": fitted,
        }
        row |= {what: f"{z:.2f}" for what, z in thresholds.items()}
        for level in LEVELS:
            error = np.sqrt(level * (1 - level) / len(z_score))
            row[f"p < {level:g}"] = f"{np.mean(p_value < level):.4f} ± {error:.4f}"
        rows.append(row)
        print(row, flush=True)
        if options.table is not None:
            frame = pd.DataFrame(rows)
            lines = [list(frame.columns), ["---"] * frame.shape[1], *frame.values.tolist()]
            text = "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)
            options.table.write_text(text + "\n")


if __name__ == "__main__":
    main()
