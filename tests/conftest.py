"""Settings of the whole test run."""

import os
import tempfile
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxrefine.app.demo.dataset import make_demo

# Four devices, so that every test of the search can be run on several.
jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 4)

# The program keeps what it compiles: here, and in the programs that tests start, for the
# time of the run and not in the user's own cache.
_compiled = tempfile.TemporaryDirectory(prefix="jaxrefine-tests-")
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", _compiled.name)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--seed", type=int, default=0, help="seed of the random worlds")


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> np.random.Generator:
    """Random numbers that repeat with `--seed`."""
    return np.random.default_rng(request.config.getoption("--seed"))


@pytest.fixture(scope="session")
def demo_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's data set, made once; tests leave its files as they are."""
    folder = tmp_path_factory.mktemp("demo") / "made"
    make_demo(folder)
    return folder
