"""Checks of a score: norm, product form, matched filter, gradient."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from jaxrefine.data import Offsets, Particles, SearchGrid, Template
from jaxrefine.physics.rotations import rotation_vector_to_matrix
from jaxrefine.physics.slices import central_slice
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
    """
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
    for check in (_norm, _product, _filter, _slopes):
        more, measured = check(score, particle, template, tolerance)
        errors += more
        found |= measured
    return errors, found


def _grid() -> SearchGrid:
    return SearchGrid(
        rotation=jnp.eye(3)[None],
        rotation_at_edge=jnp.zeros(1, bool),
        defocus_angstrom=jnp.asarray([-200.0, 0.0, 150.0]),
        pixel_size_angstrom=jnp.asarray([0.0, 0.02]),
    )


def _shape_errors(score: Score, particle: Particles, template: Template) -> list[str]:
    """Check the result of each method for one particle, and under vmap for two."""
    side, rotation, grid = score.side, particle.alignment.rotation, _grid()
    half = (score.padded_box[0], score.padded_box[1] // 2 + 1)
    corners = jnp.zeros((4, 2), jnp.int32)
    pixel_size = particle.alignment.pixel_size_angstrom

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
            (4, side, side // 2 + 1),
        ),
        "matched_filter": (
            lambda p: score.matched_filter(p, template, pixel_size),
            (half, ()),
        ),
    }
    errors = []
    for name, (call, expected) in calls.items():
        for batch in ((), (2,)):
            several = jax.tree.map(lambda x: jnp.stack([x, x]), particle)
            try:
                given = (
                    eqx.filter_eval_shape(jax.vmap(call), several)
                    if batch
                    else eqx.filter_eval_shape(call, particle)
                )
            except Exception as error:  # custom code can raise anything
                how = " under jax.vmap" * bool(batch)
                reason = (str(error) or type(error).__name__).splitlines()[0]
                errors.append(f"{name}{how}: {type(error).__name__}: {reason}")
                break
            shapes = jax.tree.map(lambda leaf: tuple(leaf.shape), given)
            wanted = (
                tuple((*batch, *each) for each in expected)
                if isinstance(given, tuple)
                else (*batch, *expected)
            )
            if shapes != wanted:
                errors.append(f"{name}: returns shape {shapes}; expected {wanted}")
                break
    return errors


def _relative(found: Any, expected: Any) -> float:
    size = float(jnp.max(jnp.abs(jnp.asarray(expected))))
    return float(jnp.max(jnp.abs(jnp.asarray(found) - expected))) / max(size, 1e-30)


# Rounding errors of sums over thousands of pixels in float64, with constants in float32.
_CLOSE = 1e-5


def _norm(
    score: Score, particle: Particles, template: Template, tolerance: float
) -> tuple[list[str], dict[str, float]]:
    @eqx.filter_jit
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


def _product(
    score: Score, particle: Particles, template: Template, tolerance: float
) -> tuple[list[str], dict[str, float]]:
    """Compare `columns` times slices, divided by `norms`, with `correlate`."""
    grid, rotation = _grid(), particle.alignment.rotation
    corners = jnp.stack(jnp.indices(score.positions), axis=-1).reshape(-1, 2)
    other = jnp.roll(particle.image, (3, 5), axis=(0, 1)) ** 2

    @eqx.filter_jit
    def both(particle: Particles, template: Template) -> Any:
        prepared = score.prepare(particle, grid)
        exact = score.correlate(prepared, template, rotation)
        norms = score.norms(prepared, template, rotation)
        scales = score.scale(particle, grid)

        def one(index: Any) -> Any:
            m, l = jnp.divmod(index, 3)
            size = particle.alignment.pixel_size_angstrom + grid.pixel_size_angstrom[m]
            central = central_slice(template, rotation, scales[m])
            columns = score.columns(particle, size, grid.defocus_angstrom[l], corners)
            pairs = central.real * columns.real + central.imag * columns.imag
            return jnp.sum(pairs, axis=(1, 2)).reshape(score.positions) / norms[m, l]

        return exact, jax.lax.map(one, jnp.arange(6)).reshape(exact.shape)

    @eqx.filter_jit
    def linear(particle: Particles, other: Any) -> Any:
        def columns(image: Any) -> Any:
            changed = eqx.tree_at(lambda p: p.image, particle, image)
            size = particle.alignment.pixel_size_angstrom
            return score.columns(changed, size, 0.0, corners[:3])

        return columns(particle.image + 2 * other), columns(particle.image) + 2 * columns(
            other
        )

    exact, products = both(particle, template)
    off, bent = _relative(products, exact), _relative(*linear(particle, other))
    errors = []
    if not off <= _CLOSE:
        worst = jnp.unravel_index(jnp.argmax(jnp.abs(products - exact)), exact.shape)
        m, l, y, x = map(int, worst)
        errors.append(
            f"columns: its product with the central slice, over norms, is "
            f"{float(products[m, l, y, x]):.6g} at pixel size {m}, defocus {l}, position "
            f"({y}, {x}), where correlate gives {float(exact[m, l, y, x]):.6g}; expected "
            "the same: the search would look at the wrong orientations"
        )
    if not bent <= _CLOSE:
        errors.append(
            f"columns: not linear in the particle's image (off by {bent:.2g} of its size)"
        )
    return errors, {"product": off, "linearity": bent}


