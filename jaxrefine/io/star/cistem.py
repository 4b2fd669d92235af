"""Particles in cisTEM's STAR files, with or without a stack of particle images."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from jaxrefine.data.errors import InputError
from jaxrefine.io.star.columns import (
    fields,
    names,
    need_columns,
    need_orientations,
    need_sane_places,
    numbers,
    places,
    required,
    unread,
)
from jaxrefine.io.star.particles import (
    BEAM_TILT,
    CISTEM_NUMBERS,
    ReadOptions,
    StarParticles,
    by_owner,
)
from jaxrefine.io.star.pixel_size import micrograph_pixel_size

# Part of the first line of files by jaxrefine; cisTEM's own files start differently.
DEGREES_MARK = "phase shifts in degrees"
_CISTEM_MARK = "# Written by cisTEM"
_POSITION, _SHIFT = "cisTEMOriginal{}Position", "cisTEM{}Shift"
_SIZE = "cisTEMPixelSize"
_TILT = ("cisTEMBeamTiltX", "cisTEMBeamTiltY")
_READ = {
    *(name.format(axis) for name in (_POSITION, _SHIFT) for axis in "XY"),
    *(*required(CISTEM_NUMBERS), "cisTEMPhaseShift", "cisTEMScore", _SIZE, *_TILT),
    *("cisTEMOriginalImageFilename", "cisTEMPositionInStack", "cisTEMImageActivity"),
}


def is_cistem(table: pd.DataFrame) -> bool:
    """Whether a table has cisTEM's columns."""
    return any(str(name).startswith("cisTEM") for name in table)


def from_cistem(
    path: Path, table: pd.DataFrame, first_line: str, options: ReadOptions
) -> StarParticles:
    """Particles of a table; missing shifts, as in 2DTM results, are 0.

    Raises:
        InputError: A column is missing or invalid, there are no orientations, or the pixel
            size is not that of the micrographs.
    """
    need_orientations(path, table, CISTEM_NUMBERS["euler_deg"])
    positions = [_POSITION.format(axis) for axis in "XY"]
    needed = ["cisTEMOriginalImageFilename", *positions, *required(CISTEM_NUMBERS)]
    need_columns(path, "table", table, needed)
    micrographs = names(path, table, "cisTEMOriginalImageFilename")
    sizes = {}
    if _SIZE in table:
        sizes[_SIZE] = numbers(path, table, _SIZE, (0.01, 100.0, "in 0.01 … 100 (Å)"))
    pixel_size, notes = micrograph_pixel_size(path, micrographs, sizes, options, own=_SIZE)
    centre = places(path, table, _POSITION) / pixel_size[:, None]
    shift = places(path, table, _SHIFT, default=0.0) / pixel_size[:, None]
    need_sane_places(path, centre, shift)
    values = fields(path, table, CISTEM_NUMBERS)
    phase, phase_notes = _phase_shift_deg(
        path, values["phase_shift_deg"], first_line, options
    )
    return StarParticles(
        micrograph=micrographs,
        box_centre_px=centre,
        shift_px=shift,
        **by_owner(values | {"phase_shift_deg": phase, "b_factor_angstrom2": 0.0 * phase}),
        pixel_size_angstrom=pixel_size,
        kept=_beam_tilt(path, table),
        notes=(*notes, *phase_notes, *_inactive(path, table), *unread(table, _READ)),
    )


def _phase_shift_deg(
    path: Path, values: np.ndarray, first_line: str, options: ReadOptions
) -> tuple[np.ndarray, list[str]]:
    """Phase shifts in degrees.

    cisTEM reads degrees and writes radians (`ExtractParametersFromLine`, which converts,
    and `WriteTocisTEMStarFile`, which does not). Values that can be radians are therefore
    read as radians, unless the file states that they are degrees, as files of jaxrefine do.
    """
    unit = options.phase_shift_unit
    largest = float(np.abs(values).max(initial=0.0))
    if largest == 0 or unit == "degrees" or DEGREES_MARK in first_line:
        return values, []
    if unit is None and largest > 2 * np.pi:
        if first_line.startswith(_CISTEM_MARK):
            raise InputError(
                f"{path}: _cisTEMPhaseShift is up to {largest:g}: cisTEM writes radians, "
                "which these cannot be; give --phase-shift-unit degrees, or radians"
            )
        return values, []
    notes = []
    if unit is None:
        notes = [
            f"phase shifts up to {largest:g} are taken as radians, as cisTEM writes them; "
            "if they are degrees, give --phase-shift-unit degrees"
        ]
    return np.rad2deg(values), notes


def _beam_tilt(path: Path, table: pd.DataFrame) -> dict[str, list[str]]:
    kept = {}
    for ours, theirs in zip(BEAM_TILT, _TILT, strict=True):
        if theirs in table:
            numbers(path, table, theirs)
            kept[ours] = table[theirs].tolist()
    return kept


def _inactive(path: Path, table: pd.DataFrame) -> Iterator[str]:
    name = "cisTEMImageActivity"
    count = int((numbers(path, table, name) < 0).sum()) if name in table else 0
    if count:
        yield f"{count} particles are marked as inactive (_{name} < 0); they are kept"
