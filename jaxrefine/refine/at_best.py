"""A particle at its refined alignment, including the sub-pixel position."""

from dataclasses import replace
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxrefine.data import InputError, Offsets, Optics, Particles, Polished, Refined
from jaxrefine.refine.arguments import check_one
from jaxrefine.refine.coordinates import anisotropic_part, anisotropy
from jaxrefine.refine.differentiable import at_position
from jaxrefine.refine.scoring import Score


def recentred(particle: Particles, refined: Refined, score: Score) -> Particles:
    """One particle moved to its grid's best: offsets of 0 are then that grid point.

    The position is rounded to whole pixels; `at_best` keeps what a polish adds to them.

    Raises:
        InputError: A batch; `jax.vmap(lambda p, r: jr.recentred(p, r, score))` takes one.
    """
    _check_pair("recentred", particle, refined, score)
    move = refined.alignment.position_px - particle.alignment.position_px
    there = at_position(particle, jnp.round(move).astype(jnp.int32), score)
    return eqx.tree_at(lambda p: p.alignment, there, refined.alignment)


def at_best(
    particle: Particles, found: Refined | Polished, score: Score
) -> tuple[Particles, Offsets]:
    """Move one particle to its refined alignment; shift and aberrations as offsets.

    For the returned pair, `z_score(offsets, particle, template, score)` is the refined
    score. (`recentred` with offsets of zero would round the position to a whole pixel.)

    Args:
        particle: The particle as it was searched; use `jax.vmap` for a batch.
        found: Result of the search or the polish.
        score: The score of the refinement.

    Raises:
        InputError: A batch; `jax.vmap(lambda p, f: jr.at_best(p, f, score))` takes one.
    """
    refined = found.refined if isinstance(found, Polished) else found
    _check_pair("at_best", particle, refined, score)
    position = refined.alignment.position_px
    there = recentred(particle, refined, score)
    whole = jnp.round(position - particle.alignment.position_px)
    whole = particle.alignment.position_px + whole
    there = eqx.tree_at(lambda p: p.alignment.position_px, there, whole)
    aberrations = {}
    if isinstance(found, Polished):
        aberrations = _added_aberrations(found, particle.optics)
    return there, replace(Offsets.zeros(), shift_px=position - whole, **aberrations)


def _added_aberrations(found: Polished, optics: Optics) -> dict[str, Array]:
    """What a polish has added to a particle's aberrations; 0 if it was not polished."""

    def more(values: Any, own: Any) -> Float[Array, " c"]:
        added = values if own is None else values - own
        return jnp.where(jnp.isfinite(added), added, 0.0)

    added = {}
    for name in ("beam_tilt_mrad", "even_zernikes"):
        if getattr(found, name) is not None:
            added[name] = more(getattr(found, name), getattr(optics, name))
    if found.trefoil is not None:
        own = None if optics.odd_zernikes is None else optics.odd_zernikes[2:]
        trefoil = more(found.trefoil, own)
        added["odd_zernikes"] = jnp.concatenate([jnp.zeros(2), trefoil])
    if found.magnification is not None:
        matrix = optics.mag_matrix
        own = None if matrix is None else anisotropic_part(matrix)
        added["mag_matrix"] = anisotropy(more(found.magnification, own))
    return added


def _check_pair(name: str, particle: Particles, refined: Refined, score: Score) -> None:
    """One particle and the results of one."""
    if not isinstance(refined, Refined):
        expected = "Refined" if name == "recentred" else "Refined or Polished"
        raise InputError(f"{name}: {type(refined).__name__}; expected {expected}")
    check_one(particle, score)
    if np.ndim(refined.z_score):
        raise InputError(
            f"{name}: one particle, but the results of {np.shape(refined.z_score)}; "
            "expected those of the same particle: take refined[i], or map over both with "
            "jax.vmap"
        )
