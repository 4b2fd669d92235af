"""Writing STAR files of RELION (3.1 and later) and cisTEM."""

import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from jaxrefine.data.errors import InputError
from jaxrefine.io.atomic import atomic_open
from jaxrefine.io.optional import require_packages
from jaxrefine.io.star.aberrations import cistem_tilt, relion_optics
from jaxrefine.io.star.cistem import DEGREES_MARK
from jaxrefine.io.star.particles import (
    CISTEM_NUMBERS,
    OPTICS,
    RELION_NUMBERS,
    RELION_OPTICS,
    StarParticles,
)

log = logging.getLogger("jaxrefine")

Blocks = dict[str, pd.DataFrame]

_GROUP_NAME = "rlnOpticsGroupName"
_RESERVED = ("data_", "loop_", "save_", "global_", "stop_", "_", "$", ";", "[", "]")


@dataclass(frozen=True)
class Stack:
    """The particle images to which a STAR file refers, in its order.

    Attributes:
        name: The file, as the STAR file names it.
        box_px: Side of the boxes.
    """

    name: str
    box_px: int


def write_relion(
    path: Path, particles: StarParticles, stack: Stack | None, image_px: int
) -> None:
    """Writes a RELION STAR file with optics groups; cryoSPARC reads it as well.

    Particles with the same voltage, Cs, amplitude contrast, pixel size, aberrations and
    group name (if they have one) share an optics group.

    Args:
        path: The file.
        particles: Particles to write.
        stack: Their images; None if there are none.
        image_px: Side of the images, or the side that they would have.

    Raises:
        InputError: It cannot be written.
    """
    _write(path, _to_relion(particles, stack, image_px))


def write_cistem(path: Path, particles: StarParticles, stack: Stack | None) -> None:
    """Writes a cisTEM STAR file; otherwise as `write_relion`."""
    _write(path, {"": _to_cistem(particles, stack)}, f"# jaxrefine: {DEGREES_MARK}\n")


def refuse_unsafe_names(path: Path, names: Iterable[str]) -> None:
    """Refuse file names that some programs cannot read from a STAR file.

    Raises:
        InputError: A name has white space, quotes, # or non-ASCII characters.
    """
    for name in dict.fromkeys(names):
        odd = any(c.isspace() or c in "'\"#" or not c.isprintable() for c in name)
        if not name or odd or not name.isascii():
            raise InputError(
                f"{path}: cannot name the file {name!r}: names in a STAR file must "
                "be ASCII, without white space, quotes and #; rename or link the file"
            )


def _spelt(name: str) -> str:
    """A file name, written so that no reader confuses it with a keyword of the format."""
    return f"./{name}" if name.lower().startswith(_RESERVED) else name


def need_starfile() -> None:
    """Check that the package that writes STAR files is installed.

    Raises:
        InputError: It is not installed; the message says how to install it.
    """
    require_packages("a STAR file", "starfile", extra="star")


# --- RELION -----------------------------------------------------------------------


