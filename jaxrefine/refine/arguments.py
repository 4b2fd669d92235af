"""Checks of the arguments of public functions, before anything is traced or compiled.

Each function raises an `InputError` that says what was given and what is expected. Shapes
are always checked; values only where they are known, that is outside `jit` and `vmap`.
"""

from typing import Any

import jax
import numpy as np
from jax.core import Tracer
from jax.sharding import AxisType, Mesh

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


def check_searched(refined: Refined, grid: SearchGrid) -> None:
    """Check that results can be those of a search of this grid.

    Raises:
        InputError: The search had another number of orientations.
    """
    searched, orientations = refined.orientation_z, grid.shape[2]
    if searched is not None and np.shape(searched)[-1] != orientations:
        raise InputError(
            f"refined has scores of {np.shape(searched)[-1]} orientations, the grid has "
            f"{orientations}: expected the grid that was searched"
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
        InputError: It is a batch; or its defocus, if known, is not suitable for the score.
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
    check_defocus(particle, score)


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
        InputError: It is no mesh, or has other axes or axes of another type.
    """
    if mesh is None:
        return
    if not isinstance(mesh, Mesh):
        raise InputError(
            f"mesh: {type(mesh).__name__}; expected a mesh: jr.device_mesh(jax.devices())"
        )
    if set(mesh.axis_names) != {PARTICLES, ORIENTATIONS}:
        raise InputError(
            f"mesh with axes {tuple(mesh.axis_names)}; expected "
            f"{(PARTICLES, ORIENTATIONS)}: jr.device_mesh(jax.devices())"
        )
    if any(kind != AxisType.Auto for kind in mesh.axis_types):
        raise InputError(
            f"mesh with axes of types {[kind.name for kind in mesh.axis_types]}; expected "
            "Auto: jr.device_mesh(jax.devices()), or "
            "axis_types=(jax.sharding.AxisType.Auto,) * 2"
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
        particles: A batch, or one particle.
        score: The score, whose grids were chosen for a largest defocus.

    Raises:
        InputError: All defocus values are a few Å, as if given in µm; or the CTF of some
            particles spreads the signal beyond the score's grids.
    """
    optics, alignment = particles.optics, particles.alignment
    read = (optics, alignment, particles.valid)
    if is_traced(read):
        return
    defocus = np.abs(np.asarray(alignment.defocus_angstrom, np.float64)).reshape(-1, 2)
    sound = np.ravel(particles.valid) & np.isfinite(defocus).all(axis=1)
    if not sound.any():
        return
    check_defocus_unit(float(defocus[sound].max()))
    largest = defocus.max(axis=1)
    given = (
        optics.voltage_kv,
        optics.spherical_aberration_mm,
        alignment.pixel_size_angstrom,
    )
    kv, cs, pixel_size = (np.ravel(np.asarray(each, np.float64)) for each in given)
    with np.errstate(all="ignore"):  # particles of 0 kV are reported in their status
        most = score.max_defocus_angstrom(kv, cs, pixel_size)
        beyond = np.flatnonzero(sound & (largest > _SLACK * most))
    errors = []
    for i in beyond[:_LISTED]:
        text = (
            f"a defocus of {largest[i]:.0f} Å spreads its signal beyond the score's grids, "
            f"which hold {most[i]:.0f} Å: make the score with max_defocus_angstrom of the "
            "largest defocus, offsets included"
        )
        if most[i] <= 0:
            text = (
                f"with {kv[i]:g} kV, Cs {cs[i]:g} mm and {pixel_size[i]:g} Å per pixel, "
                "signal spreads beyond the score's grids at any defocus: check the units"
            )
        errors.append(f"particle {i}: {text}" if np.ndim(particles.valid) else text)
    if errors:
        raise InputError(errors)


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
