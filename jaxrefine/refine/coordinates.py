"""The coordinates of the polish, and their limits."""

import math
from dataclasses import replace

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxrefine.data import COORDINATES, Alignment, Offsets, Optics, SearchGrid
from jaxrefine.physics.rotations import angle_between_deg

# Without astigmatism its axis is undefined. This value, in Å, changes no score, and is many
# times the rounding error of a defocus in float32.
_LEAST_ASTIGMATISM = 0.1


# Fields of `Polished` and `PoseErrors` for parameters that are aberrations.
ABERRATION_FIELDS = {
    "beam_tilt": "beam_tilt_mrad",
    "trefoil": "trefoil",
    "even_zernikes": "even_zernikes",
    "magnification": "magnification",
}


def parameter_slices(parameters: tuple[str, ...]) -> dict[str, slice]:
    """The slice of the coordinate vector that belongs to each parameter."""
    ends = np.cumsum([COORDINATES[name] for name in parameters]).tolist()
    return {
        name: slice(end - COORDINATES[name], end)
        for name, end in zip(parameters, ends, strict=True)
    }


def count(parameters: tuple[str, ...]) -> int:
    """Number of coordinates."""
    return sum(COORDINATES[name] for name in parameters)


def offsets_from(
    coordinates: Float[Array, " p"], parameters: tuple[str, ...], start: Alignment
) -> Offsets:
    """Convert coordinates, relative to an alignment, to offsets."""
    part = {name: coordinates[at] for name, at in parameter_slices(parameters).items()}
    changed = {}
    if "orientation" in part:
        changed["rotation_deg"] = part["orientation"]
    if "shift" in part:
        changed["shift_px"] = part["shift"]
    if "pixel_size" in part:
        changed["pixel_size_angstrom"] = part["pixel_size"][0]
    if "beam_tilt" in part:
        changed["beam_tilt_mrad"] = part["beam_tilt"]
    if "trefoil" in part:
        changed["odd_zernikes"] = jnp.concatenate([jnp.zeros(2), part["trefoil"]])
    if "even_zernikes" in part:
        changed["even_zernikes"] = part["even_zernikes"]
    if "magnification" in part:
        changed["mag_matrix"] = anisotropy(part["magnification"])
    u_v = part.get("defocus", jnp.zeros(1)) * jnp.ones(2)
    if "astigmatism" in part:
        difference, changed["astigmatism_deg"] = _astigmatism(part["astigmatism"], start)
        u_v = u_v + jnp.stack([difference, -difference])
    return replace(Offsets.zeros(), defocus_angstrom=u_v, **changed)


def aberrations_at(
    coordinates: Float[Array, " p"], parameters: tuple[str, ...], optics: Optics
) -> dict[str, Float[Array, " c"]]:
    """Values of the free aberrations, by their fields in `Polished`."""
    part = {name: coordinates[at] for name, at in parameter_slices(parameters).items()}
    own = {"beam_tilt": optics.beam_tilt_mrad, "even_zernikes": optics.even_zernikes}
    if optics.odd_zernikes is not None:
        own["trefoil"] = optics.odd_zernikes[2:]
    if optics.mag_matrix is not None:
        own["magnification"] = anisotropic_part(optics.mag_matrix)
    found = {}
    for name, field in ABERRATION_FIELDS.items():
        if name in part:
            start = own.get(name)
            found[field] = part[name] if start is None else start + part[name]
    return found


def anisotropy(a_b: Float[Array, " 2"]) -> Float[Array, "2 2"]:
    """The matrix [[a, b], [b, -a]], an offset of `mag_matrix`."""
    a, b = a_b
    return jnp.array([[a, b], [b, -a]])


def anisotropic_part(mag_matrix: Float[Array | np.ndarray, "2 2"]) -> Float[Array, " 2"]:
    """(a, b) of a magnification: those of the nearest [[s + a, b - c], [b + c, s - a]]."""
    (yy, yx), (xy, xx) = mag_matrix
    return jnp.stack([(yy - xx) / 2, (yx + xy) / 2])


def _astigmatism(
    along_across: Float[Array, " 2"], start: Alignment
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Changes of (u - v) / 2 in Å and of the angle in degrees.

    Astigmatism is a vector of length (u - v) / 2 at twice the angle. Its components, unlike
    length and angle, are smooth where it vanishes.
    """
    half = (start.defocus_angstrom[0] - start.defocus_angstrom[1]) / 2
    sign = jnp.where(half < 0, -1.0, 1.0)
    first = jnp.maximum(jnp.abs(half), _LEAST_ASTIGMATISM) + sign * along_across[0]
    second = sign * along_across[1]
    angle = jnp.rad2deg(jnp.arctan2(second, first)) / 2
    return sign * jnp.sqrt(first**2 + second**2) - half, angle


def cell_limits(grid: SearchGrid, parameters: tuple[str, ...]) -> Float[np.ndarray, " p"]:
    """Largest distance of each coordinate from the best grid point.

    It is half a step of the grid, and one pixel for the position. A parameter that the grid
    does not search has no step and hence no limit.
    """
    rotations = np.asarray(grid.rotation, np.float64)
    tilt_deg = np.rad2deg(np.arccos(np.clip(rotations[:, 2, 2], -1, 1)))
    tilted = tilt_deg > _SAME_DEG
    upright = rotations[~tilted]
    turn_deg = np.array([angle_between_deg(np.eye(3), one) for one in upright])
    tilt = _least(tilt_deg[tilted]) / 2
    in_plane = _least(turn_deg[turn_deg > _SAME_DEG]) / 2
    limits = {
        "orientation": [tilt, tilt, in_plane],
        "shift": [1.0, 1.0],
        "defocus": [_step(grid.defocus_angstrom) / 2],
        "pixel_size": [_step(grid.pixel_size_angstrom) / 2],
    }
    return np.concatenate(
        [limits.get(name, [math.inf] * COORDINATES[name]) for name in parameters]
    ).astype(np.float32)


# Float32 matrices of equal tilt differ by less than this; no grid is that fine.
_SAME_DEG = 0.02


def _least(values: Float[np.ndarray, " n"]) -> float:
    return float(values.min()) if len(values) else math.inf


def _step(offsets: Float[Array, " n"]) -> float:
    values = np.asarray(offsets, np.float64)
    return float(np.diff(values).max()) if len(values) > 1 else math.inf
