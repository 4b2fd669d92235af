"""STAR files of RELION and cisTEM: reading, and what they hold as a particle table.

gemmi reads them. The package starfile, which writes them, does not: what it makes of a
damaged file depends on the last one that it read, a file of 200 kB can hold it for minutes,
a row whose first cell begins with `data_` ends its table.
"""

import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from jaxrefine.data import InputError, Optics
from jaxrefine.io.optional import require_packages
from jaxrefine.io.star.writer import (
    CISTEM_NUMBERS,
    OPTICS,
    RELION_NUMBERS,
    RELION_OPTICS,
    StarParticles,
)
from jaxrefine.io.table import cells
from jaxrefine.io.table.schema import BY_NAME, OPTICS_FIELDS

if TYPE_CHECKING:
    from gemmi import cif

# Values that a file may leave out.
_DEFAULTS = {"phase_shift_deg": 0.0, "b_factor_angstrom2": 0.0, "z_score": np.nan}
# Those of `jaxrefine.io.table.particle_table`, which reads what is made of the file.
_Limit = tuple[float, float, str]
_LIMITS: dict[str, _Limit] = {
    "pixel_size_angstrom": (0.01, 100.0, "in 0.01 … 100 (Å)"),
    "voltage_kv": (1.0, 5000.0, "in 1 … 5000 (kV)"),
    "spherical_aberration_mm": (0.0, 100.0, "in 0 … 100 (mm)"),
    "amplitude_contrast": (0.0, 0.999999, "in [0, 1)"),
}
_LIMIT = (-1e6, 1e6, "within ±1e6")
_LIMIT_OF_PLACES = (-1e9, 1e9, "within ±1e9")  # px or Å
# With any template the corner, too, is within the table's ±1e6.
_MOST_PX = MOST_TEMPLATE_PX = 500_000
_MOST_NAMED = 5
# "string:2:7(14): why", "string:2 in data_x: why", "string: why".
_GEMMI = re.compile(
    r"(?:string)?:?(?:(\d+)(?::(\d+)\(\d+\))?)?(?: in [^:]*)?:? ?(.*)", re.DOTALL
)
_MOST_SHOWN = 200
_MOST_BYTES = 1 << 30  # it is held in memory several times
_RELION_BLOCKS = ("optics", "particles")


def read_star(path: Path) -> StarParticles:
    """Reads particles of RELION (3.1 and later) or cisTEM.

    Raises:
        InputError: The file is missing, is of neither program or holds no particles; or a
            column is missing, or holds what is no number or in no unit of it.
    """
    require_packages("reading STAR files", "gemmi", extra="star")
    tables = _tables(path)
    if all(name in tables for name in _RELION_BLOCKS):
        return _from_relion(path, *(tables[name] for name in _RELION_BLOCKS))
    if "cisTEM" in tables:
        return _from_cistem(path, tables["cisTEM"])
    raise InputError(
        f"{path}: holds neither RELION's blocks 'optics' and 'particles' (3.1 and later; "
        "relion_convert_star makes them) nor cisTEM's columns"
    )


def imported_table(
    particles: StarParticles, template_side_px: int, maps: Sequence[tuple[str, str]]
) -> pd.DataFrame:
    """A particle table, all cells as text.

    Args:
        particles: From `read_star`.
        template_side_px: Side of the template that the table will be refined with; at most
            `MOST_TEMPLATE_PX`.
        maps: Maps of the correlation's mean and spread, per particle; may be empty.

    Returns:
        Whole pixels in `pos_x` and `pos_y`, exact positions in `pos_x_img_angstrom` and
        `pos_y_img_angstrom`; absolute defocus, `relative_defocus` being 0.
    """
    half = template_side_px // 2
    centre = particles.box_centre_px + particles.shift_px
    corner = np.rint(centre - half)
    columns: dict[str, object] = {"particle_index": range(len(particles))}
    for i, axis in enumerate("xy"):
        columns[f"pos_{axis}"] = cells.whole_texts(corner[:, i])
        columns[f"pos_{axis}_img"] = cells.whole_texts(corner[:, i] + half)
        angstrom = centre[:, i] * particles.pixel_size_angstrom
        columns[f"pos_{axis}_img_angstrom"] = cells.rounded_texts(angstrom, 4)
    euler = cells.normalised_euler_deg(particles.euler_deg, 4)
    numbers = {
        "phi": (euler[:, 0], 4),
        "theta": (euler[:, 1], 4),
        "psi": (euler[:, 2], 4),
        "relative_defocus": (np.zeros(len(particles)), 2),
        "defocus_u": (particles.defocus_angstrom[:, 0], 4),
        "defocus_v": (particles.defocus_angstrom[:, 1], 4),
        "astigmatism_angle": (particles.astigmatism_deg, 4),
        "pixel_size": (particles.pixel_size_angstrom, 6),
        "scaled_mip": (particles.z_score, 6),
    }
    for field, column in OPTICS_FIELDS.items():
        values = getattr(particles.optics, field)
        if values is not None:  # as further parameters are, which the file does not hold
            numbers[column.name] = (values, 6)
    for name, (values, decimals) in numbers.items():
        columns[name] = cells.rounded_texts(values, decimals)
    columns["micrograph_path"] = list(particles.micrograph)
    for i, name in enumerate(("correlation_average_path", "correlation_variance_path")):
        columns[name] = [pair[i] for pair in maps]
    return pd.DataFrame({name: columns[name] for name in BY_NAME if name in columns})


