"""The figures of a calibration's page: values, correlations, scores, and defocus planes."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jaxrefine.app.report.figures import (
    BLUE,
    GREY,
    INK,
    PALE,
    RenderedFigure,
    histogram,
    png_of,
    points,
    signed,
    style,
)

_DIVERGING = "RdBu_r"  # told apart with colour blindness
_MOST_VALUES, _MOST_WITH_NUMBERS, _MOST_WITH_NAMES = 40, 16, 40
_PROBABLE = 0.5
# Names on axes are shortened to this length.
_LONGEST_NAME = 34

Entry = Mapping[str, Any]


def value_figure(entries: Sequence[Entry]) -> list[RenderedFigure]:
    """Change of each determined value, in standard errors.

    Args:
        entries: Items of `parameters` in `calibration.yaml`.
    """
    names, changes = [], []
    for entry in entries:
        group = "" if entry["group"] == "all" else f", {entry['group']}"
        for label, value in entry["values"].items():
            if "value" in value:
                names.append(_short(f"{label}{group}"))
                changes.append(value["change"] / value["standard_error"])
    names, changes = names[:_MOST_VALUES], changes[:_MOST_VALUES]
    if not names:
        return []
    with style():
        figure = Figure(figsize=(10, 1.1 + 0.26 * len(names)))
        axes, place = figure.subplots(), np.arange(len(names))
        axes.axvspan(-2, 2, color=PALE, label="± 2 standard errors")
        axes.axvline(0, color=GREY, linewidth=1)
        axes.errorbar(changes, place, xerr=1, fmt="o", color=BLUE, capsize=2)
        axes.set_yticks(place, names, parse_math=False)
        axes.set(xlabel="change from the starting value / standard error")
        axes.set_ylim(len(names) - 0.4, -0.6)
        axes.grid(axis="y", visible=False)
        said = ", ".join(
            f"{n} {signed('{:+.1f}', c)}" for n, c in zip(names, changes, strict=True)
        )
        return [
            RenderedFigure(
                "values",
                "",
                "Change of each value from that of the table, in its standard errors; the "
                "bars are one standard error. Within the grey band, the change may be "
                "chance.",
                f"Changes in standard errors: {said}.",
                png_of(figure),
            )
        ]


def correlation_figure(correlation: Mapping[str, Any] | None) -> list[RenderedFigure]:
    """Correlations between the fitted values.

    Args:
        correlation: `correlation` in `calibration.yaml`.
    """
    if correlation is None or len(correlation["values"]) < 2:
        return []
    names, matrix = correlation["values"], np.array(correlation["matrix"], float)
    count = len(names)
    with style(), matplotlib.rc_context({"axes.grid": False}):
        side = float(np.clip(2.4 + 0.34 * count, 4.2, 9.0))
        figure = Figure(figsize=(10, side))
        axes = figure.subplots()
        drawn = axes.imshow(matrix, cmap=_DIVERGING, vmin=-1, vmax=1)
        size = 8 if count <= _MOST_WITH_NUMBERS else 6
        short = [_short(name) for name in names]
        axes.set_xticks(range(count), short, parse_math=False, rotation=90, fontsize=size)
        axes.set_yticks(range(count), short, parse_math=False, fontsize=size)
        axes.set_anchor("W")
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0)
        if count <= _MOST_WITH_NUMBERS:
            for (row, column), value in np.ndenumerate(matrix):
                text = signed("{:.2f}", round(value, 2) + 0.0) if row != column else ""
                color = "white" if abs(value) > 0.6 else INK
                axes.text(
                    column, row, text, ha="center", va="center", fontsize=7, color=color
                )
        figure.colorbar(drawn, ax=axes, shrink=0.7, ticks=(-1, -0.5, 0, 0.5, 1))
        away = np.abs(np.triu(matrix, 1))
        row, column = np.unravel_index(away.argmax(), away.shape)
        largest = signed("{:+.2f}", float(matrix[row, column]))
        return [
            RenderedFigure(
                "correlation",
                "",
                "Correlation between the errors of the fitted values, poses included. A "
                "pair near 1 or −1 is known only in combination.",
                f"Matrix of {count} values; the largest correlation is {largest}, of "
                f"{names[row]} and {names[column]}.",
                png_of(figure),
            )
        ]


def score_figure(
    before: Float[np.ndarray, " n"],
    after: Float[np.ndarray, " n"],
    probability: Float[np.ndarray, " n"],
    held_out_gain: Float[np.ndarray, " n"] | None,
) -> RenderedFigure:
    """2DTM SNR before and after, its gain, and the gain of particles not fitted.

    Args:
        before: With poses fitted alone.
        after: Calibrated.
        probability: Of being a particle; hollow if less than one half.
        held_out_gain: Gain of the check; NaN for particles that were fitted.
    """
    known = np.isfinite(before) & np.isfinite(after)
    before, after, likely = before[known], after[known], probability[known] >= _PROBABLE
    with style():
        figure = Figure(figsize=(10, 3.6))
        checked = held_out_gain is not None
        axes = figure.subplots(1, 3 if checked else 2)
        points(axes[0], before, after, hollow=~likely)
        if len(before):
            ends = [min(before.min(), after.min()), max(before.max(), after.max())]
            axes[0].plot(ends, ends, color=GREY, linewidth=1, zorder=1)
        axes[0].set(xlabel="poses fitted alone", ylabel="calibrated", title="2DTM SNR")
        gain = (after - before)[likely]
        histogram(axes[1], gain, "calibrated − poses alone", "Gain", "{:+.3f}")
        _mark_zero(axes[1])
        if held_out_gain is not None:
            of_check = held_out_gain[known][likely]
            title = "Gain where not fitted"
            histogram(
                axes[2], of_check, "values of the other half − start", title, "{:+.3f}"
            )
            _mark_zero(axes[2])
        hollow = "" if likely.all() else " Hollow marks are probably not particles."
        check = (
            " Right: gain of the particles that were held out, with the values that the "
            "other half gave."
            if checked
            else ""
        )
        return RenderedFigure(
            "scores",
            "",
            f"Left: 2DTM SNR of each pick with poses fitted alone, and calibrated.{hollow} "
            f"{'Middle' if checked else 'Right'}: the gain of the particles.{check}",
            f"2DTM SNR of {len(before)} picks: mean {_mean(before):.2f} with poses fitted "
            f"alone, {_mean(after):.2f} calibrated.",
            png_of(figure),
        )


def micrograph_figure(
    rows: Sequence[Mapping[str, Any]],
) -> list[RenderedFigure]:
    """Defocus and tilt of the micrographs, with their standard errors.

    Args:
        rows: For each micrograph its `name` and, by label, (value, standard error).
    """
    panels = {
        "defocus_change": "change of defocus (Å)",
        "tilt": "tilt (°)",
    }
    panels = {
        label: unit for label, unit in panels.items() if any(label in r for r in rows)
    }
    if not panels:
        return []
    few = len(rows) <= _MOST_WITH_NAMES
    place, size = np.arange(len(rows)), 5 if few else 2
    with style():
        figure = Figure(figsize=(10, 0.4 + 2.2 * len(panels) + (1.1 if few else 0)))
        columns = figure.subplots(len(panels), 1, squeeze=False, sharex=True)[:, 0]
        said = []
        for axes, (label, unit) in zip(columns, panels.items(), strict=True):
            values, sigma = np.array([r.get(label, (np.nan, np.nan)) for r in rows]).T
            axes.axhline(0, color=GREY, linewidth=1)
            axes.errorbar(
                place,
                values,
                sigma,
                fmt="o",
                color=BLUE,
                markersize=size,
                elinewidth=1 if few else 0.3,
                capsize=2 if few else 0,
            )
            axes.set(ylabel=unit, xlim=(-0.6, len(rows) - 0.4))
            said.append(f"{unit} from {np.nanmin(values):.4g} to {np.nanmax(values):.4g}")
        if few:
            names = [_short(str(row["name"])) for row in rows]
            rotation = 0 if len(rows) <= 4 else 90
            columns[-1].set_xticks(place, names, parse_math=False, rotation=rotation)
        else:
            columns[-1].set_xlabel("micrographs, in the table's order")
        return [
            RenderedFigure(
                "micrographs",
                "",
                "Micrographs with one standard error to either side. Tilts of one stage "
                "agree within their errors.",
                f"{len(rows)} micrographs: {'; '.join(said)}.",
                png_of(figure),
            )
        ]


def plane_figure(
    number: int,
    name: str,
    place_angstrom: Float[np.ndarray, "n 2"],
    defocus_angstrom: Float[np.ndarray, " n"],
    residual_angstrom: Float[np.ndarray, " n"],
    slope: Float[np.ndarray, " 2"],
) -> RenderedFigure:
    """The particles of one micrograph and its defocus plane.

    Args:
        number: Number of the figure, for its file name.
        name: The micrograph.
        place_angstrom: (y, x) of its particles from its centre.
        defocus_angstrom: Their fitted defocus.
        residual_angstrom: What of it is their own, above the plane.
        slope: Of the plane along y and x, in Å/Å.
    """
    steep = float(np.hypot(*slope))
    along = slope / steep if steep else np.array([1.0, 0.0])
    distance = place_angstrom @ along
    rms = float(np.sqrt(np.mean(residual_angstrom**2)))
    with style():
        figure = Figure(figsize=(10, 3.6))
        left, middle, right = figure.subplots(1, 3, width_ratios=(1.1, 1.3, 1.0))
        y, x = place_angstrom.T / 10
        reach = max(float(np.abs(residual_angstrom).max()), 1.0)
        marks = left.scatter(
            *(x, y),
            s=26,
            c=residual_angstrom,
            cmap=_DIVERGING,
            vmin=-reach,
            vmax=reach,
            edgecolors=GREY,
            linewidths=0.4,
        )
        if steep:
            arrow = 0.3 * max(float(np.ptp(x)), float(np.ptp(y)), 1.0) * along
            left.annotate(
                "",
                (arrow[1], arrow[0]),
                (0, 0),
                arrowprops={"arrowstyle": "->", "color": INK},
            )
        left.set(xlabel="x (nm)", ylabel="y (nm, downwards)", title="Above the plane (Å)")
        left.invert_yaxis()
        left.set_aspect("equal", adjustable="datalim")
        figure.colorbar(marks, ax=left, shrink=0.8)
        plane = defocus_angstrom - residual_angstrom
        order = np.argsort(distance)
        middle.plot(distance / 10, defocus_angstrom, "o", color=BLUE, markersize=4)
        middle.plot(distance[order] / 10, plane[order], color=INK, linewidth=1)
        middle.set(xlabel="along the slope (nm)", ylabel="defocus (Å)", title="Defocus")
        histogram(right, residual_angstrom, "Å", "Above the plane", "{:+.0f} Å")
        return RenderedFigure(
            f"plane_{number:03d}",
            name,
            f"{len(residual_angstrom)} particles, {rms:.0f} Å (root mean square) from the "
            "plane. The arrow points to where the defocus increases. A plane does not "
            "describe a curve in the middle, or colours that change across the micrograph.",
            f"Defocus of {len(residual_angstrom)} particles and the fitted plane, of slope "
            f"{steep:.3f} Å/Å; root mean square distance {rms:.0f} Å.",
            png_of(figure),
        )


def _mark_zero(axes: Axes) -> None:
    axes.axvline(0, color=GREY, linewidth=1, linestyle=(0, (4, 3)))


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else float("nan")


def _short(name: str) -> str:
    """A name that fits beside an axis: its ends, which tell values and files apart."""
    if len(name) <= _LONGEST_NAME:
        return name
    half = _LONGEST_NAME // 2
    return f"{name[: half - 1]}…{name[-half:]}"
