"""Validation of the polish's standard errors on simulated particles.

A search on a coarse grid starts from a perturbed pose; the polish follows, without bounds.
Its errors, divided by the reported standard errors, should have a standard deviation of 1.
They are also compared with the Cramér-Rao bound: the smallest covariance of an unbiased
method, from the Fisher information at the true pose and strength.

    python benchmarks/calibration.py --per-case 20
"""

import argparse
import math
import time
from dataclasses import dataclass
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from simulated import (
    DEFOCI_ANGSTROM,
    DEFOCUS_ANGSTROM,
    EVERYTHING,
    IN_PLANE_DEG,
    MORE_NAMES,
    MORE_UNITS,
    NAMES,
    TILT_DEG,
    UNITS,
    errors_of,
    make_case,
    sigmas,
    structures,
)

import jaxrefine as jr
from jaxrefine import simulate as sim
from jaxrefine.refine import coordinates, pose_errors
from jaxrefine.refine.information import pose_information


@eqx.filter_jit
def bounds(truth, shift_px, snr, template, score, parameters) -> jr.PoseErrors:
    """Cramér-Rao bounds at the true pose and strength."""

    def one(each):
        particle, shift, snr = each
        at = jnp.zeros(coordinates.count(parameters))
        at = at.at[coordinates.parameter_slices(parameters)["shift"]].set(shift)
        information = pose_information(at, particle, template, score, parameters)
        return pose_errors.errors_at_strength(information, snr**2, parameters)

    return jax.lax.map(one, (truth, shift_px, snr))


@eqx.filter_jit
def expected(particles, refined, template, score, parameters) -> jr.PoseErrors:
    """Standard errors from the Fisher information at the optimum, without noise."""

    def one(each):
        particle, refined = each
        shift = refined.alignment.position_px - particle.alignment.position_px
        start = eqx.tree_at(lambda p: p.alignment, particle, refined.alignment)

        at = jnp.zeros(coordinates.count(parameters))
        at = at.at[coordinates.parameter_slices(parameters)["shift"]].set(shift)
        information = pose_information(at, start, template, score, parameters)
        return pose_errors.standard_errors(information, refined.snr, parameters)

    return jax.lax.map(one, (particles, refined))


@dataclass
class Results:
    """All particles of a setting, with rows as in the micrographs."""

    error_at_start: np.ndarray
    error_of_grid: np.ndarray
    error: np.ndarray
    sigma: np.ndarray
    fisher_sigma: np.ndarray
    bound: np.ndarray
    snr: np.ndarray
    z: np.ndarray
    z_grid: np.ndarray
    evaluations: np.ndarray
    converged: np.ndarray
    case: np.ndarray


def study(per_case: int, seed: int, settings: dict[str, jr.Polish]) -> dict[str, Results]:
    rng = np.random.default_rng(seed)
    grid = jr.local_grid(
        jr.uniform_orientations(
            psi_coarse=IN_PLANE_DEG, psi_fine=0.5, theta_coarse=TILT_DEG, theta_fine=0.5
        ),
        jr.search_offsets(-DEFOCUS_ANGSTROM, DEFOCUS_ANGSTROM, 50.0),
    )
    rows: dict[str, list[tuple]] = {name: [] for name in settings}
    number = 0
    for structure in structures():
        volume = sim.potential_volume(structure.atoms, structure.side, structure.pixel_size)
        template = jr.make_template(volume, "padded")
        smooth = jr.make_template(volume, "cubic")
        score = structure.score
        for defocus in DEFOCI_ANGSTROM:
            began = time.perf_counter()
            case = make_case(structure, defocus, per_case, rng)
            made = time.perf_counter()
            refined = jr.refine_particles(case.particles, template, grid, score)
            shift, snr = (jnp.asarray(v, jnp.float32) for v in (case.shift_px, case.snr))
            for name, polish in settings.items():
                polished = jr.polish_particles(
                    case.particles, refined, smooth, grid, score, polish
                )
                free = polish.parameters
                rows[name].append(
                    (
                        *(
                            errors_of(alignment, case, structure.pixel_size)
                            for alignment in (
                                case.particles.alignment,
                                refined.alignment,
                                polished.refined.alignment,
                            )
                        ),
                        sigmas(polished.errors),
                        sigmas(
                            expected(case.particles, polished.refined, smooth, score, free)
                        ),
                        sigmas(bounds(case.truth, shift, snr, smooth, score, free)),
                        case.snr,
                        np.asarray(polished.refined.z_score),
                        np.asarray(refined.z_score),
                        np.asarray(polished.evaluations),
                        np.asarray(polished.converged),
                        np.full(per_case, number),
                    )
                )
            number += 1
            done = time.perf_counter()
            print(
                f"{structure.name}, {defocus:.0f} Å: {per_case} particles, made in "
                f"{made - began:.0f} s, refined in {done - made:.0f} s",
                flush=True,
            )
    return {
        name: Results(*(np.concatenate(each) for each in zip(*parts, strict=True)))
        for name, parts in rows.items()
    }


