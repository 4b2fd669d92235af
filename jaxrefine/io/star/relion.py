"""Particles of RELION's STAR files: with optics groups (3.1 and later), and of 3.0."""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from jaxrefine.data.errors import InputError
from jaxrefine.io.star.aberrations import opposite_tilt, other_magnification
from jaxrefine.io.star.columns import (
    fields,
    names,
    need_columns,
    need_orientations,
    need_sane_places,
    numbers,
    places,
    required,
    some,
    unread,
)
from jaxrefine.io.star.particles import (
    BEAM_TILT,
    MAGNIFICATION,
    RELION_KEPT,
    RELION_NUMBERS,
    RELION_OPTICS,
    ZERNIKES,
    ReadOptions,
    StarParticles,
    by_owner,
)
from jaxrefine.io.star.pixel_size import micrograph_pixel_size

_OWN = "rlnMicrographPixelSize"
_IMAGE = ("rlnImagePixelSize", "rlnPixelSize")
_ORIGINAL = "rlnMicrographOriginalPixelSize"
_MAGNIFIED = "rlnDetectorPixelSize over rlnMagnification"
_IMAGES = (*_IMAGE, _MAGNIFIED)
_TILT = ("rlnBeamTiltX", "rlnBeamTiltY")
# Smallest determinant of a magnification matrix.
_LEAST_DETERMINANT = 1e-3
_LARGEST_PIXEL = (0.01, 100.0, "in 0.01 … 100 (Å)")
# Columns that are used, or whose content others repeat.
_READ = {
    *("rlnMicrographName", "rlnOpticsGroup", "rlnCoordinateX", "rlnCoordinateY"),
    *("rlnOriginX", "rlnOriginY", "rlnOriginXAngst", "rlnOriginYAngst"),
    *(*required(RELION_NUMBERS), "rlnPhaseShift", "rlnCtfBfactor"),
    *("rlnAutopickFigureOfMerit", *RELION_OPTICS.values(), _OWN, *_IMAGE),
    *("rlnMagnification", "rlnDetectorPixelSize", *_TILT, *MAGNIFICATION),
    *(*ZERNIKES.values(), *RELION_KEPT, "rlnImageSize", "rlnImageDimensionality"),
}


def from_relion(
    path: Path, tables: dict[str, pd.DataFrame], options: ReadOptions
) -> StarParticles:
    """Particles of a file's blocks.

    Raises:
        InputError: A column is missing or invalid; there are no orientations; or the pixel
            size of the micrographs cannot be determined.
    """
    table = _particles_of(path, tables)
    optics = tables.get("optics")
    if optics is not None:
        table = _with_optics(path, table, optics)
    need_orientations(path, table, RELION_NUMBERS["euler_deg"])
    needed = ["rlnMicrographName", "rlnCoordinateX", "rlnCoordinateY"]
    needed += [*required(RELION_NUMBERS), *RELION_OPTICS.values()]
    need_columns(path, "particles", table, needed)
    micrographs = names(path, table, "rlnMicrographName")
    sizes = _pixel_sizes(path, table)
    pixel_size, notes = micrograph_pixel_size(path, micrographs, sizes, options, own=_OWN)
    image = next((sizes[name] for name in _IMAGES if name in sizes), pixel_size)
    origin = _origin_angstrom(path, table, image)
    centre, shift = places(path, table, "rlnCoordinate{}"), -origin / pixel_size[:, None]
    need_sane_places(path, centre, shift)
    return StarParticles(
        micrograph=micrographs,
        box_centre_px=centre,
        shift_px=shift,
        **by_owner(fields(path, table, RELION_NUMBERS | RELION_OPTICS)),
        pixel_size_angstrom=pixel_size,
        kept=dict(_kept(path, table)),
        notes=(*notes, *unread(table, _READ)),
    )


