"""The figures of a report: PNG files with alternative texts.

Colours are distinguishable with colour blindness and in print: one blue, black, and shades
of grey; marks also differ in form.
"""

import io
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import matplotlib
import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from PIL import Image

from jaxrefine.app.report.table_data import ReportData
from jaxrefine.app.report.thresholds import Threshold

if TYPE_CHECKING:
    from matplotlib.typing import RcKeyType

BLUE, INK, GREY, PALE = "#1f5a94", "#1a1a1a", "#6b6b6b", "#cfd8e3"
_DPI = 150
_STYLE: "dict[RcKeyType, Any]" = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#ececec",
    "xtick.color": GREY,
    "ytick.color": GREY,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
}
# Lines of thresholds, by whose z-scores they are for: on, off, in points.
DASHES = {"both": [5, 3], "match": [1, 3], "refined": [7, 3, 1, 3]}
_MOST_WITH_NAMES, _MOST_BINS = 40, 40


@dataclass(frozen=True)
class RenderedFigure:
    """A figure of the page.

    Attributes:
        name: File name without extension.
        title: Heading; empty if that of the section suffices.
        caption: Description of what it shows.
        alternative: Alternative text, with numbers.
        png: The file's content.
    """

    name: str
    title: str
    caption: str
    alternative: str
    png: bytes


def signed(form: str, value: float) -> str:
    """A number with a sign, with a typographic minus."""
    return form.format(value).replace("-", "−")


def style() -> AbstractContextManager[None]:
    """The style of the report's figures, as a context: `with style(): …`."""
    return matplotlib.rc_context(_STYLE)


