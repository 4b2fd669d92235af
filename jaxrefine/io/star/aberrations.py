"""Conversion of the particle table's aberrations to those of RELION and cisTEM."""

import json
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

from jaxrefine.io.star.particles import BEAM_TILT, MAGNIFICATION, RELION_KEPT, ZERNIKES
from jaxrefine.io.table import aberrations, cells

Kept = Mapping[str, Sequence[str]]


def relion_optics(kept: Kept) -> tuple[dict[str, list], list[str]]:
    """Columns of RELION's optics, per particle, and the columns without an equivalent.

    Args:
        kept: Texts by column of the particle table, as `StarParticles` has them.
    """
    columns, lost = dict[str, list](_tilt(kept, "rlnBeamTilt{}", sign=-1)), []
    for ours, theirs in ZERNIKES.items():
        if ours not in kept:
            continue
        vectors = [_vector(text, theirs) for text in kept[ours]]
        if any(vector is None for vector in vectors):  # in another program's convention
            lost.append(ours)
            continue
        length = max(len(vector or ()) for vector in vectors)
        padded = [[*(v or ()), *[0.0] * (length - len(v or ()))] for v in vectors]
        columns[theirs] = ["[" + ",".join(map(repr, row)) + "]" for row in padded]
    if "mag_matrix" in kept:
        matrices = [aberrations.parse("mag_matrix", text) for text in kept["mag_matrix"]]
        there = [matrix for matrix in matrices if matrix is not None]
        if len(there) < len(matrices):
            lost.append("mag_matrix")
        else:
            theirs = other_magnification(np.array(there)).reshape(-1, 4).T.tolist()
            columns |= dict(zip(MAGNIFICATION, theirs, strict=True))
    for name in RELION_KEPT:
        if name in kept and all(kept[name]):
            texts = list(kept[name])
            numeric = name.endswith("PixelSize")
            columns[name] = [cells.number(text) for text in texts] if numeric else texts
    return columns, lost


def cistem_tilt(kept: Kept) -> tuple[dict[str, list], list[str]]:
    """Columns of cisTEM, per particle, and the columns without an equivalent."""
    lost = [name for name in (*ZERNIKES, "mag_matrix") if name in kept]
    return dict[str, list](_tilt(kept, "cisTEMBeamTilt{}", sign=1)), lost


def opposite_tilt(texts: Sequence[str]) -> list[str]:
    """Beam tilts of the opposite sign.

    RELION multiplies an image by exp(-iφ), torch-ctf and cisTEM by exp(iφ), with
    φ = 2π Cs λ² k² (β·k) (RELION 5, `TiltHelper::insertTilt`). cryoSPARC has RELION's sign,
    according to pyem's conversion.
    """
    values = [cells.number(text) for text in texts]
    return [repr(-x + 0.0) if np.isfinite(x) else "" for x in values]


def other_magnification(matrix: Float[np.ndarray, "n 2 2"]) -> Float[np.ndarray, "n 2 2"]:
    """Convert RELION's magnification matrices to ours, or ours to RELION's.

    RELION's M acts on frequencies (kx, ky): the object frequency is M k. Our A acts on
    (y, x), and the object frequency is A⁻ᵀ k.
    """
    return np.linalg.inv(matrix).swapaxes(-2, -1)[..., ::-1, ::-1]


def _tilt(kept: Kept, name: str, sign: int) -> dict[str, list]:
    """Beam tilt in mrad; 0 where a cell is empty."""
    return {
        name.format(axis): _numbers(kept[ours], sign)
        for axis, ours in zip("XY", BEAM_TILT, strict=True)
        if ours in kept
    }


def _numbers(texts: Sequence[str], sign: int) -> list[float]:
    values = np.nan_to_num([cells.number(text) for text in texts])
    return (sign * values + 0.0).tolist()


def _vector(text: str, name: str) -> list[float] | None:
    """RELION's coefficients in a cell; None if they are another program's."""
    if cells.is_neutral(text, 0.0):
        return []
    try:
        value = json.loads(text)
        return [float(x) for x in value[name]] if set(value) == {name} else None
    except (ValueError, TypeError, KeyError):
        return None
