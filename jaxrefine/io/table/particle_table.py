"""The particle table: one particle per row, with the columns that Leopard-EM writes.

Cells are kept as text, so that what the program does not change is written as it was read.
"""

import difflib
import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import SupportsIndex

import numpy as np
import pandas as pd

from jaxrefine.data import InputError, Optics
from jaxrefine.data.optics import LIMITS
from jaxrefine.io.table import aberrations, cells
from jaxrefine.io.table.readers import read_cells
from jaxrefine.io.table.schema import (
    ABERRATIONS,
    ANGLES,
    BY_NAME,
    COLUMNS,
    DEFOCUS,
    OPTICS_FIELDS,
)
from jaxrefine.io.table.statistic_maps import ADVICE, MapKind, decide_map_kind

_Limit = tuple[str, Callable[[np.ndarray], np.ndarray]]


def _limit(low: float, high: float, unit: str) -> _Limit:
    return f" in {low:g} … {high:g} ({unit})", lambda x: (x >= low) & (x <= high)


_LIMITS: dict[str, _Limit] = {
    "pixel_size": _limit(*LIMITS["pixel_size_angstrom"], "Å"),
    # If 0 or less, the unrefined pixel size is used.
    "refined_pixel_size": (" up to 100 (Å)", lambda x: x <= 100),
    "voltage": _limit(*LIMITS["voltage_kv"], "kV"),
    "spherical_aberration": _limit(*LIMITS["spherical_aberration_mm"], "mm"),
    **dict.fromkeys(DEFOCUS, (" within ±1e6 (Å)", lambda x: abs(x) <= 1e6)),
    "amplitude_contrast_ratio": (" in [0, 1)", lambda x: (x >= 0) & (x < 1)),
}
# For all others: no column has larger values, and float32 would lose their digits.
_LIMIT = (" within ±1e6", lambda x: abs(x) <= 1e6)
_MAX_ROW_ERRORS = 20
_MAP_COLUMNS = ("correlation_average_path", "correlation_variance_path")
_WITHOUT_MAPS = (
    " (the statistic maps of the match; `jaxrefine import` takes them from a table, with "
    "--maps-from, or writes flat ones, with --flat-maps)"
)
# Columns that are read as starting values if they are filled, and what they refine.
_REFINED_STARTS = {
    f"refined_{name}": name
    for name in (
        *("pos_x", "pos_y", *ANGLES, "relative_defocus"),
        *("pixel_size", *DEFOCUS, "astigmatism_angle"),
    )
}


@dataclass(frozen=True, eq=False)
class StartingValues:
    """Starting values of each particle, and its optics; float64, n rows.

    Attributes:
        euler_deg: (n, 3): phi, theta, psi, intrinsic ZYZ.
        position_px: (n, 2): y, x of the template's top-left corner, rounded to whole
            numbers (halves to even).
        defocus_angstrom: (n, 2): absolute defocus u, v; underfocus positive.
        relative_defocus_angstrom: Difference of the above from the micrograph's defocus.
        astigmatism_deg: Direction of u.
        pixel_size_angstrom: Starting value of the pixel size.
        nominal_pixel_size_angstrom: Pixel size before any refinement.
        optics: Optics, with leaves of float64.
        from_refined: True if angles, position or defocus are refined ones. (A refined pixel
            size does not count, since match tables also have one.)
        n_rounded_positions: Number of rows whose position was not whole.
    """

    euler_deg: np.ndarray
    position_px: np.ndarray
    defocus_angstrom: np.ndarray
    relative_defocus_angstrom: np.ndarray
    astigmatism_deg: np.ndarray
    pixel_size_angstrom: np.ndarray
    nominal_pixel_size_angstrom: np.ndarray
    optics: Optics
    from_refined: np.ndarray
    n_rounded_positions: int


