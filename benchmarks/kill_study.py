"""Kills a run at random moments, resumes it, and checks that nothing is lost or differs.

    .venv/bin/python -m jaxrefine demo demo
    .venv/bin/python benchmarks/kill_study.py demo/config.yaml --kills 20

An undisturbed run gives the expected table and the duration of a run. Then runs are killed
(SIGKILL) at a random moment, alternately of this duration and of the time since work began,
and restarted until one completes; this is repeated for the given number of kills. The exit
code is 1 if anything was lost or differs.
"""

import argparse
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np


def start(config: Path, output: Path) -> subprocess.Popen[bytes]:
    """Start the program."""
    command = [sys.executable, "-m", "jaxrefine", "refine", str(config), "--quiet"]
    return subprocess.Popen([*command, "--output", str(output)])


def kept(output: Path) -> set[tuple[str, int]]:
    """Rows whose results are on disk, by file."""
    rows = set()
    for path in output.with_name(f"{output.name}.parts").glob("*.npz"):
        with np.load(path, allow_pickle=False) as part:
            rows |= {(path.name, row) for row in part["_rows"].tolist()}
    return rows


def begins(run: subprocess.Popen[bytes], output: Path) -> None:
    """Wait until a run has read and checked its inputs, or has ended."""
    while run.poll() is None and not output.with_name(f"{output.name}.parts").exists():
        time.sleep(0.01)


def main() -> int:
    """Run the study; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("config", type=Path)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    moments = random.Random(options.seed)
    with tempfile.TemporaryDirectory(prefix="kill-study-") as folder:
        whole, output = Path(folder, "whole.csv"), Path(folder, "killed.csv")
        started = time.monotonic()
        run = start(options.config, whole)
        begins(run, whole)
        loading_s = time.monotonic() - started
        if run.wait() != 0:
            print("the undisturbed run failed")
            return 1
        duration_s = time.monotonic() - started
        kills = lost = tables = differing = failed = 0
        unfinished, before = False, kept(output)
        while kills < options.kills or unfinished:
            run = start(options.config, output)
            moment_s = moments.uniform(0, duration_s)
            if kills % 2 == 0:
                begins(run, output)
                moment_s = moments.uniform(0, duration_s - loading_s)
            try:
                code = run.wait(moment_s if kills < options.kills else None)
            except subprocess.TimeoutExpired:
                run.kill()
                run.wait()
                after = kept(output)
                kills += 1
                # A kill after writing the table leaves it, possibly without a checkpoint.
                if not output.exists():
                    lost += len(before - after)
                print(f"kill {kills}: {len(after)} particles kept", flush=True)
                unfinished, before = True, after
                continue
            failed += code != 0
            tables += 1
            differing += output.read_bytes() != whole.read_bytes()
            output.unlink()
            unfinished, before = False, set()
        print(
            f"{kills} kills, {lost} results lost, {failed} runs failed, "
            f"{differing} of {tables} tables differing"
        )
    return 1 if lost or failed or differing or not tables else 0


if __name__ == "__main__":
    sys.exit(main())
