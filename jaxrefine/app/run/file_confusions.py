"""Confusions of files: maps, template, micrograph, and the kind of the maps."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from jaxrefine.app.run.checks import Files
from jaxrefine.app.run.confusions import Confusion, Sample
from jaxrefine.app.run.inputs import RunInputs
from jaxrefine.data import InputError
from jaxrefine.io.maps import MEAN, SPREAD, read_map
from jaxrefine.io.mrc import image_shape, read_volume
from jaxrefine.io.paths import resolve_path
from jaxrefine.physics.slices import make_template
from jaxrefine.physics.support import middle
from jaxrefine.refine.prepare import Micrograph

# Number of other files of the table that are tried in place of a file.
_OTHER_FILES = 8
# Largest difference of a map's values from the table's, in standard deviations: half
# precision rounds to 0.001.
_SAME_MAP = 0.01

# Reads and filters a micrograph with its maps.
PrepareFiles = Callable[[RunInputs, Files], Micrograph]


def other_statistics(inputs: RunInputs) -> Iterator[Confusion]:
    """The standard deviation maps read as variances, or the reverse."""
    if inputs.reproduces_leopard_em:  # which divides by neither
        return
    if inputs.maps_hold_variance:
        held, power = "standard_deviation", 2.0
    else:
        held, power = "variance", 0.5
    yield Confusion(
        f"with the correlation_variance maps holding the {held.replace('_', ' ')}",
        f"set `statistics: {held}`",
        lambda s: replace(
            s, micrograph=replace(s.micrograph, corr_std=s.micrograph.corr_std**power)
        ),
    )


def other_templates(inputs: RunInputs) -> Iterator[Confusion]:
    """Templates that the table names and that differ from the configured one."""
    if "template_path" not in inputs.table.raw.columns:
        return
    folder = inputs.table.path.absolute().parent
    for text in dict.fromkeys(filter(str.strip, inputs.table.paths("template_path"))):
        path = resolve_path(text, beside=folder, path_map=inputs.config.path_map)
        try:
            if path.samefile(inputs.template_path):
                continue
            volume, _ = read_volume(path)
        except (OSError, InputError):  # reported elsewhere
            continue
        if volume.shape != (inputs.template_side,) * 3:
            continue
        volume = middle(volume, inputs.score.side)
        yield Confusion(
            "with the template that the table names",
            f"set `template_volume_path: {text}`",
            lambda s, v=volume: replace(
                s, template=make_template(v, inputs.config.template_sampling)
            ),
        )


def other_axes(inputs: RunInputs) -> Iterator[Confusion]:
    """The template with its axes in reverse order."""

    def undo(sample: Sample) -> Sample | None:
        try:
            volume, _ = read_volume(inputs.template_path)
        except InputError:
            return None
        turned = np.ascontiguousarray(middle(volume, inputs.score.side).transpose())
        made = make_template(turned, inputs.config.template_sampling)
        return replace(sample, template=made)

    yield Confusion(
        "with the template's axes in the reverse order",
        "its x and z are exchanged: write the volume again, transposed, with the axes "
        "(1, 2, 3) in its header",
        undo,
    )


def other_micrographs(
    inputs: RunInputs, prepare: PrepareFiles, files: Files
) -> Iterator[Confusion]:
    """Other micrographs of the table in place of this one."""
    shape = image_shape(files[0], warn=False)
    others = dict.fromkeys(each[0] for each in inputs.groups if each[0] != files[0])
    alike = [path for path in others if image_shape(path, warn=False) == shape]
    for path in alike[:_OTHER_FILES]:

        def undo(sample: Sample, path: Path = path) -> Sample | None:
            try:
                return replace(sample, micrograph=prepare(inputs, (path, *files[1:])))
            except InputError:
                return None

        yield Confusion(
            f"in the micrograph {path.name}",
            f"particles of {path.name} are attributed to {files[0].name}: correct "
            "micrograph_path",
            undo,
        )


def wrong_maps(
    inputs: RunInputs, micrograph: Micrograph, rows: np.ndarray, files: Files
) -> str:
    """Describe how the maps of a micrograph contradict the values in the table."""
    spread = np.asarray(micrograph.corr_std)
    if inputs.reproduces_leopard_em or inputs.maps_hold_variance:
        spread = spread**2
    off = _off_the_table(inputs, np.asarray(micrograph.corr_mean), spread, rows)
    if not off > _SAME_MAP:
        return ""
    wrong = (
        f"the statistic maps {files[1].name} and {files[2].name} do not hold the table's "
        f"correlation_mean and correlation_variance at its positions"
    )
    others = [each for each in inputs.groups if each[1:] != files[1:]]
    for other in others[:_OTHER_FILES]:
        try:
            mean, spread = map(read_map, other[1:], (MEAN, SPREAD))
        except InputError:
            continue
        if _off_the_table(inputs, mean, spread, rows) <= _SAME_MAP:
            return (
                f"{wrong}; {other[1].name} and {other[2].name} do: correct "
                "correlation_average_path and correlation_variance_path"
            )
    return (
        f"{wrong}: they may be of another micrograph, or the positions of another binning"
    )


def _off_the_table(
    inputs: RunInputs, mean: np.ndarray, spread: np.ndarray, rows: np.ndarray
) -> float:
    """Difference of maps from a table, in standard deviations; NaN if unknown.

    Args:
        inputs: The run.
        mean: The mean map.
        spread: The map of variance or standard deviation, as in its file.
        rows: Rows of particles in this micrograph.
    """
    table = inputs.table
    y, x = (np.rint(table.numbers(name)[rows]).astype(int) for name in ("pos_y", "pos_x"))
    columns = [
        table.numbers(name)[rows] for name in ("correlation_mean", "correlation_variance")
    ]
    said = np.isfinite(columns).all(axis=0)
    inside = (y >= 0) & (x >= 0) & (y < mean.shape[0]) & (x < mean.shape[1])
    use = said & inside & (columns[1] > 0)
    if not said.any() or mean.shape != spread.shape:
        return float("nan")
    if 2 * use.sum() <= said.sum():  # most positions are outside the image
        return float("inf")
    expected_mean, expected_spread = (column[use] for column in columns)
    off = np.abs(mean[y[use], x[use]] - expected_mean) / expected_spread
    off = np.maximum(off, np.abs(spread[y[use], x[use]] / expected_spread - 1))
    return float(np.median(np.nan_to_num(off, nan=np.inf)))
