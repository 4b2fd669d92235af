"""Second pass over a run's inputs: check everything together before any long work."""

import logging
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float

from jaxrefine.app.config import Config
from jaxrefine.app.run.build import (
    build_filters,
    build_grid,
    build_score,
    smallest_pixel_angstrom,
)
from jaxrefine.app.run.constrained import warn_of_template_frame
from jaxrefine.app.run.costs import warn_of_box, warn_of_defocus
from jaxrefine.app.run.motion import Movies, check_movies
from jaxrefine.app.run.read import NamedInputs
from jaxrefine.data import ErrorCollector, InputError, SearchGrid, add_error_context
from jaxrefine.io.maps import MEAN, SPREAD, map_shape
from jaxrefine.io.mrc import image_shape
from jaxrefine.io.paths import PathMap, resolve_paths
from jaxrefine.io.table import (
    ParticleTable,
    StartingValues,
    decide_statistics,
    ignored_aberrations,
)
from jaxrefine.physics.filters import whitening_frequencies
from jaxrefine.refine.cut_arguments import voxel_errors
from jaxrefine.refine.scoring import Score

log = logging.getLogger("jaxrefine")

# A micrograph, its mean map, and its variance or standard deviation map.
Files = tuple[Path, Path, Path]
# Files -> rows of the table that use them, in order of appearance.
Groups = dict[Files, np.ndarray]

# Voxel sizes in headers are rounded; half a percent has no visible effect.
_VOXEL_SIZE_TOLERANCE = 0.005
_MAX_IMAGE_ERRORS = 20


@dataclass(frozen=True, eq=False)
class CheckedInputs:
    """The inputs of a run after all checks.

    Attributes:
        start: Starting values of the table's rows, as they are scored.
        groups: Rows of the table by the images that they use.
        maps_hold_variance: Whether the maps hold variances, not standard deviations.
        template_pixel_size_angstrom: Voxel size of the template, per row.
        grid: The search grid.
        score: The score.
        movies: The movies; None if none are used.
    """

    start: StartingValues
    groups: Groups
    maps_hold_variance: bool
    template_pixel_size_angstrom: Float[np.ndarray, " n"]
    grid: SearchGrid
    score: Score
    movies: Movies | None = None


def check_together(config: Config, named: NamedInputs) -> CheckedInputs:
    """Check all that was read, that its images exist and match; warn of oddities.

    Raises:
        InputError: With all errors.
    """
    table, errors = named.table, ErrorCollector()
    start = table.start()
    if config.reproduce == "leopard_em":
        start = _as_leopard_em_reads(start)
    grid, groups = build_grid(config), _group_rows(table, config.path_map)
    statistics = config.statistics
    with errors:
        if statistics == "auto":
            statistics = decide_statistics(named.maps_table)
    with errors:
        _check_pixel_sizes(config, start, grid)
        with add_error_context(after=_extreme_rows(table, start)):
            score = build_score(config, start, grid)
    with errors:
        _check_images(groups, table, named.volume.shape[0])
        _check_whitening(config, (micrograph for micrograph, *_ in groups))
    with errors:
        movies = check_movies(config, table, start, groups)
    voxels = config.template_pixel_size
    template_pixel_size = (
        start.nominal_pixel_size_angstrom if voxels is None else np.full(len(table), voxels)
    )
    with errors:
        if wrong := voxel_errors(template_pixel_size, start.pixel_size_angstrom):
            raise InputError(f"{config.source}: {wrong[0]}")
    errors.raise_any()

    _warn_of_voxel_size(named.voxel_size_angstrom, template_pixel_size)
    warn_of_box(config)
    if config.constraint is not None:
        warn_of_template_frame(
            config.constraint, named.volume, float(template_pixel_size.min())
        )
    _warn_of_aberrations(table)
    warn_of_defocus(config, table, start, grid, score)
    return CheckedInputs(
        start=start,
        groups=groups,
        maps_hold_variance=statistics == "variance",
        template_pixel_size_angstrom=template_pixel_size,
        grid=grid,
        score=score,
        movies=movies,
    )


def _group_rows(table: ParticleTable, path_map: PathMap) -> Groups:
    """Rows by the files that they use, found as by `resolve_paths`."""
    groups: dict[Files, list[int]] = {}
    columns = (
        table.micrograph_paths,
        table.correlation_mean_paths,
        table.correlation_variance_paths,
    )
    found = resolve_paths(
        (text for column in columns for text in column),
        beside=table.path.absolute().parent,
        path_map=path_map,
    )
    for row, (image, mean, spread) in enumerate(zip(*columns, strict=True)):
        groups.setdefault((found[image], found[mean], found[spread]), []).append(row)
    return {files: np.asarray(rows) for files, rows in groups.items()}


