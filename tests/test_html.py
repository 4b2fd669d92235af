"""Representation of library objects in a notebook."""

import jax
import jax.numpy as jnp
import numpy as np

import jaxrefine as jr
from jaxrefine.data.html import html_table, span


def refined(n=3):
    zero = jnp.zeros(n)
    rotation, pair = jnp.broadcast_to(jnp.eye(3), (n, 3, 3)), jnp.zeros((n, 2))
    alignment = jr.Alignment(rotation, pair, pair, zero, zero)
    z = jnp.asarray([9.0, jnp.nan, 12.0][:n])
    status = jnp.asarray([0, 3, 0][:n])
    return jr.Refined(alignment, z, z, z, jnp.zeros((n, 5), int), status, zero)


def test_results_show_counts_and_ranges():
    shown = refined()._repr_html_()
    for words in ("2 converged, 1 box_outside", "mean 10.50, 9.00 … 12.00", "<td"):
        assert words in shown
    errors = jr.PoseErrors(
        *(jnp.full(shape, 0.25) for shape in ((3, 3), (3,), (3,), (3, 2), (3, 2), (3,)))
    )
    ones = jnp.ones(3, bool)
    expected, evaluations = jnp.full(3, 8.5), jnp.ones(3, int)
    covariance, optima = jnp.ones((3, 6, 6)), jnp.ones(3, int)
    polished = jr.Polished(
        refined(), errors, evaluations, ones, ~ones, expected, covariance, optima
    )
    shown = polished._repr_html_()
    for words in ("mean 8.50", "mean 0.25, 0.25 … 0.25°", "2 converged"):
        assert words in shown


def test_grid_and_template_show_their_extent():
    orientations, at_edge = jr.uniform_orientations(
        theta_coarse=2.0, theta_fine=1.0, psi_coarse=1.5, psi_fine=1.5
    )
    defocus = np.array([-40.0, 0, 40])
    grid = jr.local_grid((orientations, at_edge), defocus)
    shown = grid._repr_html_()
    assert "3, −40 … +40 Å" in shown and f"{len(orientations):,}" in shown
    template = jr.make_template(jnp.arange(512.0).reshape(8, 8, 8))
    assert "8 voxels" in template._repr_html_() and "trilinear" in template._repr_html_()


def test_inside_of_jit_they_show_their_kind():
    """Inside `jit` there are no values yet."""
    seen = []

    @jax.jit
    def look(some):
        seen.append(some._repr_html_())
        return some.z_score

    look(refined())
    assert seen[0].startswith("<pre>Refined(")


def test_words_are_words():
    assert html_table("<a>", {"<b>": "<script>"}).count("&lt;") == 3
    assert span([np.nan]) == "none"