def _filter(
    score: Score, particle: Particles, template: Template, tolerance: float
) -> tuple[list[str], dict[str, float]]:
    """Compare `matched_filter` with `correlate`; check that it does not use the image."""
    zero = jnp.zeros(1)
    here = SearchGrid(jnp.eye(3)[None], jnp.zeros(1, bool), zero, zero)
    y, x = score.margin

    @eqx.filter_jit
    def both(particle: Particles, template: Template, pixel_size: Any) -> Any:
        grid = eqx.tree_at(
            lambda g: g.pixel_size_angstrom,
            here,
            (pixel_size - particle.alignment.pixel_size_angstrom)[None],
        )
        prepared, pose = score.prepare(particle, grid), particle.alignment.rotation
        exact = score.correlate(prepared, template, pose)[0, 0, y, x]
        norm = score.norms(prepared, template, pose)[0, 0]
        rfft, own_norm = score.matched_filter(particle, template, pixel_size)
        kernel = jnp.fft.irfft2(rfft, s=score.padded_box)
        ours = jnp.sum(kernel * particle.image) / own_norm
        return exact, ours, norm, own_norm, kernel / own_norm

    turned = particle.alignment.rotation @ rotation_vector_to_matrix(
        jnp.asarray([9.0, -5.0, 14.0])
    )
    elsewhere = eqx.tree_at(
        lambda p: (p.alignment.rotation, p.alignment.defocus_angstrom),
        particle,
        (turned, particle.alignment.defocus_angstrom - 300.0),
    )
    pixel_size = particle.alignment.pixel_size_angstrom
    errors, worst = [], {"matched_filter": 0.0, "norms": 0.0}
    for where, one, size in (
        ("at its alignment", particle, pixel_size),
        ("at another pose, defocus and pixel size", elsewhere, pixel_size + 0.02),
    ):
        exact, ours, norm, own_norm, _ = both(one, template, size)
        off = abs(float(ours - exact)) / max(abs(float(exact)), 1.0)
        worst["matched_filter"] = max(worst["matched_filter"], off)
        if not off <= _CLOSE:
            errors.append(
                f"matched_filter: {where} its product with the image, over the norm, is "
                f"{float(ours):.6g}, where correlate gives {float(exact):.6g}; expected "
                "the same: the polish would climb another score than was searched"
            )
        off = _relative(own_norm, norm)
        worst["norms"] = max(worst["norms"], off)
        if not off <= _CLOSE:
            errors.append(
                f"norms: {where} {float(norm):.6g}, where matched_filter has "
                f"{float(own_norm):.6g}; expected the same"
            )
    blank = eqx.tree_at(lambda p: p.image, particle, 2 * particle.image + 1)
    before, after = (both(one, template, pixel_size)[-1] for one in (particle, blank))
    if _relative(after, before) > _CLOSE:
        errors.append("matched_filter: depends on the particle's image; expected not to")
    return errors, worst


def _slopes(
    score: Score, particle: Particles, template: Template, tolerance: float
) -> tuple[list[str], dict[str, float]]:
    """Compare the gradient of z with central differences, at offsets away from 0."""
    rng = np.random.default_rng(1)
    zeros = Offsets.zeros()
    at = Offsets(
        **{
            name: jnp.asarray(size * rng.uniform(0.3, 1, getattr(zeros, name).shape))
            for name, size in _SIZES.items()
        }
    )
    z = eqx.filter_jit(lambda offsets, p, t: z_score(offsets, p, t, score))
    slope = eqx.filter_jit(jax.grad(lambda offsets, p, t: z_score(offsets, p, t, score)))(
        at, particle, template
    )
    errors, worst = [], 0.0
    for name, step in _STEPS.items():
        value = getattr(at, name)
        way = jnp.asarray(rng.choice([-1.0, 1.0], value.shape))

        def moved(length: float, name=name, value=value, way=way) -> float:
            there = eqx.tree_at(lambda o: getattr(o, name), at, value + length * way)
            return float(z(there, particle, template))

        numerical = (moved(step) - moved(-step)) / (2 * step)
        ours = float(jnp.sum(getattr(slope, name) * way))
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
