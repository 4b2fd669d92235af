"""Identification of a process within a run, from options, SLURM or MPI."""

import os
import re
import socket
import sys
import zlib
from collections.abc import Mapping
from dataclasses import dataclass

from jaxrefine.data import InputError

# The variables by which JAX recognises SLURM.
_SLURM = (
    "SLURM_JOB_ID",
    "SLURM_STEP_NODELIST",
    "SLURM_NTASKS",
    "SLURM_PROCID",
    "SLURM_LOCALID",
)
# Variables of MPI launchers: number of processes, rank, and the same on one machine.
_MPI = (
    # Open MPI's mpirun
    (
        "OMPI_COMM_WORLD_SIZE",
        "OMPI_COMM_WORLD_RANK",
        "OMPI_COMM_WORLD_LOCAL_SIZE",
        "OMPI_COMM_WORLD_LOCAL_RANK",
    ),
    # MVAPICH's
    (
        "MV2_COMM_WORLD_SIZE",
        "MV2_COMM_WORLD_RANK",
        "MV2_COMM_WORLD_LOCAL_SIZE",
        "MV2_COMM_WORLD_LOCAL_RANK",
    ),
    # MPICH's and Intel's (Hydra)
    ("PMI_SIZE", "PMI_RANK", "MPI_LOCALNRANKS", "MPI_LOCALRANKID"),
    # PMIx itself, with the size that some launchers add
    ("PMIX_SIZE", "PMIX_RANK", "PMIX_LOCAL_SIZE", "PMIX_LOCAL_RANK"),
)
# Variables that identify a job, equal for all of its processes.
_MPI_JOB = ("PMIX_NAMESPACE", "OMPI_MCA_ess_base_jobid", "PMI_JOBID", "PBS_JOBID")
# Address of Open MPI's mpirun; process 0 is on its machine.
_MPIRUN_ADDRESS = ("OMPI_MCA_orte_hnp_uri", "PRTE_MCA_prte_hnp_uri")
_FIRST_PORT, _PORTS = 61440, 4096  # as in JAX


