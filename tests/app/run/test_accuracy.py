"""The warning of a fast search that disagrees with the exact scores."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrefine.app.run.accuracy import MAX_APPROXIMATION_ERROR, ApproximationMonitor
from jaxrefine.data import Alignment, Refined


def refined(*pairs):
    """A batch with these (z-score, approximation error) pairs."""
    z, error = jnp.asarray(pairs, jnp.float32).T
    n = len(z)
    alignment = Alignment(*(jnp.zeros((n, *s)) for s in ((3, 3), (2,), (2,), (), ())))
    index, status = jnp.zeros((n, 5), jnp.int32), jnp.zeros(n, jnp.int32)
    found = Refined(alignment, z, z, z, index, status, error)
    return jax.tree.map(np.asarray, found)


@pytest.fixture
def warned(caplog):
    """The warnings so far."""
    with caplog.at_level("WARNING", "jaxrefine"):
        yield lambda: [record.getMessage() for record in caplog.records]


def test_nothing_is_said_within_the_bound(warned):
    bound = MAX_APPROXIMATION_ERROR * np.array([1.0, 11.0, 6.0])
    errors = 0.99 * bound
    monitor = ApproximationMonitor()
    monitor.check(refined((0.0, errors[0]), (10.0, errors[1]), (-5.0, errors[2])))
    monitor.check(refined((np.nan, np.nan)))
    assert warned() == []


def test_the_worst_is_named_once(warned):
    monitor = ApproximationMonitor()
    monitor.check(refined((10.0, 0.001), (np.nan, np.nan), (10.0, 0.5), (9.0, 1.5)))
    monitor.check(refined((10.0, 9.0)))
    (said,) = warned()
    assert "differ by 1.5 from exact z-scores" in said and "(0.2 at z = 9.0)" in said
    assert "jaxrefine selftest" in said


def test_products_that_fail_altogether(warned):
    ApproximationMonitor().check(refined((10.0, 0.001), (10.0, np.inf)))
    (said,) = warned()
    assert "differ by inf" in said
