"""Search grids: offsets of orientation, defocus and pixel size.

Grids are small and constant during a run; numpy computes them once, in float64.
"""

import math
from typing import Literal

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from jaxrefine.data import InputError, SearchGrid
from jaxrefine.physics import rotations

GridMethod = Literal["uniform", "cartesian", "leopard_em"]


def search_offsets(
    minimum: float,
    maximum: float,
    step: float,
    *,
    skip_enforce_zero: bool = False,
    past_maximum: bool = False,
) -> Float[np.ndarray, " n"]:
    """Evenly spaced offsets, in order, with 0 inserted if the spacing misses it.

    Args:
        minimum: First offset.
        maximum: Upper limit of the offsets, up to rounding.
        step: Spacing, positive.
        skip_enforce_zero: Do not insert 0 if the spacing misses it.
        past_maximum: Use Leopard-EM's `arange(min, max + step, step)`, which exceeds the
            maximum if the range is no multiple of the step.

    Raises:
        InputError: The step is not positive, or the maximum below the minimum.
    """
    if step <= 0 or maximum < minimum:
        raise InputError(
            f"offsets {minimum} … {maximum} step {step}: need min ≤ max, step > 0"
        )
    # A tolerance of a millionth of a step, for the rounding of decimal steps.
    reach = (maximum - minimum) / step
    count = math.ceil(reach + 1 - 1e-6) if past_maximum else math.floor(reach + 1e-6) + 1
    offsets = minimum + step * np.arange(count)
    nearest = np.argmin(np.abs(offsets))
    if abs(offsets[nearest]) <= 1e-6:
        offsets[nearest] = 0.0
    elif not skip_enforce_zero:
        offsets = np.sort(np.append(offsets, 0.0))
    return offsets


def _symmetric_steps(coarse: float, fine: float) -> Float[np.ndarray, " n"]:
    """-coarse … coarse in steps of fine, symmetric and including 0."""
    count = math.floor(coarse / fine + 1e-6)
    return fine * np.arange(-count, count + 1)


def _with_in_plane(
    tilts: Float[np.ndarray, "t 3 3"],
    tilt_at_edge: Bool[np.ndarray, " t"],
    psi_deg: Float[np.ndarray, " p"],
) -> tuple[Float[np.ndarray, "k 3 3"], Bool[np.ndarray, " k"]]:
    """Combine every tilt with every in-plane rotation; psi varies fastest."""
    spins = rotations.rotation_z(psi_deg)
    combined = (tilts[:, None] @ spins[None]).reshape(-1, 3, 3)
    spin_at_edge = (np.abs(psi_deg) == np.abs(psi_deg).max()) & (len(psi_deg) > 1)
    at_edge = (tilt_at_edge[:, None] | spin_at_edge[None]).reshape(-1)
    return combined, at_edge


def uniform_orientations(
    *, psi_coarse: float, psi_fine: float, theta_coarse: float, theta_fine: float
) -> tuple[Float[np.ndarray, "k 3 3"], Bool[np.ndarray, " k"]]:
    """Local grid on SO(3): a disk of tilts, each with every in-plane rotation.

    The tilts are on rings every `theta_fine` up to `theta_coarse`, with round(2π·ring)
    directions on ring number `ring` and the untilted orientation once. In-plane rotations
    are -psi_coarse … psi_coarse in steps of `psi_fine`. R = Rz(α) Ry(θ) Rz(-α) Rz(ψ), which
    is a tilt without in-plane rotation, after Rz(ψ). All angles are in degrees.

    Returns:
        Offset rotations, and a mask of those on the border of the grid.

    Raises:
        InputError: A range is negative, or a step not positive.
    """
    if min(psi_coarse, theta_coarse) < 0 or min(psi_fine, theta_fine) <= 0:
        raise InputError(
            f"psi ±{psi_coarse:g}° in steps of {psi_fine:g}°, theta up to "
            f"{theta_coarse:g}° in steps of {theta_fine:g}°: expected ranges (coarse) of "
            "0 or more and steps (fine) larger than 0"
        )
    directions, tilts = [0.0], [0.0]
    rings = math.floor(theta_coarse / theta_fine + 1e-6)
    for ring in range(1, rings + 1):
        count = round(2 * math.pi * ring)
        directions += [360.0 * i / count for i in range(count)]
        tilts += [ring * theta_fine] * count
    direction, tilt = np.asarray(directions), np.asarray(tilts)
    disk = (
        rotations.rotation_z(direction)
        @ rotations.rotation_y(tilt)
        @ rotations.rotation_z(-direction)
    )
    at_edge = (tilt == tilt.max()) & (rings > 0)
    return _with_in_plane(disk, at_edge, _symmetric_steps(psi_coarse, psi_fine))


def cartesian_orientations(
    *,
    phi_coarse: float,
    phi_fine: float,
    theta_coarse: float,
    theta_fine: float,
    psi_coarse: float,
    psi_fine: float,
) -> tuple[Float[np.ndarray, "k 3 3"], Bool[np.ndarray, " k"]]:
    """Grid of independent tilts about the image's x axis (phi) and y axis (theta), and psi.

    The two tilts are the components of one rotation vector (x, y, 0) and cover a square
    instead of a disk; in-plane rotations (psi) are as in `uniform_orientations`.
    """
    about_x = _symmetric_steps(phi_coarse, phi_fine)
    about_y = _symmetric_steps(theta_coarse, theta_fine)
    x, y = (axis.ravel() for axis in np.meshgrid(about_x, about_y, indexing="ij"))
    tilts = rotations.rotation_vector_to_matrix(np.stack([x, y, np.zeros_like(x)], axis=-1))
    at_edge = ((np.abs(x) == about_x.max()) & (len(about_x) > 1)) | (
        (np.abs(y) == about_y.max()) & (len(about_y) > 1)
    )
    return _with_in_plane(tilts, at_edge, _symmetric_steps(psi_coarse, psi_fine))


