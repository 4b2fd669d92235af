"""Template bias: density that appears only if the template contained it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np
from jaxtyping import Bool, Float

from jaxrefine.app.config import Config
from jaxrefine.app.run.build import starting_alignment
from jaxrefine.app.run.compare import common_envelope, read_references, refined_start
from jaxrefine.app.run.devices import float32_only
from jaxrefine.app.run.envelope import use_envelope
from jaxrefine.app.run.inputs import RunInputs
from jaxrefine.app.run.pipeline import filled_batches
from jaxrefine.data import InputError
from jaxrefine.io.mrc import read_volume, write_volume
from jaxrefine.io.table import ParticleTable
from jaxrefine.refine.reconstruct import (
    Placed,
    omitted_voxels,
    reconstruct,
    template_bias,
)

_FEWEST = 2


@dataclass(frozen=True)
class Bias:
    """A measured template bias.

    Attributes:
        omega: Fraction of the part's density that comes from the template.
        sigma: Its standard error, from two halves of the particles.
        particles: Number of particles in the reconstructions.
        voxels: Number of voxels of the part.
        files: The reconstructions from the poses of the full and of the omit template.
    """

    omega: float
    sigma: float
    particles: int
    voxels: int
    files: tuple[Path, Path]


@float32_only()
def measure_bias(
    configs: Mapping[str, Config],
    tables: Mapping[str, Path],
    folder: Path,
    mask: Path | None = None,
) -> Bias:
    """Reconstruct at the poses of two templates and compare the part that one omits.

    Args:
        configs: The configuration of the full template's run, then that of the template
            that omits a part.
        tables: The refined tables of these runs, of the same particles.
        folder: Folder for the reconstructions; created if it does not exist.
        mask: A volume that is above 0.5 inside the part; None: where the templates differ.

    Raises:
        InputError: With all errors of tables and configurations; or the second template
            omits no density of the first.
    """
    refined, inputs = read_references(configs, tables)
    first = next(iter(inputs.values()))
    first = use_envelope(first, common_envelope(refined))
    voxels = _omitted([each.template_path for each in inputs.values()], mask)
    known = [np.isfinite(t.numbers("refined_scaled_mip")) for t in refined.values()]
    rows = np.flatnonzero(np.all(known, axis=0))
    if len(rows) < _FEWEST:
        raise InputError(
            f"{len(rows)} particles were refined against both templates; at least "
            f"{_FEWEST} are needed"
        )
    halves = [
        [_reconstruct(first, table, part) for part in (rows[::2], rows[1::2])]
        for table in refined.values()
    ]
    of_halves = [template_bias(a, b, voxels) for a, b in zip(*halves, strict=True)]
    full, omit = (np.mean(each, axis=0) for each in halves)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder}: cannot be made: {error.strerror}") from error
    files = (folder / "full.mrc", folder / "omit.mrc")
    for path, volume in zip(files, (full, omit), strict=True):
        write_volume(path, volume, float(first.template_pixel_size_angstrom.min()))
    sigma = abs(of_halves[0] - of_halves[1]) / 2
    omega = template_bias(full, omit, voxels)
    return Bias(omega, sigma, len(rows), int(voxels.sum()), files)


def _omitted(templates: list[Path], mask: Path | None) -> Bool[np.ndarray, "n n n"]:
    full, omit = (read_volume(path)[0] for path in templates)
    if mask is not None:
        voxels = read_volume(mask)[0] > 0.5
        if voxels.shape != full.shape or not voxels.any():
            raise InputError(
                f"{mask}: has shape {voxels.shape} and {voxels.sum()} voxels above 0.5; it "
                f"should have the templates' shape, {full.shape}, and some"
            )
        return voxels
    if not (np.asarray(full, np.float64) - omit).sum() > 0:
        raise InputError(
            f"{templates[1]}: lacks no density of {templates[0]}; give the full template's "
            "table first, then that of the template that omits a part"
        )
    return omitted_voxels(full, omit)


def _reconstruct(
    inputs: RunInputs, table: ParticleTable, rows: np.ndarray
) -> Float[np.ndarray, "n n n"]:
    """Reconstruct from some rows at their refined poses."""
    start = refined_start(table)
    shift = [np.nan_to_num(table.numbers(f"refined_shift_{axis}")) for axis in "yx"]
    start.position_px[...] += np.stack(shift, axis=-1)
    placed = []
    with jax.default_device(inputs.mesh.devices.flat[0]):
        for some, particles in filled_batches(inputs, rows):
            more = np.repeat(some[-1:], len(particles.valid) - len(some))
            filled = np.append(some, more)
            placed.append(Placed(particles, starting_alignment(start, filled)))
        return reconstruct(placed, inputs.score.side, inputs.score)
