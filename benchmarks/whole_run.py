"""Whole runs on the same files, including start-up: jaxrefine and Leopard-EM.

Alternating, each in a separate process: jaxrefine without a compilation cache, jaxrefine
again with the cache, and Leopard-EM by `run_peer.py` (its own entry point does not run on a
CPU). Wall times are from start to end of the process; the numbers of correlations are those
that each program searched.

    peer/bin/python benchmarks/whole_run.py FOLDER --repeats 3

with the environment that `correlation.py` describes. FOLDER holds one refine YAML with
paths relative to it, as `tests/data/reference/basic` does; it is not written to.
"""

import argparse
import importlib.util
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def timed(command: list[str], **environment: str) -> tuple[float, str]:
    """Seconds of a process, and its output."""
    begin = time.perf_counter()
    done = subprocess.run(
        command, env=os.environ | environment, capture_output=True, text=True
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stdout}\n{done.stderr}")
    return time.perf_counter() - begin, done.stdout + done.stderr


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--peer-threads", type=int, default=1)
    options = parser.parse_args()
    found = sorted(options.folder.glob("*.y*ml"))
    if len(found) != 1:
        raise SystemExit(f"{options.folder}: one YAML expected, found {len(found)}")
    with_peer = importlib.util.find_spec("leopard_em") is not None
    times: dict[str, list[float]] = {"cold": [], "warm": [], "peer": []}
    counted = ""
    with tempfile.TemporaryDirectory() as scratch:
        for number in range(options.repeats):
            folder = Path(scratch, f"run{number}")
            shutil.copytree(options.folder, folder)
            ours = [sys.executable, "-m", "jaxrefine", str(folder / found[0].name)]
            ours += ["--output", str(folder / "ours.csv")]
            cache = str(folder / "cache")
            seconds, text = timed(ours, JAX_COMPILATION_CACHE_DIR=cache)
            times["cold"].append(seconds)
            counted = next(line for line in text.splitlines() if "correlations" in line)
            times["warm"].append(timed(ours, JAX_COMPILATION_CACHE_DIR=cache)[0])
            if with_peer:
                script = str(Path(__file__).with_name("run_peer.py"))
                theirs = [sys.executable, script, str(folder), "--yaml", found[0].name]
                theirs += ["--threads", str(options.peer_threads)]
                seconds, text = timed(theirs)
                times["peer"].append(seconds)
                report = json.loads(text[text.index("{\n") : text.rindex("}") + 1])
    cold, warm = (statistics.median(times[name]) for name in ("cold", "warm"))
    print(f"jaxrefine: {counted}")
    print(f"  nothing compiled before: {cold:.1f} s; again: {warm:.1f} s")
    if not with_peer:
        print("Leopard-EM is not installed: no comparison")
        return
    peer = statistics.median(times["peer"])
    poses = report["grid"][0] * report["grid"][1] * report["grid"][2]
    print(f"Leopard-EM: {report['grid'][0]} orientations, {poses:,} correlations each")
    print(f"  {peer:.1f} s, of which {report['import_s']:.1f} s importing")
    print(f"jaxrefine / Leopard-EM: {cold / peer:.2f}; again: {warm / peer:.2f}")


if __name__ == "__main__":
    main()
