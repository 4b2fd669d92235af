"""A small data set with known truth: antibodies in two simulated micrographs.

The folder holds the files that a user of 2D template matching has: micrographs, a template,
maps and the table of a match. The match is a small substitute; the README that is written
with the data describes its shortcuts.
"""

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from jaxrefine import simulate as sim
from jaxrefine.app.demo import matching as demo_match
from jaxrefine.app.demo.evaluate import Comparison as Comparison
from jaxrefine.app.demo.evaluate import compare_with_truth as compare_with_truth
from jaxrefine.data import InputError
from jaxrefine.io.mrc import write_image, write_volume

PIXEL_SIZE_ANGSTROM = 2.0
TEMPLATE_SIDE = 96  # 1.15 times the antibody's 166 Å
BOX_SIDE = 108
SHAPE = (512, 480)
BLUR_B_ANGSTROM2 = 10.0  # B factor of atoms, in template and particles
MICROSCOPE = sim.Microscope(b_factor_angstrom2=20.0)
# Strong at low resolution, like ice and carbon: high resolution determines the pose. The
# Cramér-Rao bound is 0.2° per axis, 30 Å and 0.05 px at an SNR of 13.
NOISE = sim.NoiseSpectrum(white=1.0, low=150.0, decay_cycles_per_px=0.05)
SNR_RANGE = (11.0, 16.0)
RELATIVE_DEFOCUS_MAX_ANGSTROM = 150.0
N_UNIFORM = 240
N_NEAR_TRUTH = 4
TILT_CELL_DEG, IN_PLANE_CELL_DEG = 2.5, 1.5
_RADIUS_PX = 42.0  # radius of the antibody
_EDGE_PX = 60

Row = dict[str, str | int | float]


@dataclass(frozen=True)
class _Exposure:
    """One micrograph to simulate."""

    defocus_angstrom: tuple[float, float]
    astigmatism_deg: float
    n_particles: int


EXPOSURES = (
    _Exposure((6300.0, 5700.0), 30.0, 6),
    _Exposure((9400.0, 8600.0), -50.0, 5),
)


