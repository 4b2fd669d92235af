"""Which devices run a search, and how it is split across them."""

import os
from collections.abc import Sequence
from typing import TypeAlias, TypeVar

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jaxrefine.data import InputError

_Tree = TypeVar("_Tree")

PARTICLES, ORIENTATIONS = "particles", "orientations"
# jaxlib's compiled part has no types, so that a checker does not know this for a class.
Device: TypeAlias = jax.Device  # pyright: ignore[reportInvalidTypeForm]


def select_devices(wanted: str | int | Sequence[int | str]) -> list[Device]:
    """Devices of this process, by the config's words.

    Args:
        wanted: "auto": every accelerator, else the CPU. "all": every accelerator.
            "cpu": the CPU (all its simulated devices). An index, or "cuda:N" or
            "gpu:N", or a list of these: those accelerators.

    Raises:
        InputError: If a device is not there; says what is, and how to use the CPU.
    """
    accelerators = [d for d in _local_devices() if d.platform != "cpu"]
    if wanted == "cpu":
        return _local_devices("cpu")
    if wanted in ("auto", "all") and accelerators:
        return accelerators
    if wanted == "auto":
        return _local_devices("cpu")
    names = (
        wanted if isinstance(wanted, Sequence) and not isinstance(wanted, str) else [wanted]
    )
    if list(names) == ["cpu"]:
        return _local_devices("cpu")
    if not names:
        raise InputError("computational_config.gpu_ids: an empty list names no device")
    chosen, errors = [], []
    for name in names:
        text = str(name)
        number = text.rpartition(":")[2]
        known_prefix = ":" not in text or text.partition(":")[0] in ("cuda", "gpu", "rocm")
        if known_prefix and number.isdigit() and int(number) < len(accelerators):
            chosen.append(accelerators[int(number)])
        else:
            errors.append(_absent(text, accelerators))
    if errors:
        raise InputError(errors)
    if len(set(chosen)) < len(chosen):
        raise InputError(f"computational_config.gpu_ids: {wanted}: a device is named twice")
    return chosen


def _local_devices(backend: str | None = None) -> list[Device]:
    """This process's devices; that JAX cannot start is for the user to mend."""
    try:
        return jax.local_devices(backend=backend)
    except RuntimeError as error:
        named = os.environ.get("JAX_PLATFORMS")
        reason = str(error).partition("\n")[0].rstrip(". ")
        if not named:
            raise InputError(f"JAX finds no devices: {reason}") from error
        also = f"{named},cpu" if backend == "cpu" else "cpu"
        raise InputError(
            f"JAX_PLATFORMS={named}: JAX cannot use it here: {reason}. Unset the variable, "
            f"or set JAX_PLATFORMS={also} to use the CPU"
        ) from error


def _absent(name: str, accelerators: list[Device]) -> str:
    there = (
        ", ".join(f"{i} ({d.device_kind})" for i, d in enumerate(accelerators)) or "none"
    )
    return (
        f"computational_config.gpu_ids: {name}: JAX sees no such accelerator (it sees: "
        f"{there}). Write `gpu_ids: cpu` to use the CPU, or install jaxrefine[cuda13] or "
        "jaxrefine[cuda12], by the driver."
    )


def device_mesh(devices: Sequence[Device], most_particles: int | None = None) -> Mesh:
    """Devices in rows for particles; the devices of a row share a particle's orientations.

    Args:
        devices: From `select_devices`.
        most_particles: How many particles there are at once; where fewer than devices,
            orientations are split too.

    Returns:
        A mesh with axes "particles" and "orientations". They are Auto: `jax.make_mesh`
        defaults to Explicit ones, which `shard_map` does not need.
    """
    count = len(devices)
    most = count if most_particles is None else max(most_particles, 1)
    rows = max(n for n in range(1, count + 1) if count % n == 0 and n <= most)
    return jax.make_mesh(
        (rows, count // rows),
        (PARTICLES, ORIENTATIONS),
        axis_types=(AxisType.Auto,) * 2,
        devices=list(devices),
    )


def replicate(tree: _Tree, mesh: Mesh) -> _Tree:
    """Put a whole copy of every array on each device of the mesh."""
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec()))


def filled_up(tree: _Tree, count: int, mesh: Mesh | None, at_once: int = 1) -> _Tree:
    """A batch of `count`, its last one repeated until the mesh's rows, each of which takes
    `at_once` at a time, divide it."""
    rows = 1 if mesh is None else mesh.shape[PARTICLES]
    missing = -count % (rows * at_once)
    if not missing:
        return tree
    number = np.minimum(np.arange(count + missing), count - 1)
    return jax.tree.map(lambda leaf: leaf[number], tree)