@dataclass(frozen=True)
class ProcessInfo:
    """A process within a run.

    Attributes:
        coordinator: HOST:PORT of process 0; None: JAX determines it from SLURM.
        count: Number of processes.
        index: Number of this one.
        local_device_ids: The visible GPUs that this process uses; empty: all.
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
    """This process within the run; None if it is the only one.

    Args:
        coordinator: Option `--coordinator`.
        count: Option `--num-processes`.
        index: Option `--process-id`.
        environ: Environment; under `srun` and `mpirun` it contains all three.

    Raises:
        InputError: The options or environment variables are invalid or incomplete.
    """
    under_slurm = all(environ.get(name) for name in _SLURM)
    mpi = _under_mpi(environ)
    if (coordinator, count, index) == (None, None, None):
        slurm = _under_slurm(environ) if under_slurm else None
        # srun may also set MPI's variables; mpirun within a SLURM job sets its own.
        if slurm is not None and (mpi is None or slurm == (mpi.count, mpi.index)):
            return ProcessInfo(None, *slurm, _slurm_devices(environ))
        return None if mpi is None else mpi.process(environ)
    if coordinator is not None and (count, index) == (None, None) and mpi is not None:
        _raise_any(_address_errors(coordinator, serves=mpi.index == 0))
        return mpi.process(environ, coordinator)
    if coordinator is None or count is None or index is None:
        raise InputError(
            "--coordinator, --num-processes and --process-id: give all three, or none "
            "(under mpirun --coordinator is enough)"
        )
    errors = []
    if count < 1:
        errors.append(f"--num-processes: {count} — must be 1 or more")
    elif not 0 <= index < count:
        errors.append(f"--process-id: {index} — must be 0 … {count - 1}")
    errors += _address_errors(coordinator, serves=index == 0)
    _raise_any(errors)
    devices = _slurm_devices(environ) if under_slurm else ()
    return ProcessInfo(coordinator, count, index, devices) if count > 1 else None


def _raise_any(errors: list[str]) -> None:
    if errors:
        raise InputError(errors)


def _whole(environ: Mapping[str, str], name: str, default: str = "") -> int:
    """A variable that should hold a whole number, 0 or more."""
    text = environ.get(name) or default
    if not re.fullmatch(r"\s*\d+\s*", text):
        raise InputError(
            f"{name}: {text!r} — should be a whole number, as srun and mpirun set it; "
            "unset it, or give --coordinator, --num-processes and --process-id"
        )
    return int(text)


def _standing(environ: Mapping[str, str], size: str, rank: str) -> tuple[int, int]:
    """Number of processes and index of this one, from two variables."""
    count, index = _whole(environ, size), _whole(environ, rank)
    if not index < count:
        raise InputError(f"{rank}: {index} — must be 0 … {count - 1}, by {size}")
    return count, index


# --- SLURM -------------------------------------------------------------------------


def _under_slurm(environ: Mapping[str, str]) -> tuple[int, int] | None:
    """Number of tasks and index of this one; None for a single task."""
    # In an interactive shell NTASKS is that of the job, STEP_NUM_TASKS that of the step.
    size = "SLURM_STEP_NUM_TASKS" if environ.get("SLURM_STEP_NUM_TASKS") else "SLURM_NTASKS"
    if _whole(environ, size) == 1:
        return None
    return _standing(environ, size, "SLURM_PROCID")


def _slurm_devices(environ: Mapping[str, str]) -> tuple[int, ...]:
    on_node = re.search(r"\d+$", environ.get("SLURM_GPUS_ON_NODE", ""))  # also gpu:a100:4
    return _devices(
        tasks=_tasks_on_node(environ),
        local=_whole(environ, "SLURM_LOCALID"),
        on_node=None if on_node is None else int(on_node[0]),
        environ=environ,
    )


def _tasks_on_node(environ: Mapping[str, str]) -> int:
    """Tasks of the step on this node: of `2(x3),1` the number at SLURM_NODEID."""
    text = environ.get("SLURM_STEP_TASKS_PER_NODE", "")
    each: list[int] = []
    for tasks, _, times in re.findall(r"(\d+)(\(x(\d+)\))?", text):
        each += [int(tasks)] * int(times or 1)
    node = _whole(environ, "SLURM_NODEID", "0")
    if node < len(each):
        return max(each[node], 1)
    nodes = max(_whole(environ, "SLURM_STEP_NUM_NODES", "1"), 1)
    return max(-(-_whole(environ, "SLURM_NTASKS") // nodes), 1)


# --- MPI ---------------------------------------------------------------------------


@dataclass(frozen=True)
class _MpiStanding:
    """A process as described by the variables of an MPI launcher.

    Attributes:
        count: Number of processes.
        index: Number of this one.
        on_machine: Number of processes on this machine; 0 if unknown.
        local: Index of this one among them.
    """

    count: int
    index: int
    on_machine: int
    local: int

    def process(
        self, environ: Mapping[str, str], coordinator: str | None = None
    ) -> ProcessInfo:
        """The process, with an address of process 0 if none is given."""
        if coordinator is None:
            here = self.on_machine == self.count
            coordinator = _mpi_coordinator(environ, here=here)
            _raise_any(_address_errors(coordinator, serves=self.index == 0))
        devices = _devices(max(self.on_machine, 1), self.local, None, environ)
        return ProcessInfo(coordinator, self.count, self.index, devices)


def _under_mpi(environ: Mapping[str, str]) -> _MpiStanding | None:
    """The variables of an MPI launcher; None if this process is the only one."""
    for size, rank, local_size, local_rank in _MPI:
        if environ.get(size) and environ.get(rank):
            count, index = _standing(environ, size, rank)
            if count == 1:
                return None
            on_machine = _whole(environ, local_size, "0")
            return _MpiStanding(count, index, on_machine, _whole(environ, local_rank, "0"))
    return None


def _mpi_coordinator(environ: Mapping[str, str], *, here: bool) -> str:
    """HOST:PORT that all processes of a job derive without communication.

    Args:
        environ: Environment.
        here: Whether all processes are on this machine.
    """
    # All processes of a job are started with the same command in the same folder.
    job = [environ[name] for name in _MPI_JOB if environ.get(name)]
    job += [os.getcwd(), *sys.argv[1:]]
    port = _FIRST_PORT + zlib.crc32("\0".join(job).encode(errors="replace")) % _PORTS
    if here:
        return f"127.0.0.1:{port}"
    for name in _MPIRUN_ADDRESS:
        if found := re.search(r"tcp4?://([\d.]+)", environ.get(name, "")):
            return f"{found[1]}:{port}"
    raise InputError(
        "mpirun: the processes are on several machines, and this launcher does not say "
        "where process 0 runs: give --coordinator HOST:PORT, that machine and a free port"
    )


def _devices(
    tasks: int, local: int, on_node: int | None, environ: Mapping[str, str]
) -> tuple[int, ...]:
    """The visible GPUs that this task uses; empty: all.

    JAX would use only the GPU with the task's number, which is right only if each task of a
    node sees all its GPUs and there are as many tasks as GPUs.

    Args:
        tasks: Number of tasks of the run on this node.
        local: Index of this one among them.
        on_node: GPUs of the job on the node; None if unknown.
        environ: Environment.
    """
    names = environ.get("CUDA_VISIBLE_DEVICES") or environ.get("ROCR_VISIBLE_DEVICES", "")
    visible = len([name for name in names.split(",") if name.strip()])
    if tasks == 1:
        return ()
    if not visible:  # GPUs, if there are any, are not managed
        return (local,)
    if visible == 1 or (on_node is not None and visible < on_node):
        return ()  # each task has its own GPUs
    return tuple(range(visible)[local % visible :: tasks])


def _address_errors(address: str, *, serves: bool) -> list[str]:
    """Errors of HOST:PORT."""
    key = f"--coordinator: {address}"
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        return [f"{key} — must be HOST:PORT, the machine of process 0 and a free port"]
    try:
        socket.getaddrinfo(host.strip("[]"), int(port))
    except (OSError, UnicodeError) as error:
        return [f"{key} — unknown machine: {error}"]
    if serves:  # otherwise JAX would crash
        try:
            with socket.create_server(("", int(port))):
                pass
        except OSError as error:
            return [f"{key} — process 0 cannot use this port: {error.strerror}"]
    return []