def make_demo(folder: str | Path, seed: int = 0) -> None:
    """Writes the demo's files into a folder, which is created if necessary.

    Args:
        folder: Folder to write; an older demo in it is replaced.
        seed: Seed of all random numbers.

    Raises:
        InputError: The folder holds other files than a demo, or cannot be created.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        mark = folder / "README.md"
        is_demo = mark.is_file() and mark.read_text("utf-8").startswith(_MARK)
        if any(folder.iterdir()) and not is_demo:
            raise InputError(f"{folder}: holds other files; name a new or empty folder")
        # Written first, so that an interrupted demo can be made again.
        mark.write_text(_README, encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{folder}: no demo can be made there: {error}") from error
    rng = np.random.default_rng(seed)
    atoms = sim.load_antibody().blurred(BLUR_B_ANGSTROM2)
    template = sim.potential_volume(atoms, TEMPLATE_SIDE, PIXEL_SIZE_ANGSTROM)
    write_volume(folder / "template.mrc", template, PIXEL_SIZE_ANGSTROM)
    half = sim.random_rotations(N_UNIFORM // 2, rng)
    projections, uniform = demo_match.with_opposite_views(_projections(atoms, half), half)
    picks: list[Row] = []
    truth: list[Row] = []
    for number, exposure in enumerate(EXPOSURES):
        made = _expose(atoms, exposure, rng)
        near = [
            sim.perturbed_rotation(p.rotation, rng, TILT_CELL_DEG, IN_PLANE_CELL_DEG)
            for p in made.particles
            for _ in range(N_NEAR_TRUTH)
        ]
        maps = demo_match.match(
            made.image,
            np.concatenate([projections, _projections(atoms, np.array(near))]),
            np.concatenate([uniform, near]),
            _nominal_ctf(exposure),
            N_UNIFORM,
        )
        maps["relative_defocus"] = np.zeros_like(maps["mip"])
        for name, values in {"micrograph": made.image, **maps}.items():
            write_image(folder / f"{name}_{number}.mrc", values, PIXEL_SIZE_ANGSTROM)
        picks += _pick_rows(maps, number, exposure, first=len(picks))
        truth += _truth_rows(made.particles, number, exposure, first=len(truth))
    _write_csv(folder / "match_results.csv", picks)
    _write_csv(folder / "truth.csv", truth)
    (folder / "config.yaml").write_text(_CONFIG, encoding="utf-8")


def _expose(
    atoms: sim.Atoms, exposure: _Exposure, rng: np.random.Generator
) -> sim.SimulatedMicrograph:
    particles = []
    for centre in _places(exposure.n_particles, rng):
        relative = rng.uniform(-1.0, 1.0) * RELATIVE_DEFOCUS_MAX_ANGSTROM
        u, v = exposure.defocus_angstrom
        particles.append(
            sim.SimulatedParticle(
                rotation=sim.random_rotations(1, rng)[0],
                centre_px=centre,
                defocus_angstrom=(u + relative, v + relative),
                astigmatism_deg=exposure.astigmatism_deg,
                snr_ideal=rng.uniform(*SNR_RANGE),
            )
        )
    # With a margin, noise and CTF are not periodic, as in a real image.
    step, margin = PIXEL_SIZE_ANGSTROM, 32
    return sim.simulate_micrograph(
        atoms, particles, SHAPE, step, MICROSCOPE, rng, noise=NOISE, margin_px=margin
    )


def _places(n: int, rng: np.random.Generator) -> list[tuple[float, float]]:
    """Centres (y, x), not necessarily whole, at which antibodies do not overlap."""
    places = np.zeros((0, 2))
    while len(places) < n:
        place = rng.uniform([_EDGE_PX, _EDGE_PX], np.array(SHAPE) - _EDGE_PX)
        if np.all(np.linalg.norm(places - place, axis=1) > 2.1 * _RADIUS_PX):
            places = np.vstack([places, place])
    return [(float(y), float(x)) for y, x in places]


def _projections(atoms: sim.Atoms, rotations: NDArray) -> NDArray:
    return demo_match.projections_rfft(atoms, rotations, TEMPLATE_SIDE, PIXEL_SIZE_ANGSTROM)


def _nominal_ctf(exposure: _Exposure) -> NDArray:
    shape, angle = (TEMPLATE_SIDE, TEMPLATE_SIDE), exposure.astigmatism_deg
    defocus = exposure.defocus_angstrom
    return sim.ctf_rfft(shape, PIXEL_SIZE_ANGSTROM, defocus, angle, MICROSCOPE)


def _pick_rows(
    maps: dict[str, NDArray[np.float32]], number: int, exposure: _Exposure, first: int
) -> list[Row]:
    searched = N_UNIFORM + N_NEAR_TRUTH * exposure.n_particles
    half = TEMPLATE_SIDE // 2
    rows: list[Row] = []
    for y, x in demo_match.peaks(maps["scaled_mip"], searched, _RADIUS_PX):
        at = {name: str(values[y, x]) for name, values in maps.items()}
        rows.append(
            {
                "particle_index": first + len(rows),
                "mip": at["mip"],
                "scaled_mip": at["scaled_mip"],
                "correlation_mean": at["correlation_average"],
                "correlation_variance": at["correlation_variance"],
                "total_correlations": searched,
                "pos_x": x,
                "pos_y": y,
                "pos_x_img": x + half,
                "pos_y_img": y + half,
                "pos_x_img_angstrom": (x + half) * PIXEL_SIZE_ANGSTROM,
                "pos_y_img_angstrom": (y + half) * PIXEL_SIZE_ANGSTROM,
                "phi": at["orientation_phi"],
                "theta": at["orientation_theta"],
                "psi": at["orientation_psi"],
                "relative_defocus": at["relative_defocus"],
                "defocus_u": exposure.defocus_angstrom[0],
                "defocus_v": exposure.defocus_angstrom[1],
                "astigmatism_angle": exposure.astigmatism_deg,
                "pixel_size": PIXEL_SIZE_ANGSTROM,
                "refined_pixel_size": PIXEL_SIZE_ANGSTROM,
                "voltage": MICROSCOPE.voltage_kv,
                "spherical_aberration": MICROSCOPE.spherical_aberration_mm,
                "amplitude_contrast_ratio": MICROSCOPE.amplitude_contrast,
                "phase_shift": MICROSCOPE.phase_shift_deg,
                "ctf_B_factor": MICROSCOPE.b_factor_angstrom2,
                "even_zernikes": "",
                "odd_zernikes": "",
                "mag_matrix": "",
                "micrograph_path": f"micrograph_{number}.mrc",
                "template_path": "template.mrc",
                "mip_path": f"mip_{number}.mrc",
                "scaled_mip_path": f"scaled_mip_{number}.mrc",
                "psi_path": f"orientation_psi_{number}.mrc",
                "theta_path": f"orientation_theta_{number}.mrc",
                "phi_path": f"orientation_phi_{number}.mrc",
                "defocus_path": f"relative_defocus_{number}.mrc",
                "correlation_average_path": f"correlation_average_{number}.mrc",
                "correlation_variance_path": f"correlation_variance_{number}.mrc",
            }
        )
    return rows


def _truth_rows(
    particles: tuple[sim.SimulatedParticle, ...],
    number: int,
    exposure: _Exposure,
    first: int,
) -> list[Row]:
    rows: list[Row] = []
    for particle in particles:
        phi, theta, psi = sim.euler_from_matrix(particle.rotation)
        y, x = particle.centre_px
        rows.append(
            {
                "particle_index": first + len(rows),
                "micrograph_path": f"micrograph_{number}.mrc",
                "pos_x": x - TEMPLATE_SIDE // 2,
                "pos_y": y - TEMPLATE_SIDE // 2,
                "pos_x_img": x,
                "pos_y_img": y,
                "phi": phi,
                "theta": theta,
                "psi": psi,
                "relative_defocus": (
                    particle.defocus_angstrom[0] - exposure.defocus_angstrom[0]
                ),
                "snr_ideal": particle.snr_ideal,
            }
        )
    return rows


def _write_csv(path: Path, rows: list[Row]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


_CONFIG = f"""\
# Refinement of the demo's particles. The same keys as Leopard-EM's refine_template.
template_volume_path: template.mrc
particle_stack:
  df_path: match_results.csv
  extracted_box_size: [{BOX_SIDE}, {BOX_SIDE}]
  original_template_size: [{TEMPLATE_SIDE}, {TEMPLATE_SIDE}]