SETTINGS = {
    "pose": jr.Polish(bound_to_cell=False),
    "all": jr.Polish(parameters=EVERYTHING, bound_to_cell=False),
}
# A particle is in a wrong optimum if its pose is this far off in any coordinate.
WRONG_SIGMA = 5.0
WEAK_Z = 9.0


def markdown(results: dict[str, Results]) -> str:
    lines = []
    for name, r in results.items():
        count = coordinates.count(SETTINGS[name].parameters)
        t = (r.error / r.sigma)[:, :count]
        right = np.all(np.abs(t) < WRONG_SIGMA, axis=1)
        weak = r.z < WEAK_Z
        lines += [
            f"### Free: {', '.join(SETTINGS[name].parameters)}",
            "",
            f"{len(t)} particles, none left out; {np.sum(~right)} in a wrong optimum, "
            f"{np.sum(weak)} with z below {WEAK_Z:g}. Evaluations: median "
            f"{np.median(r.evaluations):.0f}, mean {np.mean(r.evaluations):.1f}, "
            f"{np.mean(r.evaluations < 10):.0%} below 10; converged: "
            f"{np.mean(r.converged):.0%}. z: {r.z_grid.mean():.2f} at the grid's best, "
            f"{r.z.mean():.2f} polished, {r.snr.mean():.2f} ideal at the truth.",
            "",
            "| | mean σ | within 1 σ | within 2 σ | mean error / bound "
            f"| z < {WEAK_Z:g}: within 1 σ, 2 σ | by the Fisher information |",
            "|---|---|---|---|---|---|---|",
        ]
        by_fisher = (r.error / r.fisher_sigma)[:, :count]
        rows = [*zip(NAMES + MORE_NAMES, UNITS + MORE_UNITS, strict=True)][:count]
        for i, (label, unit) in enumerate([*rows, ("all", "")]):
            column = slice(None) if label == "all" else slice(i, i + 1)

            def within(values, limit, keep=slice(None), column=column):
                return np.mean(np.abs(values[keep][:, column]) < limit)

            bound = (r.error / r.bound)[:, :count][:, column]
            sigma = "" if label == "all" else f"{r.sigma[:, i].mean():.2g} {unit}"
            lines.append(
                f"| {label} | {sigma} | {within(t, 1):.2f} | {within(t, 2):.2f} "
                f"| {np.mean(np.abs(bound)) / np.sqrt(2 / np.pi):.2f} "
                f"| {within(t, 1, weak):.2f}, {within(t, 2, weak):.2f} "
                f"| {within(by_fisher, 1):.2f}, {within(by_fisher, 2):.2f} |"
            )
        lines.append("")
        lines.append("| ideal SNR | particles | RMS error / σ | mean error / bound |")
        lines.append("|---|---|---|---|")
        for low, high in ((7, 9), (9, 11), (11, 14), (14, 20)):
            some = right & (r.snr >= low) & (r.snr < high)
            bound = np.abs(r.error / r.bound)[some][:, :count]
            lines.append(
                f"| {low} to {high} | {some.sum()} | {np.sqrt(np.mean(t[some] ** 2)):.2f} "
                f"| {bound.mean() / np.sqrt(2 / np.pi):.2f} |"
            )
        lines.append("")
    return "\n".join(lines)


# Columns of a row of errors.
_LENGTHS = {"angle, °": slice(0, 3), "position, px": slice(3, 5), "defocus, Å": slice(5, 6)}


def before_and_after(r: Results) -> str:
    """Mean lengths of the errors, by structure, and those at the bound."""
    names = [structure.name for structure in structures()]
    noise = np.random.default_rng(0).standard_normal((1000, *r.bound.shape))
    lines = [
        "| | | at the start | grid | polished | bound |",
        "|---|---|---|---|---|---|",
    ]
    for number, name in enumerate(names):
        some = r.case // len(DEFOCI_ANGSTROM) == number
        for label, columns in _LENGTHS.items():
            drawn = noise[:, some, columns] * r.bound[some, columns]
            means = [
                np.mean(np.linalg.norm(error, axis=-1))
                for error in (
                    r.error_at_start[some, columns],
                    r.error_of_grid[some, columns],
                    r.error[some, columns],
                    drawn,
                )
            ]
            numbers = " | ".join(f"{mean:.3g}" for mean in means)
            lines.append(f"| {name} | {label} | {numbers} |")
    return "\n".join(lines)


