"""Checks of the arguments of public functions, before anything is traced or compiled.

Each function raises an `InputError` that says what was given and what is expected. Shapes
are always checked; values only where they are known, that is outside `jit` and `vmap`.
"""

from typing import Any

import jax
import numpy as np
from jax.core import Tracer
from jax.sharding import Mesh

from jaxrefine.data import (
    Alignment,
    InputError,
    Offsets,
    Particles,
    Refined,
    SearchGrid,
    Template,
)
from jaxrefine.refine.scoring import Score, check_defocus_unit
from jaxrefine.refine.sharding import ORIENTATIONS, PARTICLES

# Shapes of one particle's alignment.
_ALIGNMENT: dict[str, tuple[int, ...]] = {
    "rotation": (3, 3),
    "position_px": (2,),
    "defocus_angstrom": (2,),
    "astigmatism_deg": (),
    "pixel_size_angstrom": (),
}
# Accepted factor on a score's largest defocus; there, signal up to 4.4 Å is kept, not 4 Å.
_SLACK = 1.1
_LISTED = 5  # number of particles that a message names


def is_traced(tree: Any) -> bool:
    """Whether any array of a pytree is a tracer, as inside `jit`, `vmap` and `grad`."""
    return any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(tree))


def check_template(template: Template, score: Score) -> None:
    """Check that the template is a `Template` with the side of the score.

    Raises:
        InputError: It has another type (for example a volume), or another side.
    """
    if not isinstance(template, Template):
        shape = getattr(template, "shape", None)
        given = type(template).__name__ + (f" of shape {shape}" if shape else "")
        raise InputError(
            f"template: {given}; expected a Template: jr.make_template(volume)"
        )
    check_score(score)
    if template.side != score.side:
        raise InputError(
            f"the template has a side of {template.side} px, the score was made for "
            f"{score.side} px: make the score with side={template.side}, or trim both "
            "(jr.trim_template)"
        )


def check_score(score: Score) -> None:
    """Check that it is an instance of `Score`, not the class itself."""
    if not isinstance(score, Score):
        given = score.__name__ if isinstance(score, type) else type(score).__name__
        raise InputError(
            f"score: {given}; expected a Score, such as jr.ImageCTF.for_particles(...)"
        )


def check_grid(grid: SearchGrid) -> None:
    """Check that it is a `SearchGrid`."""
    if not isinstance(grid, SearchGrid):
        raise InputError(
            f"grid: {type(grid).__name__}; expected a SearchGrid: jr.local_grid(...)"
        )


def check_batch(particles: Particles, score: Score, refined: Refined | None = None) -> None:
    """Check that it is a batch, with one leading axis, extracted for this score.

    Args:
        particles: The argument to check.
        score: The score whose box and padded box the particles should have.
        refined: Results for the same batch, if they were given as well.

    Raises:
        InputError: It is a single particle, or its arrays do not match.
    """
    _check_type(particles)
    if np.ndim(particles.valid) == 0:
        raise InputError(
            "particles: one particle; expected a batch, with one leading axis: "
            "jr.Particles.stack([particle])"
        )
    if np.ndim(particles.valid) > 1:
        raise InputError(
            f"particles: leading axes {np.shape(particles.valid)}; expected one: reshape "
            "them, or map over the others"
        )
    count = np.shape(particles.valid)
    errors = alignment_errors(particles.alignment, count)
    errors += _box_errors(particles, score, count)
    if refined is not None and not isinstance(refined, Refined):
        errors.append(
            f"refined: {type(refined).__name__}; expected Refined: of a polish, take "
            ".refined"
        )
    elif refined is not None and np.shape(refined.z_score) != count:
        errors.append(
            f"refined has the results of {np.shape(refined.z_score)} particles; the batch "
            f"has {count}"
        )
    if errors:
        raise InputError(errors)


def check_one(particle: Particles, score: Score, offsets: Offsets | None = None) -> None:
    """Check that it is one particle, without a leading axis, as are the offsets.

    Raises:
        InputError: It is a batch.
    """
    _check_type(particle)
    if np.ndim(particle.valid):
        raise InputError(
            f"a batch of {np.shape(particle.valid)} particles; expected one particle: take "
            "particles[i], or map over the batch with jax.vmap"
        )
    if isinstance(offsets, Offsets) and np.ndim(offsets.pixel_size_angstrom):
        raise InputError(
            f"offsets of {np.shape(offsets.pixel_size_angstrom)} particles for one "
            "particle; expected jr.Offsets.zeros(), or map over both with jax.vmap"
        )
    if errors := _box_errors(particle, score, ()):
        raise InputError(errors)


