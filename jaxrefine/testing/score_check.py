"""Checks of a score: norm, product form, matched filter, gradient."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from jaxrefine.data import Offsets, Particles, SearchGrid, Template
from jaxrefine.physics.rotations import rotation_vector_to_matrix
from jaxrefine.physics.slices import central_slice
from jaxrefine.refine.arguments import check_score as check_is_score
from jaxrefine.refine.differentiable import feature, z_score
from jaxrefine.refine.scoring import Score
from jaxrefine.testing.random_data import random_particle

# Half steps of finite differences, in the unit of each offset; and offsets that change z by
# about as much as a standard error.
_STEPS: dict[str, float] = {
    "rotation_deg": 1e-6,
    "shift_px": 1e-5,
    "defocus_angstrom": 1e-2,
    "astigmatism_deg": 1e-4,
    "pixel_size_angstrom": 1e-7,
    "phase_shift_deg": 1e-4,
    "spherical_aberration_mm": 1e-4,
    "amplitude_contrast": 1e-5,
    "b_factor_angstrom2": 1e-3,
}
_SIZES: dict[str, float] = {
    "rotation_deg": 1.0,
    "shift_px": 0.3,
    "defocus_angstrom": 50.0,
    "astigmatism_deg": 5.0,
    "pixel_size_angstrom": 0.01,
    "phase_shift_deg": 3.0,
    "spherical_aberration_mm": 0.1,
    "amplitude_contrast": 0.01,
    "b_factor_angstrom2": 10.0,
}

# Of the grid that is scored, and which of them is no offset.
_DEFOCI, _NO_OFFSET = (-200.0, 0.0, 150.0), 1


# On small arrays, compiling takes longer than all that optimised programs could save.
def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    options = {
        "xla_backend_optimization_level": 0,
        "xla_llvm_disable_expensive_passes": True,
    }
    # equinox passes it on to `jax.jit`, of which its types do not know.
    return eqx.filter_jit(function, compiler_options=options)  # pyright: ignore[reportCallIssue]


class ScoreError(AssertionError):
    """A score violates what search and polish require; one line for each reason."""


def check_score(
    score: Score,
    *,
    defocus_angstrom: tuple[float, float] = (2600.0, 2300.0),
    pixel_size_angstrom: float = 1.5,
    seed: int = 0,
    tolerance: float = 0.05,
) -> dict[str, float]:
    """Check a score's norm, gradient and product form on random data, in float64.

    The checks are: each method returns the right shapes; the correlation of white noise has
    variance 1 (`tolerance`); `norms` is the norm by which `correlate` divides; `columns`
    times the central slice, divided by the norm, equals `correlate` at several pixel sizes,
    defocus values and positions, and is linear in the image; `matched_filter` equals
    `correlate` at the particle's own alignment, without using its image; the gradient of z
    agrees with finite differences in every field of `Offsets.zeros()`; and all methods work
    under `jax.vmap`. Keep box and side small: 40 and 24 px take about ten seconds.

    Args:
        score: The score to check.
        defocus_angstrom: (u, v) of the random particle, within the range of the score.
        pixel_size_angstrom: Pixel size of image and template.
        seed: Seed of all random data.
        tolerance: Largest relative difference between the length of the matched filter and
            its norm. A norm that includes signal beyond the padded box is slightly larger.

    Returns:
        The measured values by name: deviations, and the length of the filter.

    Raises:
        ScoreError: With all checks that fail, each with the value found and expected.
        InputError: `score` is not an instance of `Score`.
    """
    check_is_score(score)
    with jax.enable_x64(True):
        errors, found = _measure(
            score, defocus_angstrom, pixel_size_angstrom, seed, tolerance
        )
    if errors:
        raise ScoreError(
            f"{type(score).__name__} does not do what search and polish rely on:\n"
            + "\n".join(f"- {error}" for error in errors)
        )
    return found


def _measure(
    score: Score,
    defocus_angstrom: tuple[float, float],
    pixel_size_angstrom: float,
    seed: int,
    tolerance: float,
) -> tuple[list[str], dict[str, float]]:
    particle, template = random_particle(
        score,
        defocus_angstrom=defocus_angstrom,
        pixel_size_angstrom=pixel_size_angstrom,
        seed=seed,
    )
    errors = _shape_errors(score, particle, template)
    if errors:  # the other checks would fail for the same reason
        return errors, {}
    found: dict[str, float] = {}
    for more, measured in (
        _norm(score, particle, template, tolerance),
        _linearity(score, particle),
        *_agreement(score, particle, template),
        _slopes(score, particle, template),
    ):
        errors += more
        found |= measured
    return errors, found


def _grid(*pixel_sizes: float) -> SearchGrid:
    array = jnp.asarray
    return SearchGrid(
        rotation=array(np.eye(3)[None]),
        rotation_at_edge=array(np.zeros(1, bool)),
        defocus_angstrom=array(_DEFOCI),
        pixel_size_angstrom=array(pixel_sizes),
    )


def _shape_errors(score: Score, particle: Particles, template: Template) -> list[str]:
    """Check the result of each method, mapped over two particles."""
    side, rotation, grid = score.side, particle.alignment.rotation, _grid(0.0, 0.02)
    half = (score.padded_box[0], score.padded_box[1] // 2 + 1)
    corners = _corners(score)[:4]
    pixel_size = particle.alignment.pixel_size_angstrom
    slices = () if score.curvature(particle) is None else (2,)

    def prepared(particle: Particles) -> Any:
        return score.prepare(particle, grid)

    calls: dict[str, tuple[Callable[[Particles], Any], Any]] = {
        "correlate": (
            lambda p: score.correlate(prepared(p), template, rotation),
            (2, 3, *score.positions),
        ),
        "norms": (lambda p: score.norms(prepared(p), template, rotation), (2, 3)),
        "columns": (
            lambda p: score.columns(p, pixel_size, 0.0, corners),
            (4, *slices, side, side // 2 + 1),
        ),
        "matched_filter": (
            lambda p: score.matched_filter(p, template, pixel_size),
            (half, ()),
        ),
    }
    several = jax.tree.map(lambda x: np.stack([x, x]), particle)
    errors = []
    for name, (call, expected) in calls.items():
        try:
            given = eqx.filter_eval_shape(jax.vmap(call), several)
        except Exception as error:  # custom code can raise anything
            reason = (str(error) or type(error).__name__).splitlines()[0]
            errors.append(
                f"{name}: {type(error).__name__}: {reason} (mapped over particles with "
                "jax.vmap)"
            )
            continue
        shapes = jax.tree.map(lambda leaf: tuple(leaf.shape[1:]), given)
        if shapes != expected:
            errors.append(f"{name}: returns shape {shapes}; expected {expected}")
    return errors


def _relative(found: Any, expected: Any) -> float:
    size = float(np.max(np.abs(expected)))
    return float(np.max(np.abs(np.asarray(found) - expected))) / max(size, 1e-30)


# Rounding errors of sums over thousands of pixels in float64, with constants in float32.
_CLOSE = 1e-5


def _norm(
    score: Score, particle: Particles, template: Template, tolerance: float
) -> tuple[list[str], dict[str, float]]:
    @_compiled
    def length_and_norm(particle: Particles, template: Template) -> Any:
        values, norm = feature(Offsets.zeros(), particle, template, score)
        return jnp.sqrt(jnp.sum(jnp.abs(values) ** 2)), norm

    length, norm = map(float, length_and_norm(particle, template))
    errors = []
    if not norm > 0:
        errors.append(f"matched_filter: a norm of {norm:g}; expected a positive number")
    elif not abs(length / norm - 1) <= tolerance:
        errors.append(
            f"matched_filter: white noise of variance 1 correlates with a standard "
            f"deviation of {length / norm:.4g} (filter's length {length:.4g}, norm "
            f"{norm:.4g}); expected 1 within {tolerance:g}: z-scores would be off by that"
        )
    return errors, {"length_over_norm": length / norm if norm else np.nan}


def _linearity(score: Score, particle: Particles) -> tuple[list[str], dict[str, float]]:
    """Check that `columns` is linear in the image."""
    corners = _corners(score)[:3]
    image = np.asarray(particle.image)
    other = np.roll(image, (3, 5), axis=(0, 1)) ** 2

    @_compiled
    def columns(image: Any) -> Any:
        changed = eqx.tree_at(lambda p: p.image, particle, image)
        size = particle.alignment.pixel_size_angstrom
        return score.columns(changed, size, 0.0, corners)

    first, second, both = (
        np.asarray(columns(i)) for i in (image, other, image + 2 * other)
    )
    bent = _relative(both, first + 2 * second)
    if bent <= _CLOSE:
        return [], {"linearity": bent}
    return [
        f"columns: not linear in the particle's image (off by {bent:.2g} of its size)"
    ], {"linearity": bent}


def _corners(score: Score) -> Int[Array, "p 2"]:
    corners = np.moveaxis(np.indices(score.positions), 0, -1).reshape(-1, 2)
    return jnp.asarray(corners, jnp.int32)


class _Scored(eqx.Module):
    """A particle's correlations by each of a score's methods."""

    exact: Any
    norms: Any
    products: Any
    of_filter: Any
    norm_of_filter: Any
    kernel: Any


def _agreement(
    score: Score, particle: Particles, template: Template
) -> list[tuple[list[str], dict[str, float]]]:
    """Compare `columns` times slices, and `matched_filter`, with `correlate`."""
    corners = _corners(score)

    @_compiled
    def scored(particle: Particles, template: Template, grid: SearchGrid) -> _Scored:
        pose, start = particle.alignment.rotation, particle.alignment.pixel_size_angstrom
        prepared = score.prepare(particle, grid)
        exact = score.correlate(prepared, template, pose)
        norms = score.norms(prepared, template, pose)
        scales, curvature = score.scale(particle, grid), score.curvature(particle)

        def one(index: Any) -> Any:
            m, l = jnp.divmod(index, len(_DEFOCI))
            size = start + grid.pixel_size_angstrom[m]
            central = central_slice(template, pose, scales[m], curvature)
            if curvature is not None:
                other = central_slice(template, pose, scales[m], -curvature)
                central = jnp.stack([central, other])
            columns = score.columns(particle, size, grid.defocus_angstrom[l], corners)
            pairs = central.real * columns.real + central.imag * columns.imag
            product = jnp.sum(pairs, axis=tuple(range(1, pairs.ndim)))
            return product.reshape(score.positions) / norms[m, l]

        products = jax.lax.map(one, jnp.arange(norms.size)).reshape(exact.shape)
        first = start + grid.pixel_size_angstrom[0]
        rfft, norm = score.matched_filter(particle, template, first)
        kernel = jnp.fft.irfft2(rfft, s=score.padded_box)
        of_filter = jnp.sum(kernel * particle.image) / norm
        return _Scored(exact, norms, products, of_filter, norm, kernel / norm)

    def on_host(particle: Particles, *pixel_sizes: float) -> _Scored:
        return jax.tree.map(np.asarray, scored(particle, template, _grid(*pixel_sizes)))

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
    here = on_host(particle, 0.0, 0.02)
    return [
        _product(here),
        _filter(
            score,
            {
                "at its alignment": here,
                "at another pose, defocus and pixel size": on_host(elsewhere, 0.02, 0.0),
            },
            _relative(on_host(blank, 0.0, 0.02).kernel, here.kernel),
        ),
    ]


def _product(found: _Scored) -> tuple[list[str], dict[str, float]]:
    off = _relative(found.products, found.exact)
    if off <= _CLOSE:
        return [], {"product": off}
    worst = np.argmax(np.abs(found.products - found.exact))
    m, l, y, x = np.unravel_index(worst, found.exact.shape)
    return [
        f"columns: its product with the central slice, over norms, is "
        f"{float(found.products[m, l, y, x]):.6g} at pixel size {m}, defocus {l}, position "
        f"({y}, {x}), where correlate gives {float(found.exact[m, l, y, x]):.6g}; expected "
        "the same: the search would look at the wrong orientations"
    ], {"product": off}


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
        if not off <= _CLOSE:
            errors.append(
                f"matched_filter: {where} its product with the image, over the norm, is "
                f"{float(one.of_filter):.6g}, where correlate gives {float(exact):.6g}; "
                "expected the same: the polish would climb another score than was searched"
            )
        off = _relative(one.norm_of_filter, norm)
        worst["norms"] = max(worst["norms"], off)
        if not off <= _CLOSE:
            errors.append(
                f"norms: {where} {float(norm):.6g}, where matched_filter has "
                f"{float(one.norm_of_filter):.6g}; expected the same"
            )
    if not of_image <= _CLOSE:
        errors.append("matched_filter: depends on the particle's image; expected not to")
    return errors, worst


def _slopes(
    score: Score, particle: Particles, template: Template
) -> tuple[list[str], dict[str, float]]:
    """Compare the gradient of z with central differences, at offsets away from 0."""
    rng = np.random.default_rng(1)
    zeros = Offsets.zeros()
    at = {
        name: size * rng.uniform(0.3, 1, np.shape(getattr(zeros, name)))
        for name, size in _SIZES.items()
    }
    # One program for both: nearly all of the time goes into compiling.
    both = _compiled(jax.value_and_grad(lambda o, p, t: z_score(o, p, t, score)))

    def z_and_slopes(**changed: Any) -> tuple[Any, Any]:
        offsets = Offsets(**jax.tree.map(jnp.asarray, at | changed))
        return both(offsets, particle, template)

    _, slope = z_and_slopes()
    errors, worst = [], 0.0
    for name, step in _STEPS.items():
        way = rng.choice([-1.0, 1.0], np.shape(at[name]))

        def moved(length: float, name=name, way=way) -> float:
            return float(z_and_slopes(**{name: at[name] + length * way})[0])

        numerical = (moved(step) - moved(-step)) / (2 * step)
        ours = float(np.sum(np.asarray(getattr(slope, name)) * way))
        # In what a step of `_SIZES` changes: of z, rounded at 1e-13, nothing is left.
        off = abs(ours - numerical) * _SIZES[name]
        close = 1e-4 * abs(numerical) * _SIZES[name] + 1e-7
        worst = max(worst, off)
        if not off <= close:
            errors.append(
                f"gradient: dz/d({name}) is {ours:.6g} by jax.grad and {numerical:.6g} by "
                "finite differences; expected the same"
            )
    return errors, {"gradient": worst}