def plot(results: dict[str, Results], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    style = {"sharex": True, "sharey": True, "layout": "constrained"}
    figure, axes = plt.subplots(1, len(results), figsize=(9, 4.2), **style)
    lengths = np.linspace(0, 4, 400)
    normal = [math.erf(length / math.sqrt(2)) for length in lengths]
    for axis, (name, r) in zip(axes, results.items(), strict=True):
        free = SETTINGS[name].parameters
        labels = (NAMES + MORE_NAMES)[: coordinates.count(free)]
        colours = plt.colormaps["viridis"](np.linspace(0, 0.9, len(labels)))
        for i, (label, colour) in enumerate(zip(labels, colours, strict=True)):
            within = np.abs(r.error[:, i] / r.sigma[:, i])
            share = np.mean(within[:, None] < lengths, axis=0)
            axis.plot(normal, share, lw=1, color=colour, label=label)
        axis.plot([0, 1], [0, 1], "k:", lw=1)
        axis.plot([0.6827, 0.9545], [0.6827, 0.9545], "k+", label="1 σ, 2 σ")
        axis.set(title=f"{len(labels)} free parameters", xlabel="share of a normal error")
        axis.legend(fontsize=8, frameon=False)
    axes[0].set(ylabel="share of errors below as many σ", xlim=(0, 1), ylim=(0, 1))
    figure.savefig(path, dpi=110)


def cell_study(count: int, seed: int) -> str:
    """Possible gain within half a cell, after the search of the default grid."""
    structure = structures()[0]
    case = make_case(structure, 6000.0, count, np.random.default_rng(seed))
    volume = sim.potential_volume(structure.atoms, structure.side, structure.pixel_size)
    grid = jr.local_grid(
        jr.uniform_orientations(
            psi_coarse=1.5, psi_fine=0.1, theta_coarse=2.5, theta_fine=0.25
        ),
        jr.search_offsets(-100.0, 100.0, 20.0),
    )
    score = structure.score
    padded, smooth = (jr.make_template(volume, name) for name in ("padded", "cubic"))
    refined = jr.refine_particles(case.particles, padded, grid, score)
    lines = [
        "| | mean z | at a limit | RMS angle | RMS defocus | RMS shift |",
        "|---|---|---|---|---|---|",
    ]

    def line(name: str, result: jr.Polished, at_limit: str) -> str:
        error = errors_of(result.refined.alignment, case, structure.pixel_size)
        angle, shift = (
            np.sqrt(np.mean(np.sum(error[:, part] ** 2, axis=1)))
            for part in (slice(0, 3), slice(3, 5))
        )
        defocus = np.sqrt(np.mean(error[:, 5] ** 2))
        z = np.mean(result.refined.z_score)
        errors = f"{angle:.2f}° | {defocus:.0f} Å | {shift:.3f} px"
        return f"| {name} | {z:.2f} | {at_limit} | {errors} |"

    for name, bound in (("within the cell", True), ("free", False)):
        polish = jr.Polish(bound_to_cell=bound)
        result = jr.polish_particles(case.particles, refined, smooth, grid, score, polish)
        if bound:
            unpolished = eqx.tree_at(lambda p: p.refined, result, refined)
            lines.append(line("the grid's best", unpolished, ""))
        lines.append(line(name, result, f"{np.mean(result.at_limit):.0%}"))
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--per-case", type=int, default=20, help="particles of 16 cases")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--table", type=Path, help="write the tables here as well")
    parser.add_argument("--plot", type=Path)
    options = parser.parse_args()
    cells = cell_study(options.per_case, options.seed)
    print(cells, flush=True)
    results = study(options.per_case, options.seed, SETTINGS)
    parts = {
        "Mean errors": before_and_after(results["pose"]),
        "Bound to the cell": cells,
    }
    text = markdown(results) + "".join(
        f"\n### {title}\n\n{table}\n" for title, table in parts.items()
    )
    print(text)
    if options.table:
        options.table.write_text(text, encoding="utf-8")
    if options.plot:
        plot(results, options.plot)


if __name__ == "__main__":
    main()
