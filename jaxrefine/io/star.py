"""STAR files of RELION (3.1 and later) and cisTEM: particles out, and in.

Both programs use our angles (intrinsic ZYZ, the slice sampled at R·(kx, ky, 0)), our
defocus (its angle from x towards y) and our centre of a box of side n (pixel n // 2). They
differ in the sign of the shift, in units, and in what they hold at all.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import pandas as pd
from jaxtyping import Float

from jaxrefine.data.errors import InputError
from jaxrefine.io.extras import need
from jaxrefine.io.replace import replacing

Blocks = dict[str, pd.DataFrame]

_RELION_NUMBERS = {
    "euler_deg": ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"),
    "defocus_angstrom": ("rlnDefocusU", "rlnDefocusV"),
    "astigmatism_deg": "rlnDefocusAngle",
    "phase_shift_deg": "rlnPhaseShift",
    "b_factor_angstrom2": "rlnCtfBfactor",
    "z_score": "rlnAutopickFigureOfMerit",
}
_RELION_OPTICS = {
    "voltage_kv": "rlnVoltage",
    "spherical_aberration_mm": "rlnSphericalAberration",
    "amplitude_contrast": "rlnAmplitudeContrast",
    "pixel_size_angstrom": "rlnImagePixelSize",
}
_CISTEM_NUMBERS = {
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
# Values that a file may leave out.
_DEFAULTS = {"phase_shift_deg": 0.0, "b_factor_angstrom2": 0.0, "z_score": np.nan}
_NAMES = [
    "rlnMicrographName",
    "rlnImageName",
    "rlnOpticsGroupName",
    "cisTEMStackFilename",
    "cisTEMOriginalImageFilename",
]


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
        phase_shift_deg: Additional phase shift.
        voltage_kv: Acceleration voltage.
        spherical_aberration_mm: Cs.
        amplitude_contrast: Fraction of amplitude contrast.
        pixel_size_angstrom: Pixel size.
        b_factor_angstrom2: B of the envelope; cisTEM holds none.
        z_score: 2DTM SNR; NaN where the file holds none.
    """

    micrograph: Sequence[str]
    box_centre_px: Float[np.ndarray, "n 2"]
    shift_px: Float[np.ndarray, "n 2"]
    euler_deg: Float[np.ndarray, "n 3"]
    defocus_angstrom: Float[np.ndarray, "n 2"]
    astigmatism_deg: Float[np.ndarray, " n"]
    phase_shift_deg: Float[np.ndarray, " n"]
    voltage_kv: Float[np.ndarray, " n"]
    spherical_aberration_mm: Float[np.ndarray, " n"]
    amplitude_contrast: Float[np.ndarray, " n"]
    pixel_size_angstrom: Float[np.ndarray, " n"]
    b_factor_angstrom2: Float[np.ndarray, " n"]
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


def read_star(path: Path) -> StarParticles:
    """Reads particles of RELION (3.1 and later) or cisTEM.

    Raises:
        InputError: The file is missing, is of neither program, or a column is missing or
            holds no numbers.
    """
    need_starfile()
    import starfile

    if not path.is_file():
        raise InputError(f"{path}: no such file")
    try:
        blocks = starfile.read(path, always_dict=True, parse_as_string=_NAMES)
    except Exception as error:  # whatever a file that is no STAR file brings about
        raise InputError(f"{path}: cannot be read as a STAR file: {error}") from error
    # starfile's types do not know that always_dict makes blocks of all.
    named = cast("dict[str, pd.DataFrame | dict]", blocks)
    tables = {name: _as_table(block) for name, block in named.items()}
    if "optics" in tables and "particles" in tables:
        return _from_relion(path, tables["optics"], tables["particles"])
    for table in tables.values():
        if "cisTEMAnglePsi" in table:
            return _from_cistem(path, table)
    raise InputError(
        f"{path}: holds neither RELION's blocks 'optics' and 'particles' (3.1 and later; "
        "relion_convert_star makes them) nor cisTEM's columns"
    )


def refuse_odd_names(path: Path, names: Iterable[str]) -> None:
    """Refuse names of files that a STAR file cannot hold for every program.

    Raises:
        InputError: One has white space, quotes or #.
    """
    for name in dict.fromkeys(names):
        if not name or any(c.isspace() or c in "'\"#" for c in name):
            raise InputError(
                f"{path}: cannot name the file {name!r}: names in a STAR file have no "
                "white space, quotes or #; rename or link it"
            )


def need_starfile() -> None:
    """Ask for the package that reads and writes STAR files.

    Raises:
        InputError: It is not installed; says how to.
    """
    need("a STAR file", "starfile", extra="star")


# --- RELION -----------------------------------------------------------------------


