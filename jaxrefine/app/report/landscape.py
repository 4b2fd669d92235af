"""The report's figure of score landscapes."""

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jaxrefine.app.report.figures import BLUE, INK, PALE, RenderedFigure, png_of, style
from jaxrefine.app.report.table_data import ReportData
from jaxrefine.app.run.landscape import Landscape

# Tolerance: z-scores are float32, and boxes are at other positions than in the search.
_AGREES = 0.05
_ERRORS = (
    ("refined_tilt_x_sigma", "refined_tilt_y_sigma"),
    ("refined_in_plane_sigma",),
    ("refined_relative_defocus_sigma",),
)
_TILTS = (("tilt about x", "-", BLUE), ("tilt about y", (0, (4, 2)), INK))


def landscape_figure(data: ReportData, found: list[Landscape]) -> RenderedFigure:
    """One row per particle: z over tilts, in-plane rotation and defocus."""
    with style():
        figure = Figure(figsize=(10, 0.5 + 1.75 * len(found)))
        grid = figure.subplots(len(found), 3, sharey="row", sharex="col", squeeze=False)
        for (tilt, turn, defocus), one in zip(grid, found, strict=True):
            for name, line, colour in _TILTS:
                tilt.plot(
                    one.offset[name], one.z[name], linestyle=line, color=colour, label=name
                )
            turn.plot(one.offset["in-plane"], one.z["in-plane"], color=BLUE)
            defocus.plot(one.offset["defocus"], one.z["defocus"], color=BLUE)
            for axes, names in zip((tilt, turn, defocus), _ERRORS, strict=True):
                _mark_best(axes, [data.table.numbers(name)[one.row] for name in names])
            tilt.set_ylabel("z-score")
            tilt.set_title(
                _title(data, one.row),
                fontsize=9,
                parse_math=False,
                pad=16 if tilt is grid[0, 0] else None,
            )
        grid[0, 0].legend(
            loc="lower left", fontsize=7, handlelength=2.4, bbox_to_anchor=(0, 1), ncols=2
        )
        for axes, label in zip(
            grid[-1],
            ("tilt (°)", "in-plane rotation (°)", "defocus (Å)"),
            strict=True,
        ):
            axes.set_xlabel(f"{label}, from the refined value")
        return RenderedFigure(
            "landscape",
            "",
            "z-score around the refined values, one parameter at a time, over the search "
            "range. Shaded: one standard error to either side, if known. "
            f"{_agreement(data, found)}",
            f"Lines of z-score over tilts, in-plane rotation and defocus, of {len(found)} "
            "particles; highest at zero where the refinement found the best.",
            png_of(figure),
        )


def _title(data: ReportData, row: int) -> str:
    """The particle's label, with its micrograph where others have the same label."""
    label = f"particle {data.labels[row]}"
    if data.labels.count(data.labels[row]) == 1:
        return label
    return f"{label} of {Path(data.table.micrograph_paths[row]).name}"


def _mark_best(axes: Axes, sigmas: list[float]) -> None:
    """Mark zero, and the largest known standard error."""
    known = [sigma for sigma in sigmas if np.isfinite(sigma)]
    if known:
        axes.axvspan(-max(known), max(known), color=PALE, zorder=0)
    axes.axvline(0.0, color=INK, linewidth=0.8)


def _agreement(data: ReportData, found: list[Landscape]) -> str:
    """Whether the scores with this configuration agree with the table."""
    off = max(abs(one.z_at_best - data.z_after[one.row]) for one in found)
    if off <= _AGREES:
        return f"At zero, the scores agree with the table's to within {off:.1g}."
    return (
        f"At zero, the scores differ from the table's by up to {off:.2f}: the table was "
        "refined with another configuration, or its images have changed."
    )