# --- particles --------------------------------------------------------------------


def _from_relion(path: Path, optics: pd.DataFrame, table: pd.DataFrame) -> StarParticles:
    needed = ["rlnMicrographName", "rlnOpticsGroup", "rlnCoordinateX", "rlnCoordinateY"]
    _need_columns(path, "particles", table, [*needed, *_required(RELION_NUMBERS)])
    _need_columns(path, "optics", optics, ["rlnOpticsGroup", *RELION_OPTICS.values()])
    groups = _numbers(path, optics, "rlnOpticsGroup").tolist()
    twice = [group for group, n in Counter(groups).items() if n > 1]
    if twice:
        raise InputError(f"{path}: optics groups that are there twice: {_some(twice)}")
    where = {group: row for row, group in enumerate(groups)}
    group_of = _numbers(path, table, "rlnOpticsGroup").tolist()
    unknown = sorted(set(group_of) - set(where))
    if unknown:
        raise InputError(
            f"{path}: particles are of optics groups that are not there: {_some(unknown)}"
        )
    rows = [where[group] for group in group_of]
    of_groups = _fields(path, optics, RELION_OPTICS)
    values = {name: of_group[rows] for name, of_group in of_groups.items()}
    origin = _places(path, table, "rlnOrigin{}Angst", default=0.0)
    pixel_size = values["pixel_size_angstrom"][:, None]
    centre, shift = _places(path, table, "rlnCoordinate{}"), -origin / pixel_size
    _need_sane_places(path, centre, shift)
    return StarParticles(
        micrograph=_names(path, table, "rlnMicrographName"),
        box_centre_px=centre,
        shift_px=shift,
        **_by_owner(values | _fields(path, table, RELION_NUMBERS)),
    )


def _from_cistem(path: Path, table: pd.DataFrame) -> StarParticles:
    position, shift = "cisTEMOriginal{}Position", "cisTEM{}Shift"
    needed = [name.format(axis) for name in (position, shift) for axis in "XY"]
    needed = ["cisTEMOriginalImageFilename", *needed, *_required(CISTEM_NUMBERS)]
    _need_columns(path, "table", table, needed)
    values = _fields(path, table, CISTEM_NUMBERS)
    pixel_size = values["pixel_size_angstrom"][:, None]
    centre = _places(path, table, position) / pixel_size
    shift = _places(path, table, shift) / pixel_size
    _need_sane_places(path, centre, shift)
    return StarParticles(
        micrograph=_names(path, table, "cisTEMOriginalImageFilename"),
        box_centre_px=centre,
        shift_px=shift,
        **_by_owner(values | {"b_factor_angstrom2": np.zeros(len(table))}),
    )


def _fields(path: Path, table: pd.DataFrame, names: dict) -> dict[str, np.ndarray]:
    """Numbers of the particles, by our names for them."""
    found = {}
    for name, theirs in names.items():
        limit = _LIMITS.get(name, _LIMIT)
        if isinstance(theirs, str) and theirs not in table:
            found[name] = np.full(len(table), _DEFAULTS[name])
        elif isinstance(theirs, str):
            found[name] = _numbers(path, table, theirs, limit)
        else:
            columns = [_numbers(path, table, one, limit) for one in theirs]
            found[name] = np.stack(columns, axis=-1)
    return found


def _by_owner(values: dict[str, np.ndarray]) -> dict[str, Any]:
    """The fields of `StarParticles`: those of the optics are one of them."""
    of_optics = {name: values.pop(name) for name in OPTICS & set(values)}
    return values | {"optics": Optics(**of_optics)}


def _required(names: dict) -> Iterator[str]:
    for ours, name in names.items():
        if ours not in _DEFAULTS:
            yield from [name] if isinstance(name, str) else name


def _need_columns(
    path: Path, block: str, table: pd.DataFrame, names: Sequence[str]
) -> None:
    missing = [f"_{name}" for name in names if name not in table]
    if missing:
        raise InputError(f"{path}: {block}: columns that are missing: {', '.join(missing)}")
    if not len(table):
        raise InputError(f"{path}: {block}: holds no rows")


