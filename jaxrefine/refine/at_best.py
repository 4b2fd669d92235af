"""A particle where search or polish found it, its sub-pixel position kept."""

from dataclasses import replace

import equinox as eqx
import jax.numpy as jnp

from jaxrefine.data import Offsets, Particles, Polished, Refined
from jaxrefine.refine.polish import recentred
from jaxrefine.refine.scoring import Score


def at_best(
    particle: Particles, found: Refined | Polished, score: Score
) -> tuple[Particles, Offsets]:
    """One particle at what was found of it, and the offsets that hold its sub-pixel rest.

    `z_score(offsets, particle, template, score)` is then the score that was found; with
    `recentred` and offsets of zero the position would be rounded to a whole pixel.

    Args:
        particle: As it was searched; `jax.vmap` takes a batch.
        found: From the search or the polish.
        score: The same score.
    """
    refined = found.refined if isinstance(found, Polished) else found
    position = refined.alignment.position_px
    there = recentred(particle, refined, score)
    whole = jnp.round(position - particle.alignment.position_px)
    whole = particle.alignment.position_px + whole
    there = eqx.tree_at(lambda p: p.alignment.position_px, there, whole)
    return there, replace(Offsets.zeros(), shift_px=position - whole)
