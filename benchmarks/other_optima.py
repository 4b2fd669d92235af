"""Cost and effect of searching other optima in the polish.

Antibodies planted in a real image, and the halves of that image (see `real_data.py`).

    python benchmarks/other_optima.py FOLDER [--table TABLE.md]

Times are processor times, since the machine may have other load, of a search and a polish
whose programs are compiled.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
from real_data import (
    Problem,
    counts,
    differences,
    mean_errors,
    planted_problem,
    real_problem,
    shares,
    sigmas,
    thinned,
)

import jaxrefine as jr
from jaxrefine.refine.envelope import with_extra_b

ESTIMATE_ANGSTROM2 = 288.0  # of the real particles (docs/accuracy.md)


def timed(compute: Callable[[], jr.Polished | jr.Refined]):
    """A result, and its processor time in seconds without compilation."""
    jax.block_until_ready(compute())
    start = time.process_time()
    return jax.block_until_ready(compute()), time.process_time() - start


def line(
    name: str, problem: Problem, extra_b: float, truth: jr.Alignment | None = None
) -> str:
    """One problem, with and without other optima."""
    blurred = with_extra_b(problem.particles, extra_b)
    of_search = (problem.template, problem.grid, problem.score)
    of_polish = (problem.smooth, problem.grid, problem.score)
    found, search_s = timed(lambda: jr.refine_particles(blurred, *of_search, adaptive=True))
    (alone, alone_s), (several, several_s) = (
        timed(
            lambda flag=flag: jr.polish_particles(
                blurred, found, *of_polish, jr.Polish(other_optima=flag)
            )
        )
        for flag in (False, True)
    )
    again = np.sum(several.evaluations > alone.evaluations)
    cost = 100 * (several_s - alone_s) / (search_s + alone_s)
    optima = np.asarray(several.optima)
    cells = [name, str(len(optima)), str(again)]
    cells += [str(np.sum(optima > 1)), f"{cost:+.0f} %"]
    for result in (alone, several):
        cells.append(f"{np.mean(result.refined.z_score):.2f}")
        if truth is None:
            cells += ["", ""]
            continue
        error = differences(truth, result.refined.alignment)
        below = shares(error / sigmas(result)).replace(" | ", ", ")
        cells += [f"{mean_errors(error)[0]:.2f}°", below]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("folder", type=Path, help="as for real_data.py")
    parser.add_argument("--planted", type=int, default=60, help="antibodies")
    parser.add_argument("--seed", type=int, default=3)
    parser.add_argument("--table", type=Path, help="write the table here as well")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        raw = counts(Path(scratch))
    lines = [
        "| particles | number | climbed from again | multimodal | cost | z | mean angle | "
        "below 1 σ, 2 σ | z, others looked for | mean angle | below 1 σ, 2 σ |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for b in (60.0, 400.0):
        rng = np.random.default_rng(options.seed)
        problem, truth = planted_problem(options.folder, raw, b, options.planted, rng)
        lines.append(line(f"planted with B = {b:g}", problem, b - 60.0, truth))
        print(lines[-1], flush=True)
    halves = thinned(raw, np.random.default_rng(options.seed))
    for number, image in enumerate(halves, start=1):
        problem = real_problem(options.folder, image)
        lines.append(line(f"real, half {number}", problem, ESTIMATE_ANGSTROM2))
        print(lines[-1], flush=True)
    if options.table:
        options.table.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
