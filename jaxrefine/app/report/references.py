"""The report's section on a comparison of several references."""

from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure

from jaxrefine.app.config import Config
from jaxrefine.app.console.reference_summary import SURE
from jaxrefine.app.report.figures import BLUE, INK, PALE, RenderedFigure, png_of, style
from jaxrefine.app.report.table_data import ReportData
from jaxrefine.io.table.schema import compared_names

BEST = "best_reference"
_BINS = np.linspace(0, 1, 21)


class ReferenceRow(NamedTuple):
    """A reference in the page's table."""

    name: str
    sure: str
    best: str
    expected: str
    mean_z: str


def best_references(data: ReportData) -> list[str]:
    """The best reference of each particle; empty if the table is not a comparison."""
    raw = data.table.raw
    return raw[BEST].tolist() if BEST in raw.columns else []


def with_their_config(
    data: ReportData, config: Config, rows: list[int]
) -> list[tuple[Config, list[int]]]:
    """Rows with the configuration of the run that refined them.

    In a table with several references, this is the run of the particle's best reference.
    """
    configs, best = config.of_references(), best_references(data)
    if not configs or not best:
        return [(config, rows)]
    groups = [
        (one, [row for row in rows if best[row] == name]) for name, one in configs.items()
    ]
    return [(one, members) for one, members in groups if members]


def reference_rows(data: ReportData) -> list[ReferenceRow]:
    """One row per reference; none if the table is not a comparison."""
    rows = []
    best = np.array(best_references(data))
    for name in compared_names(data.table.raw.columns):
        probability = data.table.numbers(f"probability_{name}")
        known = np.isfinite(probability)
        mine = best == name
        p = probability[known]
        z = data.table.numbers(f"refined_scaled_mip_{name}")[mine & known]
        rows.append(
            ReferenceRow(
                name=name,
                sure=f"{int((mine & (probability >= SURE)).sum()):,}",
                best=f"{int(mine.sum()):,}",
                expected=f"{p.sum():.1f} ± {np.sqrt(np.sum(p * (1 - p))):.1f}",
                mean_z=f"{np.nanmean(z):.2f}" if np.isfinite(z).any() else "—",
            )
        )
    return rows


def reference_figures(data: ReportData) -> list[RenderedFigure]:
    """Figures on the certainty of the best references."""
    names = compared_names(data.table.raw.columns)
    probability = {name: data.table.numbers(f"probability_{name}") for name in names}
    if not any(np.isfinite(values).any() for values in probability.values()):
        return []
    with style():
        figure = Figure(figsize=(10, 2.6))
        for axes, name in zip(
            np.atleast_1d(figure.subplots(1, len(names), sharey=True)), names, strict=True
        ):
            values = probability[name]
            values = values[np.isfinite(values)]
            axes.axvspan(SURE, 1, color=PALE, zorder=0)
            axes.hist(values, _BINS, color=BLUE, edgecolor="white")
            axes.set(xlim=(0, 1), xlabel=f"probability of {name}")
            axes.set_title(name, color=INK)
        figure.axes[0].set_ylabel("particles")
        sure = ", ".join(f"{row.name} {row.sure}" for row in reference_rows(data))
        return [
            RenderedFigure(
                "references",
                "",
                f"Posterior probabilities of the references; P ≥ {SURE:g} is shaded. If "
                "most particles are in between, the references differ too little to be "
                "told apart in these images.",
                f"Histograms of the probability of each reference. P of {SURE:g} or more: "
                f"{sure}.",
                png_of(figure),
            )
        ]