def _particles_of(path: Path, tables: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """The block that has positions: the one with RELION's name for it, or any."""
    found = [
        tables[name] for name in ("particles", "images", "", *tables) if name in tables
    ]
    with_positions = [table for table in found if "rlnCoordinateX" in table]
    if not with_positions:
        raise InputError(
            f"{path}: holds no particles: no block has the column _rlnCoordinateX, a "
            "position in a micrograph"
        )
    return with_positions[0]


def _with_optics(path: Path, table: pd.DataFrame, optics: pd.DataFrame) -> pd.DataFrame:
    """The particles with the columns of their optics groups."""
    need_columns(path, "particles", table, ["rlnOpticsGroup"])
    need_columns(path, "optics", optics, ["rlnOpticsGroup"])
    groups = numbers(path, optics, "rlnOpticsGroup").tolist()
    twice = [group for group, n in Counter(groups).items() if n > 1]
    if twice:
        raise InputError(f"{path}: duplicate optics groups: {some(twice)}")
    where = {group: row for row, group in enumerate(groups)}
    group_of = numbers(path, table, "rlnOpticsGroup").tolist()
    unknown = sorted(set(group_of) - set(where))
    if unknown:
        raise InputError(
            f"{path}: particles refer to missing optics groups: {some(unknown)}"
        )
    rows = optics.iloc[[where[group] for group in group_of]].reset_index(drop=True)
    more = [name for name in rows.columns if name not in table]
    return pd.concat([table, rows[more]], axis=1)


def _pixel_sizes(path: Path, table: pd.DataFrame) -> dict[str, np.ndarray]:
    """Everything in the file that may be the pixel size, by column."""
    there = [name for name in (_OWN, *_IMAGE, _ORIGINAL) if name in table]
    sizes = {name: numbers(path, table, name, _LARGEST_PIXEL) for name in there}
    pair = ("rlnDetectorPixelSize", "rlnMagnification")  # micrometres, RELION 3.0
    if not sizes and all(name in table for name in pair):
        detector, magnification = (numbers(path, table, name) for name in pair)
        if np.any(magnification <= 0) or np.any(detector <= 0):
            raise InputError(f"{path}: _rlnMagnification: should be larger than 0")
        sizes[_MAGNIFIED] = 1e4 * detector / magnification
    return sizes


def _origin_angstrom(path: Path, table: pd.DataFrame, image: np.ndarray) -> np.ndarray:
    """Origins in Å; those of RELION 3.0 are in pixels of the particle images."""
    if any(f"rlnOrigin{axis}Angst" in table for axis in "XY"):
        return places(path, table, "rlnOrigin{}Angst", default=0.0)
    return places(path, table, "rlnOrigin{}", default=0.0) * image[:, None]


def _kept(path: Path, table: pd.DataFrame) -> Iterator[tuple[str, list[str]]]:
    """Aberrations by the particle table's columns; other columns by their own names."""
    for ours, theirs in zip(BEAM_TILT, _TILT, strict=True):
        if theirs in table:
            numbers(path, table, theirs)
            yield ours, opposite_tilt(table[theirs].tolist())
    for ours, theirs in ZERNIKES.items():
        if theirs in table:
            yield ours, [_coefficients(path, theirs, text) for text in table[theirs]]
    if all(name in table for name in MAGNIFICATION):
        matrix = np.stack([numbers(path, table, name) for name in MAGNIFICATION], axis=-1)
        matrix = matrix.reshape(-1, 2, 2)
        if np.any(np.abs(np.linalg.det(matrix)) < _LEAST_DETERMINANT):
            raise InputError(
                f"{path}: columns _rlnMagMat00 to _rlnMagMat11: a matrix is singular; "
                "without a distortion it is 1, 0, 0, 1"
            )
        own = other_magnification(matrix).reshape(-1, 4).round(9)
        yield "mag_matrix", [json.dumps(row) for row in own.tolist()]
    for name in RELION_KEPT:
        if name in table:
            yield name, table[name].tolist()


def _coefficients(path: Path, name: str, text: str) -> str:
    """A vector as RELION writes it, `[0.1,0.2]`, under RELION's name for it."""
    inner = text.strip().strip("[]")
    try:
        values = [float(part) for part in inner.replace(",", " ").split()]
    except ValueError as error:
        raise InputError(
            f"{path}: column _{name}: {text[:60]!r}: should be numbers, like [0.1,0.2]"
        ) from error
    return json.dumps({name: values}) if any(values) else ""
