"""Several real processes of one run, on this machine."""

import os
import signal
import subprocess
import sys

import pytest

from jaxrefine.app.cluster.environment import ProcessInfo, detect_process
from jaxrefine.app.cluster.process_group import balance_loads
from jaxrefine.data import InputError
from tests import subprocess_runs

SLURM = {
    "SLURM_JOB_ID": "71",
    "SLURM_STEP_NODELIST": "node[01-03]",
    "SLURM_NTASKS": "3",
    "SLURM_PROCID": "2",
    "SLURM_LOCALID": "0",
}


# --- who does what -----------------------------------------------------------------------


def test_shares_are_even_and_whole():
    sizes = [5, 0, 100, 7, 40, 41, 12, 1]
    shares = balance_loads(sizes, 3)
    assert shares == [[2], [0, 3, 5], [4, 6, 7]]
    assert sorted(n for share in shares for n in share) == [0, 2, 3, 4, 5, 6, 7]
    assert balance_loads([3, 3], 4) == [[0], [1], [], []]
    assert balance_loads([], 2) == [[], []]


@pytest.mark.parametrize(
    ("change", "process"),
    [
        ({}, ProcessInfo(None, 3, 2)),
        ({"SLURM_STEP_NUM_TASKS": "4"}, ProcessInfo(None, 4, 2)),
        ({"SLURM_STEP_NUM_TASKS": "1"}, None),  # an interactive shell of a larger job
        ({"SLURM_NTASKS": "1"}, None),
        ({"SLURM_STEP_NODELIST": None}, None),  # a batch script, outside of srun
    ],
)
def test_slurm_is_known_by_its_environment(change, process):
    environ = {k: v for k, v in {**SLURM, **change}.items() if v is not None}
    environ["SLURM_STEP_TASKS_PER_NODE"] = "1(x3)"
    environ["SLURM_NODEID"] = "2"
    assert detect_process(None, None, None, environ) == process


@pytest.mark.parametrize(
    ("tasks", "local", "visible", "on_node", "ids"),
    [
        ("1(x2)", 0, "0,1,2,3", "4", ()),  # one task per node: all its GPUs
        ("4(x2)", 3, "0,1,2,3", "4", (3,)),  # all see all: one each
        ("2(x2)", 1, "0,1,2,3", "4", (1, 3)),  # or two each
        ("4(x2)", 3, "3", "4", ()),  # bound by SLURM to one each
        ("4(x2)", 3, "0", "4", ()),  # the same, in a container that renumbers
        ("2(x2)", 1, "2,3", "4", ()),  # bound to two each
        ("3,1(x1)", 2, "0,1", "2", (0,)),  # more tasks than GPUs
        ("2", 1, "", None, (1,)),  # GPUs that SLURM does not know of
    ],
)
def test_gpus_of_a_task(tasks, local, visible, on_node, ids):
    environ = {
        **SLURM,
        "SLURM_LOCALID": str(local),
        "SLURM_STEP_TASKS_PER_NODE": tasks,
        "SLURM_NODEID": "0",
        "CUDA_VISIBLE_DEVICES": visible,
    }
    if on_node:
        environ["SLURM_GPUS_ON_NODE"] = on_node
    assert detect_process(None, None, None, environ).local_device_ids == ids


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("host:1", None, 0), "give all three"),
        (("localhost:4711", 0, 0), "--num-processes: 0"),
        (("localhost:4711", 2, 2), "must be 0 … 1"),
        (("localhost", 2, 1), "must be HOST:PORT"),
        (("localhost:99999", 2, 1), "must be HOST:PORT"),
        (("no.such.host.invalid:4711", 2, 1), "unknown machine"),
    ],
)
def test_invalid_options(options, words):
    with pytest.raises(InputError, match=words):
        detect_process(*options, {})


def test_a_port_in_use():
    with subprocess_runs.socket.create_server(("", 0)) as server:
        address = f"localhost:{server.getsockname()[1]}"
        with pytest.raises(InputError, match="cannot use this port"):
            detect_process(address, 2, 0, {})
        assert detect_process(address, 2, 1, {}) == ProcessInfo(address, 2, 1)


# --- real processes ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The data, and the table from a run with one process."""
    folder = subprocess_runs.several_micrographs(tmp_path_factory.mktemp("machines"))
    (end,) = subprocess_runs.ends([subprocess_runs.start(folder, "--output", "alone.csv")])
    assert end[0] == 0, end
    return folder, (folder / "alone.csv").read_bytes()


# Stands in for srun: starts two tasks of a program, as on one node or on two.
SRUN = """#!{python}
import os, subprocess, sys
option, *program = sys.argv[1:]
assert option == "--kill-on-bad-exit=0", option
tasks = [
    subprocess.Popen(program, env=dict(
        os.environ,
        SLURM_JOB_ID="71",
        SLURM_STEP_NODELIST="localhost",
        SLURM_STEP_TASKS_PER_NODE="{tasks_per_node}",
        SLURM_NTASKS="2",
        SLURM_PROCID=str(index),
        SLURM_NODEID=str(index if "{tasks_per_node}" == "1(x2)" else 0),
        SLURM_LOCALID=str(0 if "{tasks_per_node}" == "1(x2)" else index),
        JAX_COORDINATOR_PORT="{port}",
    ))
    for index in range(2)
]
sys.exit(max(task.wait() for task in tasks))
"""


