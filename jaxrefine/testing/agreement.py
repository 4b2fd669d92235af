"""Agreement of a score's methods with each other: products, power, matched filter."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from jaxrefine.data import Particles, SearchGrid, Template
from jaxrefine.physics.rotations import rotation_vector_to_matrix
from jaxrefine.physics.slices import central_slice
from jaxrefine.refine.scoring import Score

# Of the grid that is scored, and which of them is no offset.
DEFOCI, _NO_OFFSET = (-200.0, 0.0, 150.0), 1
# Rounding errors of sums over thousands of pixels in float64, with constants in float32.
CLOSE = 1e-5


# On small arrays, compiling takes longer than all that optimised programs could save.
def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    options = {
        "xla_backend_optimization_level": 0,
        "xla_llvm_disable_expensive_passes": True,
    }
    # equinox passes it on to `jax.jit`, of which its types do not know.
    return eqx.filter_jit(function, compiler_options=options)  # pyright: ignore[reportCallIssue]


def small_grid(*pixel_sizes: float) -> SearchGrid:
    array = jnp.asarray
    return SearchGrid(
        rotation=array(np.eye(3)[None]),
        rotation_at_edge=array(np.zeros(1, bool)),
        defocus_angstrom=array(DEFOCI),
        pixel_size_angstrom=array(pixel_sizes),
    )


def relative(found: Any, expected: Any) -> float:
    size = float(np.max(np.abs(expected)))
    return float(np.max(np.abs(np.asarray(found) - expected))) / max(size, 1e-30)


def all_corners(score: Score) -> Int[Array, "p 2"]:
    places = np.moveaxis(np.indices(score.positions), 0, -1).reshape(-1, 2)
    return jnp.asarray(places, jnp.int32)


class _Scored(eqx.Module):
    """A particle's correlations by each of a score's methods."""

    exact: Any
    norms: Any
    by_power: Any
    products: Any
    of_filter: Any
    norm_of_filter: Any
    kernel: Any


def agreement(
    score: Score, particle: Particles, template: Template
) -> list[tuple[list[str], dict[str, float]]]:
    """Compare `columns` times slices, and `matched_filter`, with `correlate`."""
    corners = all_corners(score)

    @compiled
    def scored(particle: Particles, template: Template, grid: SearchGrid) -> _Scored:
        pose, start = particle.alignment.rotation, particle.alignment.pixel_size_angstrom
        prepared = score.prepare(particle, grid)
        exact = score.correlate(prepared, template, pose)
        norms = score.norms(prepared, template, pose)
        scales, curvature = score.scale(particle, grid), score.curvature(particle)
        weights = score.power_weights(prepared)

        def one(index: Any) -> Any:
            m, l = jnp.divmod(index, len(DEFOCI))
            size = start + grid.pixel_size_angstrom[m]
            central = central_slice(template, pose, scales[m], curvature)
            if curvature is not None:
                other = central_slice(template, pose, scales[m], -curvature)
                central = jnp.stack([central, other])
            power = jnp.sum(weights[m, l] * jnp.abs(central) ** 2)
            columns = score.columns(particle, size, grid.defocus_angstrom[l], corners)
            pairs = central.real * columns.real + central.imag * columns.imag
            product = jnp.sum(pairs, axis=tuple(range(1, pairs.ndim)))
            return product.reshape(score.positions) / norms[m, l], jnp.sqrt(power)

        products, by_power = jax.lax.map(one, jnp.arange(norms.size))
        products, by_power = products.reshape(exact.shape), by_power.reshape(norms.shape)
        first = start + grid.pixel_size_angstrom[0]
        rfft, norm = score.matched_filter(particle, template, first)
        kernel = jnp.fft.irfft2(rfft, s=score.padded_box)
        of_filter = jnp.sum(kernel * particle.image) / norm
        return _Scored(exact, norms, by_power, products, of_filter, norm, kernel / norm)

    def on_host(
        particle: Particles, *pixel_sizes: float, template: Template = template
    ) -> _Scored:
        grid = small_grid(*pixel_sizes)
        return jax.tree.map(np.asarray, scored(particle, template, grid))

    turn = rotation_vector_to_matrix(np.asarray([9.0, -5.0, 14.0]))
    alignment = particle.alignment
    elsewhere = eqx.tree_at(
        lambda p: (p.alignment.rotation, p.alignment.defocus_angstrom),
        particle,
        (
            jnp.asarray(np.asarray(alignment.rotation) @ turn),
            jnp.asarray(np.asarray(alignment.defocus_angstrom) - 300.0),
        ),
    )
    other_image = jnp.asarray(2 * np.asarray(particle.image) + 1)
    blank = eqx.tree_at(lambda p: p.image, particle, other_image)
    here, there = on_host(particle, 0.0, 0.02), on_host(elsewhere, 0.02, 0.0)
    of_blurred = on_host(particle, 0.0, 0.02, template=_blurred(template))
    return [
        _product(here),
        _power(here, of_blurred),
        _filter(
            score,
            {
                "at its alignment": here,
                "at another pose, defocus and pixel size": there,
            },
            relative(on_host(blank, 0.0, 0.02).kernel, here.kernel),
        ),
    ]


def _product(found: _Scored) -> tuple[list[str], dict[str, float]]:
    off = relative(found.products, found.exact)
    if off <= CLOSE:
        return [], {"product": off}
    worst = np.argmax(np.abs(found.products - found.exact))
    m, l, y, x = np.unravel_index(worst, found.exact.shape)
    return [
        f"columns: its product with the central slice, over norms, is "
        f"{float(found.products[m, l, y, x]):.6g} at pixel size {m}, defocus {l}, position "
        f"({y}, {x}), where correlate gives {float(found.exact[m, l, y, x]):.6g}; expected "
        "the same: the search would look at the wrong orientations"
    ], {"product": off}


# For a template of 16 px, whose CTF is wider than its particle; ours reach 0.18.
_POWER_TOLERANCE = 0.3


def _power(here: _Scored, of_blurred: _Scored) -> tuple[list[str], dict[str, float]]:
    """Compare the ratio of norms to weighted power for two spectra of a template."""
    ratios = [float(np.mean(one.norms / one.by_power)) for one in (here, of_blurred)]
    off = abs(ratios[0] / ratios[1] - 1)
    if off <= _POWER_TOLERANCE:
        return [], {"power": off}
    return [
        f"power_weights: norms are {ratios[0]:.6g} times the root of the weighted power, "
        f"and {ratios[1]:.6g} times for a blurred template; expected the same within "
        f"{_POWER_TOLERANCE:.0%}: the search would rank orientations by wrong norms"
    ], {"power": off}


def _blurred(template: Template) -> Template:
    """The template without its finest detail: half the amplitude at 10 px."""
    depth, _, width = template.real.shape
    axis = (np.arange(depth) - depth // 2) / depth
    k2 = axis[:, None, None] ** 2 + axis[:, None] ** 2 + (np.arange(width) / depth) ** 2
    return jax.tree.map(lambda part: part * np.exp(-70 * k2), template)


def _filter(
    score: Score, found: dict[str, _Scored], of_image: float
) -> tuple[list[str], dict[str, float]]:
    """Check the matched filter here and elsewhere, and that it does not use the image."""
    y, x = score.margin
    errors, worst = [], {"matched_filter": 0.0, "norms": 0.0}
    for where, one in found.items():
        exact, norm = one.exact[0, _NO_OFFSET, y, x], one.norms[0, _NO_OFFSET]
        off = abs(float(one.of_filter - exact)) / max(abs(float(exact)), 1.0)
        worst["matched_filter"] = max(worst["matched_filter"], off)
        if not off <= CLOSE:
            errors.append(
                f"matched_filter: {where} its product with the image, over the norm, is "
                f"{float(one.of_filter):.6g}, where correlate gives {float(exact):.6g}; "
                "expected the same: the polish would climb another score than was searched"
            )
        off = relative(one.norm_of_filter, norm)
        worst["norms"] = max(worst["norms"], off)
        if not off <= CLOSE:
            errors.append(
                f"norms: {where} {float(norm):.6g}, where matched_filter has "
                f"{float(one.norm_of_filter):.6g}; expected the same"
            )
    if not of_image <= CLOSE:
        errors.append("matched_filter: depends on the particle's image; expected not to")
    return errors, worst
