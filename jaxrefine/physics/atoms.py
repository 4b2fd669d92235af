"""Template volume from an atomic model, differentiable in the model.

Each atom scatters like a free neutral atom (independent-atom model). Its electron
scattering factor f(k) = Σ aᵢ exp(-bᵢ k²/4) is tabulated by Peng, Ren, Dudarev & Whelan,
Acta Cryst. A52 (1996) 257, and in International Tables for Crystallography C, table
4.3.2.2. The values are in `electron_scattering_factors.csv`.
"""

import functools
import math
from collections.abc import Sequence
from importlib.resources import files

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Complex, Float, ScalarLike

from jaxrefine.data import InputError

# h²/(2π m e): potential in V Å³ that corresponds to a scattering factor of 1 Å.
_VOLT_ANGSTROM2 = 47.87801
# Volume of protein, with hydrogens that the model omits, per non-hydrogen atom:
# 1.21 Å³/Da (a partial specific volume of 0.73 cm³/g) times 13.8 Da.
_VOLUME_PER_ATOM_ANGSTROM3 = 16.7
# Complex numbers in the planes that are computed in one step.
_PLANE_VALUES = 1 << 22


def template_from_atoms(
    positions_angstrom: Float[Array | np.ndarray, "a 3"],
    elements: Sequence[str],
    b_factor_angstrom2: Float[Array | np.ndarray, " a"],
    pixel_size_angstrom: ScalarLike,
    side: int,
    *,
    occupancy: Float[Array | np.ndarray, " a"] | None = None,
    centre_angstrom: Float[Array | np.ndarray, "3"] | None = None,
    solvent_potential_volt: float = 0.0,
    exposure_e_per_angstrom2: tuple[float, float] | None = None,
    voltage_kv: float = 300.0,
    mtf: tuple[Sequence[float], Sequence[float]] | None = None,
) -> Float[Array, "n n n"]:
    """Electrostatic potential of atoms on a cubic grid, in volts, for `make_template`.

    It is computed in Fourier space, as the exact sum over atoms at every frequency of the
    grid: band-limited, without voxel averaging or truncation of atoms. It is differentiable
    in positions, B factors, occupancies and pixel size, and can be called inside `jit` if
    elements and options are constants.

    Args:
        positions_angstrom: xyz of each atom.
        elements: Symbol of each atom: "C", "Mg", ….
        b_factor_angstrom2: B factor of each atom: exp(-B k²/4), with k in 1/Å.
        pixel_size_angstrom: Voxel size.
        side: Side of the cube in voxels, even.
        occupancy: Occupancy of each atom; None: 1.
        centre_angstrom: Coordinates of voxel side // 2; None: the mean position.
        solvent_potential_volt: Mean inner potential of the solvent that atoms displace:
            about 3.6 V for vitreous ice (Harscher & Lichte, 1998), 0 for vacuum. Every atom
            except hydrogen displaces a Gaussian of 16.7 Å³ (after Fraser, MacRae & Suzuki,
            J. Appl. Cryst. 11 (1978) 693, with the same volume for all atoms).
        exposure_e_per_angstrom2: Exposure before the first and after the last frame; the
            mean loss of signal between them is applied (Grant & Grigorieff, eLife 4 (2015)
            e06980).
        voltage_kv: For the exposure; critical exposures at 200 kV are 0.8 of those at 300.
        mtf: Detector envelope: increasing frequencies in cycles per pixel, and amplitudes,
            interpolated linearly.

    Returns:
        (side, side, side), axes z, y, x; what `make_template` takes.

    Raises:
        InputError: An unknown element, arrays of different lengths, an odd side, or
            (outside `jit`) atoms that lie outside the cube.
    """
    positions = jnp.asarray(positions_angstrom)
    weight = jnp.ones(len(elements)) if occupancy is None else jnp.asarray(occupancy)
    b_factor = jnp.asarray(b_factor_angstrom2)
    _check(positions, elements, b_factor, weight, pixel_size_angstrom, side)
    centre = positions.mean(axis=0) if centre_angstrom is None else centre_angstrom
    at = (positions - jnp.asarray(centre)) / pixel_size_angstrom
    _check_inside(at, side)

    order, number, share = _chunks(elements, side)
    volumes = jnp.asarray([_displaced(element) for element in elements])
    solvent = solvent_potential_volt / _VOLT_ANGSTROM2 * volumes
    k2 = _squared_frequency(side) / pixel_size_angstrom**2

    @jax.checkpoint
    def add(total: Array, chunk: tuple[Array, Array, Array]) -> tuple[Array, None]:
        which, table, one = chunk
        waves = _structure_factor(
            at[which] + side // 2,
            b_factor[which] / pixel_size_angstrom**2,
            weight[which] * one,
            side,
        )
        factor = jnp.sum(
            table[:5, None, None, None] * jnp.exp(-table[5:, None, None, None] / 4 * k2),
            axis=0,
        )
        displaced = volumes[which[0]]
        factor -= solvent[which[0]] * jnp.exp(-jnp.pi * displaced ** (2 / 3) * k2)
        return total + waves * factor, None

    start = jnp.zeros((side, side, side // 2 + 1), jnp.result_type(at, jnp.complex64))
    chunks = (
        jnp.asarray(order),
        jnp.asarray(number, at.dtype),
        jnp.asarray(share, at.dtype),
    )
    rfft, _ = jax.lax.scan(add, start, chunks)
    if exposure_e_per_angstrom2 is not None:
        rfft = rfft * _kept_by_exposure(k2, exposure_e_per_angstrom2, voltage_kv)
    if mtf is not None:
        per_pixel = jnp.sqrt(_squared_frequency(side))
        rfft = rfft * jnp.interp(per_pixel, jnp.asarray(mtf[0]), jnp.asarray(mtf[1]))
    volume = jnp.fft.irfftn(rfft, s=(side, side, side))
    return volume * (_VOLT_ANGSTROM2 / pixel_size_angstrom**3)


@functools.cache
def scattering_factors() -> dict[str, tuple[float, ...]]:
    """(a₁ … a₅ in Å, b₁ … b₅ in Å²) of each element, by its symbol in capitals."""
    table = files("jaxrefine.physics").joinpath("electron_scattering_factors.csv")
    rows = (line.split(",") for line in table.read_text(encoding="ascii").split()[1:])
    factors = {name: tuple(map(float, numbers)) for name, *numbers in rows}
    return {**factors, "D": factors["H"]}


def _structure_factor(
    at_px: Float[Array, "c 3"],
    b_px2: Float[Array, " c"],
    weight: Float[Array, " c"],
    side: int,
) -> Complex[Array, "n n nr"]:
    """Σ weight · exp(-2πi k·x - B k²/4) over a chunk of atoms, at all frequencies."""
    full, half = np.fft.fftfreq(side), np.fft.rfftfreq(side)

    def waves(x: Float[Array, " c"], k: np.ndarray) -> Complex[Array, "c k"]:
        cycles = x[:, None] * jnp.asarray(k, x.dtype)
        phase = -2 * jnp.pi * (cycles - jnp.round(cycles))
        gauss = jnp.exp(-b_px2[:, None] / 4 * jnp.asarray(k**2, x.dtype))
        return jax.lax.complex(gauss * jnp.cos(phase), gauss * jnp.sin(phase))

    along_z = waves(at_px[:, 2], full) * weight[:, None]
    planes = along_z[:, :, None] * waves(at_px[:, 1], full)[:, None, :]
    high = jax.lax.Precision.HIGHEST
    return jnp.einsum("czy,cx->zyx", planes, waves(at_px[:, 0], half), precision=high)


def _chunks(
    elements: Sequence[str], side: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Atoms in chunks of one element: indices, the element's factors, 1 (0 for padding)."""
    size = int(np.clip(_PLANE_VALUES // side**2, 16, 512))
    names = np.char.upper(np.asarray(elements, dtype=str))
    order, tables, share = [], [], []
    for name in dict.fromkeys(names.tolist()):
        (of_name,) = np.nonzero(names == name)
        for start in range(0, len(of_name), size):
            some = of_name[start : start + size]
            order.append(np.resize(some, size))
            share.append(np.arange(size) < len(some))
            tables.append(scattering_factors()[name])
    return np.stack(order), np.asarray(tables), np.stack(share)


def _displaced(element: str) -> float:
    return 0.0 if element.upper() in ("H", "D") else _VOLUME_PER_ATOM_ANGSTROM3


def _squared_frequency(side: int) -> Float[Array, "n n nr"]:
    """k² in (cycles per voxel)²."""
    full, half = np.fft.fftfreq(side) ** 2, np.fft.rfftfreq(side) ** 2
    k2 = full[:, None, None] + full[:, None] + half
    return jnp.asarray(k2.astype(np.float32))


def _kept_by_exposure(
    k2: Float[Array, "n n nr"], exposure: tuple[float, float], voltage_kv: float
) -> Float[Array, "n n nr"]:
    """Mean over the exposure of exp(-N / 2Nₑ), Nₑ = 0.245 k^-1.665 + 2.81 at 300 kV."""
    before, after = exposure
    if not 0 <= before < after:
        raise InputError(
            f"exposure {exposure}: expected (before, after) in e/Å², the second larger"
        )
    # Factor 0.8 at 200 kV (Grant & Grigorieff); linear in between and beyond.
    relative = 1 + 0.2 * (voltage_kv - 300) / 100
    # No loss at k = 0. A small k has the same limit and a finite derivative.
    k = jnp.sqrt(jnp.maximum(k2, 1e-12))
    twice = 2 * relative * (0.245 * k**-1.665 + 2.81)
    between = (after - before) / twice
    return jnp.exp(-before / twice) * -jnp.expm1(-between) / between


def _check(
    positions: Float[Array, "..."],
    elements: Sequence[str],
    b_factor: Float[Array, "..."],
    occupancy: Float[Array, "..."],
    pixel_size_angstrom: ScalarLike,
    side: int,
) -> None:
    if isinstance(elements, str):
        raise InputError(
            f"elements: a text of {len(elements)} letters; expected a list of symbols, one "
            "per atom"
        )
    count = len(elements)
    errors = [
        f"{name}: shape {np.shape(values)}; expected {shape} for {count} elements"
        for name, values, shape in (
            ("positions_angstrom", positions, (count, 3)),
            ("b_factor_angstrom2", b_factor, (count,)),
            ("occupancy", occupancy, (count,)),
        )
        if np.shape(values) != shape
    ]
    unknown = sorted({e for e in elements if e.upper() not in scattering_factors()})
    if unknown:
        errors.append(
            f"elements {', '.join(map(repr, unknown))}: no electron scattering factors; "
            "expected symbols of neutral atoms, H to Cf"
        )
    if not count:
        errors.append("elements: no atoms")
    if side < 2 or side % 2:
        errors.append(f"side {side}: expected an even number of voxels")
    known = not isinstance(pixel_size_angstrom, Tracer)
    if known and not np.asarray(pixel_size_angstrom) > 0:
        errors.append(f"pixel_size_angstrom {pixel_size_angstrom}: expected more than 0")
    if errors:
        raise InputError(errors)


def _check_inside(at_px: Float[Array, "a 3"], side: int) -> None:
    """Check that all atoms are inside the cube; others would wrap to the opposite side."""
    if isinstance(at_px, Tracer):
        return
    furthest = float(jnp.max(jnp.abs(at_px)))
    if not math.isfinite(furthest):
        raise InputError("positions_angstrom: not all are finite")
    if furthest > side // 2 - 1:
        raise InputError(
            f"the furthest atom is {furthest:.0f} px from the centre along an axis, beyond "
            f"a template of {side} px: expected a side of at least "
            f"{2 * (math.ceil(furthest) + 1)} px, and some more for its surroundings"
        )
