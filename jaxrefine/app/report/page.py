"""The report of a refinement: one self-contained page.

The numbers come from `table_data`, the figures for print from `figures` and
`micrograph_maps`, the interactive parts from `interactive`, and the text from the template
`report.html`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from jaxrefine.app.config import Config
from jaxrefine.app.console.summary import format_fallen, format_noise_fitted
from jaxrefine.app.report import figures as figures
from jaxrefine.app.report.compare import Comparison, compare
from jaxrefine.app.report.comparison_figure import comparison_figure
from jaxrefine.app.report.figures import RenderedFigure
from jaxrefine.app.report.interactive import Script, page_script
from jaxrefine.app.report.linked_plots import linked_plots, micrograph_plot
from jaxrefine.app.report.micrograph_maps import micrograph_map
from jaxrefine.app.report.page_data import page_data
from jaxrefine.app.report.page_files import PAGE, make_folder, render_page, write_files
from jaxrefine.app.report.particle_images import (
    best_and_worst,
    no_images,
    particle_images,
    remove_other_sheets,
)
from jaxrefine.app.report.references import (
    reference_figures,
    reference_rows,
    with_their_config,
)
from jaxrefine.app.report.summary_tables import (
    concern_row,
    meanings,
    micrograph_rows,
    statuses,
    tiles,
)
from jaxrefine.app.report.table_data import ReportData, load_report_data
from jaxrefine.app.report.thresholds import Threshold, find_thresholds
from jaxrefine.app.report.thumbnails import thumbnails
from jaxrefine.app.run.record import RunRecord, read_record, versions
from jaxrefine.app.run.score_changes import compare_expected, fallen_micrographs
from jaxrefine.data import InputError
from jaxrefine.io.paths import PathMap, resolve_paths
from jaxrefine.io.table.indices import listed_rows

# Names of all figures that a report may have.
_PICTURES = (
    *("scores", "changes", "defocus", "errors", "landscape", "comparison"),
    "references",
    "micrograph_[0-9][0-9][0-9]",
)
_SECTIONS = (
    *("scores", "changes", "defocus", "errors", "comparison", "landscape"),
    *("references", "micrographs"),
)
# Interval at which a browser reloads the page of a run that has not ended.
_SECONDS_BETWEEN_LOOKS = 10
_MOST_CONCERNS, _MOST_MICROGRAPHS, _MOST_LANDSCAPES = 200, 50, 12


@dataclass(frozen=True)
class ReportOptions:
    """Content of a report.

    Attributes:
        threshold: z-score above which the match counts a particle as found; None: unknown.
        micrographs: Number of micrographs that are drawn for print, those with most
            particles first.
        thumbnails: Number of micrographs whose image the page shows, those with most
            particles first.
        particles: Number of particles whose image is shown beside the projection, half of
            them those with the highest z-scores; needs the configuration. None: all, if
            there are few, otherwise 16.
        indices: A file that lists the particles to show instead.
        against: Another refined table of the same particles, for comparison.
        config: The run's configuration; None: unknown.
        landscape: Number of particles with score landscapes, at most 12; needs the
            configuration.
        path_map: Folders that have moved: (OLD, NEW).
        going_on: For a run that has not ended, the number of particles refined so far and
            the total number.
    """

    threshold: float | None = None
    micrographs: int = 6
    thumbnails: int = 500
    particles: int | None = None
    indices: Path | None = None
    against: Path | None = None
    config: Config | None = None
    landscape: int = 0
    path_map: PathMap = ()
    going_on: tuple[int, int] | None = None


def default_folder(table: Path) -> Path:
    """The default folder of a report, beside its table."""
    return table.with_name(f"{table.stem}_report")


def write_report(table: Path, folder: Path, options: ReportOptions) -> Path:
    """Write a report, replacing an older one.

    Args:
        table: A refined table.
        folder: Folder for `report.html`, which needs no other file, and for a folder of
            figures; created if necessary.
        options: Content of the report.

    Returns:
        Path of the page.

    Raises:
        InputError: The table is invalid or not refined, or the folder cannot be written.
    """
    return write_page(load_report_data(table), folder, options)


def write_page(data: ReportData, folder: Path, options: ReportOptions) -> Path:
    """`write_report` for a table that is in memory."""
    table = data.table.path
    record = None if options.going_on else read_record(table)
    comparison = None
    if options.against is not None:
        comparison = compare(data, load_report_data(options.against))
    lines = find_thresholds(data, options.threshold, options.path_map)
    make_folder(folder)
    sections = _sections(data, options, comparison, lines)
    images = _particle_images(data, options, folder)
    page = render_page(
        PAGE,
        title=table.name,
        table=str(table.absolute()),
        made=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        going_on=options.going_on,
        tiles=tiles(data, options.threshold, comparison),
        statuses=statuses(data),
        references=reference_rows(data),
        sections=sections,
        any_refined=bool(data.refined.any()),
        micrographs=micrograph_rows(data)[:_MOST_MICROGRAPHS],
        n_micrographs=len(data.micrographs),
        fallen=[
            *format_fallen(
                fallen_micrographs(data.z_before, data.z_after, data.micrographs)
            ),
            *format_noise_fitted(compare_expected(data.z_before, data.z_expected)),
        ],
        concerns=[concern_row(data, c) for c in data.concerns[:_MOST_CONCERNS]],
        n_concerns=len(data.concerns),
        meanings=meanings(data.concerns[:_MOST_CONCERNS]),
        config=_config_text(options.config, record),
        record=record,
        versions=versions("jax", "numpy", "matplotlib", "bokeh"),
        thresholds=[each.meaning for each in lines],
        **_interactive(data, options, comparison, images, lines),
    )
    pictures = [picture for found in sections.values() for picture in found]
    path = write_files(folder, page, pictures, _PICTURES)
    remove_other_sheets(folder, images["sheets"])
    return path


def _sections(
    data: ReportData,
    options: ReportOptions,
    comparison: Comparison | None,
    lines: list[Threshold],
) -> dict[str, list[RenderedFigure]]:
    """The figures for print; none during a run, since they take most of a page's time."""
    if options.going_on is not None:
        return {name: [] for name in _SECTIONS}
    return {
        "scores": _if_refined(data, figures.scores, data, lines),
        "changes": _if_refined(data, figures.changes, data),
        "defocus": _if_refined(data, figures.defocus_bars, data),
        "errors": [figures.errors(data)] if data.sigma else [],
        "comparison": [] if comparison is None else [comparison_figure(data, comparison)],
        "landscape": _landscape(data, options),
        "references": reference_figures(data),
        "micrographs": _maps(data, options),
    }