def png_of(figure: Figure) -> bytes:
    """Content of a PNG file; equal figures give equal bytes.

    It has 256 colours, which needs a third of the bytes and makes steps of colour bars
    visible.
    """
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", dpi=_DPI, pil_kwargs={"compress_level": 1})
    stream = io.BytesIO()
    image = Image.open(drawn).convert("RGB")
    few = image.quantize(method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    few.save(stream, format="PNG")
    return stream.getvalue()


def scores(data: ReportData, thresholds: Sequence[Threshold]) -> RenderedFigure:
    """z-scores before and after refinement, and a histogram of the gain."""
    with style():
        figure = Figure(figsize=(10, 4.4))
        left, right = figure.subplots(1, 2)
        both = data.refined & np.isfinite(data.z_before)
        if both.any():
            alternative = _before_and_after(left, data, both, thresholds)
            gain = data.z_after[both] - data.z_before[both]
            histogram(right, gain, "gain in z (refined − match)", "Gain", "{:+.2f}")
        else:
            after = data.z_after[data.refined]
            histogram(left, after, "refined z-score", "Refined z-score", "{:.2f}")
            _mark_thresholds(left, thresholds, histogram=True)
            right.set_axis_off()
            alternative = "Histogram of refined z-scores; the match's are not in the table."
        return RenderedFigure(
            "scores",
            "",
            "Left: z-score of each particle in the match, computed with the match's own "
            "score, and after refinement. Particles above the diagonal gained."
            f"{_hollow(data)} Right: the gain.{_meanings(thresholds)}"
            f"{_caveat(data, thresholds)}",
            alternative,
            png_of(figure),
        )


def _hollow(data: ReportData, what_follows: str = "") -> str:
    """Explanation of hollow marks, if there are any, and their consequence."""
    if np.all(data.converged[data.refined]):
        return ""
    return f" Hollow marks: particles that ended at a limit of the search{what_follows}."


def _meanings(thresholds: Sequence[Threshold]) -> str:
    return "".join(f" {each.meaning}" for each in thresholds)


def _caveat(data: ReportData, thresholds: Sequence[Threshold]) -> str:
    """Note on the effect of a polish on a threshold."""
    if not data.sigma or not any(each.of == "both" for each in thresholds):
        return ""
    return (
        " The polish raises z-scores, also those of noise (by about 0.3 at z = 10). A "
        "threshold chosen for the match is therefore too low for refined z-scores."
    )


def _before_and_after(
    axes: Axes, data: ReportData, both: np.ndarray, thresholds: Sequence[Threshold]
) -> str:
    before, after = data.z_before[both], data.z_after[both]
    points(axes, before, after, hollow=~data.converged[both])
    values = np.concatenate([before, after, [each.z for each in thresholds]])
    low, high = values.min(), values.max()
    margin = 0.06 * (high - low) or 1.0
    low, high = low - margin, high + margin
    axes.plot([low, high], [low, high], color=GREY, linewidth=1, zorder=1)
    axes.annotate(
        "no change",
        (high, high),
        xytext=(-2, -12),
        textcoords="offset points",
        rotation=45,
        rotation_mode="anchor",
        ha="right",
        va="center",
        color=GREY,
        fontsize=8,
    )
    axes.set(xlim=(low, high), ylim=(low, high), aspect="equal")
    axes.set(xlabel="z-score of the match", ylabel="refined z-score", title="z-score")
    _mark_thresholds(axes, thresholds)
    return (
        f"Scatter plot of {len(before)} particles: mean z-score {before.mean():.2f} in the "
        f"match, {after.mean():.2f} refined; {int((after > before).sum())} gained."
    )


def _mark_thresholds(
    axes: Axes, thresholds: Sequence[Threshold], *, histogram: bool = False
) -> None:
    for each in thresholds:
        if histogram and each.of == "match":
            continue
        look = {"color": INK, "linestyle": (0, tuple(DASHES[each.of])), "linewidth": 1}
        horizontal = each.of == "refined" and not histogram
        if histogram or each.of != "refined":
            axes.axvline(each.z, **look)
        if not histogram and each.of != "match":
            axes.axhline(each.z, **look)
        axes.annotate(
            f"{each.name} {each.z:.2f}",
            (1, each.z) if horizontal else (each.z, 0),
            xycoords=("axes fraction", "data") if horizontal else ("data", "axes fraction"),
            xytext=(-4, -10) if horizontal else (4, 5),
            ha="right" if horizontal else "left",
            textcoords="offset points",
            fontsize=8,
            color=INK,
        )


def changes(data: ReportData) -> RenderedFigure:
    """Changes by the refinement: orientation, position, defocus."""
    rows = data.refined
    shift = data.shift_px[rows]
    tilt, in_plane = data.tilt_deg[rows], data.in_plane_deg[rows]
    defocus = data.defocus_change_angstrom[rows]
    with style():
        figure = Figure(figsize=(10, 7.2))
        (top_left, top_right), (low_left, low_right) = figure.subplots(2, 2)
        histogram(top_left, tilt, "tilt out of the plane (°)", "Tilt", "{:.2f}°")
        histogram(
            top_right, in_plane, "in-plane rotation (°)", "In-plane rotation", "{:+.2f}°"
        )
        _shifts(low_left, shift, ~data.converged[rows])
        histogram(low_right, defocus, "change of defocus (Å)", "Defocus", "{:+.0f} Å")
        median = np.median(np.hypot(*shift.T)) if len(shift) else np.nan
        return RenderedFigure(
            "changes",
            "",
            "Changes from the match to the refined values. If particles accumulate at the "
            "ends of the search range, the range was too narrow. A median shift or change "
            "of defocus far from zero is a systematic difference between match and "
            "refinement.",
            f"Medians: tilt {_median(tilt):.2f}°, in-plane {_median(in_plane):.2f}°, "
            f"position {median:.2f} px, defocus {_median(defocus):.1f} Å.",
            png_of(figure),
        )


def _shifts(axes: Axes, shift: Float[np.ndarray, "n 2"], hollow: np.ndarray) -> None:
    """Shifts (x, y); several equal ones are drawn as a larger mark with their number."""
    axes.axhline(0, color=GREY, linewidth=1, zorder=1)
    axes.axvline(0, color=GREY, linewidth=1, zorder=1)
    places, counts = np.unique(np.round(shift, 2), axis=0, return_counts=True)
    if len(places) == len(shift) or len(places) > 400:
        points(axes, *shift.T, hollow=hollow)
    else:
        sizes = 30 + 250 * counts / counts.max()
        axes.scatter(*places.T, s=sizes, color=BLUE, alpha=0.85, linewidths=0, zorder=2)
        if len(places) <= _MOST_WITH_NAMES:
            for place, count in zip(places, counts, strict=True):
                axes.annotate(
                    str(count), place, ha="center", va="center", color="white", fontsize=7
                )
    reach = 1.15 * float(np.abs(shift).max(initial=0.5))
    axes.set(xlim=(-reach, reach), ylim=(reach, -reach), aspect="equal")
    axes.set(xlabel="x (px)", ylabel="y (px, downwards)", title="Shift")


def errors(data: ReportData) -> RenderedFigure:
    """Standard errors against the z-score, and defocus values with error bars."""
    units = {"orientation": "°", "position": "px", "defocus": "Å"}
    with style():
        figure = Figure(figsize=(10, 3.4))
        medians = []
        columns = figure.subplots(1, len(data.sigma), squeeze=False)[0]
        for axes, (name, values) in zip(columns, data.sigma.items(), strict=True):
            there = np.isfinite(values) & data.refined
            points(
                axes,
                data.z_after[there],
                values[there],
                hollow=~data.converged[there],
            )
            median, unit = _median(values[there]), units[name]
            axes.axhline(median, color=INK, linewidth=1, linestyle=(0, (4, 3)))
            gap = "" if unit == "°" else " "
            label = f"median {_two_digits(median)}{gap}{unit}"
            axes.text(1, 1.02, label, transform=axes.transAxes, ha="right", fontsize=8)
            axes.set(xlabel="refined z-score", ylabel=f"standard error ({unit})")
            axes.set_title(name.capitalize())
            axes.set_ylim(bottom=0)
            medians.append(f"{name} {_two_digits(median)} {unit}")
        return RenderedFigure(
            "errors",
            "",
            "Standard errors of the polish, of the orientation about its least certain "
            "axis, the position and the defocus. They fall as the z-score rises."
            f"{_hollow(data, ', where errors are not those of an optimum')}",
            f"Median standard errors: {', '.join(medians)}.",
            png_of(figure),
        )


def defocus_bars(data: ReportData) -> RenderedFigure:
    """Defocus of each particle in match and refinement, with standard errors if known."""
    rows = np.flatnonzero(data.refined)
    rows = rows[np.argsort(data.relative_defocus_angstrom[rows], kind="stable")]
    before = data.table.numbers("relative_defocus")[rows]
    after, place = data.relative_defocus_angstrom[rows], np.arange(len(rows))
    sigma = data.sigma.get("defocus")
    with style():
        figure = Figure(figsize=(10, 3.2))
        axes = figure.subplots()
        few = len(rows) <= _MOST_WITH_NAMES
        size = 6 if few else 2
        axes.plot(place, before, "o", mfc="white", mec=GREY, markersize=size, label="match")
        axes.errorbar(
            place,
            after,
            None if sigma is None else sigma[rows],
            fmt="o",
            color=BLUE,
            markersize=size,
            elinewidth=1 if few else 0.3,
            capsize=2 if few else 0,
            zorder=3,
            label="refined",
        )
        axes.set(ylabel="relative defocus (Å)", title="Relative defocus")
        if few:
            names = [data.labels[row] for row in rows]
            axes.set_xticks(place, names, parse_math=False)
            axes.set_xlabel("particle, by refined defocus")
        else:
            axes.set_xlabel("particles, ordered by refined defocus")
        axes.legend(
            loc="lower right", bbox_to_anchor=(1, 0.98), ncols=2, markerscale=6 / size
        )
        bars = ", with one standard error to either side" if sigma is not None else ""
        return RenderedFigure(
            "defocus",
            "",
            "Defocus relative to the micrograph's, in the match (hollow) and refined"
            f"{bars}.",
            f"Refined relative defocus from {after.min():.0f} to {after.max():.0f} Å.",
            png_of(figure),
        )


def points(
    axes: Axes, x: np.ndarray, y: np.ndarray, hollow: np.ndarray, most: int = 2000
) -> None:
    """Marks; hollow for particles that ended at a limit, small and pale if many."""
    many = len(x) > most
    size, alpha = (4, 0.35) if many else (26, 0.85)
    axes.scatter(x[~hollow], y[~hollow], s=size, color=BLUE, alpha=alpha, linewidths=0)
    axes.scatter(
        x[hollow], y[hollow], s=size, facecolors="none", edgecolors=BLUE, linewidths=0.9
    )


def histogram(axes: Axes, values: np.ndarray, label: str, title: str, form: str) -> None:
    """Counts, with the median marked and labelled."""
    values = values[np.isfinite(values)]
    axes.set(xlabel=label, ylabel="particles", title=title)
    if not len(values):
        axes.text(0.5, 0.5, "no values", transform=axes.transAxes, ha="center")
        return
    edges = _bins(values)
    axes.hist(values, bins=edges, color=BLUE, alpha=0.85, edgecolor="white")
    if values.min() >= 0 and edges[0] < values.max() / 2:  # for lengths, start at 0
        axes.set_xlim(left=min(edges[0], 0.0))
    axes.grid(axis="x", visible=False)
    median = _median(values)
    axes.axvline(median, color=INK, linewidth=1.2)
    axes.text(
        1, 1.02, f"median {signed(form, median)}", transform=axes.transAxes, ha="right"
    )
    axes.yaxis.set_major_locator(MaxNLocator("auto", integer=True))


def _bins(values: np.ndarray) -> list[float]:
    """Edges of bins over all values, with more bins for more values.

    For values on a grid, a bin is one step or a whole number of steps; otherwise the number
    of steps in a bin would vary.
    """
    low, high = float(values.min()), float(values.max())
    if high - low < 1e-6:
        return [low - 0.5, high + 0.5]
    count = int(np.clip(2 * np.sqrt(len(values)), 8, _MOST_BINS))
    step = _grid_step(values)
    if step is None:
        return np.linspace(low, high, 1 + count).tolist()
    steps = round((high - low) / step) + 1
    width = -(-steps // _MOST_BINS) * step
    return (low - step / 2 + width * np.arange(-(-steps * step // width) + 1)).tolist()


def _grid_step(values: np.ndarray) -> float | None:
    """The step of which all differences are multiples; None if there is none."""
    gaps = np.diff(np.unique(np.round(values, 4)))
    gaps = gaps[gaps > 2e-3]
    if not len(gaps) or len(gaps) > len(values) / 2:
        return None
    step = float(gaps.min())
    off = np.abs(gaps / step - np.rint(gaps / step))
    return step if off.max() < 0.02 else None


def _two_digits(value: float) -> str:
    """A number with two digits: 0.30, 0.072, 32."""
    return f"{value:#.2g}".rstrip(".")


def _median(values: np.ndarray) -> float:
    values = values[np.isfinite(values)]
    return float(np.median(values)) if len(values) else float("nan")
