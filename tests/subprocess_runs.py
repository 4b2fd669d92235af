"""Runs that tests interrupt: small data of several micrographs, and real processes."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd
import yaml

from tests.reference import ROOT, reference_set

# What the test run sets, for itself and the programs that it starts.
COMPILED_IN_LESS_TIME = {
    "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
    # The level is that of modules which keep the optimisations (`compiled_to_run_fast`).
    "XLA_FLAGS": "--xla_cpu_use_fusion_emitters=false --xla_backend_optimization_level=1",
}
_PATHS = ("micrograph_path", "correlation_average_path", "correlation_variance_path")

# The program, with a pause after every batch, which it says, so that it can be caught at
# work; and dead processes are noticed sooner.
SLOW = """
import signal, sys, time
# As in a terminal: what a shell runs in the background inherits that Ctrl-C is ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
from jaxrefine.app.cluster import process_group as distributed
from jaxrefine.app.run import results
from jaxrefine.app.cli import main
store = results.Results.store
def slow_store(self, *arguments):
    store(self, *arguments)
    print("pausing", flush=True)
    time.sleep(float(sys.argv[1]))
results.Results.store = slow_store
distributed.HEARTBEAT_TIMEOUT_S = 10
sys.exit(main(sys.argv[2:]))
"""


def several_micrographs(tmp_path: Path, copies: int = 2, particles: int = 3) -> Path:
    """A folder with `refine.yaml` and 2 micrographs per copy, searched in no time.

    Rows of the micrographs alternate, so that results must be put in order.
    """
    folder = reference_set("two_micrographs", tmp_path)
    table = pd.read_csv(folder / "match_results.csv", index_col=0)
    table = table.groupby("micrograph_path").head(particles)
    tables = []
    for copy in range(copies):
        rows = table.copy()
        for column in _PATHS:
            for name in set(rows[column]):
                other = f"copy{copy}_{name}"
                if not (folder / other).exists():
                    shutil.copy(folder / name, folder / other)
                rows.loc[rows[column] == name, column] = other
        tables.append(rows)
    mixed = pd.concat(tables).sort_values("particle_index", kind="stable")
    mixed.to_csv(folder / "match_results.csv", index=False)
    change(
        folder,
        orientation_refinement_config={
            "psi_step_coarse": 1.0,
            "psi_step_fine": 1.0,
            "theta_step_coarse": 1.0,
            "theta_step_fine": 1.0,
        },
        defocus_refinement_config={"enabled": False},
    )
    return folder


def change(folder: Path, **values: object) -> None:
    """Change keys of the configuration."""
    path = folder / "refine.yaml"
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), **values}))


def free_port() -> int:
    """A port without a listener."""
    with socket.create_server(("", 0)) as server:
        return server.getsockname()[1]


def environment() -> dict[str, str]:
    """Of a program on one CPU device."""
    return {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "JAX_PLATFORMS": "cpu",
        "JAX_NUM_CPU_DEVICES": "1",
    }


def environment_of_a_user() -> dict[str, str]:
    """Of a program that is compiled as a user compiles it."""
    return {k: v for k, v in environment().items() if k not in COMPILED_IN_LESS_TIME}


def start(
    folder: Path,
    *options: str,
    pause_s: float = 0.0,
    command: Sequence[str] = ("refine", "refine.yaml"),
) -> subprocess.Popen[str]:
    """Start the program in a folder, on one CPU device, slowed down where asked."""
    program = ["-c", SLOW, str(pause_s)] if pause_s else ["-m", "jaxrefine"]
    return subprocess.Popen(
        [sys.executable, *program, *command, *options],
        cwd=folder,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def start_many(
    folder: Path,
    count: int,
    *options: str,
    pause_s: float = 0.0,
    command: Sequence[str] = ("refine", "refine.yaml"),
) -> list[subprocess.Popen[str]]:
    """Start `count` processes that share one run."""
    where = f"127.0.0.1:{free_port()}"
    several = ["--coordinator", where, "--num-processes", str(count), "--process-id"]
    return [
        start(folder, *options, *several, str(index), pause_s=pause_s, command=command)
        for index in range(count)
    ]


def ends(processes: Sequence[subprocess.Popen[str]]) -> list[tuple[int, str, str]]:
    """Exit code, output and errors of processes; none of them outlives this."""
    try:
        return [
            (process.returncode, out, err)
            for process in processes
            for out, err in [process.communicate(timeout=120)]
        ]
    finally:
        for process in processes:
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
                process.wait()


def wait_until(condition: Callable[[], object], timeout_s: float = 100.0) -> None:
    """Wait until something holds."""
    late = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < late, "waited in vain"
        time.sleep(0.02)


def checkpoint_of(output: Path) -> list[Path]:
    """The files of results that a run has left so far."""
    return sorted(output.with_name(f"{output.name}.parts").glob("*.npz"))
