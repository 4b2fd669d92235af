"""Selection of devices, and the message if they do not exist."""

from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrefine.data import InputError
from jaxrefine.refine import sharding


def accelerator(number):
    """A substitute for a GPU that passes type checks."""
    device = mock.Mock(spec=jax.Device)
    device.configure_mock(id=number, platform="gpu", device_kind="Imaginary X100")
    return device


@pytest.fixture
def two_gpus(monkeypatch):
    cpus, gpus = jax.devices("cpu"), [accelerator(0), accelerator(1)]
    monkeypatch.setattr(
        jax, "local_devices", lambda backend=None: cpus if backend == "cpu" else gpus
    )


# --- without accelerators --------------------------------------------------------------


@pytest.mark.parametrize("wanted", ["cpu", "auto", ["cpu"], ("cpu",)])
def test_the_cpu(wanted):
    devices = sharding.select_devices(wanted)
    assert devices == jax.devices("cpu") and len(devices) == 4


@pytest.mark.parametrize(
    "wanted",
    [0, 1, "0", "all", "cuda:0", "gpu:1", [0], [0, 1], ["cuda:0", 1], "mps", "cuda"],
)
def test_an_absent_device(wanted):
    with pytest.raises(InputError) as error:
        sharding.select_devices(wanted)
    names = wanted if isinstance(wanted, list) else [wanted]
    assert len(error.value.errors) == len(names)  # every one of them, at once
    for name, message in zip(names, error.value.errors, strict=True):
        assert f"gpu_ids: {name}:" in message
        assert "it sees: none" in message
        assert "`gpu_ids: cpu`" in message and "jaxrefine[cuda" in message


# --- with two --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wanted", "numbers"),
    [
        ("auto", [0, 1]),
        ("all", [0, 1]),
        (0, [0]),
        (1, [1]),
        ("1", [1]),
        ("cuda:1", [1]),
        ("gpu:0", [0]),
        ("rocm:1", [1]),
        ([1, 0], [1, 0]),
        (["cuda:1", 0], [1, 0]),
        ((1,), [1]),
    ],
)
def test_accelerators(two_gpus, wanted, numbers):
    assert [device.id for device in sharding.select_devices(wanted)] == numbers


def test_the_cpu_in_spite_of_accelerators(two_gpus):
    assert all(d.platform == "cpu" for d in sharding.select_devices("cpu"))


@pytest.mark.parametrize(
    "wanted", [2, -1, "cuda:2", "tpu:0", "cuda:", "cuda:x", [0, 2], ""]
)
def test_what_is_there_is_named(two_gpus, wanted):
    with pytest.raises(InputError) as error:
        sharding.select_devices(wanted)
    (message,) = error.value.errors
    assert "0 (Imaginary X100), 1 (Imaginary X100)" in message


@pytest.mark.parametrize("wanted", [[0, 0], [1, "cuda:1"], ["gpu:0", "0"]])
def test_a_device_named_twice(two_gpus, wanted):
    with pytest.raises(InputError, match="twice"):
        sharding.select_devices(wanted)


@pytest.mark.parametrize("wanted", [[], ()])
def test_no_device_at_all(two_gpus, wanted):
    with pytest.raises(InputError, match="gpu_ids"):
        sharding.select_devices(wanted)


# --- meshes ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("devices", "most_particles", "shape"),
    [
        (1, None, (1, 1)),
        (3, None, (3, 1)),
        (4, None, (4, 1)),
        (4, 100, (4, 1)),
        (4, 4, (4, 1)),
        (4, 3, (2, 2)),  # rows of one length: two devices for each of two particles
        (4, 2, (2, 2)),
        (4, 1, (1, 4)),
        (3, 2, (1, 3)),
        (4, 0, (1, 4)),
    ],
)
def test_mesh(devices, most_particles, shape):
    devices = jax.devices()[:devices]
    mesh = sharding.device_mesh(devices, most_particles)
    assert mesh.axis_names == (sharding.PARTICLES, sharding.ORIENTATIONS)
    assert mesh.devices.shape == shape
    assert list(mesh.devices.ravel()) == devices


def test_replicas_are_whole():
    mesh = sharding.device_mesh(jax.devices()[1:4])
    tree = sharding.replicate({"a": jnp.arange(5.0), "b": jnp.eye(2)}, mesh)
    assert len(tree["a"].addressable_shards) == 3
    for shard in tree["a"].addressable_shards:
        np.testing.assert_array_equal(shard.data, np.arange(5.0))
    assert tree["b"].sharding.is_fully_replicated
