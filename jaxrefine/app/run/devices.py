"""Set-up of JAX for the program, which the library does not do: devices, cache, dtype."""

import logging
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager

import jax
import psutil

from jaxrefine.app.run.quota import memory_left_bytes, usable_cores
from jaxrefine.refine.sharding import Device

log = logging.getLogger("jaxrefine")


def use_cpu_cores() -> None:
    """Make one CPU device of each core, before JAX looks for devices.

    On a single device much of a search uses one core only. A number set by the user, in
    `JAX_NUM_CPU_DEVICES` or `XLA_FLAGS`, is respected; and nothing changes if JAX has
    already looked for devices, as in a notebook.
    """
    forced = "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", "")
    # JAX defines its settings at run time.
    already = jax.config.jax_num_cpu_devices  # pyright: ignore[reportAttributeAccessIssue]
    if forced or already > 0:
        return
    try:
        jax.config.update("jax_num_cpu_devices", usable_cores())
    except RuntimeError:
        log.debug("JAX is already in use: the number of its CPU devices is unchanged")


@contextmanager
def float32_only() -> Iterator[None]:
    """Compute in float32; `JAX_ENABLE_X64` is suspended in this context."""
    # JAX defines its settings at run time.
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
    """Free memory of a device; for a CPU, that of the machine, which its devices share."""
    if device.platform == "cpu":
        return min(psutil.virtual_memory().available, memory_left_bytes())
    stats = device.memory_stats()
    if not stats or "bytes_limit" not in stats:
        return math.inf
    return stats["bytes_limit"] - stats["bytes_in_use"]
