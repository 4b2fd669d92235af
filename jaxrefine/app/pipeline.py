"""A run, from configuration to refined table: `run` reads like its description.

Read and check everything; then per micrograph filter it, cut batches of boxes, search;
then write the table.
"""

import logging
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from jaxrefine.app.config import Config
from jaxrefine.app.job import Files, Job, describe, prepare_job
from jaxrefine.app.progress import Progress
from jaxrefine.app.setup import particle_optics, starting_alignment
from jaxrefine.data import InputError, Refined, Status
from jaxrefine.io.mrc import read_image
from jaxrefine.io.paths import rebased
from jaxrefine.io.table import RefinedColumns, refined_table, write_table
from jaxrefine.physics.rotations import matrix_to_euler
from jaxrefine.refine.layout import Layout
from jaxrefine.refine.prepare import Micrograph, cut_particles, prepare_micrograph
from jaxrefine.refine.refine import refine_within_memory
from jaxrefine.refine.sharding import PARTICLES

log = logging.getLogger("jaxrefine")


@dataclass(frozen=True)
class Summary:
    """What a run did.

    Attributes:
        output: The refined table.
        particles: Number of its rows.
        refined: How many of them were refined.
        mean_z_before: Mean z-score of the input, as its own program scored it; refined
            where it was refined before. NaN without that column.
        mean_z_after: Mean refined z-score.
        mean_snr: Mean refined correlation over the background.
        statuses: How many particles have each status.
        seconds: Wall time of the search and the preparation.
    """

    output: Path
    particles: int
    refined: int
    mean_z_before: float
    mean_z_after: float
    mean_snr: float
    statuses: dict[Status, int]
    seconds: float


def run(config: Config, *, output: Path | None = None, quiet: bool = False) -> Summary:
    """Refine the particles that a configuration names, and write the refined table.

    Args:
        config: From `Config.load` or `Config.from_dict`.
        output: Overrides the configuration's output path.
        quiet: Show no progress.

    Raises:
        InputError: Before any long work, with every fault found.
    """
    started = time.monotonic()
    job = prepare_job(config, output)
    for line in describe(job):
        log.info("%s", line)
    log.info("compiling the search: some seconds, unless an earlier run left it behind")
    results = _Results(job)
    progress = Progress(len(job.table), job.poses, quiet=quiet)
    layout = job.layout
    with progress, jax.default_device(job.mesh.devices.flat[0]):
        for rows, micrograph in _micrographs(job):
            if micrograph is None:
                results.store_unreadable(rows)
                progress.update(len(rows))
                continue
            for batch in _batches(rows, job.mesh.shape[PARTICLES]):
                refined, layout = _refine(job, micrograph, batch, layout)
                results.store(batch, refined)
                progress.update(len(batch))
    table = refined_table(job.table, results.columns)
    folders = (path.absolute().parent for path in (job.table.path, job.output))
    write_table(rebased(table, *folders), job.output)
    return results.summary(time.monotonic() - started)


