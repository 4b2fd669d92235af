"""The figure of a report that compares two refinements, for print."""

import numpy as np
from matplotlib.figure import Figure

from jaxrefine.app.report.compare import Comparison
from jaxrefine.app.report.figures import (
    GREY,
    RenderedFigure,
    histogram,
    png_of,
    points,
    style,
)
from jaxrefine.app.report.table_data import ReportData


def comparison_figure(data: ReportData, comparison: Comparison) -> RenderedFigure:
    """z-scores in both tables, and the differences of their poses."""
    both = np.isfinite(comparison.gain)
    with style():
        figure = Figure(figsize=(10, 3.4))
        left, middle, right = figure.subplots(1, 3)
        z, other = data.z_after[both], comparison.z[both]
        points(left, other, z, hollow=~data.converged[both])
        if both.any():
            ends = [min(z.min(), other.min()), max(z.max(), other.max())]
            left.plot(ends, ends, color=GREY, linewidth=1, zorder=1)
        left.set(xlabel="z-score, other table", ylabel="z-score, this table")
        left.set_title("z-score")
        angle, defocus = comparison.angle_deg, comparison.defocus_change_angstrom
        histogram(middle, angle[both], "angle between them (°)", "Orientation", "{:.2f}°")
        label = "this − other (Å)"
        histogram(right, defocus[both], label, "Defocus", "{:+.0f} Å")
        median = float(np.median(comparison.gain[both])) if both.any() else np.nan
        return RenderedFigure(
            "comparison",
            "",
            f"{int(both.sum()):,} particles that were refined in both tables. Poses "
            "that are equivalent by symmetry count as different.",
            f"z-scores of {int(both.sum())} particles in both tables: median difference "
            f"{median:.2f}.",
            png_of(figure),
        )
