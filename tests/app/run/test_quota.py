"""Cores and memory that control groups grant to a process."""

import os

import pytest

from jaxrefine.app.run.quota import memory_left_bytes, usable_cores

ALL = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


@pytest.fixture
def groups(tmp_path):
    def write(membership, **files):
        (tmp_path / "membership").write_text(membership)
        for name, text in files.items():
            path = tmp_path / name.replace("__", "/").replace("_DOT_", ".")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return {"root": tmp_path, "membership": tmp_path / "membership"}

    return write


def test_without_control_groups(tmp_path):
    nowhere = {"root": tmp_path, "membership": tmp_path / "none"}
    assert usable_cores(**nowhere) == ALL
    assert memory_left_bytes(**nowhere) == float("inf")


@pytest.mark.parametrize(
    ("text", "cores"),
    [("max 100000", ALL), ("100000 100000", 1), ("50000 100000", 1), ("odd", ALL)],
)
def test_version_2(groups, text, cores):
    where = groups("0::/job/task\n", job__cpu_DOT_max=text)
    assert usable_cores(**where) == cores


def test_version_1(groups):
    where = groups(
        "4:cpu,cpuacct:/docker/1\n3:memory:/docker/1\n",
        cpu__docker__1__cpu_DOT_cfs_quota_us="100000",
        cpu__docker__1__cpu_DOT_cfs_period_us="100000",
        memory__docker__1__memory_DOT_limit_in_bytes="1000",
        memory__docker__1__memory_DOT_usage_in_bytes="400",
    )
    assert usable_cores(**where) == 1
    assert memory_left_bytes(**where) == 600


def test_memory_of_version_2(groups):
    where = groups("0::/\n", memory_DOT_max="500", memory_DOT_current="700")
    assert memory_left_bytes(**where) == 0
    where = groups("0::/\n", memory_DOT_max="max", memory_DOT_current="700")
    assert memory_left_bytes(**where) == float("inf")
