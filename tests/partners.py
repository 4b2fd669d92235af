"""Micrographs of references, some with a partner at a known place.

Needs nothing but what `jaxrefine.simulate` needs, and the demo's small match.
"""

import csv
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from jaxrefine import simulate as sim
from jaxrefine.app.demo import matching

PIXEL_SIZE_ANGSTROM = 2.2
SIDE, BOX = 64, 72
REFERENCE_RADIUS_ANGSTROM, PARTNER_RADIUS_ANGSTROM = 34.0, 20.0
CENTER_VECTOR = (28.0, -20.0, 31.0)  # Å
AXIS_EULER_DEG = (30.0, 40.0, 0.0)
PSI_MAX_DEG, THETA_MAX_DEG = 8.0, 4.0  # how far partners turn and tilt
MICROSCOPE = sim.Microscope(b_factor_angstrom2=20.0)
DEFOCUS_ANGSTROM, ASTIGMATISM_DEG = (6000.0, 5700.0), 25.0
NOISE = sim.NoiseSpectrum(white=1.0, low=20.0, decay_cycles_per_px=0.05)
_EDGE_PX, _APART_PX = 40, 62

Row = dict[str, str | int | float]


@dataclass(frozen=True)
class Pair:
    """The simulated structures: a reference and a partner, each about its own centre.

    Attributes:
        reference: Its atoms.
        partner: Its atoms, where they lie beside the reference.
    """

    reference: sim.Atoms
    partner: sim.Atoms


def make_pair(rng: np.random.Generator) -> Pair:
    """Two globules; the partner has an eighth of the reference's mass."""
    reference = sim.random_globule(1600, REFERENCE_RADIUS_ANGSTROM, rng).blurred(20.0)
    alone = sim.random_globule(200, PARTNER_RADIUS_ANGSTROM, rng).blurred(20.0)
    moved = alone.positions_angstrom + np.asarray(CENTER_VECTOR)
    return Pair(reference, sim.Atoms(moved, alone.weights, alone.b_factor_angstrom2))


def partner_offset(theta_deg: float, psi_deg: float) -> NDArray[np.float64]:
    """A rotation of the partner within the structure: about the axis, after a tilt."""
    axis = sim.matrix_from_euler(*AXIS_EULER_DEG)
    return axis @ sim.matrix_from_euler(0.0, theta_deg, psi_deg) @ axis.T


def make_set(
    folder: Path,
    pair: Pair,
    rng: np.random.Generator,
    *,
    shape: tuple[int, int] = (320, 320),
    n_references: int = 12,
    share_with_partner: float = 0.6,
    reference_snr: float = 25.0,
    n_statistics: int = 100,
    name: str = "micrograph",
) -> list[Row]:
    """Write one micrograph, with a table of its references and one of the partner's match.

    Values are whole numbers (image) and multiples of 1/64 (maps), to be kept in little
    space.

    Returns:
        The truth, a row for each reference.
    """
    folder.mkdir(parents=True, exist_ok=True)
    truth = _truth(rng, shape, n_references, share_with_partner)
    image = _image(pair, truth, shape, reference_snr, rng)
    rotations = sim.random_rotations(n_statistics, rng)
    projections = matching.projections_rfft(
        pair.partner, rotations, SIDE, PIXEL_SIZE_ANGSTROM
    )
    ctf = sim.ctf_rfft(
        (SIDE, SIDE), PIXEL_SIZE_ANGSTROM, DEFOCUS_ANGSTROM, ASTIGMATISM_DEG, MICROSCOPE
    )
    maps = matching.match(image, projections, rotations, ctf, n_statistics)
    maps = {key: np.round(value * 64) / 64 for key, value in maps.items()}
    statistics = ("correlation_average", "correlation_variance")
    np.savez_compressed(
        folder / f"{name}.npz",
        image=image.astype(np.int16),
        **{key: np.round(maps[key] * 64).astype(np.int16) for key in statistics},
    )
    references = [_reference_row(row, name, rng) for row in truth]
    partners = [_match_row(row, maps) for row in references]
    _write_csv(folder / f"{name}_references.csv", references)
    _write_csv(folder / f"{name}_partners.csv", partners)
    return truth


