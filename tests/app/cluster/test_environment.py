"""Environment variables of SLURM and MPI launchers."""

import pytest

from jaxrefine.app.cluster.environment import detect_process
from jaxrefine.data import InputError
from tests.app.cluster.test_machines import SLURM
from tests.subprocess_runs import free_port

OPEN_MPI = {
    "OMPI_COMM_WORLD_SIZE": "2",
    "OMPI_COMM_WORLD_RANK": "1",
    "OMPI_COMM_WORLD_LOCAL_SIZE": "2",
    "OMPI_COMM_WORLD_LOCAL_RANK": "1",
    "OMPI_MCA_orte_hnp_uri": "957546496.0;tcp://192.0.2.2:44221;tcp6://[fd00::2]:52109",
    "PMIX_NAMESPACE": "957546497",
    "PMIX_RANK": "1",
}
MPICH = {"PMI_SIZE": "2", "PMI_RANK": "1", "MPI_LOCALNRANKS": "2", "MPI_LOCALRANKID": "1"}


def detect(environ, coordinator=None):
    return detect_process(coordinator, None, None, environ)


@pytest.mark.parametrize("environ", [OPEN_MPI, MPICH])
def test_mpirun_on_one_machine(environ):
    found = detect(environ)
    assert (found.count, found.index, found.local_device_ids) == (2, 1, (1,))
    host, port = found.coordinator.split(":")
    assert host == "127.0.0.1" and 1024 < int(port) < 65536
    # The other process, and it alone, comes to the same address.
    other = {name: "0" if value == "1" else value for name, value in environ.items()}
    assert detect(other).coordinator == found.coordinator
    assert detect(other).index == 0
    one = {name: "1" if "SIZE" in name else "0" for name in environ}
    assert detect(one) is None


def test_gpus_are_shared_out():
    shared = detect({**OPEN_MPI, "CUDA_VISIBLE_DEVICES": "0,1,2,3"})
    assert shared.local_device_ids == (1, 3)


def test_several_machines_need_an_address():
    far = {"OMPI_COMM_WORLD_LOCAL_SIZE": "1", "OMPI_COMM_WORLD_LOCAL_RANK": "0"}
    assert detect({**OPEN_MPI, **far}).coordinator.startswith("192.0.2.2:")
    apart = {**MPICH, "MPI_LOCALNRANKS": "1", "MPI_LOCALRANKID": "0"}
    with pytest.raises(InputError, match="--coordinator HOST:PORT"):
        detect(apart)
    address = f"localhost:{free_port()}"
    assert detect(apart, address).coordinator == address
    with pytest.raises(InputError, match="give all three"):
        detect({}, address)


def test_srun_and_mpirun_at_once():
    """srun also sets MPI's variables; mpirun within a SLURM job sets its own."""
    slurm = {**SLURM, "SLURM_STEP_TASKS_PER_NODE": "1(x3)", "SLURM_NODEID": "2"}
    assert detect({**slurm, "PMI_SIZE": "3", "PMI_RANK": "2"}).coordinator is None
    assert detect({**slurm, **OPEN_MPI}).count == 2
    assert detect({**slurm, "SLURM_STEP_NUM_TASKS": "1", **OPEN_MPI}).count == 2


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"SLURM_NTASKS": "x"}, "SLURM_NTASKS: 'x' — should be a whole number"),
        ({"SLURM_PROCID": "-1"}, "SLURM_PROCID: '-1'"),
        ({"SLURM_PROCID": "3"}, "SLURM_PROCID: 3 — must be 0 … 2"),
        ({"SLURM_LOCALID": "a"}, "SLURM_LOCALID: 'a'"),
        ({"SLURM_NODEID": "n1"}, "SLURM_NODEID: 'n1'"),
    ],
)
def test_odd_variables(change, words):
    with pytest.raises(InputError, match=words):
        detect({**SLURM, **change})


def test_odd_variables_of_mpi():
    with pytest.raises(InputError, match="PMI_RANK: 2 — must be 0 … 1"):
        detect({**MPICH, "PMI_RANK": "2"})
    with pytest.raises(InputError, match="OMPI_COMM_WORLD_SIZE: 'two'"):
        detect({**OPEN_MPI, "OMPI_COMM_WORLD_SIZE": "two"})


@pytest.mark.parametrize("gpus", ["4", "gpu:4", "gpu:a100:4"])
def test_gpus_on_node_in_any_form(gpus):
    environ = {**SLURM, "SLURM_STEP_TASKS_PER_NODE": "4", "SLURM_GPUS_ON_NODE": gpus}
    environ |= {"CUDA_VISIBLE_DEVICES": "2,3", "SLURM_NODEID": "0"}
    assert detect(environ).local_device_ids == ()
