"""Whether probabilities of references are calibrated, for particles of two known states.

Mixtures of two states of one structure: a displaced domain of 5 % of the mass, a rotated
subunit, a missing ligand. Every particle is refined against both states, and these are
compared, as in the program; prints tables for docs/accuracy.md.
"""

import argparse
import itertools
import time
from dataclasses import dataclass
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from simulated import Structure, make_case

import jaxrefine as jr
from jaxrefine import simulate as sim
from jaxrefine.refine.reference_likelihood import decide
from jaxrefine.refine.references import Reference, fit_references

SIDE, PIXEL_SIZE, DEFOCUS_ANGSTROM = 64, 1.5, 6000.0
SNR_RANGE = (7.5, 12.5)
ATOMS, RADIUS_ANGSTROM = 400, 34.0
FREE = 6
# Probability above which a particle counts as decided.
SURE = 0.9
BINS = (0.5, 0.6, 0.7, 0.8, 0.87, 0.93, 0.98, 1.0)


@dataclass(frozen=True)
class Pair:
    """Two states of one structure."""

    name: str
    states: tuple[sim.Atoms, sim.Atoms]


def some(atoms: sim.Atoms, keep: np.ndarray) -> sim.Atoms:
    """A part of a structure, at its place."""
    return sim.Atoms(
        atoms.positions_angstrom[keep], atoms.weights[keep], atoms.b_factor_angstrom2[keep]
    )


def pairs() -> list[Pair]:
    """The three mixtures."""
    rng = np.random.default_rng(17)
    whole = sim.random_globule(ATOMS, RADIUS_ANGSTROM, rng).blurred(20.0)
    xyz = whole.positions_angstrom

    def nearest(direction: np.ndarray, share: float) -> np.ndarray:
        """The atoms furthest in a direction, with this fraction of the mass."""
        order = np.argsort(-(xyz @ direction))
        mass = np.cumsum(whole.weights[order]) / whole.weights.sum()
        chosen = np.zeros(len(xyz), bool)
        chosen[order[mass <= share]] = True
        return chosen

    x, y = np.eye(3)[:2]
    here, there = nearest(x, 0.05), nearest(y, 0.05)
    ligand = nearest(-y, 0.04)
    subunit = nearest(-x, 0.25)
    hinge = xyz[subunit][np.argmax(xyz[subunit] @ x)]
    turn = sim.matrix_from_euler(0.0, 12.0, 0.0)
    turned = xyz.copy()
    turned[subunit] = (xyz[subunit] - hinge) @ turn.T + hinge
    return [
        Pair("a domain of 5 % elsewhere", (some(whole, ~here), some(whole, ~there))),
        Pair(
            "a quarter turned by 12°",
            (whole, sim.Atoms(turned, whole.weights, whole.b_factor_angstrom2)),
        ),
        Pair("a ligand of 4 % missing", (whole, some(whole, ~ligand))),
    ]


def refined_against(
    particles: jr.Particles, template: jr.Template, grid: jr.SearchGrid, score: jr.Score
) -> jr.Alignment:
    """The best grid point; `fit_references` polishes it."""
    return jr.refine_particles(particles, template, grid, score).alignment


@dataclass
class Outcome:
    """For each particle, its true state and the results."""

    truth: np.ndarray
    signal: np.ndarray
    log_determinant: np.ndarray
    overlap: np.ndarray


