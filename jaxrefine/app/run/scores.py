"""File with the scores of all poses of the search: `--scores FILE.npz`."""

import json
import logging
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxrefine.app.config import Config
from jaxrefine.app.console.interrupts import Stop
from jaxrefine.app.run.devices import float32_only, free_bytes
from jaxrefine.app.run.envelope import use_envelope
from jaxrefine.app.run.inputs import RunInputs, load_inputs
from jaxrefine.app.run.output import check_output
from jaxrefine.app.run.pipeline import filled_batches
from jaxrefine.data import InputError
from jaxrefine.io.atomic import atomic_path
from jaxrefine.io.table import read_particle_table
from jaxrefine.physics.rotations import matrix_to_euler, matrix_to_rotation_vector
from jaxrefine.refine.posterior import COORDINATES, GridPosterior, grid_posterior
from jaxrefine.refine.score_grid import GridScores, score_grid

log = logging.getLogger("jaxrefine")

FORMAT_VERSION = 1
_AXES = ("particle", "pixel_size", "defocus", "orientation")
# Bytes per pose on disk: z-score and strength in float32, y and x in int16.
_BYTES = 12
# Bytes per pose on the device: positions take more, and the computation needs space.
_DEVICE_BYTES = 64
_MOST_NAMED = 5


@dataclass(frozen=True, eq=False)
class PlannedScores:
    """The scores to write.

    Attributes:
        inputs: Inputs of the run.
        rows: Rows of its table.
        output: The file to write.
    """

    inputs: RunInputs
    rows: np.ndarray
    output: Path

    @property
    def size_bytes(self) -> int:
        """Size of the file without its axes."""
        return len(self.rows) * self.inputs.poses * _BYTES

    @property
    def text(self) -> str:
        """Description of what will be written."""
        pixel_sizes, defoci, orientations = self.inputs.grid.shape
        return (
            f"{self.output}: scores of {len(self.rows)} particles x {pixel_sizes} pixel "
            f"sizes x {defoci} defocus values x {orientations:,} orientations, "
            f"{_size(self.size_bytes)}"
        )


@float32_only()
def plan_scores(
    config: Config, output: Path, particles: Sequence[str] | None = None
) -> PlannedScores:
    """Check that the scores of a run can be written.

    Args:
        config: Configuration of the run.
        output: The file, .npz.
        particles: `particle_index` of the particles or, without that column, their rows,
            counted from 0; None for all.

    Raises:
        InputError: With all errors of the inputs; particles do not exist; or the scores
            do not fit on the disk or into the memory of the device.
    """
    if output.suffix.lower() != ".npz":
        raise InputError(f"--scores: {output}: should end in .npz")
    inputs = load_inputs(config)
    check_output(output, [*inputs.inputs, Path(config.source)], "--scores")
    plan = PlannedScores(inputs, _rows(inputs, particles), output)
    free = shutil.disk_usage(output.absolute().parent).free
    fewer = "name fewer particles (--scores-particles), or search a coarser grid"
    errors = []
    if 2 * plan.size_bytes > free:  # two copies exist during writing
        errors.append(
            f"--scores: {plan.text}: needs twice that on the disk, of which "
            f"{_size(free)} are free; {fewer}"
        )
    each, memory = inputs.poses * _DEVICE_BYTES, free_bytes(inputs.mesh.devices.flat[0])
    if each > memory / 2:
        errors.append(
            f"--scores: {plan.text}: one particle's need {_size(each)} of memory, of which "
            f"{_size(memory)} are free; search a coarser grid"
        )
    if errors:
        raise InputError(errors)
    return plan


def _rows(inputs: RunInputs, particles: Sequence[str] | None) -> np.ndarray:
    table = inputs.table
    if particles is None:
        return np.arange(len(table))
    labels = _labels(inputs)
    absent = [text for text in particles if text not in set(labels)]
    if absent:
        what = "particle_index" if "particle_index" in table.raw.columns else "row"
        raise InputError(
            f"--scores-particles: {table.path} has no {what} {', '.join(absent[:10])}"
        )
    return np.flatnonzero(np.isin(labels, particles))


def _labels(inputs: RunInputs) -> list[str]:
    """Names of the rows of the table."""
    table = inputs.table
    if "particle_index" in table.raw.columns:
        return table.raw["particle_index"].str.strip().tolist()
    return [str(row) for row in range(len(table))]