def _to_relion(particles: StarParticles, stack: Stack | None) -> Blocks:
    keys = pd.DataFrame(
        {name: getattr(particles, field) for field, name in _RELION_OPTICS.items()}
    )
    group = keys.groupby(list(keys), sort=False).ngroup().to_numpy() + 1
    optics = keys.drop_duplicates().reset_index(drop=True)
    numbers = np.arange(1, len(optics) + 1)
    optics.insert(0, "rlnOpticsGroup", numbers)
    optics.insert(1, "rlnOpticsGroupName", [f"opticsGroup{n}" for n in numbers])
    optics["rlnMicrographPixelSize"] = optics["rlnImagePixelSize"]
    optics["rlnImageDimensionality"] = 2
    columns: dict[str, object] = {
        "rlnMicrographName": list(particles.micrograph),
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
    columns |= _columns(particles, _RELION_NUMBERS)
    return {"optics": optics, "particles": pd.DataFrame(columns)}


def _from_relion(path: Path, optics: pd.DataFrame, table: pd.DataFrame) -> StarParticles:
    needed = ["rlnMicrographName", "rlnOpticsGroup", "rlnCoordinateX", "rlnCoordinateY"]
    _need_columns(path, "particles", table, [*needed, *_required(_RELION_NUMBERS)])
    _need_columns(path, "optics", optics, ["rlnOpticsGroup", *_RELION_OPTICS.values()])
    where = {str(group): row for row, group in enumerate(optics["rlnOpticsGroup"])}
    unknown = sorted(set(map(str, table["rlnOpticsGroup"])) - set(where))
    if unknown:
        raise InputError(
            f"{path}: particles are of optics groups that are not there: "
            f"{', '.join(unknown)}"
        )
    rows = [where[str(group)] for group in table["rlnOpticsGroup"]]
    lens = {
        field: _numbers(path, optics, name)[rows] for field, name in _RELION_OPTICS.items()
    }
    values = _fields(path, table, _RELION_NUMBERS)
    origin = np.stack(
        [
            _numbers(path, table, name) if name in table else np.zeros(len(table))
            for name in ("rlnOriginXAngst", "rlnOriginYAngst")
        ],
        axis=-1,
    )
    centre = [_numbers(path, table, f"rlnCoordinate{axis}") for axis in "XY"]
    return StarParticles(
        micrograph=table["rlnMicrographName"].astype(str).tolist(),
        box_centre_px=np.stack(centre, axis=-1),
        shift_px=-origin / lens["pixel_size_angstrom"][:, None],
        **values,
        **lens,
    )


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
        **_columns(particles, _CISTEM_NUMBERS),
        "cisTEMOriginalImageFilename": list(particles.micrograph),
        "cisTEMOriginalXPosition": position[:, 0],
        "cisTEMOriginalYPosition": position[:, 1],
    }
    if stack is not None:
        columns["cisTEMStackFilename"] = stack.name
    return pd.DataFrame(columns)


def _from_cistem(path: Path, table: pd.DataFrame) -> StarParticles:
    names = ("cisTEMOriginalXPosition", "cisTEMOriginalYPosition")
    shifts = ("cisTEMXShift", "cisTEMYShift")
    needed = ["cisTEMOriginalImageFilename", *names, *shifts]
    _need_columns(path, "table", table, [*needed, *_required(_CISTEM_NUMBERS)])
    values = _fields(path, table, _CISTEM_NUMBERS)
    position, shift = (
        np.stack([_numbers(path, table, name) for name in pair], axis=-1)
        / values["pixel_size_angstrom"][:, None]
        for pair in (names, shifts)
    )
    quoted = table["cisTEMOriginalImageFilename"].astype(str)
    return StarParticles(
        micrograph=[name.strip("'") for name in quoted],
        box_centre_px=position,
        shift_px=shift,
        b_factor_angstrom2=np.zeros(len(table)),
        **values,
    )


# --- columns and files ------------------------------------------------------------


def _columns(particles: StarParticles, names: dict) -> dict[str, np.ndarray]:
    """Numbers of the particles, by the names of a program."""
    found = {}
    for field, name in names.items():
        values = getattr(particles, field)
        if isinstance(name, str):
            found[name] = values
        else:
            found |= dict(zip(name, values.T, strict=True))
    return found


def _fields(path: Path, table: pd.DataFrame, names: dict) -> dict[str, np.ndarray]:
    """The reverse."""
    found = {}
    for field, name in names.items():
        if isinstance(name, str) and name not in table:
            found[field] = np.full(len(table), _DEFAULTS[field])
        elif isinstance(name, str):
            found[field] = _numbers(path, table, name)
        else:
            columns = [_numbers(path, table, one) for one in name]
            found[field] = np.stack(columns, axis=-1)
    return found


def _required(names: dict) -> Iterator[str]:
    for field, name in names.items():
        if field not in _DEFAULTS:
            yield from [name] if isinstance(name, str) else name


def _need_columns(
    path: Path, block: str, table: pd.DataFrame, names: Sequence[str]
) -> None:
    missing = [f"_{name}" for name in names if name not in table]
    if missing:
        raise InputError(f"{path}: {block}: columns that are missing: {', '.join(missing)}")


def _numbers(path: Path, table: pd.DataFrame, name: str) -> np.ndarray:
    values = np.asarray(pd.to_numeric(table[name], errors="coerce"), np.float64)
    bad = np.flatnonzero(~np.isfinite(values))
    if len(bad):
        raise InputError(
            f"{path}: column _{name}, row {bad[0] + 1}: {str(table[name].iloc[bad[0]])!r}: "
            "should be a number"
        )
    return values


def _as_table(block: pd.DataFrame | dict) -> pd.DataFrame:
    """A block of single values is a table of one row."""
    return pd.DataFrame([block]) if isinstance(block, dict) else block


def _write(path: Path, blocks: Blocks) -> None:
    need_starfile()
    import starfile

    with replacing(path, encoding="utf-8") as file:
        # Its type of a dictionary wants blocks of every kind.
        file.write(starfile.to_string(blocks))  # pyright: ignore[reportArgumentType]