def study(pair: Pair, shares: tuple[int, int], seed: int) -> Outcome:
    """Simulate and refine a mixture, and compare the references."""
    rng = np.random.default_rng(seed)
    grid = jr.local_grid(
        jr.uniform_orientations(
            psi_coarse=1.5, psi_fine=0.5, theta_coarse=2.0, theta_fine=1.0
        ),
        jr.search_offsets(-100.0, 100.0, 100.0),
    )
    volumes = [sim.potential_volume(atoms, SIDE, PIXEL_SIZE) for atoms in pair.states]
    padded = [jr.make_template(volume, "padded") for volume in volumes]
    smooth = [jr.make_template(volume, "cubic") for volume in volumes]
    parts = []
    for truth, (atoms, count) in enumerate(zip(pair.states, shares, strict=True)):
        structure = Structure("", atoms, SIDE, PIXEL_SIZE)
        score, particles = (
            structure.score,
            make_case(structure, DEFOCUS_ANGSTROM, count, rng, SNR_RANGE).particles,
        )
        sizes = jnp.full(count, PIXEL_SIZE)
        references = [
            Reference(cubic, sizes, refined_against(particles, template, grid, score))
            for cubic, template in zip(smooth, padded, strict=True)
        ]
        fits = fit_references(particles, references, grid, score)
        values = (fits.signal, fits.log_determinant, fits.overlap)
        parts.append((np.full(count, truth), *map(np.asarray, values)))
    return Outcome(*map(np.concatenate, zip(*parts, strict=True)))


def calibration(truth: np.ndarray, probability: np.ndarray) -> list[tuple[float, ...]]:
    """(from, to, particles, predicted, right, standard error) of each bin."""
    sure = probability.max(axis=1)
    right = probability.argmax(axis=1) == truth
    rows = []
    for low, high in itertools.pairwise(BINS):
        some = (sure >= low) & (sure < high if high < 1 else sure <= 1)
        if some.any():
            said = sure[some].mean()
            error = np.sqrt(said * (1 - said) / some.sum())
            rows.append((low, high, some.sum(), said, right[some].mean(), error))
    return rows


def markdown(name: str, found: Outcome) -> str:
    """Predicted and observed fractions of right assignments, for one or all mixtures."""
    decided = decide(found.signal, found.log_determinant, FREE, np.full(2, 0.5))
    # A likelihood without pose, and without the distribution of strengths.
    scores = np.exp((found.signal**2 - found.signal.max(axis=1, keepdims=True) ** 2) / 2)
    plain = scores / scores.sum(axis=1, keepdims=True)
    rho = found.overlap[:, 0, 1].mean()
    right = decided.best == found.truth
    higher = found.signal.argmax(axis=1) == found.truth
    sure = decided.probability.max(axis=1)
    certain = sure >= SURE
    lines = [
        f"### {name}",
        "",
        f"{len(right)} particles, ρ = {rho:.3f}, strengths {decided.strengths.mean:.1f} ± "
        f"{decided.strengths.spread:.1f}. Right: {right.mean():.1%}, by the higher z alone "
        f"{higher.mean():.1%}, predicted {sure.mean():.1%}. P of at least {SURE}: "
        f"{certain.mean():.0%} of them, of which {right[certain].mean():.1%} are right, "
        f"predicted {sure[certain].mean():.1%}.",
        "",
        "| P | particles | predicted | right | by c²/2 alone: predicted | right |",
        "|---|---|---|---|---|---|",
    ]
    alone = {row[0]: row for row in calibration(found.truth, plain)}
    for low, high, count, said, share, error in calibration(
        found.truth, decided.probability
    ):
        other = alone.get(low)
        more = "| |" if other is None else f"{other[3]:.1%} | {other[4]:.1%} |"
        lines.append(
            f"| {low:g} to {high:g} | {count} | {said:.1%} | {share:.1%} ± {error:.1%} "
            f"| {more}"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--count", type=int, default=150, help="particles of each state")
    parser.add_argument("--seed", type=int, default=3)
    parser.add_argument("--save", type=Path, help="a folder for what was found")
    options = parser.parse_args()
    all_found = []
    for number, pair in enumerate(pairs()):
        began = time.perf_counter()
        found = study(pair, (options.count, options.count), options.seed + number)
        all_found.append(found)
        print(markdown(pair.name, found))
        print(f"({time.perf_counter() - began:.0f} s)\n", flush=True)
        if options.save:
            np.savez(options.save / f"{number}.npz", **vars(found))
    values = [vars(found).values() for found in all_found]
    print(markdown("all", Outcome(*map(np.concatenate, zip(*values, strict=True)))))


if __name__ == "__main__":
    main()
