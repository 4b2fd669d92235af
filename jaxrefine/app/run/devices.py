"""The machine that the program runs on, and what the library leaves alone of JAX."""

import logging
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import jax
import platformdirs
import psutil

from jaxrefine.app.run.quota import memory_left_bytes, usable_cores
from jaxrefine.refine.sharding import Device

log = logging.getLogger("jaxrefine")


def use_cpu_cores() -> None:
    """Make one CPU device of each core, before JAX looks for devices.

    Within one device much of a search runs on one core; several devices share it out.
    A number that the user has set, by `JAX_NUM_CPU_DEVICES` or in `XLA_FLAGS`, stays; and
    so do the devices where JAX has looked for them before, as in a notebook.
    """
    forced = "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", "")
    # JAX gives its settings their names at run time.
    already = jax.config.jax_num_cpu_devices  # pyright: ignore[reportAttributeAccessIssue]
    if forced or already > 0:
        return
    try:
        jax.config.update("jax_num_cpu_devices", usable_cores())
    except RuntimeError:
        log.debug("JAX is already in use: the number of its CPU devices is unchanged")


@contextmanager
def float32_only() -> Iterator[None]:
    """The program computes in float32; `JAX_ENABLE_X64` is set aside meanwhile."""
    # JAX gives its settings their names at run time.
    wanted = jax.config.jax_enable_x64  # pyright: ignore[reportAttributeAccessIssue]
    if not wanted:
        yield
        return
    log.debug("JAX_ENABLE_X64 is ignored: all computations use float32")
    jax.config.update("jax_enable_x64", False)
    try:
        yield
    finally:
        jax.config.update("jax_enable_x64", True)


def free_bytes(device: Device) -> float:
    """Memory that is free on a device; of a CPU, what its devices share."""
    if device.platform == "cpu":
        return min(psutil.virtual_memory().available, memory_left_bytes())
    stats = device.memory_stats()
    if not stats or "bytes_limit" not in stats:
        return math.inf
    return stats["bytes_limit"] - stats["bytes_in_use"]


def use_compilation_cache(setting: str) -> Path | None:
    """Keep compiled programs on disk, so that the next run need not compile.

    Args:
        setting: "auto": the user's cache folder, or `JAX_COMPILATION_CACHE_DIR` where
            that is set. "off". Anything else is a folder.

    Returns:
        The folder; None where there is no cache.
    """
    if setting == "off":
        jax.config.update("jax_enable_compilation_cache", False)
        return None
    if setting == "auto":
        default = platformdirs.user_cache_path("jaxrefine") / "compiled"
        folder = Path(os.environ.get("JAX_COMPILATION_CACHE_DIR", default))
    else:
        folder = Path(setting)
    jax.config.update("jax_compilation_cache_dir", str(folder))
    # Also what compiles in no time: a run has some dozens of small programs.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    return folder
