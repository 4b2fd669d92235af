"""Time and memory for the table of a large data set, without the search.

A table of many micrographs, all of them links to one small image with its maps, goes
through everything in a run except the search: it is read and checked, results are saved by
micrograph, read again as in a resumed run, and written.

    python benchmarks/scale.py --micrographs 1000 --particles 300
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import memory  # beside this file
import numpy as np

CHILD = "--in-process"


def make_data(folder: Path, micrographs: int, particles: int) -> None:
    """Links to the files of one micrograph, and a table."""
    memory.make_data(folder, 1)
    for number in range(1, micrographs):
        for name in ("image", "mean", "deviation"):
            os.link(folder / f"{name}_0.mrc", folder / f"{name}_{number}.mrc")
    memory.PARTICLES_EACH = particles
    memory.write_table(folder / "particles.csv", micrographs)


def measure() -> None:
    """Runs in a separate process, whose peak memory is then that of the table."""
    from jaxrefine.app.config import Config
    from jaxrefine.app.run.checkpoint import Checkpoint
    from jaxrefine.app.run.inputs import load_run
    from jaxrefine.app.run.results import Results

    def step(name: str, began: float) -> float:
        now = time.perf_counter()
        print(f"| {name} | {now - began:.1f} s |")
        return now

    clock = time.perf_counter()
    inputs = load_run(Config.load("config.yaml"))
    clock = step("read and checked", clock)
    checkpoint, results = Checkpoint(inputs), Results(inputs)
    checkpoint.begin(fresh=False)
    rng = np.random.default_rng(0)
    for number, rows in enumerate(inputs.groups.values()):
        found: dict = {}
        for name, column in results.columns.values.items():
            numbers = column.dtype != object
            found[name] = rng.standard_normal(len(rows)) if numbers else "converged"
        results.columns.store(rows, found)
        results.done[rows] = True
        results.save(checkpoint, number, rows)
    clock = step("saved, micrograph by micrograph", clock)
    continued = Results(inputs)
    if not continued.load(checkpoint, range(len(inputs.groups))):
        raise SystemExit("not all results were read again")
    clock = step("read again, as when continuing", clock)
    continued.write(inputs.output)
    step("written", clock)
    checkpoint.remove()
    checkpoint.close(shared=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--micrographs", type=int, default=1000)
    parser.add_argument("--particles", type=int, default=300, help="of each")
    parser.add_argument(CHILD, action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.in_process:
        measure()
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_data(folder, options.micrographs, options.particles)
        print(f"{options.micrographs} micrographs x {options.particles} particles")
        began = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, Path(__file__).resolve(), CHILD], cwd=name
        )
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise SystemExit(process.returncode)
        kib = usage.ru_maxrss / (1024 if sys.platform == "darwin" else 1)
        print(f"all, with start-up: {time.perf_counter() - began:.1f} s")
        print(f"peak of resident memory: {kib / 1024:,.0f} MiB")


if __name__ == "__main__":
    main()
