"""Several processes, on one or many machines, that share a run.

JAX's distributed runtime starts them together, transfers short messages and detects when
one dies. Results are not exchanged: each process writes its own to disk.
"""

import json
import os
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import jax

from jaxrefine.app.cluster import coordination
from jaxrefine.app.cluster.environment import ProcessInfo
from jaxrefine.app.console.exit_codes import EXIT_FAILED
from jaxrefine.app.console.interrupts import Stop, Stopped
from jaxrefine.data import InputError

# A process without a heartbeat for this long counts as dead. Heartbeats come from a thread
# of JAX, even if the process is busy.
HEARTBEAT_TIMEOUT_S = 60
MEETING_TIMEOUT_S = 300
_LEAVING_TIMEOUT_S = 60.0
_POLL_S = 1.0

T = TypeVar("T")


class ProcessGroup:
    """The processes of a run; by default a single process.

    Attributes:
        index: Number of this process. Process 0 prints for all.
        count: Number of processes.
        stop: Checked while waiting, and informed when a process is lost.
    """

    def __init__(
        self,
        stop: Stop | None = None,
        *,
        index: int = 0,
        count: int = 1,
        part: str = "",
    ):
        self.index, self.count = index, count
        self.stop = stop or Stop()
        self._part = part

    def for_part(self, name: str) -> "ProcessGroup":
        """The same processes, with separate step names for a part of the work."""
        part = f"{self._part}{name}/"
        return ProcessGroup(self.stop, index=self.index, count=self.count, part=part)

    @property
    def is_first(self) -> bool:
        """Whether this is process 0, which prints for all."""
        return self.index == 0

    def on_all(self, name: str, work: Callable[[], T]) -> T:
        """Run `work` in every process, and wait until all have done it.

        Args:
            name: Name of this step, the same in every process.
            work: The function to run.

        Raises:
            InputError: In every process, if `work` found errors in any. The one in process
                0 contains all errors, the others none, so that they are printed once.
        """
        if self.count == 1:
            return work()
        result, errors = _attempt(work)
        said = json.dumps([socket.gethostname(), errors])
        coordination.put(f"{self._part}{name}/{self.index}", said)
        self.first(f"{name}/all", lambda: self._raise_errors(name))
        return result

    def _raise_errors(self, name: str) -> None:
        errors: dict[str, str] = {}
        for index in range(self.count):
            host, theirs = json.loads(self._wait_for(f"{self._part}{name}/{index}"))
            where = f"process {index} on {host}: " if index else ""
            for message in theirs or ():
                errors.setdefault(message, f"{where}{message}")
        if errors:
            raise InputError(errors.values())

    def first(self, name: str, work: Callable[[], T]) -> T:
        """Run `work` in process 0, and return its result in all processes.

        Args:
            name: Name of this step, the same in every process.
            work: The function to run; JSON must be able to represent its result.

        Raises:
            InputError: In every process, if `work` found errors; only process 0 has them.
        """
        if self.count == 1:
            return work()
        if self.is_first:
            result, errors = _attempt(work)
            coordination.put(f"{self._part}{name}", json.dumps([result, bool(errors)]))
            if errors:
                raise InputError(errors)
            return result
        result, failed = json.loads(self._wait_for(f"{self._part}{name}"))
        if failed:
            raise InputError(())
        return result

    def gather(self, name: str, text: str) -> list[str]:
        """The texts of all processes, by number; returns when all have given theirs.

        Args:
            name: Name of this step, the same in every process.
            text: The text of this process.
        """
        if self.count == 1:
            return [text]
        coordination.put(f"{self._part}{name}/{self.index}", text)
        return [self._wait_for(f"{self._part}{name}/{i}") for i in range(self.count)]

    def _wait_for(self, key: str) -> str:
        while True:  # a stored text counts, even if its author has left since
            text = coordination.get(key, _POLL_S)
            if text is not None:
                return text
            self.stop.check()


def _attempt(work: Callable[[], T]) -> tuple[Any, Sequence[str] | None]:
    """The result of the work, or its errors."""
    try:
        return work(), None
    except InputError as error:
        return None, error.errors