def _interactive(
    data: ReportData,
    options: ReportOptions,
    comparison: Comparison | None,
    images: dict[str, Any],
    lines: list[Threshold],
) -> dict[str, Any]:
    """The script of the page, and the headings of its plots."""
    plots = linked_plots(
        tuple(lines), errors=tuple(data.sigma), compared=comparison is not None
    )
    texts = list(data.micrographs)
    pixel_size = data.table.numbers("pixel_size")
    script: Script = page_script(
        {
            "page-data": {
                **page_data(data, options.threshold, comparison),
                "renewed_s": 0 if options.going_on is None else _SECONDS_BETWEEN_LOOKS,
            },
            "plots": [*plots, micrograph_plot()],
            "thumbnails": thumbnails(
                texts,
                _files(data, texts[: options.thumbnails], options),
                [float(pixel_size[rows[0]]) for rows in data.micrographs.values()],
                options.thumbnails,
            ),
            "particle-images": images,
        },
        images_beside=any(not each.startswith("data:") for each in images["sheets"]),
    )
    headings = [(plot["id"], plot["title"], plot["kind"]) for plot in plots]
    other = "" if comparison is None else comparison.name
    return {"script": script, "plots": headings, "other": other}


def _particle_images(
    data: ReportData, options: ReportOptions, folder: Path
) -> dict[str, Any]:
    if options.indices is not None:
        rows = np.flatnonzero(listed_rows(data.table, options.indices)).tolist()
    else:
        rows = best_and_worst(data, options.particles)
    if not rows or options.config is None:
        return no_images()
    return particle_images(data, options.config, rows, folder)


def _if_refined(data: ReportData, draw, *arguments) -> list[RenderedFigure]:
    return [draw(*arguments)] if data.refined.any() else []


def _landscape(data: ReportData, options: ReportOptions) -> list[RenderedFigure]:
    """Landscapes of particles, evenly spread from the highest z-score to the lowest."""
    good = np.flatnonzero(data.refined)
    if not (options.landscape and len(good)):
        return []
    if options.config is None:
        raise InputError("a score landscape needs the run's configuration: give --config")
    # Imported only if needed, because it compiles a score.
    from jaxrefine.app.report.landscape import landscape_figure
    from jaxrefine.app.run.landscape import landscapes

    best_first = good[np.argsort(-data.z_after[good], kind="stable")]
    count = min(options.landscape, _MOST_LANDSCAPES, len(good))
    places = np.linspace(0, len(good) - 1, count)
    rows = best_first[np.rint(places).astype(int)].tolist()
    shift = data.sub_pixel_px[:, ::-1]
    found = [
        landscape
        for config, members in with_their_config(data, options.config, rows)
        for landscape in landscapes(config, data.table.path, members, shift)
    ]
    found.sort(key=lambda landscape: rows.index(landscape.row))
    return [landscape_figure(data, found)] if found else []


def _maps(data: ReportData, options: ReportOptions) -> list[RenderedFigure]:
    texts = list(data.micrographs)[: options.micrographs]
    found = _files(data, texts, options)
    return [
        micrograph_map(data, text, found[text], number) for number, text in enumerate(texts)
    ]


def _files(
    data: ReportData, texts: list[str], options: ReportOptions
) -> Mapping[str, Path]:
    """Resolved paths of the files that the table names."""
    folder = data.table.path.absolute().parent
    return resolve_paths(texts, beside=folder, path_map=options.path_map)


def _config_text(config: Config | None, record: RunRecord | None) -> tuple[str, str] | None:
    """File and text of the given configuration, or else of the run's own."""
    if config is None:
        return (record.config_source, record.config_text) if record else None
    try:
        return config.source, Path(config.source).read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"{config.source}: cannot be read: {error.strerror}") from error
