"""Warnings of what makes a run much slower than it need be."""

import logging
from dataclasses import replace

import numpy as np

from jaxrefine.app.config import Config
from jaxrefine.app.run.build import build_score
from jaxrefine.data import SearchGrid
from jaxrefine.io.table import ParticleTable, StartingValues
from jaxrefine.refine.scoring import Score

log = logging.getLogger("jaxrefine")

# Px more than the template, of which 4 to 24 are usual; time goes by its square.
_USUAL_MARGIN_PX, _LARGE_MARGIN_PX = 24, 64
_FAR_DEFOCUS = 2.0  # times the median
_DEAR = 2.0  # times the pixels of a cut


def warn_of_box(config: Config) -> None:
    """Warn of a box that searches positions as far off as other particles."""
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
    """Warn of particles whose defocus alone makes everyone's cut larger.

    Args:
        config: The configuration.
        table: The particle table.
        start: Starting values of its rows.
        grid: Offsets that are searched.
        score: As wide as all rows ask for.
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
