"""Names of RELION's optics groups, which its re-extraction looks up."""

from collections.abc import Sequence
from pathlib import Path

from jaxrefine.data.errors import InputError
from jaxrefine.io.star.columns import need_columns, numbers
from jaxrefine.io.star.text import star_tables

_NEEDED = {
    "optics": ("rlnOpticsGroup", "rlnOpticsGroupName"),
    "micrographs": ("rlnOpticsGroup", "rlnMicrographName"),
}


def group_names(path: Path, micrographs: Sequence[str]) -> list[str]:
    """Name of the optics group of each micrograph, by file name.

    Args:
        path: RELION's micrographs.star.
        micrographs: Names; folders do not matter.

    Raises:
        InputError: The file cannot be read, is of another kind, or lacks a micrograph.
    """
    tables = star_tables(path)
    for block, columns in _NEEDED.items():
        if block not in tables:
            raise InputError(f"{path}: has no block {block}; it should be micrographs.star")
        need_columns(path, block, tables[block], columns)
    optics, images = tables["optics"], tables["micrographs"]
    names = dict(
        zip(
            numbers(path, optics, "rlnOpticsGroup").tolist(),
            optics["rlnOpticsGroupName"],
            strict=True,
        )
    )
    files = [Path(name).name for name in images["rlnMicrographName"]]
    groups = numbers(path, images, "rlnOpticsGroup").tolist()
    group_of = dict(zip(files, groups, strict=True))
    found = []
    for name in micrographs:
        group = group_of.get(Path(name).name)
        if group not in names:
            raise InputError(f"{path}: has no optics group of {Path(name).name[:60]}")
        found.append(names[group])
    return found