def leopard_em_orientations(
    *, psi_coarse: float, psi_fine: float, theta_coarse: float, theta_fine: float
) -> tuple[Float[np.ndarray, "k 3 3"], Bool[np.ndarray, " k"]]:
    """Leopard-EM 1.2's grid (torch-so3 0.6 `get_local_high_resolution_angles`, "uniform").

    phi is limited to ±psi_coarse, which leaves one of the two tilt axes almost unsearched;
    the grid exists for comparison only. Order and number of orientations are Leopard-EM's:
    441 at psi 1.5/0.15, theta 2.5/0.25.
    """
    thetas = np.arange(-theta_coarse, theta_coarse + theta_fine, theta_fine)
    span = math.radians(2 * psi_coarse)
    pairs: list[tuple[float, float]] = []
    for theta in thetas:
        if span <= 0 or abs(math.radians(theta)) < 1e-10:
            pairs.append((0.0 if span > 0 else -psi_coarse, theta))
            continue
        widest = abs(math.radians(theta_fine) / (math.sin(math.radians(theta)) + 1e-6))
        step = span / np.round(span / min(widest, span))
        phis = np.rad2deg(np.arange(-span / 2, span / 2, step))
        pairs += [(float(phi), theta) for phi in phis]
    phi, theta = np.asarray(pairs).T
    psi = np.asarray([-psi_coarse])
    if psi_coarse > 0:
        psi = np.arange(-psi_coarse, psi_coarse + 1e-6, psi_fine)
    euler = np.stack(
        [np.tile(phi, len(psi)), np.tile(theta, len(psi)), np.repeat(psi, len(phi))],
        axis=-1,
    )
    theta_edge = (np.abs(euler[:, 1]) >= theta_coarse - 1e-9) & (len(thetas) > 1)
    psi_edge = (np.abs(euler[:, 2]) >= psi_coarse - 1e-9) & (len(psi) > 1)
    return rotations.euler_to_matrix(euler), theta_edge | psi_edge


def identity_orientation() -> tuple[Float[np.ndarray, "1 3 3"], Bool[np.ndarray, " 1"]]:
    """The single orientation used when the orientation is not searched."""
    return np.eye(3)[None], np.zeros(1, bool)


def local_grid(
    orientations: tuple[Float[np.ndarray, "k 3 3"], Bool[np.ndarray, " k"]] | None = None,
    defocus_angstrom: Float[np.ndarray, " l"] | None = None,
    pixel_size_angstrom: Float[np.ndarray, " m"] | None = None,
    frame: Literal["image", "volume"] = "image",
) -> SearchGrid:
    """Build a search grid; None leaves a quantity unsearched (the single offset 0).

    Args:
        orientations: Offset rotations and a mask of those on the border of the grid, as
            from `uniform_orientations`.
        defocus_angstrom: Offsets of the defocus, as from `search_offsets`.
        pixel_size_angstrom: Offsets of the pixel size.
        frame: As for `SearchGrid`.

    Raises:
        InputError: Arrays of other shapes, offsets that are not finite, matrices that are
            no rotations, or an unknown frame.
    """
    pair = orientations if orientations is not None else identity_orientation()
    if not isinstance(pair, tuple | list) or len(pair) != 2:
        raise InputError(
            f"orientations: {type(pair).__name__}; expected (rotations, mask of those on "
            "the border of the grid), as from jr.uniform_orientations"
        )
    rotation, at_edge = (np.asarray(each) for each in pair)
    zero = np.zeros(1)
    defocus = zero if defocus_angstrom is None else np.asarray(defocus_angstrom)
    pixel_size = zero if pixel_size_angstrom is None else np.asarray(pixel_size_angstrom)
    errors = [
        f"{name}: offsets {np.shape(values)}; expected one axis of finite numbers"
        for name, values in (
            ("defocus_angstrom", defocus),
            ("pixel_size_angstrom", pixel_size),
        )
        if values.ndim != 1 or not len(values) or not np.isfinite(values).all()
    ]
    if rotation.ndim != 3 or rotation.shape != (len(at_edge), 3, 3) or not len(rotation):
        errors.append(
            f"orientations: {rotation.shape} rotations and a mask {at_edge.shape}; "
            "expected (k, 3, 3) and (k,)"
        )
    elif not rotations.is_rotation(rotation).all():
        errors.append("orientations: not all matrices are rotations")
    if frame not in ("image", "volume"):
        errors.append(f"frame {frame!r}: expected 'image' or 'volume'")
    if errors:
        raise InputError(errors)
    return SearchGrid(
        rotation=jnp.asarray(np.asarray(rotation, np.float32)),
        rotation_at_edge=jnp.asarray(at_edge),
        defocus_angstrom=jnp.asarray(np.asarray(defocus, np.float32)),
        pixel_size_angstrom=jnp.asarray(np.asarray(pixel_size, np.float32)),
        frame=frame,
    )
