"""Maps of the micrographs: particles coloured by z-score and by defocus.

Both colour scales avoid grey, used for the images, and vary in lightness from end to end.
"""

from pathlib import Path

import matplotlib
import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.collections import EllipseCollection
from matplotlib.figure import Figure

from jaxrefine.app.report.figures import INK, RenderedFigure, png_of, style
from jaxrefine.app.report.table_data import ReportData
from jaxrefine.data import InputError
from jaxrefine.io.mrc import read_image

_THUMBNAIL_PX = 420
_MOST_WITH_NAMES = 40
_BLUR_ANGSTROM = 10.0  # standard deviation
_PERCENT_KEPT = 98.0


def micrograph_map(data: ReportData, text: str, path: Path, number: int) -> RenderedFigure:
    """Particles of one micrograph, over its image if that can be read.

    Args:
        data: The table.
        text: The micrograph, as named in the table.
        path: Its file.
        number: Number of the figure, for its file name.
    """
    rows = data.micrographs[text]
    pixel_size = float(data.table.numbers("pixel_size")[rows[0]])
    image, shape, note = None, None, ""
    try:
        whole = read_image(path)
        image, shape = thumbnail(whole, pixel_size), whole.shape
    except InputError as error:
        note = f" No image: {'; '.join(error.errors)}."
    centre = data.centre_px[rows]
    shape = shape or _around(centre, data.template_side_px)
    with style(), matplotlib.rc_context({"axes.grid": False}):
        height = 3.7 * min(1.7, max(0.5, shape[0] / shape[1])) + 0.6
        figure = Figure(figsize=(10, height))
        panels = figure.subplots(1, 2)
        z, defocus = data.z_after, data.relative_defocus_angstrom
        for axes, values, colours, label in (
            (panels[0], z, "viridis", "Refined z-score"),
            (panels[1], defocus, "plasma", "Refined relative defocus (Å)"),
        ):
            _background(axes, image, shape)
            marks = _marks(axes, data, rows, values, colours)
            axes.set_title(label)
            if data.refined.any():
                figure.colorbar(marks, cax=axes.inset_axes((1.03, 0, 0.035, 1)))
        panels[0].set_ylabel("y (px)")
        _scale_bar(panels[0], shape, pixel_size)
    count = int(data.refined[rows].sum())
    many = f"{len(rows)} particles, {count} refined"
    crosses = " Crosses were not refined." if count < len(rows) else ""
    if not data.converged[rows][data.refined[rows]].all():
        crosses += " Dashed rings ended at a limit of the search."
    return RenderedFigure(
        f"micrograph_{number:03d}",
        text,
        f"{many}.{crosses}{note}",
        f"Map of {many}, coloured by z-score and by defocus.",
        png_of(figure),
    )