def _numbers(
    path: Path, table: pd.DataFrame, name: str, limit: _Limit = _LIMIT
) -> np.ndarray:
    values = np.array([cells.number(text) for text in table[name]], np.float64)
    low, high, right = limit
    bad = np.flatnonzero(~((values >= low) & (values <= high)))  # also NaN
    if len(bad):
        raise InputError(
            f"{path}: column _{name}, row {bad[0] + 1}: {table[name].iloc[bad[0]][:60]!r}: "
            f"should be a number {right}"
        )
    return values


def _places(
    path: Path, table: pd.DataFrame, name: str, default: float | None = None
) -> Float[np.ndarray, "n 2"]:
    """A column of x, and of y; `default` where one is missing."""
    columns = [
        np.full(len(table), default)
        if default is not None and one not in table
        else _numbers(path, table, one, _LIMIT_OF_PLACES)
        for one in (name.format(axis) for axis in "XY")
    ]
    return np.stack(columns, axis=-1)


def _need_sane_places(path: Path, centre: np.ndarray, shift: np.ndarray) -> None:
    place = centre + shift
    far = np.flatnonzero((abs(place) > _MOST_PX).any(axis=-1))
    if len(far):
        x, y = place[far[0]]
        raise InputError(
            f"{path}: row {far[0] + 1}: lies at x, y = {x:.6g}, {y:.6g} px: should be "
            f"within ±{_MOST_PX:g} px"
        )


def _names(path: Path, table: pd.DataFrame, name: str) -> list[str]:
    """Files' names; cisTEM, too, puts them into quotes."""
    found = [text.strip("'") for text in table[name]]
    for row, text in enumerate(found, 1):
        if not text.strip():
            raise InputError(
                f"{path}: column _{name}, row {row}: an empty cell: should be a path"
            )
    return found


# --- the file ---------------------------------------------------------------------


def _tables(path: Path) -> dict[str, pd.DataFrame]:
    """The blocks that are read, by what they hold, all cells as text."""
    from gemmi import cif

    try:
        document = cif.read_string(_text(path))
    except (ValueError, RuntimeError) as error:
        raise InputError(f"{path}{_place_and_reason(str(error))}") from error
    found: dict[str, pd.DataFrame] = {}
    for block in document:
        table = _table(block)
        if block.name in _RELION_BLOCKS:
            found[block.name] = table
        elif "cisTEMAnglePsi" in table:
            if "cisTEM" in found:
                raise InputError(f"{path}: holds two tables of cisTEM; keep one of them")
            found["cisTEM"] = table
    return found


def _place_and_reason(message: str) -> str:
    """What gemmi says of a text, as other messages are."""
    found = _GEMMI.fullmatch(message)  # which takes any text
    line, column, reason = found.groups() if found else (None, None, message)
    at = "" if line is None else f", line {line}"
    at += "" if column is None else f", column {int(column) + 1}"
    return f"{at}: is no sound STAR file: {reason[:_MOST_SHOWN]}"


def _table(block: "cif.Block") -> pd.DataFrame:
    """A block's loop; single values are a table of one row."""
    from gemmi import cif

    loops = [item.loop for item in block if item.loop is not None]
    if loops:
        names, values = loops[0].tags, loops[0].values
    else:
        # gemmi's stubs do not say that a pair is one.
        pairs: list[Any] = [item.pair for item in block if item.pair is not None]
        names, values = [name for name, _ in pairs], [value for _, value in pairs]
    cells_of = [cif.as_string(value) for value in values]
    width = len(names)
    columns = {name[1:]: cells_of[place::width] for place, name in enumerate(names)}
    return pd.DataFrame(columns, dtype=object)


def _text(path: Path) -> str:
    try:
        if path.exists() and not (path.is_file() or path.is_dir()):  # it may never end
            raise InputError(f"{path}: is a device or a pipe; it should be a STAR file")
        with open(path, encoding="utf-8-sig") as file:
            size = os.fstat(file.fileno()).st_size
            if size > _MOST_BYTES:
                raise InputError(
                    f"{path}: has {size} bytes, and a STAR file at most {_MOST_BYTES}; "
                    "is it one?"
                )
            return file.read()
    except InputError:
        raise
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except IsADirectoryError as error:
        raise InputError(f"{path}: is a folder; it should be a STAR file") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: is no UTF-8 text; it should be a STAR file") from error
    except ValueError as error:  # a path with a NUL character
        raise InputError(f"{str(path)!r}: cannot be read: {error}") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from error


def _some(values: Sequence[object]) -> str:
    """A few of them, as text that is not too long."""
    texts = [
        f"{value:g}" if isinstance(value, float) else repr(value)[:60]
        for value in values[:_MOST_NAMED]
    ]
    return ", ".join(texts) + (" …" if len(values) > _MOST_NAMED else "")
