"""Particle stacks of Leopard-EM 1.3 (HDF5) as tables of text cells, and back.

A stack has a group `particles` with one dataset per column (numbers as float64, everything
else as text) and the column names in its attribute `columns`. Particle images and local
maps in the stack are not used: boxes are extracted from the micrographs, because positions
change.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from jaxrefine.data.errors import InputError
from jaxrefine.io.atomic import atomic_path
from jaxrefine.io.hdf5 import opened_hdf5
from jaxrefine.io.optional import require_packages
from jaxrefine.io.table import cells
from jaxrefine.io.table.schema import BY_NAME

_PARTICLES = "particles"
_MOST_CELLS = 50_000_000
# Root attributes that state what a stack holds; written stacks hold only the table.
_HOLDS = ("image_stack_stored", "local_stats_stored")


def read_hdf5(path: Path) -> cells.Cells:
    """Reads the table of a particle stack.

    Args:
        path: An HDF5 file.

    Returns:
        Its cells; rows are numbered from 1.

    Raises:
        InputError: The file cannot be read, or is not a particle stack.
    """
    with opened_hdf5(path) as file:
        group: Any = file.get(_PARTICLES)
        columns = {}
        if group is not None:
            names = [str(name) for name in group.attrs.get("columns", ())]
            columns = {name: group[name] for name in names if name in group}
        if not columns:
            raise InputError(
                f"{path}: holds no particles; it should be a particle stack as Leopard-EM "
                "1.3 writes it, with a group 'particles'"
            )
        lengths = {dataset.shape for dataset in columns.values()}
        if len(lengths) > 1 or len(min(lengths)) != 1:
            raise InputError(f"{path}: particles: its columns differ in length")
        if min(lengths)[0] * len(columns) > _MOST_CELLS:
            raise InputError(f"{path}: particles: has more than {_MOST_CELLS} cells")
        texts = [_texts(name, dataset[()]) for name, dataset in columns.items()]
    rows = [list(row) for row in zip(*texts, strict=True)]
    numbers = list(range(1, len(rows) + 1))
    return cells.Cells(list(columns), rows, numbers, [], n_dropped=0, row_word="particle")


def write_hdf5(
    table: pd.DataFrame, path: Path, attributes: dict[str, Any] | None = None
) -> None:
    """Writes a table as a particle stack that Leopard-EM 1.3 reads; the write is atomic.

    Args:
        table: All cells as text.
        path: File in a folder that exists.
        attributes: Attributes of the root: sizes of box and template, which Leopard-EM
            requires, and the attributes of the stack that was refined.

    Raises:
        InputError: h5py is not installed, or the file cannot be written.
    """
    require_packages("writing HDF5 files", "h5py", extra="hdf5")
    import h5py

    if "particle_id" not in table:
        table = table.assign(particle_id=_ids(table["micrograph_path"].tolist()))
    names = ["particle_id", *(name for name in table.columns if name != "particle_id")]
    with atomic_path(path) as temporary, h5py.File(temporary, "w") as file:
        file.attrs.update({**(attributes or {}), **dict.fromkeys(_HOLDS, False)})
        group = file.create_group(_PARTICLES)
        group.attrs["columns"] = names
        for name in names:
            texts = table[name].tolist()
            if _is_of_numbers(name, texts):
                group[name] = np.array([cells.number(text) for text in texts], np.float64)
            else:
                group.create_dataset(name, data=texts, dtype=h5py.string_dtype())


def hdf5_attributes(path: Path) -> dict[str, Any]:
    """Attributes of the root of a file, to be copied.

    Raises:
        InputError: The file cannot be read.
    """
    with opened_hdf5(path) as file:
        return dict(file.attrs)


def _texts(name: str, values: np.ndarray) -> list[str]:
    """Cells as in a CSV file: whole numbers without a decimal point, empty for NaN."""
    if values.dtype.kind not in "fiu":
        return [
            v.decode("utf-8", "replace") if isinstance(v, bytes) else str(v) for v in values
        ]
    column = BY_NAME.get(name)
    whole = column is not None and column.kind == "integer"
    numbers = [float(value) for value in values]
    return [
        "" if np.isnan(x) else str(int(x)) if whole and x.is_integer() else repr(x)
        for x in numbers
    ]


def _is_of_numbers(name: str, texts: list[str]) -> bool:
    column = BY_NAME.get(name)
    if column is not None:
        return column.kind != "text"
    return name != "particle_id" and all(
        not text or np.isfinite(cells.number(text)) for text in texts
    )


def _ids(micrographs: list[str]) -> list[str]:
    """Particle names in Leopard-EM's style: the stem of the micrograph and a number."""
    counts: dict[str, int] = {}
    found = []
    for text in micrographs:
        number = counts[text] = counts.get(text, -1) + 1
        found.append(f"{Path(text).stem}_{number:05d}")
    return found
