"""Whether the search waits for files: a timeline of a run over several micrographs.

Micrographs of noise with their maps, of the size of a K3 camera, are refined on the
documented grid. What each thread does when is recorded: reading and preparing micrographs,
search, polish, saving results.

    python benchmarks/overlap.py --micrographs 6 --particles 60 --plot docs/overlap.png

The plot needs matplotlib (the extra `report`).
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import jax
import memory  # beside this file
import numpy as np

from jaxrefine.app.config import Config
from jaxrefine.app.run import pipeline, programs
from jaxrefine.app.run.devices import use_cpu_cores
from jaxrefine.app.run.results import Results

# What is timed: the name in the plot, its owner, and the function's name.
TIMED = (
    ("read and prepare", pipeline, "read_and_prepare"),
    ("search", programs, "refine_within_memory"),
    ("polish", programs, "polish_particles"),
    ("save", Results, "save"),
)
BUSY = ("search", "polish")
CONFIG = f"""
template_volume_path: template.mrc
particle_stack:
  df_path: particles.csv
  extracted_box_size: [{memory.BOX}, {memory.BOX}]
  original_template_size: [{memory.SIDE}, {memory.SIDE}]
polish:
  enabled: true
template_envelope: none
statistics: standard_deviation
"""

Interval = tuple[str, float, float]


def recorded(name: str, function: Callable, intervals: list[Interval]) -> Callable:
    def timed(*args, **kwargs):
        began = time.perf_counter()
        try:
            # Including what JAX computes after the function has returned.
            return jax.block_until_ready(function(*args, **kwargs))
        finally:
            intervals.append((name, began, time.perf_counter()))

    return timed


def timeline(folder: Path) -> list[Interval]:
    """Intervals of a run whose programs are compiled already, from its first search on."""
    intervals: list[Interval] = []
    os.chdir(folder)
    config = Config.load("config.yaml")
    pipeline.run(config, output=Path("first.csv"), quiet=True)
    for name, owner, function in TIMED:
        setattr(owner, function, recorded(name, getattr(owner, function), intervals))
    pipeline.run(config, output=Path("second.csv"), quiet=True)
    first = min(began for _, began, _ in intervals)
    return [(name, began - first, ended - first) for name, began, ended in intervals]


def report(intervals: list[Interval]) -> None:
    print("| | number | s each | s in total |\n|---|---|---|---|")
    for name, _, _ in TIMED:
        lengths = [ended - began for one, began, ended in intervals if one == name]
        print(
            f"| {name} | {len(lengths)} | {np.mean(lengths):.2f} | {np.sum(lengths):.1f} |"
        )
    busy = sorted((b, e) for name, b, e in intervals if name in BUSY)
    begin, end = busy[0][0], max(ended for _, ended in busy)
    working = sum(ended - began for began, ended in busy)
    # Search and polish follow one another in one thread, so that nothing counts twice.
    length = end - begin
    print(
        f"\nBefore the first search: {begin:.1f} s. From there to the end of the last: "
        f"{length:.1f} s, of which search and polish ran {working / length:.1%}."
    )


def plot(path: Path, intervals: list[Interval]) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(9, 2.6), layout="constrained")
    names = [name for name, _, _ in TIMED]
    for name, began, ended in intervals:
        row = names.index(name)
        axes.broken_barh([(began, ended - began)], (row - 0.35, 0.7), color=f"C{row}")
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set_xlabel("time since the first micrograph is read, s")
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--micrographs", type=int, default=6)
    parser.add_argument("--particles", type=int, default=60, help="of each micrograph")
    parser.add_argument("--size", type=int, nargs=2, default=(4092, 5760))
    parser.add_argument("--plot", type=Path)
    options = parser.parse_args()
    use_cpu_cores()
    picture = options.plot and options.plot.absolute()
    memory.SHAPE, memory.PARTICLES_EACH = tuple(options.size), options.particles
    memory.CONFIG = CONFIG
    with tempfile.TemporaryDirectory() as scratch:
        memory.make_data(Path(scratch), options.micrographs)
        memory.write_table(Path(scratch, "particles.csv"), options.micrographs)
        here = Path.cwd()
        try:
            intervals = timeline(Path(scratch))
        finally:
            os.chdir(here)
    report(intervals)
    if picture:
        plot(picture, intervals)


if __name__ == "__main__":
    main()
