"""Selection of devices, and the distribution of a search over them."""

import os
from collections.abc import Sequence
from typing import TypeAlias, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jaxrefine.data import InputError

_Tree = TypeVar("_Tree")

PARTICLES, ORIENTATIONS = "particles", "orientations"
# jaxlib's compiled part has no types, and type checkers do not recognise this as a class.
Device: TypeAlias = jax.Device  # pyright: ignore[reportInvalidTypeForm]


def select_devices(wanted: str | int | Sequence[int | str]) -> list[Device]:
    """Select devices of this process, as named in the configuration.

    Args:
        wanted: "auto": all accelerators, or the CPU if there are none. "all": all
            accelerators. "cpu": the CPU (all its simulated devices). An index, "cuda:N",
            "gpu:N", or a list of these: the accelerators with these numbers.

    Raises:
        InputError: A device does not exist; the message lists those that do, and says how
            to use the CPU.
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
    """This process's devices; raises an `InputError` if JAX cannot start the backend."""
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
    """Arrange devices in rows; each row searches its own particles.

    The devices of one row share the orientations of each particle.

    Args:
        devices: From `jax.devices()`, for example.
        most_particles: Number of particles that are refined together. If it is smaller than
            the number of devices, orientations are split as well.

    Returns:
        A mesh with the axes "particles" and "orientations" of type Auto. (Axes of type
        Explicit, the default of `jax.make_mesh`, are not accepted.)

    Raises:
        InputError: There are no devices.
    """
    count = len(devices)
    if not count:
        raise InputError("devices: an empty list; expected jax.devices(), or some of them")
    most = count if most_particles is None else max(most_particles, 1)
    rows = max(n for n in range(1, count + 1) if count % n == 0 and n <= most)
    return jax.make_mesh(
        (rows, count // rows),
        (PARTICLES, ORIENTATIONS),
        axis_types=(AxisType.Auto,) * 2,
        devices=list(devices),
    )


def replicate(tree: _Tree, mesh: Mesh) -> _Tree:
    """Put a full copy of every array on each device of the mesh."""
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec()))


def split_over(tree: _Tree, mesh: Mesh | None) -> _Tree:
    """Put the batch of every array on the rows of the mesh.

    A program is compiled again for arrays that lie elsewhere, such as on the host.
    """
    if mesh is None:
        return jax.tree.map(jnp.asarray, tree)
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec(PARTICLES)))


def filled_up(tree: _Tree, count: int, mesh: Mesh | None, at_once: int = 1) -> _Tree:
    """Pad a batch of `count` by repeating its last element.

    The result has a length that the rows of the mesh, times `at_once`, divide.
    """
    rows = 1 if mesh is None else mesh.shape[PARTICLES]
    missing = -count % (rows * at_once)
    if not missing:
        return tree
    number = np.minimum(np.arange(count + missing), count - 1)
    return jax.tree.map(lambda leaf: leaf[number], tree)
