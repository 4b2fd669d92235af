"""Frames of the interactive plots: axes and tools by Bokeh, for the page's script.

The script paints points into one image per plot, at screen resolution. This is fast for a
hundred thousand points, and shows density where they are close. Frames contain only texts
of this file, nothing from the table.
"""

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
from bokeh.embed import json_item
from bokeh.models import (
    BoxSelectTool,
    ColumnDataSource,
    Label,
    LassoSelectTool,
    PanTool,
    Range1d,
    ResetTool,
    SaveTool,
    Slope,
    Span,
    WheelZoomTool,
)
from bokeh.plotting import figure
from bokeh.resources import Resources

from jaxrefine.app.report.figures import BLUE, DASHES, GREY, INK
from jaxrefine.app.report.thresholds import Threshold

# Events that the script handles.
_EVENTS = ("selectiongeometry", "tap", "mousemove", "mouseleave", "reset")
_HEIGHT = 300
ORANGE = "#d95f02"


@functools.cache
def bokeh_script() -> str:
    """BokehJS without the parts that compile code from text (WebGL, widgets)."""
    return "\n".join(
        Resources(mode="inline", components=["bokeh"], log_level="warn").js_raw
    )


@functools.lru_cache(maxsize=4)  # the frames of a page that is renewed during a run
def linked_plots(
    thresholds: tuple[Threshold, ...], *, errors: tuple[str, ...], compared: bool
) -> list[dict[str, Any]]:
    """For each plot: id, heading, frame, and the names of the columns that it shows.

    Args:
        thresholds: z-scores to draw.
        errors: Quantities with standard errors.
        compared: Whether there is another table.
    """
    plots = [
        _scatter("scores", "z-score", "z_match", "z", "z in the match", "z refined"),
        _histogram("histogram"),
        _scatter("position", "Shift", "shift_x", "shift_y", "x (px)", "y (px)"),
        _scatter(
            "turn", "Change of orientation", "in_plane", "tilt", "in-plane (°)", "tilt (°)"
        ),
        _scatter(
            *("defocus", "Change of defocus", "defocus", "defocus_change"),
            *("relative defocus (Å)", "change (Å)"),
        ),
        _sphere("directions", "Viewing directions, refined", "phi", "theta"),
        _sphere(
            "directions_match", "Viewing directions, match", "phi_match", "theta_match"
        ),
    ]
    plots += [
        _scatter(
            *(f"sigma_{name}", f"Standard error: {name}", "z", f"sigma_{name}"),
            *("refined z-score", f"standard error ({unit})"),
        )
        for name, unit in (("orientation", "°"), ("position", "px"), ("defocus", "Å"))
        if name in errors
    ]
    if compared:
        plots += [
            _scatter(
                *("z_other", "z-score in both tables", "z_other", "z"),
                *("z in the other table", "z in this table"),
            ),
            _scatter(
                *("pose_other", "Difference of the poses", "angle_other", "defocus_other"),
                *("angle (°)", "defocus, this − other (Å)"),
            ),
        ]
    marks: dict[str, list[Any]] = {
        "scores": [Slope(gradient=1, y_intercept=0, line_color=GREY), *_lines(thresholds)],
        "z_other": [Slope(gradient=1, y_intercept=0, line_color=GREY)],
        "histogram": [mark for each in thresholds for mark in _named_line(each)],
        "position": _cross(),
        "turn": [_span("height", 0.0)],
        "defocus": [_span("width", 0.0)],
    }
    for plot in plots:
        for mark in marks.get(plot["id"], []):
            plot["figure"].add_layout(mark)
    return [_item(plot) for plot in plots]


@functools.cache
def micrograph_plot() -> dict[str, Any]:
    """The frame for showing one micrograph."""
    plot = _scatter("map", "", "x", "y", "x (px)", "y (px)", height=420)
    return _item({**plot, "kind": "map"})


def _item(plot: dict[str, Any]) -> dict[str, Any]:
    drawn = plot.pop("figure")
    return {**plot, "item": json_item(drawn)}


def _scatter(
    name: str, title: str, x: str, y: str, x_label: str, y_label: str, height: int = _HEIGHT
) -> dict[str, Any]:
    frame = _frame(x_label, y_label, height)
    _painted(frame)
    kind = {"position": "around_zero", "scores": "same_axes", "z_other": "same_axes"}
    return {
        "id": name,
        "title": title,
        "kind": kind.get(name, "scatter"),
        "x": x,
        "y": y,
        "figure": frame,
    }


def _sphere(name: str, title: str, phi: str, theta: str) -> dict[str, Any]:
    """The whole sphere in Mollweide's equal-area projection."""
    frame = _frame(None, None, 230)
    frame.axis.visible = False
    frame.grid.visible = False
    frame.outline_line_color = None
    x, y = _graticule()
    frame.multi_line(x, y, line_color="#dddddd")
    _painted(frame)
    return {
        "id": name,
        "title": title,
        "kind": "sphere",
        "x": phi,
        "y": theta,
        "figure": frame,
    }


