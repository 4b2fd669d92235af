"""Record of a run beside its table, for a later report."""

import hashlib
import json
import logging
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import jaxrefine
from jaxrefine.app.config import Config
from jaxrefine.data import InputError
from jaxrefine.io.atomic import atomic_open
from jaxrefine.io.paths import PathMap

log = logging.getLogger("jaxrefine")

_LARGEST_BYTES = 10_000_000


@dataclass(frozen=True)
class RunRecord:
    """A completed run.

    Attributes:
        ended: Time of its end, UTC.
        config_source: File of the configuration.
        config_text: Its content; empty if it could no longer be read.
        lines: The printed summary of the results.
        warnings: Warnings of the run.
        versions: Program or package -> version.
        table_sha256: Hash of the table that it wrote, to identify it.
    """

    ended: str
    config_source: str
    config_text: str
    lines: list[str]
    warnings: list[str]
    versions: dict[str, str]
    table_sha256: str


def record_path(table: Path) -> Path:
    """Path of the record of a table's run: for `X.csv` it is `X.csv.run.json`."""
    return table.with_name(f"{table.name}.run.json")


def versions(*packages: str) -> dict[str, str]:
    """Versions of jaxrefine, Python and some packages."""
    found = {name: version(name) for name in packages}
    return {
        "jaxrefine": jaxrefine.__version__,
        "Python": platform.python_version(),
        **found,
    }


def write_record(
    table: Path, config: Config, lines: Sequence[str], warnings: Sequence[str]
) -> None:
    """Store a run's configuration, results and warnings beside its table.

    If this fails, a warning says so, since the table is useful without.
    """
    try:
        text = Path(config.source).read_text(encoding="utf-8")
    except (OSError, ValueError):  # it was removed, or never was a file
        text = ""
    record = RunRecord(
        ended=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        config_source=config.source,
        config_text=text,
        lines=list(lines),
        warnings=list(warnings),
        versions=versions("jax", "numpy"),
        table_sha256=_digest(table),
    )
    try:
        with atomic_open(record_path(table), encoding="utf-8") as file:
            json.dump(asdict(record), file, indent=1, ensure_ascii=False)
    except InputError as error:
        log.warning("%s", error)


def read_record(table: Path) -> RunRecord | None:
    """The run that wrote a table; None if unknown, or if the table has changed since."""
    path = record_path(table)
    try:
        if path.stat().st_size > _LARGEST_BYTES:
            return None
        kept = json.loads(path.read_text(encoding="utf-8"))
        record = RunRecord(**kept)
        sound = (
            all(isinstance(kept[name], str) for name in _TEXTS)
            and all(isinstance(kept[name], list) for name in ("lines", "warnings"))
            and all(isinstance(t, str) for t in [*record.lines, *record.warnings])
            and all(isinstance(t, str) for pair in record.versions.items() for t in pair)
        )
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, LookupError, AttributeError, RecursionError):
        sound = False
    if not sound:
        log.warning("%s: damaged: this record of the run is ignored", path)
        return None
    return record if record.table_sha256 == _digest(table) else None


def recorded_config(table: Path, path_map: PathMap = ()) -> Config | None:
    """The configuration of the run that wrote a table; None if unknown.

    Its file must still have the content that the record has. It is looked for where it was,
    and beside the table.
    """
    record = read_record(table)
    if record is None or not record.config_text:
        return None
    named = Path(record.config_source)
    for path in (named, table.with_name(named.name)):
        try:
            if path.read_text(encoding="utf-8") == record.config_text:
                return Config.load(path, path_map=path_map)
        except (OSError, ValueError, InputError):  # gone, or of another version
            continue
    return None


_TEXTS = ("ended", "config_source", "config_text", "table_sha256")


def _digest(table: Path) -> str:
    try:
        with table.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""
