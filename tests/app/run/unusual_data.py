"""Data as it really comes: one table whose every row is odd in a way of its own.

All rows are the same particle, whose z-score is known from the row `plain`.
"""

import bz2
import gzip
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import mrcfile
import numpy as np

from jaxrefine.io.mrc import read_image, write_image
from tests.app.run.invalid_input import IMAGE, MEAN, SPREAD, rows_of, set_keys, write_rows

QUICK = {
    "orientation_refinement_config.psi_step_coarse": 1.0,
    "orientation_refinement_config.psi_step_fine": 1.0,
    "orientation_refinement_config.theta_step_coarse": 1.0,
    "orientation_refinement_config.theta_step_fine": 1.0,
    "defocus_refinement_config.enabled": False,
    # Each row is a particle of its own, in a micrograph of its own.
    "template_envelope": "none",
}
_COLUMNS = {
    IMAGE: "micrograph_path",
    MEAN: "correlation_average_path",
    SPREAD: "correlation_variance_path",
}
Write = Callable[[Path, np.ndarray], None]


@dataclass(frozen=True)
class Odd:
    """A row, and the files that it has of its own.

    Attributes:
        cells: What its row holds instead.
        files: Of IMAGE, MEAN or SPREAD: how another file is written from its values.
    """

    cells: dict[str, str] = field(default_factory=dict)
    files: dict[str, Write] = field(default_factory=dict)


def _as(kind: str, scale: float = 1.0) -> Odd:
    """The micrograph's values less 40, times a factor, in another type."""

    def write(path: Path, values: np.ndarray) -> None:
        with mrcfile.new(path, overwrite=True) as file:
            file.set_data(((values - 40) * scale).astype(kind))

    return Odd(files={IMAGE: write})


def _packed(pack: Callable[[bytes], bytes]) -> Odd:
    def write(path: Path, values: np.ndarray) -> None:
        write_image(path, values)
        path.write_bytes(pack(path.read_bytes()))

    return Odd(files={IMAGE: write})


def _changed(name: str, change: Callable[[np.ndarray], np.ndarray], **cells: str) -> Odd:
    return Odd(cells, {name: lambda path, values: write_image(path, change(values.copy()))})


def _hot(values: np.ndarray) -> np.ndarray:
    values[250, 30] = 1e6
    return values


def _warm(values: np.ndarray) -> np.ndarray:
    """One pixel of the particle, 19 standard deviations above the others."""
    values[131, 220] = np.median(values) + 19 * values.std()
    return values


def _dead(values: np.ndarray) -> np.ndarray:
    values[250, 30:33] = np.nan
    return values


def _band(values: np.ndarray) -> np.ndarray:
    """A band as left by motion correction."""
    values[:4] = 0
    return values


def _top(values: np.ndarray) -> np.ndarray:
    """The upper part, of a micrograph or of its maps."""
    return values[: len(values) - 48]


UNUSUAL: dict[str, Odd] = {
    "plain": Odd(),
    "gzip": _packed(gzip.compress),
    "bzip2": _packed(bz2.compress),
    "byte_swapped": _as(">f4"),
    "float16": _as("f2"),
    "int16": _as("i2", 1000.0),
    "uint16": Odd(
        files={IMAGE: lambda path, values: mrcfile.write(path, (values * 1e3).astype("u2"))}
    ),
    "int8": _as("i1", 24.0),
    "other_shape": Odd(
        files={
            name: lambda path, values: write_image(path, _top(values))
            for name in (IMAGE, MEAN, SPREAD)
        }
    ),
    "other_voltage": Odd({"voltage": "200"}),
    "other_cs": Odd({"spherical_aberration": "0.01"}),
    "other_contrast": Odd({"amplitude_contrast_ratio": "0.4"}),
    "other_phase_shift": Odd({"phase_shift": "60"}),
    "other_b_factor": Odd({"ctf_B_factor": "150"}),
    "other_pixel_size": Odd({"pixel_size": "1.44", "refined_pixel_size": "1.44"}),
    "position_fraction": Odd({"pos_x": "200.4"}),
    "particle_index_twice": Odd({"particle_index": "0"}),
    "column_unknown": Odd({"my_note": "kept, as it is"}),
    "box_over_the_edge": Odd({"pos_x": "3", "pos_y": "1"}),
    "template_over_the_edge": Odd({"pos_x": "-5", "pos_y": "-6"}),
    "large_deviations": _changed(SPREAD, lambda v: v * 1e6),
    "micrograph_hot": _changed(IMAGE, _hot),
    "micrograph_warm": _changed(IMAGE, _warm),
    "micrograph_dead": _changed(IMAGE, _dead),
    "micrograph_band": _changed(IMAGE, _band),
    "position_outside": Odd({"pos_x": "5000"}),
    "micrograph_constant": _changed(IMAGE, np.ones_like),
    "micrograph_nan": _changed(IMAGE, lambda v: v * np.nan),
    "map_zero": _changed(SPREAD, np.zeros_like),
    "map_negative": _changed(SPREAD, np.negative),
    "map_nan": _changed(SPREAD, lambda v: v * np.nan),
    "mean_map_nan": _changed(MEAN, lambda v: v * np.nan),
    "compressed_cut": _packed(lambda raw: gzip.compress(raw)[: len(raw) // 2]),
}


def unusual_folder(folder: Path) -> Path:
    """Changes the reference set `basic` to odd data that is searched quickly."""
    set_keys(folder, QUICK)
    plain = rows_of(folder)[0]
    plain["my_note"] = ""
    rows = []
    for number, (name, odd) in enumerate(UNUSUAL.items()):
        row = {**plain, "particle_index": str(number), **odd.cells}
        for source, write in odd.files.items():
            path = folder / f"{name}_{source}"
            write(path, read_image(folder / source))
            row[_COLUMNS[source]] = path.name
        rows.append(row)
    write_rows(folder, rows)
    return folder