def balance_loads(sizes: Sequence[int], count: int) -> list[list[int]]:
    """Distribute items evenly: largest first, each to the group with the least so far.

    Args:
        sizes: Sizes of the items; those of size 0 are not assigned.
        count: Number of groups.

    Returns:
        Indices of the items of each group, in order.
    """
    shares: list[list[int]] = [[] for _ in range(count)]
    loads = [0] * count
    for thing in sorted(range(len(sizes)), key=lambda thing: -sizes[thing]):
        if sizes[thing]:
            least = loads.index(min(loads))
            shares[least].append(thing)
            loads[least] += sizes[thing]
    return [sorted(share) for share in shares]


@contextmanager
def join_processes(process: ProcessInfo | None, stop: Stop) -> Iterator[ProcessGroup]:
    """Connect the processes of this run, and disconnect them at the end.

    To be entered before JAX computes anything or looks for devices.

    Args:
        process: This process; None if it is the only one.
        stop: Informed when a process is lost.
    """
    if process is None:
        yield ProcessGroup(stop)
        return
    _initialize(process)
    processes = ProcessGroup(stop, index=process.index, count=process.count)
    parting = threading.Event()
    watch = threading.Thread(
        target=_monitor_liveness, args=(processes, parting), daemon=True
    )
    watch.start()
    try:
        yield processes
    except coordination.Unreachable:
        # JAX ends a process that has lost its coordinator; this is a fallback.
        text = "process 0 died or cannot be reached"
        raise Stopped(text, EXIT_FAILED) from None
    except BaseException:
        _broadcast_stop(f"process {processes.index} on {socket.gethostname()} stopped")
        raise
    finally:
        parting.set()
        if processes.is_first:  # the service ends with this process, so others leave first
            watch.join(_LEAVING_TIMEOUT_S)
        jax.distributed.shutdown()


def _initialize(process: ProcessInfo) -> None:
    """Start JAX's distributed runtime; returns when all processes are there."""
    # By default JAX aborts every process when one dies. Here they stop by themselves,
    # between two batches and with a message, so they must survive each other.
    jax.config.update("jax_enable_recoverability", True)
    # It would handle SIGTERM, which `stop_on_signals` does.
    jax.config.update("jax_enable_preemption_service", False)
    # JAX aborts with a stack trace if the processes do not connect in time.
    alarm = threading.Timer(MEETING_TIMEOUT_S, _abort_on_timeout, [process])
    alarm.daemon = True
    alarm.start()
    jax.distributed.initialize(
        coordinator_address=process.coordinator,
        num_processes=process.count,
        process_id=process.index,
        local_device_ids=process.local_device_ids,
        initialization_timeout=MEETING_TIMEOUT_S + 60,
        heartbeat_timeout_seconds=HEARTBEAT_TIMEOUT_S,
    )
    alarm.cancel()


def _abort_on_timeout(process: ProcessInfo) -> None:
    where = f" at {process.coordinator}" if process.coordinator else ""
    print(
        f"error: process {process.index}: the {process.count} processes could not connect"
        f"{where} within {MEETING_TIMEOUT_S} s. Start all of them, with the same "
        "coordinator and number of processes, on machines that can reach each other",
        file=sys.stderr,
        flush=True,
    )
    os._exit(EXIT_FAILED)


def _monitor_liveness(processes: ProcessGroup, parting: threading.Event) -> None:
    """Check regularly which processes are alive; the call waits for all live processes.

    Process 0 continues until the others have left.
    """
    everyone = set(range(processes.count))
    try:
        while True:
            there = coordination.alive(everyone)
            if there != everyone:
                lost = ", ".join(map(str, sorted(everyone - there)))
                processes.stop.request(f"process {lost} died or stopped", EXIT_FAILED)
            elif word := coordination.get("stopped", 0.001):
                processes.stop.request(word, EXIT_FAILED)
            if there == {processes.index} or (
                parting.wait(_POLL_S) and not processes.is_first
            ):
                return
    except coordination.Unreachable:
        return


def _broadcast_stop(word: str) -> None:
    try:
        coordination.put("stopped", word)
    except coordination.Unreachable:
        return  # the others know already
