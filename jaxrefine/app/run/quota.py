"""Processors and memory that a container, or a cluster job, grants to this process.

Control groups (Linux) limit both; the usual counts of cores and memory ignore them.
"""

import os
from collections.abc import Iterator
from pathlib import Path

_ROOT = Path("/sys/fs/cgroup")
_MEMBERSHIP = Path("/proc/self/cgroup")


def usable_cores(*, root: Path = _ROOT, membership: Path = _MEMBERSHIP) -> int:
    """Number of cores that this process may use: 1 to the number in its affinity mask.

    Args:
        root: Root of the control groups' file system.
        membership: File that names the groups of this process.
    """
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    for folder in _groups(root, membership, "cpu"):
        quota, period = _numbers(folder / "cpu.max", 2)
        if quota is None:  # version 1, in which -1 means no limit
            (quota,) = _numbers(folder / "cpu.cfs_quota_us", 1)
            (period,) = _numbers(folder / "cpu.cfs_period_us", 1)
        if quota is not None and period and quota > 0:
            cores = min(cores, max(1, round(quota / period)))
    return cores


def memory_left_bytes(*, root: Path = _ROOT, membership: Path = _MEMBERSHIP) -> float:
    """Memory that the control groups still grant; infinite without a limit."""
    left = float("inf")
    for folder in _groups(root, membership, "memory"):
        for limit, used in (
            ("memory.max", "memory.current"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes"),
        ):
            (most,), (now,) = _numbers(folder / limit, 1), _numbers(folder / used, 1)
            if most is not None and now is not None:
                left = min(left, max(0.0, most - now))
    return left


def _groups(root: Path, membership: Path, controller: str) -> Iterator[Path]:
    """Folders of the groups of this process, from its own to the outermost."""
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, names, path = [*line.split(":", 2), "", ""][:3]
        if names and controller not in names.split(","):
            continue
        top = root / controller if names else root  # version 1 has one tree for each
        group = Path(path.lstrip("/"))
        for inner in (group, *group.parents):
            yield top / inner


def _numbers(path: Path, count: int) -> list[float | None]:
    """Whole numbers in a file; None for each that is missing or not a number."""
    try:
        words = path.read_text().split()[:count]
    except OSError:
        words = []
    numbers = [float(word) if word.lstrip("-").isdecimal() else None for word in words]
    return numbers + [None] * (count - len(numbers))