defocus_refinement_config:
  enabled: true
  defocus_min: -200.0   # Å, relative to the match
  defocus_max: 200.0
  defocus_step: 40.0
orientation_refinement_config:
  enabled: true
  psi_step_coarse: {IN_PLANE_CELL_DEG}   # degrees: in-plane angles -1.5 ... 1.5
  psi_step_fine: 0.25
  theta_step_coarse: {TILT_CELL_DEG}   # degrees: tilts up to 2.5 in every direction
  theta_step_fine: 0.5
pixel_size_refinement_config:
  enabled: false
preprocessing_filters:
  whitening_filter:
    enabled: true
apply_global_filtering: true
"""

_SIZE = f"{SHAPE[0]} x {SHAPE[1]}"
_COUNTS = " and ".join(str(exposure.n_particles) for exposure in EXPOSURES)
_SNRS = f"{SNR_RANGE[0]:g} to {SNR_RANGE[1]:g}"

_MARK = "# Demo data for jaxrefine"

_README = f"""\
{_MARK}

Two simulated micrographs of {_SIZE} px ({PIXEL_SIZE_ANGSTROM:g} Å each; 300 kV, astigmatic
defocus of about 6,000 and 9,000 Å), with {_COUNTS} whole antibodies (PDB entry 1IGY,
CC0) in coloured noise, each at its own orientation, sub-pixel position and defocus. An
ideal matched filter would find them with signal-to-noise ratios of {_SNRS}.

Refine the particles, in this folder:

    python -m jaxrefine config.yaml

| file | content |
|---|---|
| `micrograph_0.mrc`, `micrograph_1.mrc` | the images |
| `template.mrc` | the antibody's density, {TEMPLATE_SIDE} voxels a side |
| `match_results.csv` | the particle table of the match, the input of the refinement |
| `config.yaml` | settings of the refinement |
| `truth.csv` | the truth: pose, centre, defocus (`relative_defocus`, with respect to \
the micrograph's), ideal SNR |
| `correlation_average_*.mrc`, `correlation_variance_*.mrc` | mean and standard deviation \
of the correlation |
| `mip_*.mrc`, `scaled_mip_*.mrc` | best correlation and best z-score |
| `orientation_*.mrc`, `relative_defocus_*.mrc` | the best orientation and defocus |

`correlation_variance`, map and column, holds a standard deviation, as in Leopard-EM 1.2.

## Shortcuts of the match
A real match searches millions of orientations. This one correlated {N_UNIFORM} random
orientations ({N_UNIFORM // 2} and their opposite views) for mean and standard deviation,
and {N_NEAR_TRUTH} more for each particle, drawn at random within a coarse search cell
around its true pose (tilts up to {TILT_CELL_DEG}° in any direction, in-plane angles
within ±{IN_PLANE_CELL_DEG}°), all at the micrograph's own defocus. The particles of the
table are the resulting maxima. Their starting values are about as accurate as those of a
real match, but they do not show how well particles can be detected.

## What to expect
Noise limits every method, on average to about 0.35°, 25 Å of defocus and 0.05 px. A
refinement with whole-pixel positions cannot reach errors below about 0.6°.

All data were simulated from a random seed, except for the antibody's coordinates, which
were measured.
"""
