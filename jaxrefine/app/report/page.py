"""A report of a refinement: one page with its pictures in it, made to be looked at.

The numbers come from `report_numbers`, the pictures from `report_figures` and
`report_maps`, the words around them from `report.html`, a template.
"""

import base64
import platform
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import jinja2
import numpy as np

import jaxrefine
from jaxrefine.app.config import Config
from jaxrefine.app.console.summary import format_fallen, format_noise_fitted
from jaxrefine.app.report import figures as figures
from jaxrefine.app.report.figures import RenderedFigure
from jaxrefine.app.report.micrograph_maps import micrograph_map
from jaxrefine.app.report.references import reference_figures, reference_rows
from jaxrefine.app.report.table_data import REASONS, Concern, ReportData, load_report_data
from jaxrefine.app.run.score_changes import compare_expected, fallen_micrographs
from jaxrefine.data import InputError
from jaxrefine.io.atomic import atomic_open
from jaxrefine.io.paths import PathMap, resolve_paths

PAGE, FIGURES = "report.html", "figures"
# Names of all pictures that a report may have.
_PICTURES = (
    *("scores", "changes", "defocus", "errors", "landscape", "references"),
    "micrograph_[0-9][0-9][0-9]",
)
_MOST_CONCERNS, _MOST_MICROGRAPHS, _MOST_LANDSCAPES = 200, 50, 12


@dataclass(frozen=True)
class ReportOptions:
    """What a report should hold.

    Attributes:
        threshold: z-score above which the match counts a particle as found; None: unknown.
        micrographs: How many are drawn at most; those of most particles are.
        config: The run's configuration; None: unknown.
        landscape: Around how many particles the score is drawn, 12 at most; needs the
            configuration.
        run: What the run said, where the report is made at its end.
        path_map: Folders that have moved: (OLD, NEW).
    """

    threshold: float | None = None
    micrographs: int = 12
    config: Config | None = None
    landscape: int = 0
    run: Sequence[str] = ()
    path_map: PathMap = ()


def default_folder(table: Path) -> Path:
    """Where a report goes: beside its table."""
    return table.with_name(f"{table.stem}_report")


def write_report(table: Path, folder: Path, options: ReportOptions) -> Path:
    """Writes a report, in place of an older one.

    Args:
        table: A refined table.
        folder: Takes `report.html`, which needs no other file, and the pictures in a
            folder of their own; made if it is not there.
        options: What the report should hold.

    Returns:
        The page.

    Raises:
        InputError: The table is invalid or not refined, or the folder cannot be written.
    """
    data = load_report_data(table)
    _make(folder)
    sections = {
        "scores": _if_refined(data, figures.scores, data, options.threshold),
        "changes": _if_refined(data, figures.changes, data),
        "defocus": _if_refined(data, figures.defocus_bars, data),
        "errors": [figures.errors(data)] if data.sigma else [],
        "landscape": _landscape(data, options),
        "references": reference_figures(data),
        "micrographs": _maps(data, options),
    }
    page = _template().render(
        title=table.name,
        table=str(table.absolute()),
        made=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        tiles=_tiles(data, options.threshold),
        statuses=_statuses(data),
        references=reference_rows(data),
        sections=sections,
        embedded=_embedded,
        micrographs=_micrograph_rows(data)[:_MOST_MICROGRAPHS],
        n_micrographs=len(data.micrographs),
        fallen=[
            *format_fallen(
                fallen_micrographs(data.z_before, data.z_after, data.micrographs)
            ),
            *format_noise_fitted(compare_expected(data.z_before, data.z_expected)),
        ],
        concerns=[_concern_row(data, c) for c in data.concerns[:_MOST_CONCERNS]],
        n_concerns=len(data.concerns),
        config=_config_text(options.config),
        run=options.run,
        versions=_versions(),
    )
    _write(folder, page, [picture for found in sections.values() for picture in found])
    return folder / PAGE


def _if_refined(data: ReportData, draw, *arguments) -> list[RenderedFigure]:
    return [draw(*arguments)] if data.refined.any() else []


def _landscape(data: ReportData, options: ReportOptions) -> list[RenderedFigure]:
    """Around particles from the highest z-score to the lowest, evenly spread."""
    good = np.flatnonzero(data.refined)
    if not (options.landscape and len(good)):
        return []
    if options.config is None:
        raise InputError("a landscape needs the run's configuration: name it with --config")
    # It compiles a score: only where it is wanted.
    from jaxrefine.app.report.landscape import landscape_figure
    from jaxrefine.app.run.landscape import landscapes

    best_first = good[np.argsort(-data.z_after[good], kind="stable")]
    count = min(options.landscape, _MOST_LANDSCAPES, len(good))
    places = np.linspace(0, len(good) - 1, count)
    rows = best_first[np.rint(places).astype(int)].tolist()
    shift = data.sub_pixel_px[:, ::-1]
    found = landscapes(options.config, data.table.path, rows, shift)
    return [landscape_figure(data, found)]


