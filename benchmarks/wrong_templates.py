"""Validity of standard errors with wrong templates.

Antibodies planted in a real image (see `real_data.py`) are refined with templates that have
one error each.

    python benchmarks/wrong_templates.py FOLDER [--table TABLE.md]
"""

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from real_data import (
    PIXEL_ANGSTROM,
    Problem,
    counts,
    differences,
    mean_errors,
    planted_problem,
    shares,
    sigmas,
)

import jaxrefine as jr
from jaxrefine import simulate as sim

TABLE_B = 60.0


def turned(positions: np.ndarray, some: np.ndarray, angle_deg: float) -> np.ndarray:
    """Rotate some atoms about z, around the one that is nearest to the others."""
    centre = positions[~some].mean(axis=0)
    apart = np.linalg.norm(positions[some] - centre, axis=1)
    hinge = positions[some][np.argmin(apart)]
    c, s = np.cos(np.deg2rad(angle_deg)), np.sin(np.deg2rad(angle_deg))
    turn = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
    result = positions.copy()
    result[some] = (positions[some] - hinge) @ turn.T + hinge
    return result


def bent(positions: np.ndarray, angle_deg: float) -> np.ndarray:
    """Rotate atoms about z, by an angle that increases along x."""
    x = positions[:, 0] - positions[:, 0].mean()
    angle = np.deg2rad(angle_deg) * x / np.abs(x).max()
    c, s = np.cos(angle), np.sin(angle)
    rotated = np.stack([c * x - s * positions[:, 1], s * x + c * positions[:, 1]], axis=1)
    return np.concatenate([rotated, positions[:, 2:]], axis=1)


def with_template(problem: Problem, atoms: sim.Atoms) -> Problem:
    """The same particles, with a template of other atoms."""
    volume = sim.potential_volume(atoms, problem.score.side, PIXEL_ANGSTROM)
    search, smooth = (jr.make_template(volume, name) for name in ("padded", "cubic"))
    return replace(problem, template=search, smooth=smooth)


def mirrored(
    problem: Problem, truth: jr.Alignment, atoms: sim.Atoms
) -> tuple[Problem, jr.Alignment]:
    """A template of the opposite hand, and the poses with the same projections.

    The projection equals that of the mirrored structure from the opposite direction: with
    V'(r) = V(M r), the pose R becomes M R D, where D mirrors along the viewing direction.
    """
    mirror = jnp.diag(jnp.asarray([1.0, 1.0, -1.0], jnp.float32))
    other = replace(
        atoms, positions_angstrom=atoms.positions_angstrom * np.array([1.0, 1.0, -1.0])
    )
    changed = with_template(problem, other)

    def of(alignment: jr.Alignment) -> jr.Alignment:
        rotation = mirror @ alignment.rotation @ mirror
        return eqx.tree_at(lambda a: a.rotation, alignment, rotation)

    particles = changed.particles
    particles = eqx.tree_at(lambda p: p.alignment, particles, of(particles.alignment))
    return replace(changed, particles=particles), of(truth)


def table(folder: Path, raw: np.ndarray, count: int, rng: np.random.Generator) -> str:
    """Errors and standard errors with each template."""
    problem, truth = planted_problem(folder, raw, TABLE_B, count, rng)
    atoms = sim.load_antibody().blurred(20.0)
    whole = atoms.positions_angstrom
    end = whole[:, 0] > np.quantile(whole[:, 0], 0.67)

    def moved(positions: np.ndarray) -> Problem:
        return with_template(problem, replace(atoms, positions_angstrom=positions))

    left = ~end
    without = sim.Atoms(whole[left], atoms.weights[left], atoms.b_factor_angstrom2[left])
    noise = rng.normal(0, 1, whole.shape)
    cases: dict[str, tuple[Problem, jr.Alignment, float]] = {
        "right": (problem, truth, 0.0),
        "the third at one end is missing": (with_template(problem, without), truth, 0.0),
        "the third at one end is turned by 20°": (
            moved(turned(whole, end, 20.0)),
            truth,
            0.0,
        ),
        "bent, by up to 10° at both ends": (moved(bent(whole, 10.0)), truth, 0.0),
        "of the other hand": (*mirrored(problem, truth, atoms), 0.0),
        "1 % too large": (moved(1.01 * whole), truth, 0.0),
        "3 % too large": (moved(1.03 * whole), truth, 0.0),
        "atoms off by 1 Å in x, y and z": (moved(whole + noise), truth, 0.0),
        "B 100 Å² too high": (problem, truth, 100.0),
        "B 340 Å² too high": (problem, truth, 340.0),
    }
    lines = [
        "| template | z | expected in other data | mean angle | position | below 1 σ "
        "| below 2 σ | B that is found |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, (wrong, true, extra) in cases.items():
        result = wrong.refine(extra)
        error = differences(true, result.refined.alignment)
        angle, place = mean_errors(error)
        z, expected = result.refined.z_score, result.expected_z
        fit = wrong.envelope()
        found = f"{fit.extra_b_angstrom2:+.0f} ± {fit.sigma_angstrom2:.0f}"
        lines.append(
            f"| {name} | {np.mean(z):.2f} | {np.mean(expected):.2f} | {angle:.2f}° | "
            f"{place:.2f} px | {shares(error / sigmas(result))} | {found} |"
        )
        print(lines[-1], flush=True)
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("folder", type=Path, help="as for real_data.py")
    parser.add_argument("--planted", type=int, default=60, help="antibodies")
    parser.add_argument("--seed", type=int, default=3)
    parser.add_argument("--table", type=Path, help="write the table here as well")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        raw = counts(Path(scratch))
    rng = np.random.default_rng(options.seed)
    text = table(options.folder, raw, options.planted, rng) + "\n"
    if options.table:
        options.table.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
