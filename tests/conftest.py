"""Settings of the whole test run."""

import gc
import logging
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
import pytest
from filelock import FileLock

from jaxrefine.app.demo.dataset import make_demo
from tests import subprocess_runs

# Four devices, so that every test of the search can be run on several.
jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 4)

MOST_MEMORY_MAPS = 20_000


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--seed", type=int, default=0, help="seed of the random worlds")


def pytest_configure(config: pytest.Config) -> None:
    _cache_compiled_programs(config)
    _compile_in_less_time()
    _leave_cores_to_other_workers()
    # JAX traces with many small objects, and a worker keeps millions.
    gc.set_threshold(200_000, 20, 20)


def pytest_xdist_auto_num_workers() -> int:
    """One more than there are cores: a worker often waits for programs that it starts."""
    return (os.cpu_count() or 1) + 1


def pytest_itemcollected(item: pytest.Item) -> None:
    """Whoever leaves out slow tests leaves out the nightly ones as well."""
    if item.get_closest_marker("nightly"):
        item.add_marker("slow")


def _cache_compiled_programs(config: pytest.Config) -> None:
    """One folder of compiled programs, of all workers and of the programs they start.

    It is in pytest's cache, not the user's, and serves the next run too: a program's key is
    a hash of the program, the compiler and the kind of processor. Without that cache
    (`-p no:cacheprovider`) it is a temporary one.
    """
    folder = os.environ.get("JAX_COMPILATION_CACHE_DIR")
    if folder is None and hasattr(config, "cache"):
        folder = str(config.cache.mkdir("compiled"))
    elif folder is None:
        temporary = tempfile.TemporaryDirectory(prefix="jaxrefine-tests-")
        config.add_cleanup(temporary.cleanup)
        folder = temporary.name
    os.environ["JAX_COMPILATION_CACHE_DIR"] = folder  # workers are started after this
    jax.config.update("jax_compilation_cache_dir", folder)
    # Also what compiles in no time: a test run has some thousands of small programs.
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


def _compile_in_less_time() -> None:
    """Much less time to compile, for programs that then run more slowly.

    Most of the tests' time would be compilation. `subprocess_runs.environment_of_a_user`
    undoes it for a process, and `compiled_to_run_fast` half of it for a module.
    """
    # XLA reads its flags when it is first used.
    os.environ.update(subprocess_runs.COMPILED_IN_LESS_TIME)
    jax.config.update("jax_disable_most_optimizations", True)


def _leave_cores_to_other_workers() -> None:
    """Threads of numpy's matrix products spin while they wait for a core."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # workers are started after this


@pytest.fixture(scope="module")
def compiled_to_run_fast() -> Iterator[None]:
    """For a module that computes for longer than it compiles."""
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", True)


@pytest.fixture(scope="module", autouse=True)
def _memory_maps_left() -> Iterator[None]:
    """Drop compiled programs before they use up the memory maps of the process.

    Each takes about a dozen, and Linux grants 65,530 (vm.max_map_count): a worker that
    holds some thousands of programs ends with a segmentation fault in the compiler.
    """
    yield
    maps = Path("/proc/self/maps")
    if maps.exists() and len(maps.read_bytes().splitlines()) > MOST_MEMORY_MAPS:
        jax.clear_caches()
        gc.collect()


@pytest.fixture(autouse=True)
def _logger_as_at_the_start() -> None:
    """A program that an earlier test has run in this process leaves its handlers."""
    logger = logging.getLogger("jaxrefine")
    for handler in logger.handlers:
        handler.close()
    logger.handlers.clear()
    logger.setLevel(logging.NOTSET)
    logger.propagate = True


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> np.random.Generator:
    """Random numbers that repeat with `--seed`."""
    return np.random.default_rng(request.config.getoption("--seed"))


@pytest.fixture(scope="session")
def demo_folder(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """The demo's data set, made once for all workers; tests leave its files as they are."""
    base = tmp_path_factory.getbasetemp()
    folder = (base if worker_id == "master" else base.parent) / "demo"
    with FileLock(folder.with_suffix(".lock")):
        if not folder.exists():
            unfinished = folder.with_suffix(".unfinished")
            make_demo(unfinished)
            unfinished.rename(folder)
    return folder
