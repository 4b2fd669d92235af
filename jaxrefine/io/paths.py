"""Finding the files that a table or a configuration names."""

import logging
import os
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from jaxrefine.data.errors import InputError

log = logging.getLogger("jaxrefine")

# (OLD, NEW): paths in the folder OLD are looked for in the folder NEW.
PathMap = tuple[tuple[str, str], ...]

_SEPARATORS = re.compile(r"[\\/]+")  # tables may come from Windows


def rebase_relative_paths(table: pd.DataFrame, source: Path, target: Path) -> pd.DataFrame:
    """Make relative paths absolute if they would no longer be found.

    Relative paths are looked for in the current directory, then beside the table. Those
    that were found beside the table it was read from are not found from another folder.

    Args:
        table: All cells as text; its columns of paths end in `_path`.
        source: Folder that the table was read from.
        target: Folder that it will be written into.
    """
    if source.resolve() == target.resolve():
        return table

    def moved(text: str) -> str:
        beside = source / text
        lost = text and not os.path.isabs(text) and not os.path.exists(text)
        return str(beside.resolve()) if lost and os.path.exists(beside) else text

    paths = [name for name in table.columns if str(name).endswith("_path")]
    return table.assign(**{name: table[name].map(moved) for name in paths})


def resolve_path(text: str, *, beside: Path, path_map: PathMap = ()) -> Path:
    """Finds a file that a YAML or CSV file names.

    Args:
        text: The path, as the file has it. `~` and variables such as `$HOME` are expanded,
            unless a file has that very name.
        beside: The folder of the file that names it.
        path_map: Folders that have moved; the first matching OLD is used.

    Returns:
        The path from the current directory if the file exists there, otherwise from
        `beside`, whether it exists or not.

    Raises:
        InputError: The system's encoding of file names cannot represent it.
    """
    try:
        os.fsencode(text)
    except UnicodeEncodeError as error:
        raise InputError(
            f"{text!a}: this system's encoding of file names, {error.encoding}, cannot "
            "represent these characters; set the environment variable PYTHONUTF8=1"
        ) from error
    text = _mapped(text, path_map)
    for candidate in dict.fromkeys((text, os.path.expandvars(os.path.expanduser(text)))):
        for path in (Path(candidate), beside / candidate):
            if os.path.exists(path):
                return path
    return beside / candidate


def resolve_paths(
    texts: Iterable[str], *, beside: Path, path_map: PathMap = ()
) -> dict[str, Path]:
    """Finds all files that a table names, even if its folder was copied from another
    machine.

    As `resolve_path`. In addition, a file whose absolute path does not exist is looked for
    beside the table, by the end of its path: for `/old/set/r1/a.mrc` first `set/r1/a.mrc`,
    then `r1/a.mrc`, then `a.mrc`. One file is never used for two paths.

    Args:
        texts: The paths, as the table has them.
        beside: Folder of the table.
        path_map: Folders that have moved.

    Returns:
        The path for each text, whether it exists or not.
    """
    found = {
        text: resolve_path(text, beside=beside, path_map=path_map)
        for text in dict.fromkeys(texts)
    }
    near = {
        text: path
        for text, there in found.items()
        if os.path.isabs(there) and not os.path.exists(there)
        if (path := _by_its_end(text, beside)) is not None
    }
    taken = Counter(map(os.path.realpath, [*found.values(), *near.values()]))
    near = {text: path for text, path in near.items() if taken[os.path.realpath(path)] == 1}
    if near:
        text, path = next(iter(near.items()))
        log.warning(
            "%d files are not where the table names them; files of the same name beside "
            "it are used, such as %s for %s (--map-path OLD=NEW names another folder)",
            len(near),
            path,
            quoted(text),
        )
    return found | near


def begins_with(path: Path, mark: bytes) -> bool:
    """Whether a path is a file that starts with one of these byte strings.

    A pipe or a device is not opened: it could block or never end.
    """
    try:
        if not path.is_file():
            return False
        with open(path, "rb") as file:
            return file.read(len(mark)) == mark
    except (OSError, ValueError):
        return False


def no_such_file(path: str | os.PathLike[str]) -> InputError:
    """The error for a missing file, with a remedy if there is an obvious one."""
    text = os.fspath(path)
    hint = ""
    stripped = os.sep.join(part.strip() for part in text.split(os.sep))
    if stripped != text:
        is_there = os.path.exists(stripped)
        hint = (
            f"; {stripped!r} exists: remove the spaces"
            if is_there
            else "; check the spaces"
        )
    elif os.path.isabs(text) and not os.path.isdir(os.path.dirname(text)):
        hint = "; if it has moved, give --map-path OLD=NEW"
    return InputError(f"{quoted(text)}: no such file{hint}")


def quoted(path: str | os.PathLike[str]) -> str:
    """A path as shown in messages: in quotes if spaces could be overlooked."""
    text = os.fspath(path)
    return repr(text) if re.search(r"\s", text) else text


def _mapped(text: str, path_map: PathMap) -> str:
    for old, new in path_map:
        beginning = old.rstrip("/\\")
        rest = text[len(beginning) :]
        if text.startswith(beginning) and (not rest or rest[0] in "/\\"):
            return os.path.join(new, *_SEPARATORS.split(rest.lstrip("/\\")))
    return text


def _by_its_end(text: str, folder: Path) -> Path | None:
    """The file in a folder that matches the longest part of a path's end."""
    parts = [part for part in _SEPARATORS.split(text) if part]
    for first in range(1, len(parts)):
        path = folder.joinpath(*parts[first:])
        if path.is_file():
            return path
    return None
