"""Several references in a configuration: their names, files and pixel sizes."""

import re
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any, NamedTuple

from jaxrefine.app.config.schema import ConfigError, key_text, show
from jaxrefine.io.table.schema import BY_NAME, reference_columns

TEMPLATE, PIXEL_SIZE = "template_volume_path", "template_pixel_size"
# Names become parts of column and file names.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,39}")
_NAME_IN_WORDS = "a name of letters, digits, - and _, 40 at most"


class NamedReference(NamedTuple):
    """A template to compare particles with.

    Attributes:
        name: Its name.
        template_volume_path: Its file, as in the configuration.
        template_pixel_size: Å per voxel; None: each row's pixel_size.
    """

    name: str
    template_volume_path: str
    template_pixel_size: float | None


def split_references(
    data: Any,
) -> tuple[Any, tuple[NamedReference, ...], list[ConfigError]]:
    """Separate the references from plain data.

    Args:
        data: The content of a YAML file.

    Returns:
        The data with the first template only; all references, or none if there is one
        template; and the errors.
    """
    if not isinstance(data, Mapping):
        return data, (), []
    paths = data.get(TEMPLATE)
    if not isinstance(paths, list | tuple | Mapping):
        return data, (), []
    errors: list[ConfigError] = []
    if isinstance(paths, Mapping):
        named = [
            (name, path, f"{TEMPLATE}.{key_text(name)}") for name, path in paths.items()
        ]
    else:
        named = [
            (PurePath(path).stem if isinstance(path, str) else "", path, f"{TEMPLATE}[{i}]")
            for i, path in enumerate(paths)
        ]
    for name, path, key in named:
        if not isinstance(path, str) or not path:
            remedy = "must be the path of a template volume, an MRC file"
            errors.append(ConfigError(key, show(path), remedy))
        elif not (isinstance(name, str) and _NAME.fullmatch(name)):
            errors.append(_wrong_name(key, path, name, isinstance(paths, Mapping)))
        elif taken := [c.name for c in reference_columns([name]) if c.name in BY_NAME]:
            remedy = f"another name: the table has a column {taken[0]} already"
            errors.append(ConfigError(key, show(path), remedy))
    names = [name for name, _, _ in named]
    twice = sorted({str(name) for name in names if names.count(name) > 1})
    if not errors and twice:
        remedy = "every reference must have a different name: write `NAME: FILE` for each"
        errors.append(ConfigError(TEMPLATE, ", ".join(twice), remedy))
    if len(named) < 2 and not errors:
        remedy = "must be the path of one template, or name at least two"
        errors.append(ConfigError(TEMPLATE, show(paths), remedy))
    data = dict(data)
    sizes = _pixel_sizes(data, names, errors)
    # Errors are already recorded; the rest is checked as for one template.
    data[TEMPLATE] = "several" if errors else named[0][1]
    if errors:
        return data, (), errors
    found = [NamedReference(name, path, sizes.get(name)) for name, path, _ in named]
    return data, tuple(found), []


def _wrong_name(key: str, path: str, name: Any, given: bool) -> ConfigError:
    if given:
        return ConfigError(key, show(path), f"must have {_NAME_IN_WORDS}")
    remedy = f"{name!r} is no {_NAME_IN_WORDS[2:]}: write `NAME: FILE` for each"
    return ConfigError(key, show(path), remedy)


def _pixel_sizes(
    data: dict[str, Any], names: list[Any], errors: list[ConfigError]
) -> dict[Any, Any]:
    """Pixel size of each reference; the data keep the value for a single template."""
    given = data.get(PIXEL_SIZE)
    if isinstance(given, Mapping):
        for name in given:
            if name not in names:
                remedy = f"no such reference; there are {', '.join(map(str, names))}"
                errors.append(
                    ConfigError(f"{PIXEL_SIZE}.{name}", show(given[name]), remedy)
                )
        pairs = {name: given.get(name) for name in names}
    elif isinstance(given, list | tuple):
        if len(given) != len(names):
            remedy = f"must be one number, or one for each of the {len(names)} templates"
            errors.append(ConfigError(PIXEL_SIZE, show(list(given)), remedy))
            given = [None] * len(names)
        pairs = dict(zip(names, given, strict=True))
    else:
        return dict.fromkeys(names, given)
    data[PIXEL_SIZE] = None
    for name, size in pairs.items():
        number = isinstance(size, int | float) and not isinstance(size, bool)
        if size is not None and not (number and 0 < size < float("inf")):
            remedy = "must be larger than 0 Å per voxel, or null for each row's pixel_size"
            errors.append(ConfigError(f"{PIXEL_SIZE}.{name}", show(size), remedy))
    return pairs
