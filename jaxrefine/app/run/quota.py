"""Processors and memory that a container, or a job, leaves to this process.

Control groups (Linux) limit both, and what counts cores or memory knows nothing of them.
"""

import os
from collections.abc import Iterator
from pathlib import Path

_ROOT = Path("/sys/fs/cgroup")
_MEMBERSHIP = Path("/proc/self/cgroup")


def usable_cores(*, root: Path = _ROOT, membership: Path = _MEMBERSHIP) -> int:
    """Cores that this process may use: at least 1, at most those of its affinity.

    Args:
        root: Where the control groups are.
        membership: File that names those of this process.
    """
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    for folder in _groups(root, membership, "cpu"):
        quota, period = _numbers(folder / "cpu.max", 2)
        if quota is None:  # version 1, where -1 is no limit
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
    """Folders of the groups that this process is in, from its own to the outermost."""
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, names, path = [*line.split(":", 2), "", ""][:3]
        if names and controller not in names.split(","):
            continue
        top = root / controller if names else root  # version 1 has a tree for each
        group = Path(path.lstrip("/"))
        for inner in (group, *group.parents):
            yield top / inner


def _numbers(path: Path, count: int) -> list[float | None]:
    """Whole numbers of a file; None for each that is not there, or is no number."""
    try:
        words = path.read_text().split()[:count]
    except OSError:
        words = []
    numbers = [float(word) if word.lstrip("-").isdecimal() else None for word in words]
    return numbers + [None] * (count - len(numbers))