def _maps(data: ReportData, options: ReportOptions) -> list[RenderedFigure]:
    texts = list(data.micrographs)[: options.micrographs]
    folder = data.table.path.absolute().parent
    found = resolve_paths(texts, beside=folder, path_map=options.path_map)
    return [
        micrograph_map(data, text, found[text], number) for number, text in enumerate(texts)
    ]


def _tiles(data: ReportData, threshold: float | None) -> list[tuple[str, str, str]]:
    """(label, value, note) of what is read first."""
    good = data.refined
    both = good & np.isfinite(data.z_before)
    before, after = data.z_before[both], data.z_after[both]
    tiles = [("refined", f"{good.sum():,}", f"of {len(data):,} particles")]
    if both.any():
        gained = int((after > before).sum())
        tiles += [
            ("mean z-score", f"{after.mean():.2f}", f"{before.mean():.2f} in the match"),
            (
                "median gain in z",
                figures.signed("{:+.2f}", float(np.median(after - before))),
                f"{gained:,} of {both.sum():,} gained",
            ),
        ]
    told = good & np.isfinite(data.z_expected)
    if told.any():
        mean = f"{data.z_expected[told].mean():.2f}"
        tiles.append(("z in other data", mean, "expected: less what fitting noise adds"))
    if threshold is not None:
        tiles.append(
            (
                f"z above {threshold:g}",
                f"{int((data.z_after[good] > threshold).sum()):,}",
                f"{int((data.z_before > threshold).sum()):,} in the match",
            )
        )
    if good.any():
        distance = np.hypot(*data.shift_px[good].T)
        tiles += [
            (
                "median tilt",
                f"{np.median(data.tilt_deg[good]):.2f}°",
                "out of the plane",
            ),
            ("median shift", f"{np.median(distance):.2f} px", "of the position"),
        ]
    return tiles


def _statuses(data: ReportData) -> list[tuple[str, int, str]]:
    """(word, count, meaning), the most frequent first."""
    counts = Counter(word for word in data.status if word).most_common()
    return [(word, count, REASONS.get(word, "unknown status")) for word, count in counts]


def _micrograph_rows(data: ReportData) -> list[tuple[str, ...]]:
    """(name, particles, refined, mean z, mean relative defocus) of each."""
    found = []
    for text, rows in data.micrographs.items():
        good = rows[data.refined[rows]]
        means = ("—", "—")
        if len(good):
            z, defocus = data.z_after[good], data.relative_defocus_angstrom[good]
            means = (f"{z.mean():.2f}", figures.signed("{:+.0f}", float(defocus.mean())))
        found.append((text, f"{len(rows)}", f"{len(good)}", *means))
    return found


def _concern_row(data: ReportData, concern: Concern) -> tuple[str, ...]:
    """(particle, line, micrograph, z before, z after, words, reasons)."""
    row = concern.row
    return (
        data.labels[row],
        str(data.table.row_numbers[row]),
        data.table.micrograph_paths[row],
        _score(data.z_before[row]),
        _score(data.z_after[row]),
        concern.words,
        concern.reasons,
    )


def _score(z: float) -> str:
    return f"{z:.2f}" if np.isfinite(z) else "—"


def _config_text(config: Config | None) -> tuple[str, str] | None:
    """File and text of a configuration."""
    if config is None:
        return None
    try:
        return config.source, Path(config.source).read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"{config.source}: cannot be read: {error.strerror}") from error


def _versions() -> list[tuple[str, str]]:
    packages = [(name, version(name)) for name in ("jax", "numpy", "matplotlib")]
    return [
        ("jaxrefine", jaxrefine.__version__),
        ("Python", platform.python_version()),
        *packages,
    ]


def _template() -> jinja2.Template:
    """The page; what is put into it is escaped."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(PAGE)


def _embedded(picture: RenderedFigure) -> str:
    return f"data:image/png;base64,{base64.b64encode(picture.png).decode()}"


def _make(folder: Path) -> None:
    try:
        (folder / FIGURES).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(folder, error) from error


def _write(folder: Path, page: str, pictures: list[RenderedFigure]) -> None:
    try:
        if (folder / PAGE).exists():  # pictures of an older report are not this one's
            for name in _PICTURES:
                for path in (folder / FIGURES).glob(f"{name}.png"):
                    path.unlink()
        for picture in pictures:
            (folder / FIGURES / f"{picture.name}.png").write_bytes(picture.png)
    except OSError as error:
        raise _unwritable(folder, error) from error
    with atomic_open(folder / PAGE, encoding="utf-8") as file:
        file.write(page)


def _unwritable(folder: Path, error: OSError) -> InputError:
    return InputError(
        f"{folder}: no report can be written there: {error.strerror or error}"
    )
