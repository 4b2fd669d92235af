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
from jaxrefine.app.report import figures as figures
from jaxrefine.app.report.figures import Picture
from jaxrefine.app.report.micrograph_maps import micrograph_map
from jaxrefine.app.report.table_data import REASONS, Concern, Numbers, read_numbers
from jaxrefine.data import InputError
from jaxrefine.io.atomic import replacing
from jaxrefine.io.paths import resolve_path

PAGE, FIGURES = "report.html", "figures"
# Names of all pictures that a report may have.
_PICTURES = (
    *("scores", "changes", "defocus", "errors", "landscape"),
    "micrograph_[0-9][0-9][0-9]",
)
_MOST_CONCERNS, _MOST_MICROGRAPHS, _MOST_LANDSCAPES = 200, 50, 12


@dataclass(frozen=True)
class Wanted:
    """What a report should hold.

    Attributes:
        threshold: z-score above which the match counts a particle as found; None: unknown.
        micrographs: How many are drawn at most; those of most particles are.
        config: The run's configuration; None: unknown.
        landscape: Around how many particles the score is drawn, 12 at most; needs the
            configuration.
        run: What the run said, where the report is made at its end.
    """

    threshold: float | None = None
    micrographs: int = 12
    config: Config | None = None
    landscape: int = 0
    run: Sequence[str] = ()


def default_folder(table: Path) -> Path:
    """Where a report goes: beside its table."""
    return table.with_name(f"{table.stem}_report")


def write_report(table: Path, folder: Path, wanted: Wanted) -> Path:
    """Writes a report, in place of an older one.

    Args:
        table: A refined table.
        folder: Takes `report.html`, which needs no other file, and the pictures in a
            folder of their own; made if it is not there.
        wanted: What the report should hold.

    Returns:
        The page.

    Raises:
        InputError: The table is faulty or was not refined, or the folder cannot be written.
    """
    numbers = read_numbers(table)
    _make(folder)
    sections = {
        "scores": _if_refined(numbers, figures.scores, numbers, wanted.threshold),
        "changes": _if_refined(numbers, figures.changes, numbers),
        "defocus": _if_refined(numbers, figures.defocus_bars, numbers),
        "errors": [figures.errors(numbers)] if numbers.sigma else [],
        "landscape": _landscape(numbers, wanted, folder),
        "micrographs": _maps(numbers, wanted.micrographs),
    }
    page = _template().render(
        title=table.name,
        table=str(table.absolute()),
        made=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        tiles=_tiles(numbers, wanted.threshold),
        statuses=_statuses(numbers),
        sections=sections,
        embedded=_embedded,
        micrographs=_micrograph_rows(numbers)[:_MOST_MICROGRAPHS],
        n_micrographs=len(numbers.micrographs),
        concerns=[_concern_row(numbers, c) for c in numbers.concerns[:_MOST_CONCERNS]],
        n_concerns=len(numbers.concerns),
        config=_config_text(wanted.config),
        run=wanted.run,
        versions=_versions(),
    )
    _write(folder, page, [picture for found in sections.values() for picture in found])
    return folder / PAGE


def _if_refined(numbers: Numbers, draw, *arguments) -> list[Picture]:
    return [draw(*arguments)] if numbers.refined.any() else []


def _landscape(numbers: Numbers, wanted: Wanted, folder: Path) -> list[Picture]:
    """Around particles from the highest z-score to the lowest, evenly spread."""
    good = np.flatnonzero(numbers.refined)
    if not (wanted.landscape and len(good)):
        return []
    if wanted.config is None:
        raise InputError("a landscape needs the run's configuration: name it with --config")
    # It compiles a score: only where it is wanted.
    from jaxrefine.app.report.landscape import landscape_figure
    from jaxrefine.app.run.landscape import landscapes

    best_first = good[np.argsort(-numbers.z_after[good], kind="stable")]
    count = min(wanted.landscape, _MOST_LANDSCAPES, len(good))
    places = np.linspace(0, len(good) - 1, count)
    rows = best_first[np.rint(places).astype(int)].tolist()
    shift = numbers.sub_pixel_px[:, ::-1]
    found = landscapes(wanted.config, numbers.table.path, rows, shift, folder)
    return [landscape_figure(numbers, found)]


def _maps(numbers: Numbers, most: int) -> list[Picture]:
    folder = numbers.table.path.absolute().parent
    return [
        micrograph_map(numbers, text, resolve_path(text, beside=folder), number)
        for number, text in enumerate(list(numbers.micrographs)[:most])
    ]


def _tiles(numbers: Numbers, threshold: float | None) -> list[tuple[str, str, str]]:
    """(label, value, note) of what is read first."""
    good = numbers.refined
    both = good & np.isfinite(numbers.z_before)
    before, after = numbers.z_before[both], numbers.z_after[both]
    tiles = [("refined", f"{good.sum():,}", f"of {len(numbers):,} particles")]
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
    if threshold is not None:
        tiles.append(
            (
                f"z above {threshold:g}",
                f"{int((numbers.z_after[good] > threshold).sum()):,}",
                f"{int((numbers.z_before > threshold).sum()):,} in the match",
            )
        )
    if good.any():
        distance = np.hypot(*numbers.shift_px[good].T)
        tiles += [
            (
                "median tilt",
                f"{np.median(numbers.tilt_deg[good]):.2f}°",
                "out of the plane",
            ),
            ("median shift", f"{np.median(distance):.2f} px", "of the position"),
        ]
    return tiles


def _statuses(numbers: Numbers) -> list[tuple[str, int, str]]:
    """(word, count, meaning), the most frequent first."""
    counts = Counter(word for word in numbers.status if word).most_common()
    return [(word, count, REASONS.get(word, "unknown status")) for word, count in counts]


def _micrograph_rows(numbers: Numbers) -> list[tuple[str, ...]]:
    """(name, particles, refined, mean z, mean relative defocus) of each."""
    found = []
    for text, rows in numbers.micrographs.items():
        good = rows[numbers.refined[rows]]
        means = ("—", "—")
        if len(good):
            z, defocus = numbers.z_after[good], numbers.relative_defocus_angstrom[good]
            means = (f"{z.mean():.2f}", figures.signed("{:+.0f}", float(defocus.mean())))
        found.append((text, f"{len(rows)}", f"{len(good)}", *means))
    return found


def _concern_row(numbers: Numbers, concern: Concern) -> tuple[str, ...]:
    """(particle, line, micrograph, z before, z after, words, reasons)."""
    row = concern.row
    return (
        numbers.labels[row],
        str(numbers.table.lines[row]),
        numbers.table.micrograph_paths[row],
        _score(numbers.z_before[row]),
        _score(numbers.z_after[row]),
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


def _embedded(picture: Picture) -> str:
    return f"data:image/png;base64,{base64.b64encode(picture.png).decode()}"


def _make(folder: Path) -> None:
    try:
        (folder / FIGURES).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(folder, error) from error


def _write(folder: Path, page: str, pictures: list[Picture]) -> None:
    try:
        if (folder / PAGE).exists():  # pictures of an older report are not this one's
            for name in _PICTURES:
                for path in (folder / FIGURES).glob(f"{name}.png"):
                    path.unlink()
        for picture in pictures:
            (folder / FIGURES / f"{picture.name}.png").write_bytes(picture.png)
    except OSError as error:
        raise _unwritable(folder, error) from error
    with replacing(folder / PAGE, encoding="utf-8") as file:
        file.write(page)


def _unwritable(folder: Path, error: OSError) -> InputError:
    return InputError(
        f"{folder}: no report can be written there: {error.strerror or error}"
    )