@pytest.mark.nightly
@pytest.mark.parametrize(
    ("script", "tasks_per_node"),
    [("one_task_per_node.sh", "1(x2)"), ("one_task_per_gpu.sh", "2")],
)
def test_job_scripts(alone, tmp_path, script, tasks_per_node):
    """The examples unchanged up to srun, which sets the variables that JAX uses."""
    folder, expected = alone
    path = subprocess_runs.ROOT / "examples" / "slurm" / script
    subprocess.run(["bash", "-n", path], check=True)
    srun = tmp_path / "srun"
    srun.write_text(
        SRUN.format(
            python=sys.executable,
            tasks_per_node=tasks_per_node,
            port=subprocess_runs.free_port(),
        )
    )
    srun.chmod(0o755)
    output = folder / f"{script}.csv"
    config = tmp_path / "refine.yaml"
    config.write_text((folder / "refine.yaml").read_text() + f"output_path: {output}\n")
    done = subprocess.run(
        ["bash", path, config],
        cwd=folder,
        env={
            **subprocess_runs.environment(),
            "PATH": f"{tmp_path}:{os.environ['PATH']}",
            "PYTHON": sys.executable,
        },
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert output.read_bytes() == expected
    assert not subprocess_runs.checkpoint_of(output)
    assert done.stdout.count("refined 12 of 12 particles") == 1
    assert len((done.stdout + done.stderr).splitlines()) < 30


@pytest.mark.nightly
def test_three_processes_write_what_one_writes(alone):
    folder, expected = alone
    three = subprocess_runs.ends(
        subprocess_runs.start_many(folder, 3, "--output", "three.csv")
    )
    assert [end[0] for end in three] == [0, 0, 0], three
    assert (folder / "three.csv").read_bytes() == expected


@pytest.mark.nightly
def test_one_of_two_is_killed(alone):
    """A message within the heartbeat time; results are kept; one process resumes."""
    folder, expected = alone
    output = folder / "killed.csv"
    two = subprocess_runs.start_many(folder, 2, "--output", "killed.csv", pause_s=0.7)
    subprocess_runs.wait_until(lambda: len(subprocess_runs.checkpoint_of(output)) >= 2)
    two[1].send_signal(signal.SIGKILL)
    first, second = subprocess_runs.ends(two)
    assert (first[0], second[0]) == (1, -signal.SIGKILL), first
    assert "process 1 died or stopped" in first[2]
    assert "killed.csv.parts; the same command continues" in first[2]
    assert "Traceback" not in first[2]
    assert not output.exists()
    assert len(subprocess_runs.checkpoint_of(output)) >= 2

    (end,) = subprocess_runs.ends([subprocess_runs.start(folder, "--output", "killed.csv")])
    assert end[0] == 0, end
    assert "particles are already refined" in end[2]
    assert output.read_bytes() == expected
    assert not subprocess_runs.checkpoint_of(output)


@pytest.mark.slow
def test_errors_are_told_once(alone, tmp_path):
    folder, _ = alone
    two = subprocess_runs.ends(
        subprocess_runs.start_many(folder, 2, "--output", "no/where.csv")
    )
    assert [end[0] for end in two] == [2, 2]
    assert two[0][2].count("error: ") == 1 and "folder does not exist" in two[0][2]
    assert "error: " not in two[1][2]


@pytest.mark.nightly
def test_all_are_interrupted(alone):
    """SIGTERM, as at a job's time limit: saved, one message, resumed by one process."""
    folder, expected = alone
    output = folder / "term.csv"
    two = subprocess_runs.start_many(folder, 2, "--output", "term.csv", pause_s=1.0)
    subprocess_runs.wait_until(lambda: subprocess_runs.checkpoint_of(output))
    for process in two:
        process.send_signal(signal.SIGTERM)
    first, second = subprocess_runs.ends(two)
    assert (first[0], second[0]) == (130, 130), (first, second)
    assert "interrupted: what all processes refined is kept in" in first[2]
    assert second[2] == ""
    (end,) = subprocess_runs.ends([subprocess_runs.start(folder, "--output", "term.csv")])
    assert end[0] == 0, end
    assert output.read_bytes() == expected


@pytest.mark.slow
def test_who_never_meets_is_told(tmp_path):
    """Process 1 without process 0: an error message without a stack trace of JAX."""
    program = (
        "import sys; from jaxrefine.app.cluster import process_group; "
        "from jaxrefine.app.cli import main; process_group.MEETING_TIMEOUT_S = 2; "
        "sys.exit(main(sys.argv[1:]))"
    )
    where = f"127.0.0.1:{subprocess_runs.free_port()}"
    options = ["--coordinator", where, "--num-processes", "2", "--process-id", "1"]
    done = subprocess.run(
        [sys.executable, "-c", program, "refine", "none.yaml", *options],
        env=subprocess_runs.environment(),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert f"the 2 processes could not connect at {where}" in done.stderr
    assert len(done.stderr.splitlines()) == 1
