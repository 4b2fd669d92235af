"""Warnings of settings that make a run much slower than necessary."""

import logging
from dataclasses import replace

import numpy as np

from jaxrefine.app.config import Config
from jaxrefine.app.run.build import build_score
from jaxrefine.data import SearchGrid
from jaxrefine.io.table import ParticleTable, StartingValues
from jaxrefine.refine.scoring import Score

log = logging.getLogger("jaxrefine")

# Margins of the box over the template in px; 4 to 24 are usual. Time grows as its square.
_USUAL_MARGIN_PX, _LARGE_MARGIN_PX = 24, 64
_FAR_DEFOCUS = 2.0  # times the median defocus
_DEAR = 2.0  # times the number of pixels of a padded box


def warn_of_box(config: Config) -> None:
    """Warn of a box that is so large that its positions may reach other particles."""
    box = config.particle_stack.extracted_box_size
    side = config.particle_stack.original_template_size[0]
    if max(box) - side <= _LARGE_MARGIN_PX:
        return
    positions = (box[0] - side + 1) * (box[1] - side + 1)
    usual = side + _USUAL_MARGIN_PX
    log.warning(
        "%s: %s.extracted_box_size: %s — searches %d positions around each "
        "particle, which is slow; usual are 4 to 24 px more than the template: "
        "[%d, %d] searches %d",
        config.source,
        config.stack_key,
        list(box),
        positions,
        usual,
        usual,
        (_USUAL_MARGIN_PX + 1) ** 2,
    )


def warn_of_defocus(
    config: Config,
    table: ParticleTable,
    start: StartingValues,
    grid: SearchGrid,
    score: Score,
) -> None:
    """Warn of particles whose large defocus enlarges the padded box of all particles.

    Args:
        config: The configuration.
        table: The particle table.
        start: Starting values of its rows.
        grid: The search grid.
        score: The score, with grids that are large enough for all rows.
    """
    largest = np.abs(start.defocus_angstrom).max(axis=-1)
    median = float(np.median(largest))
    far = largest > _FAR_DEFOCUS * median
    if not far.any():
        return
    near = np.where(far[:, None], median, start.defocus_angstrom)
    without = build_score(config, replace(start, defocus_angstrom=near), grid)
    if np.prod(score.padded_box) < _DEAR * np.prod(without.padded_box):
        return
    at = int(np.argmax(largest))
    others = f", and {far.sum() - 1} more rows" if far.sum() > 1 else ""
    log.warning(
        "%s%s: a defocus of %g Å, where the median is %g Å, makes the padded box of "
        "every particle %d x %d px instead of %d x %d: check it, or refine such rows "
        "separately",
        table.locate(at),
        others,
        largest[at],
        median,
        *score.padded_box,
        *without.padded_box,
    )
