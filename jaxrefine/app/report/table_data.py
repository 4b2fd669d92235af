"""Data of a report as arrays: a refined table, before and after refinement."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float

from jaxrefine.app.console.logs import printable
from jaxrefine.data import POLISH_MEANING, STATUS_MEANING, InputError
from jaxrefine.io.table import ParticleTable, read_particle_table
from jaxrefine.io.table.indices import INDEX
from jaxrefine.io.table.schema import ANGLES
from jaxrefine.physics.rotations import euler_to_matrix

# Limit of plausible values of the columns that are drawn.
_LIMIT = 1e6
_FOUND = tuple(
    f"refined_{name}"
    for name in ("scaled_mip", *ANGLES, "pos_x", "pos_y", "relative_defocus")
)
_DRAWN = (
    "scaled_mip",
    *_FOUND,
    "refined_shift_x",
    "refined_shift_y",
    *(f"{name}_img" for name in ("pos_x", "pos_y", "refined_pos_x", "refined_pos_y")),
)
_LONGEST_LABEL = 40
REASONS = {status.name.lower(): text for status, text in STATUS_MEANING.items()}


@dataclass(frozen=True, eq=False)
class Concern:
    """A particle that should be examined.

    Attributes:
        row: Its row of the table, from 0.
        words: Names of its status and of the outcome of its polish.
        meaning: Their meaning.
        limits: The parameters at a limit of the search.
    """

    row: int
    words: str
    meaning: str
    limits: str


@dataclass(frozen=True, eq=False)
class ReportData:
    """Numbers of a refined table, n rows; NaN for none.

    "Before" is the match, whose columns are kept even if the table was refined repeatedly.
    """

    table: ParticleTable

    def __len__(self) -> int:
        return len(self.table)

    @cached_property
    def z_before(self) -> Float[np.ndarray, " n"]:
        """z-score of the match."""
        return self._numbers("scaled_mip")

    @cached_property
    def z_after(self) -> Float[np.ndarray, " n"]:
        """Refined z-score."""
        return self._numbers("refined_scaled_mip")

    @cached_property
    def z_expected(self) -> Float[np.ndarray, " n"]:
        """Expected z-score of the refined poses in independent data."""
        return self._numbers("refined_scaled_mip_expected")

    @cached_property
    def refined(self) -> Bool[np.ndarray, " n"]:
        """Mask of the particles with all results of a refinement."""
        found = [self.z_after, self.tilt_deg, self.defocus_change_angstrom]
        return np.all(np.isfinite([*found, *self.shift_px.T]), axis=0)

    @cached_property
    def labels(self) -> list[str]:
        """Label of each particle: its index, or its row from 0; one short line."""
        if INDEX in self.table.raw.columns:
            texts = (printable(text).split() for text in self.table.raw[INDEX])
            return [" ".join(words)[:_LONGEST_LABEL] for words in texts]
        return [str(row) for row in range(len(self))]

    @cached_property
    def status(self) -> list[str]:
        """Texts of `refined_status`; empty for tables of Leopard-EM, which have none."""
        return self._words("refined_status")

    @cached_property
    def polish(self) -> list[str]:
        """Texts of `refined_polish`; empty without a polish."""
        return self._words("refined_polish")

    @cached_property
    def converged(self) -> Bool[np.ndarray, " n"]:
        """Mask of the particles that were refined without any concern."""
        concerned = np.zeros(len(self), bool)
        concerned[[concern.row for concern in self.concerns]] = True
        return self.refined & ~concerned

    @cached_property
    def tilt_deg(self) -> Float[np.ndarray, " n"]:
        """Angle by which refinement tilted the particle out of the image plane."""
        turn = self._turn
        return np.rad2deg(np.arctan2(np.hypot(turn[:, 0, 2], turn[:, 1, 2]), turn[:, 2, 2]))

    @cached_property
    def in_plane_deg(self) -> Float[np.ndarray, " n"]:
        """Angle by which refinement rotated it in the image plane, x towards y."""
        turn = self._turn
        sine, cosine = turn[:, 1, 0] - turn[:, 0, 1], turn[:, 0, 0] + turn[:, 1, 1]
        return np.rad2deg(np.arctan2(sine, cosine))

    @cached_property
    def shift_px(self) -> Float[np.ndarray, "n 2"]:
        """Change of the position (x, y), including the sub-pixel shift."""
        return self.corner_px - self._both("pos_{}")

    @cached_property
    def corner_px(self) -> Float[np.ndarray, "n 2"]:
        """Refined position (x, y) of the template's corner, with the sub-pixel shift."""
        return self._both("refined_pos_{}") + self.sub_pixel_px

    @cached_property
    def rotation(self) -> Float[np.ndarray, "n 3 3"]:
        """Refined orientation."""
        return self._rotation("refined_")

    @cached_property
    def defocus_change_angstrom(self) -> Float[np.ndarray, " n"]:
        """Refined relative defocus minus that of the match."""
        before = self._numbers("relative_defocus")
        return self.relative_defocus_angstrom - before

    @cached_property
    def relative_defocus_angstrom(self) -> Float[np.ndarray, " n"]:
        """Refined relative defocus."""
        return self._numbers("refined_relative_defocus")

    @cached_property
    def centre_px(self) -> Float[np.ndarray, "n 2"]:
        """Centre (x, y) of the particle in its micrograph: refined, or else the match's."""
        refined, match = self.corner_px, self._both("pos_{}")
        corner = np.where(np.isfinite(refined), refined, match)
        return corner + self.template_side_px // 2

    @cached_property
    def sub_pixel_px(self) -> Float[np.ndarray, "n 2"]:
        """Sub-pixel shifts (x, y) of the refined positions; 0 if they are whole."""
        return np.nan_to_num(self._both("refined_shift_{}"))

    @cached_property
    def template_side_px(self) -> int:
        """Side of the template, from the table's centres and corners; 0 if unknown."""
        for corner in ("refined_pos_{}", "pos_{}"):
            halves = self._both(f"{corner}_img") - self._both(corner)
            if np.isfinite(halves).any():
                return 2 * round(float(np.nanmedian(halves)))
        return 0

    @cached_property
    def sigma(self) -> dict[str, Float[np.ndarray, " n"]]:
        """Available standard errors: orientation (deg), position (px), defocus (Å)."""
        found = {
            "orientation": self._numbers("refined_orientation_sigma"),
            "position": np.hypot(*self._both("refined_pos_{}_sigma").T),
            "defocus": self._numbers("refined_relative_defocus_sigma"),
        }
        # Very large standard errors are treated as unknown.
        known = {
            name: np.where((values >= 0) & (values <= _LIMIT), values, np.nan)
            for name, values in found.items()
        }
        return {name: values for name, values in known.items() if np.isfinite(values).any()}

    @cached_property
    def micrographs(self) -> dict[str, np.ndarray]:
        """Micrograph, as named in the table -> rows; those with most particles first."""
        groups: dict[str, list[int]] = {}
        for row, path in enumerate(self.table.micrograph_paths):
            groups.setdefault(path, []).append(row)
        largest_first = sorted(groups.items(), key=lambda item: -len(item[1]))
        return {path: np.asarray(rows) for path, rows in largest_first}

    @cached_property
    def concerns(self) -> list[Concern]:
        """Particles without a score, followed by those that ended at a limit."""
        found = []
        edge = self._words("refined_at_edge")
        each = zip(self.status, edge, self.polish, strict=True)
        for row, (status, edges, polish) in enumerate(each):
            words, meaning = [], []
            if status and status != "converged":
                words.append(status)
                meaning.append(REASONS.get(status, "unknown status"))
            elif not status and not self.refined[row]:
                words.append("no score")
                meaning.append("not refined; the table does not say why")
            if polish and polish != "converged":
                words.append(f"polish {polish}")
                meaning.append(POLISH_MEANING.get(polish, "unknown word"))
            if words:
                limits = edges.replace(" ", ", ")
                found.append(Concern(row, ", ".join(words), "; ".join(meaning), limits))
        return sorted(found, key=lambda c: (bool(self.refined[c.row]), c.words, c.row))

    @cached_property
    def _turn(self) -> Float[np.ndarray, "n 3 3"]:
        """Rotation in the image frame from the match's orientation to the refined one."""
        return np.swapaxes(self._rotation(""), -1, -2) @ self.rotation

    def _rotation(self, prefix: str) -> Float[np.ndarray, "n 3 3"]:
        return euler_to_matrix(self._stacked([f"{prefix}{name}" for name in ANGLES]))

    def _both(self, name: str) -> Float[np.ndarray, "n 2"]:
        """The x and y columns of a quantity."""
        return self._stacked([name.format(axis) for axis in "xy"])

    def _stacked(self, names: list[str]) -> Float[np.ndarray, "n c"]:
        return np.stack([self._numbers(name) for name in names], axis=-1)

    def _numbers(self, name: str) -> Float[np.ndarray, " n"]:
        values = self.table.numbers(name)
        return np.where(np.isfinite(values), values, np.nan)

    def _words(self, name: str) -> list[str]:
        raw = self.table.raw
        return raw[name].tolist() if name in raw.columns else [""] * len(self)


def load_report_data(path: Path) -> ReportData:
    """Read a refined table of jaxrefine or Leopard-EM.

    Raises:
        InputError: With all errors of the table, or if it has no refined values.
    """
    table = read_particle_table(path, ignore_aberrations=True)
    missing = [name for name in _FOUND if name not in table.raw.columns]
    if missing:
        raise InputError(
            f"{path}: missing columns: {', '.join(missing)}; name a refined "
            "table, as `jaxrefine CONFIG.yaml` writes it"
        )
    errors = list(_errors(table))
    if errors:
        raise InputError(errors)
    return ReportData(table)


def _errors(table: ParticleTable) -> Iterator[str]:
    """Errors about numbers that cannot be drawn: the first of each column."""
    for name in _DRAWN:
        values = table.numbers(name)
        rows = np.flatnonzero(np.isfinite(values) & (abs(values) > _LIMIT))
        if len(rows):
            more = f" (and {len(rows) - 1} more {table.row_word}s)" if len(rows) > 1 else ""
            yield (
                f"{table.path}, {table.locate(rows[0])}, column {name}: "
                f"{table.raw[name].iloc[rows[0]][:60]!r}: should be empty or a number "
                f"within ±1e6{more}"
            )
