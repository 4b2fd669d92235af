"""Fingerprint of everything that a run's numbers depend on, to be stored and compared."""

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jaxrefine
from jaxrefine.app.config.schema import Section, show
from jaxrefine.app.run.inputs import RunInputs
from jaxrefine.app.run.read import envelope_path, reference_path
from jaxrefine.data import InputError

# Paths and devices do not change the numbers; the content of the files does.
_WITHOUT_EFFECT = (
    "calibrate",
    "computational_config",
    "movie_config.deformation_field_path",
    "movie_config.gain_path",
    "movie_config.movie_path",
    "movie_config.particle_shifts_path",
    "output_path",
    "particle_stack.df_path",
    "particle_stack_constrained.df_path",
    "particle_stack_reference.df_path",
    "path_map",
    "reference_priors",
    "references",
    "source",
    "template_volume_path",
)

Fingerprint = dict[str, Any]
Stamp = list[list[str | int]]


def fingerprint(inputs: RunInputs, *, calibration: bool = False) -> Fingerprint:
    """Everything that all particles of a run depend on; for images see `image_stamp`.

    Args:
        inputs: The run.
        calibration: Whether it is that of a calibration, which depends on all images.
    """
    settings = dict(_settings(inputs.config))
    files = {"particle table": inputs.table.path, "template": inputs.template_path}
    if inputs.constraint is not None:
        files["table of the constrained particles"] = inputs.constraint.table.path
    reference = reference_path(inputs.config)
    if reference is not None:
        files["reference's template"] = reference
    curve = envelope_path(inputs.config)
    if curve is not None:
        files["template's envelope"] = curve
    if inputs.movies is not None:
        files |= inputs.movies.movies.shared
    contents = {name: _content(path) for name, path in files.items()}
    if calibration:
        settings |= _settings(inputs.config.calibrate, "calibrate.")
        stamps = [image_stamp(inputs.sources(files)) for files in inputs.groups]
        text = json.dumps(stamps).encode()
        contents["set of micrographs and maps"] = hashlib.sha256(text).hexdigest()
    made = {"jaxrefine": jaxrefine.__version__, "config": settings, "files": contents}
    return json.loads(json.dumps(made))  # tuples become lists, as in a file


def _settings(section: Section, parent: str = "") -> Iterator[tuple[str, Any]]:
    """Keys, joined by dots, and their values."""
    for field in dataclasses.fields(section):
        key = f"{parent}{field.name}"
        value = getattr(section, field.name)
        if key.removeprefix("constraint.") in _WITHOUT_EFFECT:
            continue
        if isinstance(value, Section):
            yield from _settings(value, f"{key}.")
        else:
            yield key, value


def _content(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error


def image_stamp(files: Iterable[Path]) -> Stamp:
    """Name, size and modification time of each image; hashing them would take too long."""
    stamp: Stamp = []
    for path in files:
        try:
            status = path.stat()
            stamp.append([path.name, status.st_size, status.st_mtime_ns])
        except OSError:
            stamp.append([path.name, -1, -1])
    return stamp


def digest(made_from: Fingerprint) -> str:
    """A short text that differs between different fingerprints."""
    return hashlib.sha256(json.dumps(made_from, sort_keys=True).encode()).hexdigest()


def differences(earlier: Mapping[str, Any], now: Fingerprint) -> Iterator[str]:
    """Descriptions of the differences."""
    if earlier["jaxrefine"] != now["jaxrefine"]:
        yield f"jaxrefine was {earlier['jaxrefine']} and is {now['jaxrefine']}"
    before, after = earlier["config"], now["config"]
    for key in sorted({*before, *after}):
        if key not in after:
            yield f"{key} was {show(before[key])} and is unknown"
        elif key not in before:
            yield f"{key} was unknown and is {show(after[key])}"
        elif before[key] != after[key]:
            yield f"{key} was {show(before[key])} and is {show(after[key])}"
    for name, content in now["files"].items():
        if earlier["files"].get(name) != content:
            yield f"the {name} has other content"