def unpack(folder: Path, target: Path, name: str = "micrograph") -> None:
    """Write images, maps and the partner's volume as the MRC files that tables name."""
    from jaxrefine.io.mrc import write_image, write_volume

    with np.load(folder / f"{name}.npz") as packed:
        for key, values in packed.items():
            whole = values.astype(np.float32)
            image = whole if key == "image" else whole / 64
            file = f"{name}.mrc" if key == "image" else f"{name}_{key}.mrc"
            write_image(target / file, image, PIXEL_SIZE_ANGSTROM)
    with np.load(folder / "partner.npz") as packed:
        partner = sim.Atoms(**{key: packed[key].astype(float) for key in packed})
    volume = sim.potential_volume(partner, SIDE, PIXEL_SIZE_ANGSTROM)
    write_volume(target / "partner.mrc", volume, PIXEL_SIZE_ANGSTROM)


def write_partner(folder: Path, pair: Pair) -> None:
    """Write the partner's atoms, in the reference's frame."""
    atoms = {key: value.astype(np.float32) for key, value in vars(pair.partner).items()}
    np.savez_compressed(folder / "partner.npz", **atoms)


def _truth(
    rng: np.random.Generator, shape: tuple[int, int], n: int, share: float
) -> list[Row]:
    centres = np.zeros((0, 2))
    while len(centres) < n:
        centre = rng.uniform(_EDGE_PX, np.array(shape) - _EDGE_PX)
        if np.all(np.linalg.norm(centres - centre, axis=1) > _APART_PX):
            centres = np.vstack([centres, centre])
    with_partner = np.arange(n) < round(share * n)
    rows: list[Row] = []
    for (y, x), there in zip(centres, with_partner, strict=True):
        rotation = sim.random_rotations(1, rng)[0]
        phi, theta, psi = sim.euler_from_matrix(rotation)
        rows.append(
            {
                "centre_y": y,
                "centre_x": x,
                "phi": phi,
                "theta": theta,
                "psi": psi,
                "relative_defocus": rng.uniform(-150.0, 150.0),
                "partner": int(there),
                "offset_theta": rng.uniform(-THETA_MAX_DEG, THETA_MAX_DEG),
                "offset_psi": rng.uniform(-PSI_MAX_DEG, PSI_MAX_DEG),
            }
        )
    return rows


def _image(
    pair: Pair,
    truth: list[Row],
    shape: tuple[int, int],
    reference_snr: float,
    rng: np.random.Generator,
) -> NDArray[np.float32]:
    """The micrograph: one amplitude for a reference and its partner."""
    margin = 32
    grid = (shape[0] + 2 * margin, shape[1] + 2 * margin)
    power = NOISE.power_rfft(grid)
    total = np.zeros(power.shape, dtype=np.complex128)
    for row in truth:
        y, x, phi, theta, psi, relative, partner, *offset = map(float, row.values())
        rotation = sim.matrix_from_euler(phi, theta, psi)
        centre, u, v = (y + margin, x + margin), *DEFOCUS_ANGSTROM

        def seen(
            atoms: sim.Atoms,
            turned: NDArray,
            defocus: float,
            centre=centre,
            u=u,
            v=v,
        ) -> NDArray:
            at = sim.SimulatedParticle(
                turned, centre, (u + defocus, v + defocus), ASTIGMATISM_DEG
            )
            return sim.particle_rfft(atoms, at, grid, PIXEL_SIZE_ANGSTROM, MICROSCOPE)

        reference = seen(pair.reference, rotation, relative)
        amplitude = reference_snr / sim.ideal_snr(reference, power, grid[1])
        total += amplitude * reference
        if partner:
            turned = partner_offset(*offset) @ rotation
            # A structure that is higher along the image's z axis has less defocus.
            higher = float((turned.T @ np.asarray(CENTER_VECTOR))[2])
            total += amplitude * seen(pair.partner, turned, relative - higher)
    total[0, 0] = 0.0
    image = np.fft.irfft2(total, s=grid) + NOISE.sample(grid, rng)
    inside = tuple(slice(margin, margin + n) for n in shape)
    return np.round(200.0 + 8.0 * image[inside]).astype(np.float32)