def _to_relion(particles: StarParticles, stack: Stack | None, image_px: int) -> Blocks:
    aberrations, lost = relion_optics(particles.kept)
    _warn_of_lost(lost, "RELION")
    pixel_size = particles.pixel_size_angstrom
    keys = pd.DataFrame(
        _columns(particles, RELION_OPTICS) | {"rlnImagePixelSize": pixel_size} | aberrations
    )
    group = keys.groupby(list(keys), sort=False).ngroup().to_numpy() + 1
    optics = keys.drop_duplicates().reset_index(drop=True)
    numbers = np.arange(1, len(optics) + 1)
    names = optics.pop(_GROUP_NAME) if _GROUP_NAME in optics else None
    optics.insert(0, "rlnOpticsGroup", numbers)
    optics.insert(1, _GROUP_NAME, _group_names(names, len(optics)))
    optics["rlnMicrographPixelSize"] = optics["rlnImagePixelSize"]
    optics["rlnImageDimensionality"] = 2
    # RELION requires it for all particles with a CTF, even without boxes.
    optics["rlnImageSize"] = image_px
    columns: dict[str, object] = {
        "rlnMicrographName": list(map(_spelt, particles.micrograph)),
        "rlnCoordinateX": particles.box_centre_px[:, 0],
        "rlnCoordinateY": particles.box_centre_px[:, 1],
    }
    if stack is not None:
        columns["rlnImageName"] = [
            f"{i:06d}@{stack.name}" for i in range(1, len(particles) + 1)
        ]
    columns["rlnOpticsGroup"] = group
    # RELION's origin moves the image to its centre, hence the sign.
    origin = -particles.shift_px * pixel_size[:, None] + 0.0
    columns |= {"rlnOriginXAngst": origin[:, 0], "rlnOriginYAngst": origin[:, 1]}
    columns |= _columns(particles, RELION_NUMBERS)
    if particles.class_number is not None:
        columns["rlnClassNumber"] = list(particles.class_number)
    return {"optics": optics, "particles": pd.DataFrame(columns)}


def _group_names(names: pd.Series | None, count: int) -> list[str]:
    """Names of the optics groups: those of micrographs.star, which RELION looks up.

    If optics with one name differ, only the first keeps the name.
    """
    if names is None:
        return [f"opticsGroup{n}" for n in range(1, count + 1)]
    seen = Counter[str]()
    found = []
    for name in names:
        seen[name] += 1
        found.append(name if seen[name] == 1 else f"{name}_{seen[name]}")
    twice = [name for name, n in seen.items() if n > 1]
    if twice:
        log.warning(
            "particles of the optics group %s differ in voltage, Cs, amplitude contrast, "
            "pixel size or aberrations; RELION's re-extraction will not find those in "
            "groups called %s_2 and so on",
            ", ".join(twice[:3]),
            twice[0],
        )
    return found


def _warn_of_lost(columns: Sequence[str], program: str) -> None:
    for name in columns:
        log.warning("%s is not in the file: %s has no field for it", name, program)


# --- cisTEM -----------------------------------------------------------------------


def _to_cistem(particles: StarParticles, stack: Stack | None) -> pd.DataFrame:
    tilt, lost = cistem_tilt(particles.kept)
    _warn_of_lost(lost, "cisTEM")
    pixel = particles.pixel_size_angstrom[:, None]
    shift, position = particles.shift_px * pixel, particles.box_centre_px * pixel
    columns: dict[str, object] = {
        "cisTEMPositionInStack": np.arange(1, len(particles) + 1),
        "cisTEMXShift": shift[:, 0],
        "cisTEMYShift": shift[:, 1],
        "cisTEMImageActivity": 1,
        "cisTEMOccupancy": 100.0,
        **_columns(particles, CISTEM_NUMBERS),
        "cisTEMPixelSize": particles.pixel_size_angstrom,
        **tilt,
        "cisTEMOriginalImageFilename": list(map(_spelt, particles.micrograph)),
        "cisTEMOriginalXPosition": position[:, 0],
        "cisTEMOriginalYPosition": position[:, 1],
    }
    if stack is not None:
        columns["cisTEMStackFilename"] = stack.name
    return pd.DataFrame(columns)


# --- columns and files ------------------------------------------------------------


def _columns(particles: StarParticles, names: dict) -> dict[str, np.ndarray]:
    """Numbers of the particles, by a program's column names."""
    found = {}
    for field, name in names.items():
        values = getattr(particles.optics if field in OPTICS else particles, field)
        if isinstance(name, str):
            found[name] = values
        else:
            found |= dict(zip(name, values.T, strict=True))
    return found


def _write(path: Path, blocks: Blocks, first_line: str = "") -> None:
    need_starfile()
    import starfile

    with atomic_open(path, encoding="utf-8") as file:
        # Its dictionary type requires blocks of all kinds.
        file.write(first_line + starfile.to_string(blocks))  # pyright: ignore[reportArgumentType]
