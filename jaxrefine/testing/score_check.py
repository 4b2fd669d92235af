"""Checks of a score: norm, product form, matched filter, gradient."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from jaxrefine.data import Offsets, Particles, Template
from jaxrefine.refine.arguments import check_score as check_is_score
from jaxrefine.refine.differentiable import feature, z_score
from jaxrefine.refine.scoring import Score
from jaxrefine.testing.agreement import (
    CLOSE,
    agreement,
    all_corners,
    compiled,
    relative,
    small_grid,
)
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
    defocus values and positions, and is linear in the image; `power_weights` give the norm
    of a template and of its blurred copy alike; `matched_filter` equals
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
        *agreement(score, particle, template),
        _slopes(score, particle, template),
    ):
        errors += more
        found |= measured
    return errors, found


def _shape_errors(score: Score, particle: Particles, template: Template) -> list[str]:
    """Check the result of each method, mapped over two particles."""
    side, rotation, grid = score.side, particle.alignment.rotation, small_grid(0.0, 0.02)
    half = (score.padded_box[0], score.padded_box[1] // 2 + 1)
    corners = all_corners(score)[:4]
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
        "power_weights": (
            lambda p: score.power_weights(prepared(p)),
            (2, 3, *slices, side, side // 2 + 1),
        ),
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


def _norm(
    score: Score, particle: Particles, template: Template, tolerance: float
) -> tuple[list[str], dict[str, float]]:
    @compiled
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
    corners = all_corners(score)[:3]
    image = np.asarray(particle.image)
    other = np.roll(image, (3, 5), axis=(0, 1)) ** 2

    @compiled
    def columns(image: Any) -> Any:
        changed = eqx.tree_at(lambda p: p.image, particle, image)
        size = particle.alignment.pixel_size_angstrom
        return score.columns(changed, size, 0.0, corners)

    first, second, both = (
        np.asarray(columns(i)) for i in (image, other, image + 2 * other)
    )
    bent = relative(both, first + 2 * second)
    if bent <= CLOSE:
        return [], {"linearity": bent}
    return [
        f"columns: not linear in the particle's image (off by {bent:.2g} of its size)"
    ], {"linearity": bent}


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
    both = compiled(jax.value_and_grad(lambda o, p, t: z_score(o, p, t, score)))

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
