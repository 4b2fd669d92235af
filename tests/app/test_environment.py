"""The program in unusual environments: threads, notebooks, JAX's own settings."""

import subprocess
import sys
import threading

import jax
import pytest

from jaxrefine.app.cli import main
from jaxrefine.app.demo import dataset
from jaxrefine.app.run.devices import float32_only
from tests.reference import ROOT, reference_set
from tests.subprocess_runs import environment


@pytest.mark.slow
def test_jax_platforms_without_its_device(tmp_path):
    folder = reference_set("basic", tmp_path)
    done = subprocess.run(
        [sys.executable, "-m", "jaxrefine", "plan", "refine.yaml", "--no-timing"],
        cwd=folder,
        env=environment() | {"JAX_PLATFORMS": "no_such_device"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: refine.yaml: JAX_PLATFORMS=no_such_device: JAX cannot")
    assert "set JAX_PLATFORMS=" in line and done.stdout == ""


def test_main_in_a_thread_after_jax(tmp_path, monkeypatch):
    """There are no signals, and JAX's devices cannot be changed."""
    monkeypatch.chdir(reference_set("basic", tmp_path))
    monkeypatch.setattr("jaxrefine.app.run.pipeline._refine_share", _enough)
    monkeypatch.setattr(jax.config, "update", _too_late)
    jax.devices()
    codes = []
    thread = threading.Thread(target=lambda: codes.append(main(["refine.yaml", "-q"])))
    thread.start()
    thread.join()
    assert codes == [130]


def _enough(*arguments):
    raise KeyboardInterrupt


def _too_late(name, value):
    if name == "jax_num_cpu_devices":
        raise RuntimeError(f"{name} should be set before backends are initialized")


def test_x64_is_set_aside():
    jax.config.update("jax_enable_x64", True)
    try:
        with float32_only():
            assert jax.numpy.zeros(1, float).dtype == "float32"
        assert jax.numpy.zeros(1, float).dtype == "float64"
    finally:
        jax.config.update("jax_enable_x64", False)


def test_a_demo_that_was_interrupted(tmp_path, monkeypatch):
    """It is known by its README, which is written first."""
    monkeypatch.setattr(dataset.sim, "potential_volume", _enough)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            dataset.make_demo(tmp_path / "demo")
    assert (tmp_path / "demo" / "README.md").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ["--log-file", "x.log", "plan", "none.yaml"],
        ["--log-file", "plan", "-q", "plan", "none.yaml", "--no-timing"],
        ["--output", "out.csv", "plan", "none.yaml"],
        ["--log-file", "x.log", "none.yaml"],
    ],
)
def test_options_with_a_value_before_the_command(tmp_path, monkeypatch, capsys, arguments):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    assert "none.yaml: no such file" in capsys.readouterr().err
    assert ROOT != tmp_path