def _as_leopard_em_reads(start: StartingValues) -> StartingValues:
    """One mean pixel size for all CTFs, and u as the larger defocus whatever the angle."""
    mean = np.full_like(start.pixel_size_angstrom, start.pixel_size_angstrom.mean())
    larger_first = -np.sort(-start.defocus_angstrom, axis=-1)
    return replace(start, pixel_size_angstrom=mean, defocus_angstrom=larger_first)


def _warn_of_voxel_size(
    voxel_size_angstrom: float | None, template_pixel_size_angstrom: np.ndarray
) -> None:
    """Warn if the template's header disagrees with the voxel size that is used."""
    if voxel_size_angstrom is None:
        return
    for taken in np.unique(template_pixel_size_angstrom):
        if abs(voxel_size_angstrom / taken - 1) > _VOXEL_SIZE_TOLERANCE:
            log.warning(
                "the template's header says %g Å per voxel, it is taken as %g Å; "
                "set template_pixel_size if the header is right",
                voxel_size_angstrom,
                taken,
            )


def _warn_of_aberrations(table: ParticleTable) -> None:
    """Warn of aberrations in the table that are ignored."""
    for name, count in ignored_aberrations(table).items():
        log.warning(
            "%s of %d particles is ignored, and kept in the table (ignore_aberrations)",
            name,
            count,
        )


def _check_images(groups: Groups, table: ParticleTable, side: int) -> None:
    """Check that every micrograph and its maps exist and match.

    Args:
        groups: Files -> rows.
        table: The particle table.
        side: Side of the template; maps have one value per position of the template.

    Raises:
        InputError: With all errors, or the first ones and the number of further ones.
    """
    errors = ErrorCollector()
    for (micrograph, *maps), rows in groups.items():
        where = f" (first named on {table.locate(rows[0])} of the particle table)"
        expected = None
        with errors, add_error_context(after=where):
            height, width = image_shape(micrograph)
            if min(height, width) < side:
                raise InputError(
                    f"{micrograph}: has shape {(height, width)}; it must be at least as "
                    f"large as the template, {side} px"
                )
            expected = (height - side + 1, width - side + 1)
        for path, name in zip(maps, (MEAN, SPREAD), strict=True):
            with errors, add_error_context(after=where):
                found = map_shape(path, name)
                if expected is not None and found != expected:
                    raise InputError(
                        f"{path}: has shape {found}; a statistic map of {micrograph} and "
                        f"a template of {side} px has shape {expected}"
                    )
    try:
        errors.raise_any()
    except InputError as error:  # all images of a folder that was moved
        if len(error.errors) <= _MAX_IMAGE_ERRORS:
            raise
        more = len(error.errors) - _MAX_IMAGE_ERRORS
        raise InputError(
            [*error.errors[:_MAX_IMAGE_ERRORS], f"… and {more} more errors of images"]
        ) from error


def _check_whitening(config: Config, images: Iterable[Path]) -> None:
    """Refuse a whitening filter with a limit below all bins of the spectrum.

    Raises:
        InputError: The limit is too low.
    """
    settings = build_filters(config).whitening
    if settings is None or settings.max_freq is None:
        return
    box = config.particle_stack.extracted_box_size
    shapes = {image_shape(path, warn=False) for path in images}
    if not config.apply_global_filtering:
        shapes = {(box[0], box[1])}
    first = max(float(whitening_frequencies(shape, settings)[1]) for shape in shapes)
    if settings.max_freq < first:
        raise InputError(
            f"{config.source}: preprocessing_filters.whitening_filter.max_freq: "
            f"{settings.max_freq:g} — is below the spectrum's first bin, {first:.3g} "
            "cycles/px, so that nothing would be whitened; 0.5 is Nyquist"
        )


def _check_pixel_sizes(config: Config, start: StartingValues, grid: SearchGrid) -> None:
    """Refuse a search that includes pixel sizes of zero or less.

    Raises:
        InputError: A pixel size is not positive.
    """
    smallest = smallest_pixel_angstrom(start, grid)
    if smallest <= 0:
        offset = float(np.min(grid.pixel_size_angstrom))
        raise InputError(
            f"{config.source}: pixel_size_refinement_config: pixel_size_min: "
            f"{offset} — takes the pixel size to {smallest:g} Å; offsets "
            "are relative to each particle's pixel size, which must stay positive"
        )


def _extreme_rows(table: ParticleTable, start: StartingValues) -> str:
    """Locations of the rows that determine the grids of a score."""
    defocus = np.abs(start.defocus_angstrom).max(axis=-1)
    rows = defocus.argmax(), start.optics.voltage_kv.argmin()
    of_defocus, of_voltage = (table.locate(int(row)) for row in rows)
    of_pixel = table.locate(int(start.pixel_size_angstrom.argmin()))
    return (
        f" (the largest defocus is on {of_defocus}, the lowest voltage on {of_voltage}, "
        f"the smallest pixel on {of_pixel} of the particle table)"
    )