@dataclass(frozen=True, eq=False)
class ParticleTable:
    """A particle table without errors.

    Attributes:
        path: The file it was read from.
        raw: All cells as text; columns as in the file, without an unnamed index.
        row_numbers: Number of each row in the file; for CSV the line on which it ends,
            where the header is line 1.
        row_word: Unit of these numbers, for messages.
        ignores_aberrations: Whether the optics of `start` omit beam tilt, Zernike terms and
            magnification matrix.
    """

    path: Path
    raw: pd.DataFrame
    row_numbers: tuple[int, ...]
    row_word: str = "line"
    ignores_aberrations: bool = False

    def __len__(self) -> int:
        return len(self.raw)

    def locate(self, row: SupportsIndex) -> str:
        """Location of a row in the file, for messages: "line 12"."""
        return f"{self.row_word} {self.row_numbers[row]}"

    def numbers(self, name: str) -> np.ndarray:
        """One column as float64; NaN for empty cells, or if a known column is missing."""
        if name in self.raw.columns:
            return np.array([cells.number(text) for text in self.raw[name]], np.float64)
        if name not in BY_NAME:
            raise KeyError(name)
        return np.full(len(self), np.nan)

    def paths(self, name: str) -> list[str]:
        """One column of paths, as the file writes them."""
        return self.raw[name].tolist()

    @property
    def micrograph_paths(self) -> list[str]:
        """Micrograph of each particle."""
        return self.paths("micrograph_path")

    @property
    def correlation_mean_paths(self) -> list[str]:
        """Map of the correlation's mean, per particle."""
        return self.paths("correlation_average_path")

    @property
    def correlation_variance_paths(self) -> list[str]:
        """Map of the correlation's variance or standard deviation, per particle."""
        return self.paths("correlation_variance_path")

    def start(self) -> StartingValues:
        """Starting values: for each particle the refined ones, if they are finite.

        All columns of a quantity (three angles, two positions) must exist and be finite,
        and a refined pixel size be above 0; otherwise the unrefined values are used.
        """
        euler, refined_euler = self._preferred(*ANGLES)
        position, refined_position = self._preferred("pos_y", "pos_x")
        relative, refined_defocus = self._preferred("relative_defocus")
        pixel_size, nominal = self.numbers("refined_pixel_size"), self.numbers("pixel_size")
        use_refined = np.isfinite(pixel_size) & (pixel_size > 0)
        # Astigmatism is one quantity: two defocus values and an angle.
        astigmatism, _ = self._preferred(*DEFOCUS, "astigmatism_angle")
        whole = np.rint(position)
        return StartingValues(
            euler_deg=euler,
            position_px=whole,
            defocus_angstrom=astigmatism[:, :2] + relative,
            relative_defocus_angstrom=relative[:, 0],
            astigmatism_deg=astigmatism[:, 2],
            pixel_size_angstrom=np.where(use_refined, pixel_size, nominal),
            nominal_pixel_size_angstrom=nominal,
            optics=self._optics(),
            from_refined=refined_euler | refined_position | refined_defocus,
            n_rounded_positions=int(np.any(whole != position, axis=-1).sum()),
        )

    def _optics(self) -> Optics:
        """The optics; a field without a column keeps its default."""
        there = {
            field: self.numbers(column.name)
            for field, column in OPTICS_FIELDS.items()
            if column.name in self.raw.columns
        }
        if not self.ignores_aberrations:
            texts = {n: self.raw[n].tolist() for n in ABERRATIONS if n in self.raw.columns}
            there |= aberrations.optics_fields(texts)
        return Optics(**there)

    def _preferred(self, *names: str) -> tuple[np.ndarray, np.ndarray]:
        """The refined_ columns where all are finite, else the plain ones; and a mask."""
        plain = np.stack([self.numbers(name) for name in names], -1)
        refined = np.stack([self.numbers(f"refined_{name}") for name in names], -1)
        use_refined = np.all(np.isfinite(refined), axis=-1)
        return np.where(use_refined[:, None], refined, plain), use_refined


def read_particle_table(
    path: str | os.PathLike[str], *, ignore_aberrations: bool = False
) -> ParticleTable:
    """Read a particle table and check everything that the computation uses.

    Args:
        path: A file in a format of `jaxrefine.io.table.readers`; CSV with or without an
            unnamed index column.
        ignore_aberrations: Copy the columns of aberrations without reading them.

    Returns:
        The table.

    Raises:
        InputError: With all errors of the file, each with its row.
    """
    path = Path(path)
    content = read_cells(path)
    header, width = content.header, len(content.header) + content.n_dropped
    errors = list(_header_errors(path, header))
    rows = [
        (
            number,
            -1,
            f"{path}, {content.row_word} {number}: has {n} cells; it should have {width}",
        )
        for number, n in content.odd_rows
    ]
    if not content.rows and not rows:
        errors.append(f"{path}: holds no particles")
    raw = pd.DataFrame(content.rows, columns=pd.Index(header), dtype=object)
    table = ParticleTable(
        path, raw, tuple(content.numbers), content.row_word, ignore_aberrations
    )
    if raw.columns.is_unique:
        rows.extend(_cell_errors(table))
    errors += _shortened(table, rows)
    if errors:
        raise InputError(errors)
    return table


