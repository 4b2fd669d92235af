"""Aberrations of the particle table's columns as RELION's and cisTEM's."""

import json
from collections.abc import Mapping, Sequence

import numpy as np

from jaxrefine.io.star.particles import BEAM_TILT, MAGNIFICATION, RELION_KEPT, ZERNIKES
from jaxrefine.io.table import cells

Kept = Mapping[str, Sequence[str]]


def relion_optics(kept: Kept) -> tuple[dict[str, list], list[str]]:
    """Columns of RELION's optics, one value a particle, and the columns that have no place.

    Args:
        kept: Texts by column of the particle table, as `StarParticles` has them.
    """
    columns, lost = dict[str, list](_tilt(kept, "rlnBeamTilt{}")), []
    for ours, theirs in ZERNIKES.items():
        if ours not in kept:
            continue
        vectors = [_vector(text, theirs) for text in kept[ours]]
        if any(vector is None for vector in vectors):  # of another program's convention
            lost.append(ours)
            continue
        length = max(len(vector or ()) for vector in vectors)
        padded = [[*(v or ()), *[0.0] * (length - len(v or ()))] for v in vectors]
        columns[theirs] = ["[" + ",".join(map(repr, row)) + "]" for row in padded]
    if "mag_matrix" in kept:
        matrices = [_matrix(text) for text in kept["mag_matrix"]]
        if any(matrix is None for matrix in matrices):
            lost.append("mag_matrix")
        else:
            transposed = np.array(matrices).T.tolist()
            columns |= dict(zip(MAGNIFICATION, transposed, strict=True))
    for name in RELION_KEPT:
        if name in kept and all(kept[name]):
            texts = list(kept[name])
            numeric = name.endswith("PixelSize")
            columns[name] = [cells.number(text) for text in texts] if numeric else texts
    return columns, lost


def cistem_tilt(kept: Kept) -> tuple[dict[str, list], list[str]]:
    """Columns of cisTEM, one value a particle, and the columns that have no place."""
    lost = [name for name in (*ZERNIKES, "mag_matrix") if name in kept]
    return dict[str, list](_tilt(kept, "cisTEMBeamTilt{}")), lost


def _tilt(kept: Kept, name: str) -> dict[str, list]:
    """Beam tilt in mrad; 0 where a cell is empty."""
    return {
        name.format(axis): np.nan_to_num([cells.number(t) for t in kept[ours]]).tolist()
        for axis, ours in zip("XY", BEAM_TILT, strict=True)
        if ours in kept
    }


def _vector(text: str, name: str) -> list[float] | None:
    """RELION's coefficients in a cell; None where it holds others."""
    if cells.is_neutral(text, 0.0):
        return []
    try:
        value = json.loads(text)
        return [float(x) for x in value[name]] if set(value) == {name} else None
    except (ValueError, TypeError, KeyError):
        return None


def _matrix(text: str) -> list[float] | None:
    """Four numbers in a cell, row by row; None where it holds others."""
    if cells.is_neutral(text, np.array([1.0, 0.0, 0.0, 1.0])):
        return [1.0, 0.0, 0.0, 1.0]
    try:
        value = np.asarray(json.loads(text), np.float64).ravel()
        return value.tolist() if len(value) == 4 else None
    except (ValueError, TypeError):
        return None