def _histogram(name: str) -> dict[str, Any]:
    frame = _frame("", "particles", _HEIGHT, across=True)
    frame.xgrid.visible = False
    none: Any = {side: [] for side in ("left", "right", "top")}
    looks = (
        {"fill_color": None, "line_color": GREY},
        {"fill_color": BLUE, "line_color": "white", "line_width": 0.5},
        {"fill_color": ORANGE, "line_color": "white", "line_width": 0.5},
    )
    # The order in which the script fills them: match, shown, selected.
    for look in (looks[1], looks[2], looks[0]):
        frame.quad(
            source=ColumnDataSource(none),
            left="left",
            right="right",
            top="top",
            bottom=0,
            **look,
        )
    return {"id": name, "title": "", "kind": "histogram", "figure": frame}


def _frame(x: str | None, y: str | None, height: int, *, across: bool = False) -> figure:
    select = BoxSelectTool(dimensions="width" if across else "both")
    tools = [select, WheelZoomTool(), PanTool(), ResetTool(), SaveTool()]
    if not across:
        tools.insert(1, LassoSelectTool())
    frame = figure(
        height=height,
        width=400,
        sizing_mode="stretch_width",
        x_range=Range1d(start=0, end=1),
        y_range=Range1d(start=0, end=1),
        x_axis_label=x,
        y_axis_label=y,
        tools=tools,
        active_drag=select,
        active_scroll=None,
        toolbar_location="above",
        min_border=4,
    )
    frame.toolbar.logo = None
    frame.toolbar.autohide = False
    frame.grid.grid_line_color = "#ececec"
    frame.outline_line_color = GREY
    frame.axis.axis_label_text_font_style = "normal"
    frame.axis.axis_label_text_color = INK
    frame.axis.major_label_text_color = INK
    frame.subscribed_events = set(_EVENTS)
    return frame


def _painted(frame: figure) -> None:
    """The image that the script paints, and the rings around selected particles."""
    nothing: Any = [np.zeros((1, 1), np.uint32)]
    frame.image_rgba(image=nothing, x=[0], y=[0], dw=[1], dh=[1])
    frame.scatter(
        source=ColumnDataSource({"x": [], "y": []}),
        size=15,
        fill_color=None,
        line_color=INK,
        line_width=2,
    )


def _lines(thresholds: Sequence[Threshold]) -> list[Span]:
    """Lines in the plot of the refined z-scores over the match's."""
    crossed = {"match": ["height"], "refined": ["width"], "both": ["width", "height"]}
    return [
        _span(along, each.z, DASHES[each.of])
        for each in thresholds
        for along in crossed[each.of]
    ]


def _named_line(threshold: Threshold) -> list[Any]:
    name = Label(
        x=threshold.z,
        y=4,
        y_units="screen",
        text=f"{threshold.name} {threshold.z:.2f}",
        angle=np.pi / 2,
        x_offset=-3,
        text_font_size="11px",
        text_color=INK,
        background_fill_color="white",
        background_fill_alpha=0.7,
    )
    line = _span("height", threshold.z, DASHES[threshold.of])
    line.level = "annotation"
    return [line, name]


def _cross() -> list[Span]:
    return [_span(along, 0.0) for along in ("width", "height")]


def _span(along: Any, at: float, dash: Any = None) -> Span:
    return Span(
        dimension=along,
        location=at,
        line_color=INK if dash else GREY,
        line_dash=dash or "solid",
        level="underlay",
    )


def _graticule() -> tuple[list[list[float]], list[list[float]]]:
    """Meridians and parallels every 30°, in Mollweide's projection."""
    lines = []
    for longitude in range(-180, 181, 60):
        latitude = np.linspace(-90, 90, 61)
        lines.append(mollweide(np.full(61, float(longitude)), latitude))
    for latitude in range(-60, 61, 30):
        longitude = np.linspace(-180, 180, 61)
        lines.append(mollweide(longitude, np.full(61, float(latitude))))
    return [line[0].tolist() for line in lines], [line[1].tolist() for line in lines]


def mollweide(
    longitude_deg: np.ndarray, latitude_deg: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Mollweide's projection, x within ±2√2 and y within ±√2.

    2t + sin 2t = π sin(latitude) by Newton's method, as in Snyder, Map Projections (1987).
    """
    latitude = np.deg2rad(latitude_deg)
    angle = latitude.copy()
    for _ in range(50):
        slope = np.maximum(2 + 2 * np.cos(2 * angle), 1e-9)
        off = 2 * angle + np.sin(2 * angle) - np.pi * np.sin(latitude)
        angle = np.clip(angle - off / slope, -np.pi / 2, np.pi / 2)
    x = 2 * np.sqrt(2) / np.pi * np.deg2rad(longitude_deg) * np.cos(angle)
    return x, np.sqrt(2) * np.sin(angle)
