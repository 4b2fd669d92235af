"""Particles of cryoSPARC's `.cs` files: numpy record arrays, one record per particle.

Its rotation vector maps the image frame to the volume frame, like our matrix. Its shift is
RELION's origin, in pixels of the aligned boxes. Its positions are fractions of the
micrograph, along x and y as in the file. Fields of one particle may be spread over several
files, joined by `uid`.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float

from jaxrefine.data import InputError, Optics
from jaxrefine.io.paths import begins_with
from jaxrefine.io.star.aberrations import opposite_tilt
from jaxrefine.io.star.columns import NO_ORIENTATIONS, need_sane_places, some
from jaxrefine.io.star.particles import BEAM_TILT, ReadOptions, StarParticles
from jaxrefine.io.star.pixel_size import micrograph_pixel_size

_MAGIC = b"\x93NUMPY"
_MOST_BYTES = 1 << 30
_CTF = {
    "voltage_kv": ("ctf/accel_kv", 1.0, 5000.0),
    "spherical_aberration_mm": ("ctf/cs_mm", 0.0, 100.0),
    "amplitude_contrast": ("ctf/amp_contrast", 0.0, 0.999999),
    "defocus_u": ("ctf/df1_A", -1e6, 1e6),
    "defocus_v": ("ctf/df2_A", -1e6, 1e6),
    "astigmatism": ("ctf/df_angle_rad", -1e6, 1e6),
}
_PLACE = ("location/center_x_frac", "location/center_y_frac")
_NEEDED = {
    *(name for name, *_ in _CTF.values()),
    *(*_PLACE, "location/micrograph_path", "location/micrograph_shape"),
}
_POSE, _SHIFT, _SIZE = (f"alignments3D/{name}" for name in ("pose", "shift", "psize_A"))
_OWN, _IMAGE = "location/micrograph_psize_A", "blob/psize_A"
# Kept under their names in the column of their kind, since no formula is published.
_ABERRATIONS = {
    "odd_zernikes": ("ctf/trefoil_A",),
    "even_zernikes": ("ctf/tetra_A",),
    "mag_matrix": ("ctf/anisomag",),
}
_READ = {
    *(*_NEEDED, _POSE, _SHIFT, _SIZE, _OWN, _IMAGE, "uid", "ctf/phase_shift_rad"),
    *("ctf/bfactor", "ctf/tilt_A", *(n for names in _ABERRATIONS.values() for n in names)),
}


def is_cryosparc(path: Path) -> bool:
    """Whether a file is in numpy's format, whatever its name."""
    return begins_with(path, _MAGIC)


def from_cryosparc(path: Path, options: ReadOptions) -> StarParticles:
    """Particles of a file, and of further files with more of their fields.

    Raises:
        InputError: A file cannot be read, or a field is missing or invalid.
    """
    records = _joined(path, options.passthrough)
    if _POSE not in records:
        raise InputError(f"{path}: {NO_ORIENTATIONS.format(missing=_POSE)}")
    missing = sorted(_NEEDED - set(records))
    if missing:
        raise InputError(
            f"{path}: missing fields: {', '.join(missing)}; another file of the "
            "same job may contain them: give it with --passthrough"
        )
    values = {name: _numbers(path, records, *limits) for name, limits in _CTF.items()}
    micrographs = [_text(name) for name in records["location/micrograph_path"]]
    sizes = {
        name: _numbers(path, records, name, 0.01, 100.0)
        for name in (_OWN, _IMAGE)
        if name in records
    }
    pixel_size, notes = micrograph_pixel_size(path, micrographs, sizes, options, own=_OWN)
    box_px = next((records[n] for n in (_SIZE, _IMAGE) if n in records), pixel_size)
    shift = _numbers(path, records, _SHIFT, -1e6, 1e6) if _SHIFT in records else 0.0
    shift = -shift * (np.asarray(box_px, np.float64) / pixel_size)[:, None]
    shape = _numbers(path, records, "location/micrograph_shape", 1, 1e6)[:, ::-1]  # x, y
    fraction = np.stack([_numbers(path, records, n, -10.0, 10.0) for n in _PLACE], -1)
    centre, angle = fraction * shape, np.rad2deg(values.pop("astigmatism"))
    rotation = _rotations(_numbers(path, records, _POSE, -1e3, 1e3))
    if options.mirrored:  # mirrors y of everything in the image, and the hand
        centre[:, 1] = shape[:, 1] - 1 - centre[:, 1]
        shift[:, 1], angle = -shift[:, 1], -angle
        rotation = rotation * np.array([1.0, -1.0, -1.0])
    need_sane_places(path, centre, shift)
    left = sorted(set(records) - _READ)
    if left:
        notes.append(f"left out of the table: {', '.join(left)}")
    zero = np.zeros(len(micrographs))
    return StarParticles(
        micrograph=micrographs,
        box_centre_px=centre,
        shift_px=shift,
        euler_deg=_euler_deg(rotation),
        defocus_angstrom=np.stack([values.pop("defocus_u"), values.pop("defocus_v")], -1),
        astigmatism_deg=angle,
        optics=Optics(
            phase_shift_deg=np.rad2deg(
                np.asarray(records.get("ctf/phase_shift_rad", zero), np.float64)
            ),
            b_factor_angstrom2=np.asarray(records.get("ctf/bfactor", zero), np.float64),
            **values,
        ),
        z_score=np.full(len(micrographs), np.nan),
        pixel_size_angstrom=pixel_size,
        kept=_kept(records),
        notes=tuple(notes),
    )