@float32_only()
def write_scores(plan: PlannedScores, refined: Path, stop: Stop) -> None:
    """Score the grid around each particle's start and write all; memory holds one particle.

    Args:
        plan: From `plan_scores`.
        refined: The table of the run, which records the envelope that it used.
        stop: Called between particles.

    Raises:
        InputError: The file cannot be written.
    """
    extra_b = np.nan_to_num(read_particle_table(refined).numbers("template_envelope_b"))
    inputs = use_envelope(plan.inputs, extra_b)
    count, shape = len(plan.rows), inputs.grid.shape
    place = {row: i for i, row in enumerate(plan.rows.tolist())}
    posteriors: list[GridPosterior | None] = [None] * count
    with tempfile.TemporaryDirectory(dir=plan.output.absolute().parent) as folder:

        def on_disk(name: str, *more: int, kind: Any = np.float32) -> np.ndarray:
            path = Path(folder) / f"{name}.npy"
            values = np.lib.format.open_memmap(
                path, "w+", kind, shape=(count, *shape, *more)
            )
            values[:] = np.nan if kind is np.float32 else 0
            return values

        z_score, strength = on_disk("scores"), on_disk("strength")
        offset_px = on_disk("offset_px", 2, kind=np.int16)
        device = inputs.mesh.devices.flat[0]
        template, grid = jax.device_put((inputs.template, inputs.grid), device)
        with jax.default_device(device):
            for batch, particles in filled_batches(inputs, plan.rows):
                for i, row in enumerate(batch.tolist()):
                    stop.check()
                    one = jax.tree.map(lambda leaf, i=i: leaf[i : i + 1], particles)
                    one = jax.device_put(one, device)
                    found: GridScores = jax.tree.map(
                        lambda leaf: np.asarray(leaf)[0],
                        score_grid(one, template, grid, inputs.score),
                    )
                    at = place[row]
                    z_score[at], strength[at] = found.z_score, found.strength
                    offset_px[at] = found.offset_px
                    posteriors[at] = grid_posterior(found, grid)
        arrays = {"scores": z_score, "strength": strength, "offset_px": offset_px}
        _save(plan, arrays | _axes(plan) | _summaries(posteriors))
    _warn_of_modes([_labels(inputs)[row] for row in plan.rows], posteriors)


def _save(plan: PlannedScores, arrays: dict[str, Any]) -> None:
    with atomic_path(plan.output) as temporary, open(temporary, "wb") as file:
        np.savez(file, **arrays)


def _axes(plan: PlannedScores) -> dict[str, Any]:
    """Values along the axes, and the starting values of each particle."""
    inputs, rows = plan.inputs, plan.rows
    start, grid = inputs.start, inputs.grid
    rotation = np.asarray(grid.rotation, np.float64)
    defocus = np.column_stack([start.defocus_angstrom, start.astigmatism_deg])
    metadata = {
        "format_version": FORMAT_VERSION,
        "program": f"jaxrefine {version('jaxrefine')}",
        "particle_table": str(inputs.table.path),
        "configuration": inputs.config.source,
        "scoring": inputs.config.scoring,
        "frame": grid.frame,
    }
    return {
        "axes": np.array(_AXES),
        "euler_angle_offsets": matrix_to_euler(rotation),
        "rotation_vector_offsets": matrix_to_rotation_vector(rotation),
        "defocus_offsets": np.asarray(grid.defocus_angstrom, np.float64),
        "pixel_size_offsets": np.asarray(grid.pixel_size_angstrom, np.float64),
        "row": rows,
        "particle_index": np.array([_labels(inputs)[row] for row in rows], np.str_),
        "base_euler_angles": start.euler_deg[rows],
        "base_position_px": start.position_px[rows],
        "base_defocus": defocus[rows],
        "base_pixel_size": start.pixel_size_angstrom[rows],
        "metadata": np.array(json.dumps(metadata)),
    }


def _summaries(posteriors: Sequence[GridPosterior | None]) -> dict[str, Any]:
    """Mean, covariance, entropy and modes of each particle's posterior; NaN if none."""
    size = len(COORDINATES)
    mean, covariance = np.full(size, np.nan), np.full((size, size), np.nan)
    return {
        "posterior_coordinates": np.array(COORDINATES),
        "posterior_mean": np.array([mean if p is None else p.mean for p in posteriors]),
        "posterior_covariance": np.array(
            [covariance if p is None else p.covariance for p in posteriors]
        ),
        "posterior_entropy": np.array(
            [np.nan if p is None else p.entropy for p in posteriors]
        ),
        "posterior_modes": np.array([0 if p is None else len(p.modes) for p in posteriors]),
    }


def _warn_of_modes(
    labels: Sequence[str], posteriors: Sequence[GridPosterior | None]
) -> None:
    """Warn of particles with several modes."""
    several = [
        f"{label} ({', '.join(f'{share:.0%}' for share in p.shares)})"
        for label, p in zip(labels, posteriors, strict=True)
        if p is not None and len(p.modes) > 1
    ]
    if several:
        more = ", …" if len(several) > _MOST_NAMED else ""
        log.warning(
            "%d of %d particles have several modes: separate poses that hold at least 5 %% "
            "of the posterior (pseudo-symmetry, or little signal). Their shares: "
            "particle %s%s",
            len(several),
            len(labels),
            ", ".join(several[:_MOST_NAMED]),
            more,
        )


def _size(count: float) -> str:
    """A number of bytes as text."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"