def thumbnail(
    image: Float[np.ndarray, "Y X"],
    pixel_size_angstrom: float,
    side_px: int = _THUMBNAIL_PX,
) -> Float[np.ndarray, "y x"]:
    """A small image: means over blocks of pixels, smoothed to make particles visible.

    Values that are not finite are ignored.

    Args:
        image: A micrograph.
        pixel_size_angstrom: Pixel size of the micrograph.
        side_px: Largest length of the longer side.
    """
    factor = -(-max(image.shape) // side_px)
    height, width = (max(1, side // factor) for side in image.shape)
    rows, columns = (min(factor, side) for side in image.shape)
    blocks = image[: height * rows, : width * columns]
    blocks = blocks.reshape(height, rows, width, columns)
    small = blocks.mean(axis=(1, 3), dtype=np.float64)
    if not np.isfinite(small).all():
        good = np.isfinite(blocks)
        total = np.where(good, blocks, 0.0).sum(axis=(1, 3), dtype=np.float64)
        small = total / np.maximum(good.sum(axis=(1, 3)), 1)
    blur_px = _BLUR_ANGSTROM / (factor * pixel_size_angstrom)
    y, x = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)
    gauss = np.exp(-2 * (np.pi * blur_px) ** 2 * (y * y + x * x))
    return np.fft.irfft2(np.fft.rfft2(small) * gauss, s=small.shape)


def _around(centre: np.ndarray, side: int) -> tuple[int, int]:
    """Height and width that hold all particles, if those of the image are unknown."""
    x, y = np.nanmax(centre, axis=0) + max(side, 32) // 2
    return max(1, round(float(y))), max(1, round(float(x)))


def _background(axes: Axes, image: np.ndarray | None, shape: tuple[int, int]) -> None:
    height, width = shape
    extent = (-0.5, width - 0.5, height - 0.5, -0.5)
    if image is None:
        axes.set_facecolor("#f0f0f0")
    else:
        low, high = np.percentile(image, [0.5, 99.5])
        # Pale, so that marks are visible; particles stay darker than ice.
        axes.imshow(image, cmap="gray", vmin=low, vmax=high, extent=extent, alpha=0.6)
    axes.set(xlim=extent[:2], ylim=extent[2:], aspect="equal")
    axes.set_xlabel("x (px)")


def _marks(
    axes: Axes, data: ReportData, rows: np.ndarray, values: np.ndarray, colours: str
):
    """Draw particles; the colour range is that of all micrographs, without outliers."""
    some = values[np.isfinite(values)]
    rest = (100.0 - _PERCENT_KEPT) / 2
    low, high = np.percentile(some, [rest, 100.0 - rest]) if len(some) else (0.0, 1.0)
    if high - low < 1e-6:
        low, high = low - 0.5, high + 0.5
    good = rows[np.isfinite(values[rows])]
    bad = rows[~np.isfinite(values[rows])]
    few = len(rows) <= _MOST_WITH_NAMES
    thick = 2.2 if few else 1.2
    # Rings with the size of the template, through which the particle is visible, with a
    # white outline for contrast.
    _rings(axes, data, good, linewidths=thick + 1.4).set_edgecolor("white")
    limits = ["-" if data.converged[row] else (0, (1.5, 1)) for row in good]
    marks = _rings(axes, data, good, linewidths=thick, linestyles=limits)
    marks.set(array=values[good], cmap=colours, clim=(low, high))
    axes.scatter(*data.centre_px[bad].T, marker="x", color=INK, s=50 if few else 16)
    if few:
        out = 0.36 * data.template_side_px  # to the upper right, up to the ring
        for row in rows:
            axes.annotate(
                data.labels[row],
                tuple(data.centre_px[row] + np.array([out, -out])),
                xytext=(3, 2),
                textcoords="offset points",
                fontsize=8,
                color=INK,
                parse_math=False,
                bbox={
                    "boxstyle": "round,pad=0.12",
                    "fc": "white",
                    "ec": "none",
                    "alpha": 0.75,
                },
            )
    return marks


def _rings(axes: Axes, data: ReportData, rows: np.ndarray, **look) -> EllipseCollection:
    diameter = np.full(len(rows), float(data.template_side_px))
    rings = EllipseCollection(
        diameter,
        diameter,
        np.zeros(len(rows)),
        units="xy",
        offsets=data.centre_px[rows],
        offset_transform=axes.transData,
        facecolors="none",
        **look,
    )
    axes.add_collection(rings, autolim=False)
    return rings


def _scale_bar(axes: Axes, shape: tuple[int, int], pixel_size_angstrom: float) -> None:
    """A scale bar with a round length of about a fifth of the width."""
    width_nm = shape[1] * pixel_size_angstrom / 10
    power = 10.0 ** np.floor(np.log10(width_nm / 5))
    length_nm = max(step for step in (1, 2, 5) if step * power <= width_nm / 5) * power
    length_px = length_nm * 10 / pixel_size_angstrom
    x, y = 0.04 * shape[1], 0.95 * shape[0]
    axes.plot([x, x + length_px], [y, y], color=INK, linewidth=3, solid_capstyle="butt")
    axes.annotate(
        f"{length_nm:g} nm",
        (x + length_px / 2, y),
        xytext=(0, 4),
        textcoords="offset points",
        ha="center",
        color=INK,
        fontsize=8,
        bbox={"boxstyle": "round,pad=0.12", "fc": "white", "ec": "none", "alpha": 0.75},
    )