def alignment_errors(alignment: Alignment, count: tuple[int, ...]) -> list[str]:
    """Describe the fields whose shapes do not match `count` particles."""
    return [
        f"alignment.{name}: shape {np.shape(getattr(alignment, name))}; expected "
        f"{(*count, *shape)}"
        for name, shape in _ALIGNMENT.items()
        if np.shape(getattr(alignment, name)) != (*count, *shape)
    ]


def check_mesh(mesh: Mesh | None) -> None:
    """Check that a mesh has the axes along which search and polish are split.

    Raises:
        InputError: It has other axes.
    """
    if mesh is not None and set(mesh.axis_names) != {PARTICLES, ORIENTATIONS}:
        raise InputError(
            f"mesh with axes {tuple(mesh.axis_names)}; expected "
            f"{(PARTICLES, ORIENTATIONS)}: jr.device_mesh(jax.devices())"
        )


def check_not_traced(name: str, *arguments: Any) -> None:
    """Check that no argument is traced, for a function that needs their values.

    Raises:
        InputError: The function `name` was called inside `jit`, `vmap` or `grad`.
    """
    if is_traced(arguments):
        raise InputError(
            f"{name} plans with the values of its arguments, and was called inside jit, "
            "vmap or grad, where there are none: call it outside (it compiles itself). To "
            "differentiate, use jr.z_score or jr.score_particles"
        )


def check_defocus(particles: Particles, score: Score) -> None:
    """Check that defocus values are in Å and within the range of the score's grids.

    Args:
        particles: A batch.
        score: The score, whose grids were chosen for a largest defocus.

    Raises:
        InputError: All defocus values are a few Å, as if given in µm; or the CTF of some
            particles spreads the signal beyond the score's grids.
    """
    read = (particles.alignment, particles.optics, particles.valid)
    if is_traced(read):
        return
    defocus = np.abs(np.asarray(particles.alignment.defocus_angstrom, np.float64))
    sound = np.asarray(particles.valid) & np.isfinite(defocus).all(axis=-1)
    if not sound.any():
        return
    check_defocus_unit(float(defocus[sound].max()))
    largest = defocus.max(axis=-1)
    optics, pixel_size = particles.optics, particles.alignment.pixel_size_angstrom
    given = (optics.voltage_kv, optics.spherical_aberration_mm, pixel_size)
    with np.errstate(all="ignore"):  # particles of 0 kV are reported in their status
        most = score.max_defocus_angstrom(*(np.asarray(each, np.float64) for each in given))
        beyond = np.flatnonzero(sound & (largest > _SLACK * most))
    if len(beyond):
        raise InputError(
            f"particle {i}: a defocus of {largest[i]:.0f} Å spreads its signal beyond "
            f"the score's grids, which hold {most[i]:.0f} Å: "
            "make the score with max_defocus_angstrom of the largest defocus, offsets "
            "included"
            for i in beyond[:_LISTED]
        )


def _check_type(particles: Particles) -> None:
    if not isinstance(particles, Particles):
        raise InputError(
            f"particles: {type(particles).__name__}; expected Particles: "
            "jr.cut_particles(...)"
        )


def _box_errors(particles: Particles, score: Score, count: tuple[int, ...]) -> list[str]:
    """Describe the arrays of particles that were extracted for another score."""
    check_score(score)

    def half(shape: tuple[int, int]) -> tuple[int, int]:
        return shape[0], shape[1] // 2 + 1

    expected = {
        "image": score.padded_box,
        "filter_image": half(score.padded_box),
        "filter_template": half(score.filter_grid),
        "corr_mean": score.positions,
        "corr_std": score.positions,
    }
    wrong = [
        f"{name} {np.shape(getattr(particles, name))} (expected {(*count, *shape)})"
        for name, shape in expected.items()
        if np.shape(getattr(particles, name)) != (*count, *shape)
    ]
    if not wrong:
        return []
    return [
        "the particles were cut for another score, of another box or template: "
        + ", ".join(wrong)
        + ": use the same score for jr.cut_particles and here"
    ]