def _micrographs(job: Job) -> Iterator[tuple[np.ndarray, Micrograph | None]]:
    """Rows and micrograph of each group; `num_cpus` threads read and prepare ahead."""
    workers = job.config.computational_config.num_cpus
    waiting: deque[tuple[np.ndarray, Future[Micrograph]]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        for files, rows in job.groups.items():
            waiting.append((rows, pool.submit(_prepare, job, files)))
            if len(waiting) > workers:
                yield _result(*waiting.popleft())
        for prepared in waiting:
            yield _result(*prepared)


def _result(
    rows: np.ndarray, micrograph: "Future[Micrograph]"
) -> tuple[np.ndarray, Micrograph | None]:
    """What was read; None, and a word, where a file turned out to be damaged."""
    try:
        return rows, micrograph.result()
    except InputError as error:
        log.error("%s: %d particles are not refined", error, len(rows))
        return rows, None


def _prepare(job: Job, files: Files) -> Micrograph:
    image, mean, spread = (read_image(path) for path in files)
    finite = np.isfinite(image)
    if not finite.all() and finite.any():
        count = image.size - int(finite.sum())
        log.warning("%s: %d pixels are NaN or infinite: set to the mean", files[0], count)
        image = np.where(finite, image, image[finite].mean())
    if job.maps_hold_variance:
        with np.errstate(invalid="ignore"):  # a negative variance gives a NaN score
            spread = np.sqrt(spread)
    with jax.default_device(job.mesh.devices.flat[0]):  # each thread has its own
        return prepare_micrograph(
            jnp.asarray(image),
            jnp.asarray(mean),
            jnp.asarray(spread),
            job.filters,
            global_filtering=job.config.apply_global_filtering,
            second_square_root=job.reproduces_leopard_em and not job.maps_hold_variance,
        )


def _batches(rows: np.ndarray, size: int) -> Iterator[np.ndarray]:
    for first in range(0, len(rows), size):
        yield rows[first : first + size]


def _refine(
    job: Job, micrograph: Micrograph, rows: np.ndarray, layout: Layout
) -> tuple[Refined, Layout]:
    """Refine one batch; it is filled up to one size, so that one compilation serves the
    run. And the layout that the devices' memory had room for."""
    missing = job.mesh.shape[PARTICLES] - len(rows)
    filled = np.concatenate([rows, np.repeat(rows[-1:], missing)])
    particles = cut_particles(
        micrograph,
        starting_alignment(job.start, filled),
        particle_optics(job.start, filled),
        jnp.asarray(job.template_pixel_size_angstrom[filled], jnp.float32),
        job.score,
        image_scale=_leopard_em_scale(job) if job.reproduces_leopard_em else 1.0,
        valid=jnp.arange(len(filled)) < len(rows),
    )
    refined, fitting = refine_within_memory(
        particles, job.template, job.grid, job.score, mesh=job.mesh, layout=layout
    )
    if fitting != layout:
        log.warning(
            "a device ran out of memory: %d orientations at once from here on, of %d",
            fitting.orientations,
            layout.orientations,
        )
    return jax.tree.map(lambda x: np.asarray(x)[: len(rows)], refined), fitting


def _leopard_em_scale(job: Job) -> float:
    """With global filtering Leopard-EM counts the box's area as (H + 1)(W + 1)."""
    if not job.config.apply_global_filtering:
        return 1.0
    height, width = job.score.box
    return float(np.sqrt(height * width / ((height + 1) * (width + 1))))


class _Results:
    """Results of the rows, as they come."""

    def __init__(self, job: Job):
        n = len(job.table)
        self._job = job
        self._own_start = job.table.start()
        self._defocus = np.asarray(job.grid.defocus_angstrom)
        self._pixel_size = np.asarray(job.grid.pixel_size_angstrom)
        self._status = np.full(n, Status.NOT_FINITE)
        self.columns = RefinedColumns(
            template_side=job.score.side,
            mip=np.full(n, np.nan, np.float32),
            scaled_mip=np.full(n, np.nan, np.float32),
            position_px=np.full((n, 2), np.nan),
            euler_deg=np.full((n, 3), np.nan),
            relative_defocus_angstrom=np.full(n, np.nan),
            pixel_size_angstrom=np.full(n, np.nan),
            snr=np.full(n, np.nan, np.float32),
            status=[""] * n,
        )

    def store_unreadable(self, rows: np.ndarray) -> None:
        """Say that the files of these rows could not be read."""
        self._status[rows] = Status.UNREADABLE
        for row in rows:
            self.columns.status[row] = Status.UNREADABLE.name.lower()

    def store(self, rows: np.ndarray, refined: Refined) -> None:
        """Keep the results of a batch; a particle that was not refined stays NaN."""
        columns, start = self.columns, self._own_start
        for row, status in zip(rows, refined.status, strict=True):
            columns.status[row] = Status(int(status)).name.lower()
        self._status[rows] = refined.status
        good = np.isfinite(refined.z_score)
        rows, refined = rows[good], jax.tree.map(lambda x: x[good], refined)
        at_pixel_size, at_defocus = refined.grid_index[:, 0], refined.grid_index[:, 1]
        columns.mip[rows] = refined.correlation
        columns.scaled_mip[rows] = refined.z_score
        columns.snr[rows] = refined.snr
        columns.position_px[rows] = refined.alignment.position_px
        rotation = refined.alignment.rotation.astype(np.float64)
        columns.euler_deg[rows] = matrix_to_euler(rotation)
        columns.relative_defocus_angstrom[rows] = (
            start.relative_defocus_angstrom[rows] + self._defocus[at_defocus]
        )
        columns.pixel_size_angstrom[rows] = (
            start.pixel_size_angstrom[rows] + self._pixel_size[at_pixel_size]
        )

    def summary(self, seconds: float) -> Summary:
        """Means over the particles that were refined."""
        refined = np.isfinite(self.columns.scaled_mip)
        table = self._job.table
        earlier = table.numbers("refined_scaled_mip")
        again = self._own_start.from_refined & np.isfinite(earlier)
        before = np.where(again, earlier, table.numbers("scaled_mip"))
        return Summary(
            output=self._job.output,
            particles=len(refined),
            refined=int(refined.sum()),
            mean_z_before=_mean(before[refined]),
            mean_z_after=_mean(self.columns.scaled_mip[refined]),
            mean_snr=_mean(self.columns.snr[refined]),
            statuses={s: int((self._status == s).sum()) for s in Status},
            seconds=seconds,
        )


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else float("nan")
