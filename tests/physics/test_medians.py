"""Medians without sorting."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxrefine.physics.medians import nanmedian


@pytest.mark.parametrize("count", [1, 2, 7, 1000])
@pytest.mark.parametrize("missing", [0.0, 0.3])
def test_it_is_the_median(count, missing):
    """To the last bit, of numbers of either sign, equal ones, and zeros."""
    rng = np.random.default_rng(count)
    for values in (
        rng.standard_normal(count),
        np.round(rng.standard_normal(count)),
        1e-30 * rng.standard_normal(count),
        -np.exp(20 * rng.standard_normal(count)),
    ):
        values = values.astype(np.float32)
        values[rng.uniform(size=count) < missing] = np.nan
        expected = np.nan if np.isnan(values).all() else np.nanmedian(values)
        # The mean of the two middle ones is rounded.
        np.testing.assert_allclose(nanmedian(jnp.asarray(values)), expected, rtol=1e-7)


def test_of_nothing_and_of_infinities():
    assert np.isnan(nanmedian(jnp.full((3, 2), jnp.nan)))
    inf = jnp.inf
    assert nanmedian(jnp.asarray([-inf, inf, inf])) == inf
    assert nanmedian(jnp.asarray([-inf, -inf, 1.0, jnp.nan])) == -inf
    assert nanmedian(jnp.asarray([inf, inf, -inf, 2.0])) == inf


def test_float64_is_read_as_float32():
    values = np.random.default_rng(0).standard_normal((30, 41))
    expected = np.median(values.astype(np.float32))
    np.testing.assert_allclose(nanmedian(jnp.asarray(values)), expected, rtol=1e-7)
