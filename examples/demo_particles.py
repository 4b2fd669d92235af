"""Particles of the demo at their best poses, for the other examples."""

from functools import partial
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import yaml

import jaxrefine as jr
from jaxrefine.app.config import Config
from jaxrefine.app.refinement import Refinement

# The demo's own search is finer, and has no polish.
CHANGES = {
    "polish": {"enabled": True},
    "defocus_refinement_config": {"defocus_step": 50.0},
    "orientation_refinement_config": {
        "psi_step_coarse": 1.5,
        "psi_step_fine": 0.5,
        "theta_step_coarse": 2.0,
        "theta_step_fine": 0.5,
    },
}


def load(
    folder: Path,
) -> tuple[jr.Particles, jr.Offsets, jr.Template, jr.Score]:
    """The first micrograph's particles, searched and polished.

    Returns:
        Particles at whole pixels, the offsets at which each scores best (sub-pixel shifts),
        the template and the score.
    """
    path = folder / "config.yaml"
    config = yaml.safe_load(path.read_text()) | CHANGES
    run = Refinement(Config.from_dict(config, str(path)))
    rows, particles = next(run.particles())
    refined = jr.refine_particles(particles, run.template, run.grid, run.score)
    template = run.smooth_template  # for derivatives
    best = jr.polish_particles(
        particles, refined, template, run.grid, run.score, run.polish
    ).refined
    particles = jax.vmap(partial(jr.recentred, score=run.score))(particles, best)
    position = best.alignment.position_px
    offsets = eqx.tree_at(
        lambda o: o.shift_px, jr.Offsets.zeros(len(rows)), position - jnp.round(position)
    )
    return particles, offsets, template, run.score