def _joined(path: Path, more: Sequence[Path]) -> dict[str, np.ndarray]:
    """Fields of the particles from several files; particles and order of the first."""
    first = _records(path)
    fields = {name: first[name] for name in first.dtype.names or ()}
    for other in more:
        found = _records(other)
        names = found.dtype.names or ()
        if "uid" not in names or "uid" not in fields:
            raise InputError(f"{other}: cannot be joined to {path}: one has no field uid")
        order = np.argsort(found["uid"])
        at = np.searchsorted(found["uid"], fields["uid"], sorter=order)
        rows = order[np.minimum(at, len(order) - 1)]
        lost = int((found["uid"][rows] != fields["uid"]).sum())
        if lost:
            raise InputError(
                f"{other}: lacks {lost} of the particles of {path}, by their uid"
            )
        fields |= {name: found[name][rows] for name in names if name not in fields}
    return fields


def _records(path: Path) -> np.ndarray:
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise InputError(
                f"{path}: has more than {_MOST_BYTES} bytes; is it a .cs file?"
            )
        found = np.load(path, allow_pickle=False, max_header_size=1_000_000)
    except InputError:
        raise
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except (OSError, ValueError, EOFError) as error:
        reason = str(error).partition("\n")[0][:200]
        raise InputError(
            f"{path}: is not a valid .cs file of cryoSPARC: {reason}"
        ) from error
    if not isinstance(found, np.ndarray) or found.dtype.names is None or found.ndim != 1:
        raise InputError(f"{path}: is an array without fields; it should be a .cs file")
    if not len(found):
        raise InputError(f"{path}: holds no particles")
    return found


def _numbers(
    path: Path, records: dict[str, np.ndarray], name: str, low: float, high: float
) -> Float[np.ndarray, "n ..."]:
    try:
        values = np.asarray(records[name], np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"{path}: field {name}: holds no numbers") from error
    bad = np.flatnonzero(
        ~((values >= low) & (values <= high)).reshape(len(values), -1).all(1)
    )
    if len(bad):
        shown = some(values[bad[0]].ravel().tolist())
        raise InputError(
            f"{path}: field {name}, particle {bad[0] + 1}: {shown}: should be in {low:g} … "
            f"{high:g}"
        )
    return values


def _text(name: object) -> str:
    """A path as text; files exported by cryoSPARC mark paths with `>`."""
    text = name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name)
    return text.removeprefix(">")


def _rotations(vectors: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3 3"]:
    """Rotation matrices of rotation vectors, by Rodrigues' formula."""
    angle = np.linalg.norm(vectors, axis=-1)[:, None, None]
    x, y, z = (vectors / np.maximum(angle[:, 0], 1e-12)).T
    zero = np.zeros_like(x)
    cross = np.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).reshape(-1, 3, 3)
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * (cross @ cross)


def _euler_deg(matrix: Float[np.ndarray, "n 3 3"]) -> Float[np.ndarray, "n 3"]:
    """Intrinsic ZYZ angles; at the poles psi is 0."""
    theta = np.arctan2(np.hypot(matrix[:, 0, 2], matrix[:, 1, 2]), matrix[:, 2, 2])
    pole = np.sin(theta) < 1e-7
    phi = np.where(
        pole,
        np.arctan2(-matrix[:, 0, 1], matrix[:, 1, 1]),
        np.arctan2(matrix[:, 1, 2], matrix[:, 0, 2]),
    )
    psi = np.where(pole, 0.0, np.arctan2(matrix[:, 2, 1], -matrix[:, 2, 0]))
    return np.rad2deg(np.stack([phi, theta, psi], axis=-1))


def _kept(records: dict[str, np.ndarray]) -> dict[str, list[str]]:
    """Beam tilt in mrad, where Cs times its sine is cryoSPARC's `tilt_A`; others as is."""
    kept = {}
    if "ctf/tilt_A" in records and np.any(records["ctf/tilt_A"]):
        length = records["ctf/cs_mm"].astype(np.float64)[:, None] * 1e7
        tilt = 1e3 * np.arcsin(np.clip(records["ctf/tilt_A"] / length, -1, 1))
        for i, name in enumerate(BEAM_TILT):
            texts = [repr(round(float(value), 8)) for value in tilt[:, i]]
            kept[name] = opposite_tilt(texts)
    for column, names in _ABERRATIONS.items():
        for name in names:
            if name in records and np.any(records[name]):
                kept[column] = [
                    json.dumps({name: row}) if any(row) else ""
                    for row in records[name].astype(np.float64).tolist()
                ]
    return kept
