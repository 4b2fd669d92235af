"""Matching of another program's micrograph names to those of a table."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from jaxrefine.data import InputError

# cryoSPARC puts a number of up to 21 digits before the names of what it imports.
_PREFIX = re.compile(r"^\d{15,21}_")
# What motion correction appends: cryoSPARC's patch and rigid, MotionCor2, RELION.
_SUFFIX = re.compile(
    r"_(patch_aligned|rigid_aligned|aligned|doseweighted|dw|nodw|noDW|DW|denoised)$"
)
_MOST_NAMED = 5


def plain_name(name: str) -> str:
    """A micrograph's name without folder, extension, and cryoSPARC's additions."""
    stem = Path(name).name
    for extension in (".gz", ".bz2", ".mrc", ".mrcs", ".tif", ".tiff", ".eer"):
        stem = stem.removesuffix(extension)
    stem = _PREFIX.sub("", stem)
    while (shorter := _SUFFIX.sub("", stem)) != stem:
        stem = shorter
    return stem


def matched_names(
    names: Iterable[str], known: Mapping[str, object], where: Path
) -> dict[str, str]:
    """Known names by the names that refer to them.

    The same file name is preferred, then the same name without the additions of programs.

    Args:
        names: Another program's names.
        known: File names of the table's micrographs.
        where: The table, for messages.

    Raises:
        InputError: A name matches none of them, or several.
    """
    by_plain: dict[str, list[str]] = {}
    for name in known:
        by_plain.setdefault(plain_name(name), []).append(name)
    found: dict[str, str] = {}
    lost = []
    for name in dict.fromkeys(names):
        file = Path(name).name
        meant = [file] if file in known else by_plain.get(plain_name(file), [])
        if len(meant) > 1:
            two = " or ".join(sorted(meant)[:2])
            raise InputError(f"{where}: {file[:60]} could be {two}; rename one")
        if meant:
            found[name] = meant[0]
        else:
            lost.append(file)
    if lost:
        shown = ", ".join(name[:60] for name in sorted(set(lost))[:_MOST_NAMED])
        raise InputError(
            f"{where}: names no maps of {shown}{' …' if len(lost) > _MOST_NAMED else ''}; "
            "add them, or omit --maps-from"
        )
    return found
