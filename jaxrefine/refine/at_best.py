"""A particle at its refined alignment, including the sub-pixel position."""

from dataclasses import replace

import equinox as eqx
import jax.numpy as jnp

from jaxrefine.data import Offsets, Particles, Polished, Refined
from jaxrefine.refine.polish import recentred
from jaxrefine.refine.scoring import Score


def at_best(
    particle: Particles, found: Refined | Polished, score: Score
) -> tuple[Particles, Offsets]:
    """Move one particle to its refined alignment, with the sub-pixel shift as offsets.

    For the returned pair, `z_score(offsets, particle, template, score)` is the refined
    score. (`recentred` with offsets of zero would round the position to a whole pixel.)

    Args:
        particle: The particle as it was searched; use `jax.vmap` for a batch.
        found: Result of the search or the polish.
        score: The score of the refinement.
    """
    refined = found.refined if isinstance(found, Polished) else found
    position = refined.alignment.position_px
    there = recentred(particle, refined, score)
    whole = jnp.round(position - particle.alignment.position_px)
    whole = particle.alignment.position_px + whole
    there = eqx.tree_at(lambda p: p.alignment.position_px, there, whole)
    return there, replace(Offsets.zeros(), shift_px=position - whole)