def _shortened(table: ParticleTable, rows: list[tuple[int, int, str]]) -> Iterator[str]:
    """The first errors of each column, by row, and the number of further ones."""
    counts = Counter(place for _, place, _ in rows)
    share = max(1, _MAX_ROW_ERRORS // len(counts)) if counts else 0
    shown = Counter[int]()
    for _, place, sentence in sorted(rows):
        shown[place] += 1
        if shown[place] <= share:
            yield sentence
    for place, count in sorted(counts.items()):
        if count > share:
            column = f"column {table.raw.columns[place]}"
            where = f"{table.path}, {column if place >= 0 else 'number of cells'}"
            yield f"{where}: … and {count - share} more {table.row_word}s"


def _header_errors(path: Path, header: list[str]) -> Iterator[str]:
    if len(header) == 1:
        yield f"{path}: has one column; cells should be separated by commas"
    twice = [name for name, n in Counter(header).items() if n > 1]
    if twice:
        yield f"{path}: duplicate columns: {', '.join(map(repr, twice))}"
    unknown = [name for name in header if name not in BY_NAME]
    missing = []
    for column in COLUMNS:
        if column.required and column.name not in header:
            near = difflib.get_close_matches(column.name, unknown, n=1)
            missing.append(column.name + (f" (did you mean {near[0]!r}?)" if near else ""))
    if missing:
        yield f"{path}: missing columns: {', '.join(missing)}"


def _cell_errors(table: ParticleTable) -> Iterator[tuple[int, int, str]]:
    """(row number, column index, message) for each invalid cell."""
    for place, name in enumerate(table.raw.columns):
        column = BY_NAME.get(name)
        if column is None:
            continue
        texts = table.raw[name].tolist()
        if column.use == "aberration":
            if table.ignores_aberrations:
                continue
            usable = {t: aberrations.parse(name, t) is not None for t in set(texts)}
            good, right = [usable[t] for t in texts], aberrations.what_is_right(name)
        elif name in _REFINED_STARTS:  # if not a number, the unrefined value is used
            limit, within = _LIMITS.get(name) or _LIMITS.get(_REFINED_STARTS[name], _LIMIT)
            values, right = table.numbers(name), f"should be a number{limit}, or empty"
            good = ~np.isfinite(values) | within(values)
        elif not (column.required or column in OPTICS_FIELDS.values()):
            continue
        elif column.kind == "text":
            good, right = [bool(text.strip()) for text in texts], "should be a path"
        else:
            limit, within = _LIMITS.get(name, _LIMIT)
            values, right = table.numbers(name), f"should be a number{limit}"
            good = np.isfinite(values) & within(values)
        if column.required and len(texts) > 1 and not any(text.strip() for text in texts):
            more = _WITHOUT_MAPS if name in _MAP_COLUMNS else ""
            where = f"{table.path}, column {name}"
            yield 0, place, f"{where}: every cell is empty: {right}{more}"
            continue
        for row in np.flatnonzero(~np.asarray(good, bool)):
            what = f"{texts[row][:60]!r}" if texts[row].strip() else "an empty cell"
            where = f"{table.path}, {table.locate(row)}, column {name}"
            yield table.row_numbers[row], place, f"{where}: {what}: {right}"


def ignored_aberrations(table: ParticleTable) -> dict[str, int]:
    """Columns of aberrations that are ignored -> number of rows with a value."""
    if not table.ignores_aberrations:
        return {}
    counts = {
        name: sum(aberrations.has_effect(name, text) for text in table.raw[name])
        for name in ABERRATIONS
        if name in table.raw.columns
    }
    return {name: count for name, count in counts.items() if count}


def decide_statistics(table: ParticleTable) -> MapKind:
    """Determine what the correlation_variance maps hold, from the match's z-scores.

    Args:
        table: A match table, or one refined from it, which keeps the match's columns.

    Returns:
        As `decide_map_kind`; Leopard-EM 1.2 writes standard deviations.

    Raises:
        InputError: The columns are missing, neither reading fits, or each fits some rows.
    """
    names = ("mip", "scaled_mip", "correlation_mean", "correlation_variance")
    missing = [name for name in names if name not in table.raw.columns]
    if missing:
        raise InputError(
            f"{table.path}: cannot tell whether the maps hold variance or standard "
            f"deviation without the columns {', '.join(missing)}: {ADVICE}"
        )
    mip, scaled_mip, mean, variance = map(table.numbers, names)
    return decide_map_kind(mip, scaled_mip, mean, variance, table.locate, str(table.path))
