"""Where a process stands among the processes of a run: from its options, or from SLURM."""

import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass

from jaxrefine.data import InputError

# With these JAX knows SLURM by.
_SLURM = (
    "SLURM_JOB_ID",
    "SLURM_STEP_NODELIST",
    "SLURM_NTASKS",
    "SLURM_PROCID",
    "SLURM_LOCALID",
)


@dataclass(frozen=True)
class ProcessInfo:
    """Where a process stands.

    Attributes:
        coordinator: HOST:PORT of process 0; None: JAX takes it from SLURM.
        count: Number of processes.
        index: Number of this one.
        local_device_ids: Those of the visible GPUs that are this process's; empty: all.
    """

    coordinator: str | None
    count: int
    index: int
    local_device_ids: tuple[int, ...] = ()


def detect_process(
    coordinator: str | None,
    count: int | None,
    index: int | None,
    environ: Mapping[str, str],
) -> ProcessInfo | None:
    """Where this process stands; None where it is alone.

    Args:
        coordinator: Option `--coordinator`.
        count: Option `--num-processes`.
        index: Option `--process-id`.
        environ: Environment; under `srun` SLURM tells all three.

    Raises:
        InputError: The options are invalid, or not all of them are there.
    """
    under_slurm = all(name in environ for name in _SLURM)
    devices = _slurm_devices(environ) if under_slurm else ()
    if (coordinator, count, index) == (None, None, None):
        # NTASKS is the job's in an interactive shell, STEP_NUM_TASKS the step's.
        tasks = environ.get("SLURM_STEP_NUM_TASKS", environ.get("SLURM_NTASKS", "1"))
        if not under_slurm or int(tasks) == 1:
            return None
        return ProcessInfo(None, int(tasks), int(environ["SLURM_PROCID"]), devices)
    if coordinator is None or count is None or index is None:
        raise InputError(
            "--coordinator, --num-processes and --process-id: name all three, or none"
        )
    errors = []
    if count < 1:
        errors.append(f"--num-processes: {count} — must be 1 or more")
    elif not 0 <= index < count:
        errors.append(f"--process-id: {index} — must be 0 … {count - 1}")
    errors += _address_errors(coordinator, serves=index == 0)
    if errors:
        raise InputError(errors)
    return ProcessInfo(coordinator, count, index, devices) if count > 1 else None


def _address_errors(address: str, *, serves: bool) -> list[str]:
    """What is wrong with HOST:PORT, in one sentence, if anything."""
    key = f"--coordinator: {address}"
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        return [f"{key} — must be HOST:PORT, the machine of process 0 and a free port"]
    try:
        socket.getaddrinfo(host.strip("[]"), int(port))
    except (OSError, UnicodeError) as error:
        return [f"{key} — no such machine is known: {error}"]
    if serves:  # JAX would crash
        try:
            with socket.create_server(("", int(port))):
                pass
        except OSError as error:
            return [f"{key} — process 0 cannot use this port: {error.strerror}"]
    return []


def _slurm_devices(environ: Mapping[str, str]) -> tuple[int, ...]:
    """Those of the visible GPUs that are this task's; empty: all.

    JAX would take number SLURM_LOCALID alone, which is right only where each task of a node
    sees all its GPUs and there are as many tasks as GPUs.
    """
    tasks, local = _tasks_on_node(environ), int(environ["SLURM_LOCALID"])
    names = environ.get("CUDA_VISIBLE_DEVICES") or environ.get("ROCR_VISIBLE_DEVICES", "")
    visible = len([name for name in names.split(",") if name.strip()])
    if tasks == 1:
        return ()
    if not visible:  # SLURM does not manage the GPUs, if there are any
        return (local,)
    on_node = int(environ.get("SLURM_GPUS_ON_NODE", visible))
    if visible == 1 or visible < on_node:  # SLURM has given each task its own
        return ()
    return tuple(range(visible)[local % visible :: tasks])


def _tasks_on_node(environ: Mapping[str, str]) -> int:
    """Tasks of the step on this node: of `2(x3),1` the number at SLURM_NODEID."""
    text = environ.get("SLURM_STEP_TASKS_PER_NODE", "")
    each: list[int] = []
    for tasks, _, times in re.findall(r"(\d+)(\(x(\d+)\))?", text):
        each += [int(tasks)] * int(times or 1)
    node = int(environ.get("SLURM_NODEID", 0))
    if node < len(each):
        return each[node]
    tasks, nodes = environ["SLURM_NTASKS"], environ.get("SLURM_STEP_NUM_NODES", "1")
    return -(-int(tasks) // int(nodes))
