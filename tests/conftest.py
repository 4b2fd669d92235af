"""Settings of the whole test run."""

import jax
import numpy as np
import pytest

# Four devices, so that every test of the search can be run on several.
jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 4)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--seed", type=int, default=0, help="seed of the random worlds")


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> np.random.Generator:
    """Random numbers that repeat with `--seed`."""
    return np.random.default_rng(request.config.getoption("--seed"))
