"""A template volume from an atomic model."""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jaxrefine.app.interchange.export_star import refuse_overwriting
from jaxrefine.data import InputError, add_error_context
from jaxrefine.io.model import Model, read_model
from jaxrefine.io.mrc import read_volume, write_volume
from jaxrefine.physics.atoms import template_from_atoms

# Default side relative to the model's diameter.
_SURROUNDINGS = 1.5
# Models without B factors have 0, or the same value for all atoms.
_LEAST_B_ANGSTROM2 = 1e-3
# Relative difference by which devices may differ.
_SAME = 1e-4


@dataclass(frozen=True)
class MadeTemplate:
    """Result of making a template.

    Attributes:
        model: The model that was read.
        side: Side of the volume.
        warnings: Warnings for the user.
    """

    model: Model
    side: int
    warnings: tuple[str, ...]


def make_model_template(
    model_path: Path,
    output: Path,
    pixel_size_angstrom: float,
    side: int | None = None,
    *,
    b_factor_scale: float = 1.0,
    b_factor_add_angstrom2: float = 0.0,
    exposure_e_per_angstrom2: tuple[float, float] | None = None,
    voltage_kv: float = 300.0,
    solvent_potential_volt: float = 0.0,
    overwrite: bool = False,
    keep_same: bool = False,
) -> MadeTemplate:
    """Read a model and write its template.

    Args:
        model_path: PDB or mmCIF file.
        output: The volume to write, an MRC file.
        pixel_size_angstrom: Voxel size.
        side: Side in voxels; None: 1.5 times the model's diameter, even.
        b_factor_scale: Factor on the model's B factors.
        b_factor_add_angstrom2: Value added to them afterwards.
        exposure_e_per_angstrom2: As in `template_from_atoms`, like the next two.
        voltage_kv: Acceleration voltage.
        solvent_potential_volt: Mean inner potential of the solvent.
        overwrite: Replace an existing output.
        keep_same: Accept an existing output that holds this volume already.

    Raises:
        InputError: The model cannot be used, or the output cannot be written.
    """
    refuse_overwriting(output, model_path, overwrite=overwrite or keep_same)
    if not output.parent.is_dir():
        raise InputError(f"{output}: its folder does not exist; make it first")
    model = read_model(model_path)
    positions = model.positions_angstrom - model.positions_angstrom.mean(axis=0)
    radius_px = float(np.linalg.norm(positions, axis=1).max()) / pixel_size_angstrom
    side_px = side or max(2 * math.ceil(_SURROUNDINGS * radius_px), 4)
    b_factor = model.b_factor_angstrom2 * b_factor_scale + b_factor_add_angstrom2
    warnings = []
    if np.ptp(model.b_factor_angstrom2) < _LEAST_B_ANGSTROM2:
        warnings.append(
            f"{model_path}: all B factors are {model.b_factor_angstrom2[0]:g} Å²: the "
            "model may have none; --b-factor-add sets a common one"
        )
    if (b_factor < 0).any():
        raise InputError(
            f"{model_path}: {np.count_nonzero(b_factor < 0)} B factors are negative, down "
            f"to {b_factor.min():g} Å²; expected 0 or more (--b-factor-add)"
        )
    with add_error_context(before=f"{model_path}: "):
        volume = template_from_atoms(
            positions.astype(np.float32),
            model.elements,
            b_factor.astype(np.float32),
            pixel_size_angstrom,
            side_px,
            occupancy=model.occupancy.astype(np.float32),
            centre_angstrom=np.zeros(3, np.float32),
            exposure_e_per_angstrom2=exposure_e_per_angstrom2,
            voltage_kv=voltage_kv,
            solvent_potential_volt=solvent_potential_volt,
        )
    volume = np.asarray(volume)
    if not (keep_same and output.exists() and _holds(output, volume, pixel_size_angstrom)):
        refuse_overwriting(output, overwrite=overwrite)
        write_volume(output, volume, pixel_size_angstrom)
    return MadeTemplate(model, side_px, tuple(warnings))


def _holds(path: Path, volume: np.ndarray, pixel_size_angstrom: float) -> bool:
    """Whether a file holds this volume, to the accuracy of another device."""
    try:
        there, spacing = read_volume(path)
    except InputError:
        return False
    most = _SAME * float(np.abs(volume).max())
    return (
        there.shape == volume.shape
        and bool(np.abs(there - volume).max() <= most)
        and math.isclose(spacing or 0.0, pixel_size_angstrom, rel_tol=_SAME)
    )
