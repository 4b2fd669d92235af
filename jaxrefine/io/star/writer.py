"""STAR files of RELION (3.1 and later) and cisTEM: their names for things, and writing.

Both programs use our angles (intrinsic ZYZ, the slice sampled at R·(kx, ky, 0)), our
defocus (its angle from x towards y) and our centre of a box of side n (pixel n // 2). They
differ in the sign of the shift, in units, and in what they hold at all.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float

from jaxrefine.data import InputError, Optics
from jaxrefine.io.atomic import atomic_open
from jaxrefine.io.optional import require_packages

Blocks = dict[str, pd.DataFrame]

_RESERVED = ("data_", "loop_", "save_", "global_", "stop_", "_", "$", ";", "[", "]")

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
    "pixel_size_angstrom": "rlnImagePixelSize",
}
CISTEM_NUMBERS = {
    "euler_deg": ("cisTEMAnglePhi", "cisTEMAngleTheta", "cisTEMAnglePsi"),
    "defocus_angstrom": ("cisTEMDefocus1", "cisTEMDefocus2"),
    "astigmatism_deg": "cisTEMDefocusAngle",
    "phase_shift_deg": "cisTEMPhaseShift",
    "z_score": "cisTEMScore",
    "pixel_size_angstrom": "cisTEMPixelSize",
    "voltage_kv": "cisTEMMicroscopeVoltagekV",
    "spherical_aberration_mm": "cisTEMMicroscopeCsMM",
    "amplitude_contrast": "cisTEMAmplitudeContrast",
}


OPTICS = frozenset(field.name for field in fields(Optics))


@dataclass(frozen=True, eq=False)
class StarParticles:
    """What a STAR file says of n particles, in our units and conventions.

    Attributes:
        micrograph: Image in which each particle lies.
        box_centre_px: (x, y) of the pixel that is the centre of its box.
        shift_px: (x, y) from there to the particle's centre.
        euler_deg: phi, theta, psi.
        defocus_angstrom: Absolute defocus (u, v).
        astigmatism_deg: Direction of u.
        pixel_size_angstrom: Pixel size.
        optics: Optics; cisTEM holds no B-factor, which is 0 then.
        z_score: 2DTM SNR; NaN where the file holds none.
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

    def __len__(self) -> int:
        return len(self.micrograph)


@dataclass(frozen=True)
class Stack:
    """The boxes that a STAR file refers to, in its own order.

    Attributes:
        name: The file, as the STAR file names it.
        box_px: Side of the boxes.
    """

    name: str
    box_px: int


def write_relion(path: Path, particles: StarParticles, stack: Stack | None) -> None:
    """Writes a RELION STAR file with optics groups; cryoSPARC reads it as well.

    Particles of one voltage, Cs, amplitude contrast and pixel size share a group.

    Args:
        path: The file.
        particles: What it shall hold.
        stack: Their boxes; None where there are none.

    Raises:
        InputError: It cannot be written.
    """
    _write(path, _to_relion(particles, stack))


def write_cistem(path: Path, particles: StarParticles, stack: Stack | None) -> None:
    """Writes a cisTEM STAR file; otherwise as `write_relion`."""
    _write(path, {"": _to_cistem(particles, stack)})


def refuse_unsafe_names(path: Path, names: Iterable[str]) -> None:
    """Refuse names of files that a STAR file cannot hold for every program.

    Raises:
        InputError: One has white space, quotes, # or other characters than ASCII's.
    """
    for name in dict.fromkeys(names):
        odd = any(c.isspace() or c in "'\"#" or not c.isprintable() for c in name)
        if not name or odd or not name.isascii():
            raise InputError(
                f"{path}: cannot name the file {name!r}: names in a STAR file are of "
                "ASCII's characters, without white space, quotes and #; rename or link it"
            )


def _spelt(name: str) -> str:
    """A file's name, so that no reader takes it for one of the format's own words."""
    return f"./{name}" if name.lower().startswith(_RESERVED) else name


def need_starfile() -> None:
    """Ask for the package that writes STAR files.

    Raises:
        InputError: It is not installed; says how to.
    """
    require_packages("a STAR file", "starfile", extra="star")


# --- RELION -----------------------------------------------------------------------


def _to_relion(particles: StarParticles, stack: Stack | None) -> Blocks:
    keys = pd.DataFrame(_columns(particles, RELION_OPTICS))
    group = keys.groupby(list(keys), sort=False).ngroup().to_numpy() + 1
    optics = keys.drop_duplicates().reset_index(drop=True)
    numbers = np.arange(1, len(optics) + 1)
    optics.insert(0, "rlnOpticsGroup", numbers)
    optics.insert(1, "rlnOpticsGroupName", [f"opticsGroup{n}" for n in numbers])
    optics["rlnMicrographPixelSize"] = optics["rlnImagePixelSize"]
    optics["rlnImageDimensionality"] = 2
    columns: dict[str, object] = {
        "rlnMicrographName": list(map(_spelt, particles.micrograph)),
        "rlnCoordinateX": particles.box_centre_px[:, 0],
        "rlnCoordinateY": particles.box_centre_px[:, 1],
    }
    if stack is not None:
        optics["rlnImageSize"] = stack.box_px
        columns["rlnImageName"] = [
            f"{i:06d}@{stack.name}" for i in range(1, len(particles) + 1)
        ]
    columns["rlnOpticsGroup"] = group
    # RELION's origin moves the image to its centre: the other way round.
    origin = -particles.shift_px * particles.pixel_size_angstrom[:, None] + 0.0
    columns |= {"rlnOriginXAngst": origin[:, 0], "rlnOriginYAngst": origin[:, 1]}
    columns |= _columns(particles, RELION_NUMBERS)
    return {"optics": optics, "particles": pd.DataFrame(columns)}


# --- cisTEM -----------------------------------------------------------------------


def _to_cistem(particles: StarParticles, stack: Stack | None) -> pd.DataFrame:
    pixel = particles.pixel_size_angstrom[:, None]
    shift, position = particles.shift_px * pixel, particles.box_centre_px * pixel
    columns: dict[str, object] = {
        "cisTEMPositionInStack": np.arange(1, len(particles) + 1),
        "cisTEMXShift": shift[:, 0],
        "cisTEMYShift": shift[:, 1],
        "cisTEMImageActivity": 1,
        "cisTEMOccupancy": 100.0,
        **_columns(particles, CISTEM_NUMBERS),
        "cisTEMOriginalImageFilename": list(map(_spelt, particles.micrograph)),
        "cisTEMOriginalXPosition": position[:, 0],
        "cisTEMOriginalYPosition": position[:, 1],
    }
    if stack is not None:
        columns["cisTEMStackFilename"] = stack.name
    return pd.DataFrame(columns)


# --- columns and files ------------------------------------------------------------


def _columns(particles: StarParticles, names: dict) -> dict[str, np.ndarray]:
    """Numbers of the particles, by the names of a program."""
    found = {}
    for field, name in names.items():
        values = getattr(particles.optics if field in OPTICS else particles, field)
        if isinstance(name, str):
            found[name] = values
        else:
            found |= dict(zip(name, values.T, strict=True))
    return found


def _write(path: Path, blocks: Blocks) -> None:
    need_starfile()
    import starfile

    with atomic_open(path, encoding="utf-8") as file:
        # Its type of a dictionary wants blocks of every kind.
        file.write(starfile.to_string(blocks))  # pyright: ignore[reportArgumentType]
