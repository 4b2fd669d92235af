"""Particles as RELION, cisTEM and cryoSPARC describe them, and the names they use.

All three use the same angles as jaxrefine (intrinsic ZYZ, the slice sampled at R·(kx, ky,
0)), the same defocus (its angle from x towards y) and the same centre of an image of side n
(pixel n // 2). They differ in the sign of the shift, in units, and in the fields they have.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from jaxrefine.data import Optics

RELION_NUMBERS = {
    "euler_deg": ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"),
    "defocus_angstrom": ("rlnDefocusU", "rlnDefocusV"),
    "astigmatism_deg": "rlnDefocusAngle",
    "phase_shift_deg": "rlnPhaseShift",
    "b_factor_angstrom2": "rlnCtfBfactor",
    "z_score": "rlnAutopickFigureOfMerit",
}
RELION_OPTICS = {
    "voltage_kv": "rlnVoltage",
    "spherical_aberration_mm": "rlnSphericalAberration",
    "amplitude_contrast": "rlnAmplitudeContrast",
}
CISTEM_NUMBERS = {
    "euler_deg": ("cisTEMAnglePhi", "cisTEMAngleTheta", "cisTEMAnglePsi"),
    "defocus_angstrom": ("cisTEMDefocus1", "cisTEMDefocus2"),
    "astigmatism_deg": "cisTEMDefocusAngle",
    "phase_shift_deg": "cisTEMPhaseShift",
    "z_score": "cisTEMScore",
    "voltage_kv": "cisTEMMicroscopeVoltagekV",
    "spherical_aberration_mm": "cisTEMMicroscopeCsMM",
    "amplitude_contrast": "cisTEMAmplitudeContrast",
}


OPTICS = frozenset(each.name for each in fields(Optics))
# Columns of RELION's optics that jaxrefine does not use but keeps for RELION.
RELION_KEPT = ("rlnOpticsGroupName", "rlnMicrographOriginalPixelSize", "rlnMtfFileName")
BEAM_TILT = ("beam_tilt_x", "beam_tilt_y")
MAGNIFICATION = tuple(f"rlnMagMat{i}{j}" for i in "01" for j in "01")
# The particle table's column -> RELION's name of the coefficients.
ZERNIKES = {"odd_zernikes": "rlnOddZernike", "even_zernikes": "rlnEvenZernike"}
# Columns of the particle table that are kept as they are.
KEPT = (*BEAM_TILT, *ZERNIKES, "mag_matrix", *RELION_KEPT)


@dataclass(frozen=True)
class ReadOptions:
    """Information from the user that a file does not contain.

    Attributes:
        pixel_size_angstrom: Pixel size of the micrographs.
        phase_shift_unit: Unit of cisTEM's phase shifts.
        mirrored: The micrographs are mirrored vertically with respect to cryoSPARC's.
        passthrough: Further cryoSPARC files with fields of the same particles.
        pixel_size_of: Pixel sizes of micrographs, by name, from the table of the maps; NaN
            if unknown.
        header_pixel_size_of: The same, from the headers of the micrographs; only a hint.
    """

    pixel_size_angstrom: float | None = None
    phase_shift_unit: Literal["degrees", "radians"] | None = None
    mirrored: bool = False
    passthrough: tuple[Path, ...] = ()
    pixel_size_of: Callable[[Sequence[str]], np.ndarray] = lambda names: _unknown(names)
    header_pixel_size_of: Callable[[Sequence[str]], np.ndarray] = lambda names: _unknown(
        names
    )


def _unknown(names: Sequence[str]) -> np.ndarray:
    return np.full(len(names), np.nan)


@dataclass(frozen=True, eq=False)
class StarParticles:
    """n particles of another program's file, in jaxrefine's units and conventions.

    Attributes:
        micrograph: Micrograph of each particle.
        box_centre_px: (x, y) of the central pixel of its box.
        shift_px: (x, y) from there to the particle's centre.
        euler_deg: phi, theta, psi.
        defocus_angstrom: Absolute defocus (u, v).
        astigmatism_deg: Direction of u.
        pixel_size_angstrom: Pixel size.
        optics: Optics; cisTEM has no B factor, which is then 0.
        z_score: z-score; NaN if the file has none.
        kept: Columns of the particle table that are copied unchanged: aberrations, and
            fields that only the program itself uses.
        class_number: Number of the best reference, from 1, if references were compared.
        notes: Notes for the user on how the file was read.
    """

    micrograph: Sequence[str]
    box_centre_px: Float[np.ndarray, "n 2"]
    shift_px: Float[np.ndarray, "n 2"]
    euler_deg: Float[np.ndarray, "n 3"]
    defocus_angstrom: Float[np.ndarray, "n 2"]
    astigmatism_deg: Float[np.ndarray, " n"]
    pixel_size_angstrom: Float[np.ndarray, " n"]
    optics: Optics
    z_score: Float[np.ndarray, " n"]
    kept: Mapping[str, Sequence[str]] = field(default_factory=dict)
    class_number: Sequence[int] | None = None
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.micrograph)


def by_owner(values: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Fields of `StarParticles`, with those of its optics separated."""
    of_optics = {name: values[name] for name in OPTICS & set(values)}
    rest = {name: value for name, value in values.items() if name not in OPTICS}
    return rest | {"optics": Optics(**of_optics)}