def _reference_row(truth: Row, name: str, rng: np.random.Generator) -> Row:
    """Table row as after a match and a refinement within 0.3° and half a pixel."""
    y, x, phi, theta, psi, relative, *_ = map(float, truth.values())
    rotation = sim.matrix_from_euler(phi, theta, psi)
    coarse = sim.euler_from_matrix(sim.perturbed_rotation(rotation, rng, 2.0, 1.0))
    fine = sim.euler_from_matrix(sim.perturbed_rotation(rotation, rng, 0.3, 0.2))
    corner = np.round([y - SIDE // 2, x - SIDE // 2]).astype(int)
    first = corner + rng.integers(-1, 2, 2)
    centre, step = first + SIDE // 2, PIXEL_SIZE_ANGSTROM
    row: Row = {"particle_index": int(rng.integers(1000)), "mip": 20.0, "scaled_mip": 20.0}
    row |= {"correlation_mean": 0.0, "correlation_variance": 1.0}
    row |= {"total_correlations": 1_000_000, "pos_x": first[1], "pos_y": first[0]}
    row |= {"pos_x_img": centre[1], "pos_y_img": centre[0]}
    row |= {"pos_x_img_angstrom": centre[1] * step, "pos_y_img_angstrom": centre[0] * step}
    row |= {"refined_pos_x": corner[1], "refined_pos_y": corner[0]}
    names = ("phi", "theta", "psi")
    row |= dict(zip(names, map(float, coarse), strict=True))
    row |= {f"refined_{n}": float(a) for n, a in zip(names, fine, strict=True)}
    row |= {"relative_defocus": 0.0, "refined_relative_defocus": round(relative / 20) * 20}
    row |= {"defocus_u": DEFOCUS_ANGSTROM[0], "defocus_v": DEFOCUS_ANGSTROM[1]}
    row |= {"astigmatism_angle": ASTIGMATISM_DEG, "pixel_size": PIXEL_SIZE_ANGSTROM}
    row |= {"refined_pixel_size": PIXEL_SIZE_ANGSTROM, "voltage": MICROSCOPE.voltage_kv}
    row |= {"spherical_aberration": MICROSCOPE.spherical_aberration_mm}
    row |= {"amplitude_contrast_ratio": MICROSCOPE.amplitude_contrast, "phase_shift": 0.0}
    row |= {"ctf_B_factor": MICROSCOPE.b_factor_angstrom2}
    row |= {"even_zernikes": "", "odd_zernikes": "", "mag_matrix": ""}
    row |= {"micrograph_path": f"{name}.mrc", "template_path": "reference.mrc"}
    for column in ("mip", "scaled_mip", "psi", "theta", "phi", "defocus"):
        row[f"{column}_path"] = f"{name}_reference_{column}.mrc"
    for column in ("average", "variance"):
        row[f"correlation_{column}_path"] = f"{name}_reference_{column}.mrc"
    return row


def _match_row(reference: Row, maps: dict[str, NDArray]) -> Row:
    """The same position in the partner's match."""
    at = (int(reference["pos_y"]), int(reference["pos_x"]))
    row = {name: cell for name, cell in reference.items() if "refined_pos" not in name}
    for column, map_name in (
        ("mip", "mip"),
        ("scaled_mip", "scaled_mip"),
        ("correlation_mean", "correlation_average"),
        ("correlation_variance", "correlation_variance"),
    ):
        row[column] = float(maps[map_name][at])
    row["scaled_mip"] = (row["mip"] - row["correlation_mean"]) / row["correlation_variance"]
    for column in ("average", "variance"):
        name = str(reference["micrograph_path"]).removesuffix(".mrc")
        row[f"correlation_{column}_path"] = f"{name}_correlation_{column}.mrc"
    return row


def _write_csv(path: Path, rows: list[Row]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def write_truth(path: Path, truth: list[Row]) -> None:
    """JSON text with all digits."""
    path.write_text(json.dumps(truth, indent=1), encoding="utf-8")
