"""Options and start of commands whose work several processes can share."""

import argparse
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from jaxrefine.app.console.interrupts import Stop, stop_on_signals
from jaxrefine.app.console.logs import set_up_logging

if TYPE_CHECKING:
    from jaxrefine.app.cluster.process_group import ProcessGroup


def add_process_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that identify a process."""
    several = parser.add_argument_group(
        "several processes, on one or several machines",
        "Start each process with the same command but its own number. With srun and mpirun "
        "these options are not needed.",
    )
    several.add_argument(
        "--coordinator", metavar="HOST:PORT", help="machine of process 0, and a free port"
    )
    several.add_argument(
        "--num-processes", type=int, metavar="N", help="number of processes"
    )
    several.add_argument(
        "--process-id", type=int, metavar="I", help="number of this process, 0 … N-1"
    )


@contextmanager
def shared_run(options: argparse.Namespace) -> "Iterator[ProcessGroup]":
    """The processes that share a run, which Ctrl-C and SIGTERM stop.

    All but the first are quiet from here on: their `options` are changed.

    Raises:
        InputError: The options or environment variables are invalid or incomplete.
    """
    from jaxrefine.app.cluster.environment import detect_process
    from jaxrefine.app.cluster.process_group import join_processes
    from jaxrefine.app.run.devices import use_cpu_cores

    process = detect_process(
        options.coordinator, options.num_processes, options.process_id, os.environ
    )
    if process is not None and process.index > 0:
        set_up_logging(quiet=True, prefix=f"process {process.index}: ")
        options.quiet, options.json_progress = True, False
    use_cpu_cores()
    stop = Stop()
    with (
        join_processes(process, stop) as processes,
        stop_on_signals(stop, quiet=options.json_progress or not processes.is_first),
    ):
        yield processes
