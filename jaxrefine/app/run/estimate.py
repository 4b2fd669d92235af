"""Work, duration, memory and output of a run, for `jaxrefine plan`."""

import itertools
import math
import time
from dataclasses import dataclass

import jax
import psutil

from jaxrefine.app.run.checkpoint import Checkpoint
from jaxrefine.app.run.checks import Files
from jaxrefine.app.run.devices import float32_only
from jaxrefine.app.run.inputs import RunInputs
from jaxrefine.app.run.pipeline import micrographs, refine_batch
from jaxrefine.app.run.results import Results
from jaxrefine.data import InputError
from jaxrefine.io.maps import MEAN, SPREAD, map_shape
from jaxrefine.io.mrc import image_shape


@dataclass(frozen=True)
class Calibration:
    """Times of one batch of a run.

    Attributes:
        prepare_s: Reading and filtering one micrograph.
        first_s: The first batch, including compilation or loading from the cache.
        batch_s: The same batch again.
    """

    prepare_s: float
    first_s: float
    batch_s: float


@float32_only()
def calibrate(inputs: RunInputs) -> Calibration:
    """Refine the first batch of the first micrograph twice, and discard the results.

    Raises:
        InputError: The micrograph or one of its maps cannot be read.
    """
    rows = next(iter(inputs.groups.values()))[: inputs.particles_at_once]
    times = [time.perf_counter()]
    with jax.default_device(inputs.mesh.devices.flat[0]):
        # The first preparation includes compilation.
        for _ in range(2):
            ((_, micrograph),) = micrographs(inputs, {0: rows})
            times.append(time.perf_counter())
        if micrograph is None:
            raise InputError("the first micrograph cannot be read: no time was estimated")
        layout = inputs.layout
        for _ in range(2):
            _, layout = refine_batch(inputs, micrograph, rows, layout)
            times.append(time.perf_counter())
    _, prepare_s, first_s, batch_s = (b - a for a, b in itertools.pairwise(times))
    return Calibration(prepare_s, first_s, batch_s)


def format_work(
    inputs: RunInputs, left: dict[int, int], measured: Calibration | None
) -> list[str]:
    """Amount of work, and its estimated duration.

    Args:
        inputs: The run.
        left: Number of particles left in each micrograph.
        measured: Measured times; None omits the duration.
    """
    at_once, particles = inputs.particles_at_once, sum(left.values())
    lines = [f"{particles * inputs.poses:,} correlations in total"]
    if measured is None:
        return lines
    batches = sum(math.ceil(count / at_once) for count in left.values())
    # Threads prepare micrographs while others are searched.
    ahead = inputs.threads
    preparing = sum(count > 0 for count in left.values()) * measured.prepare_s / ahead
    seconds = max(batches * measured.batch_s, preparing) + measured.first_s
    device = inputs.mesh.devices.flat[0].device_kind
    return [
        *lines,
        f"about {_duration(seconds)} on this machine: {batches:,} batches of "
        f"up to {at_once} particles, {measured.batch_s:.2g} s each, and "
        f"{measured.first_s:.2g} s for the first one, with compilation",
        f"  (measured on one batch, on {inputs.mesh.size} x {device}; a micrograph takes "
        f"{measured.prepare_s:.2g} s to read and filter, in parallel)",
    ]


def format_memory(inputs: RunInputs) -> list[str]:
    """Memory use; measured if a batch has been refined."""
    templates = (inputs.template, inputs.smooth_template)
    template = sum(leaf.nbytes for leaf in jax.tree.leaves(templates))
    largest = max(4 * sum(map(math.prod, _shapes(files))) for files in inputs.groups)
    ahead = inputs.threads + 1
    lines = [
        f"template {_mib(template)} on each device, a matrix product of up to "
        f"{_mib(inputs.layout.column_bytes)}",
        f"host: {_mib(psutil.Process().memory_info().rss)} now, plus up to {ahead} "
        f"prepared micrographs with maps, of {_mib(largest)} (and some copies) each",
    ]
    for device in inputs.mesh.devices.flat:
        stats = device.memory_stats() or {}
        if "peak_bytes_in_use" in stats:
            lines.append(
                f"{device}: {_mib(stats['peak_bytes_in_use'])} used at the peak, of "
                f"{_mib(stats.get('bytes_limit', 0))}"
            )
    return lines


def format_output(
    inputs: RunInputs, checkpoint: Checkpoint, results: Results, *, fresh: bool
) -> list[str]:
    """The output, and whether an interrupted run would be resumed."""
    verb = "overwrites" if inputs.output.exists() else "writes"
    lines = [f"{verb} {inputs.output}"]
    lines.append(f"checkpoint during the run: {checkpoint.folder}")
    done = int(results.done.sum())
    if fresh:
        lines.append("starts from the beginning: --fresh")
    elif done:
        lines.append(
            f"resumes an interrupted run: {done} of {len(results.done)} particles are "
            "already refined"
        )
    else:
        lines.append("starts from the beginning: there is no interrupted run")
    return lines


def particles_left(results: Results) -> dict[int, int]:
    """Number of particles left, by number of the micrograph."""
    groups = results.inputs.groups.values()
    return {n: int((~results.done[rows]).sum()) for n, rows in enumerate(groups)}


def _duration(seconds: float) -> str:
    """A duration in a suitable unit: 40 s, 12 min, 3.5 h."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    if seconds < 6000:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def _mib(count: float) -> str:
    return f"{count / 2**20:,.0f} MiB"


def _shapes(files: Files) -> list[tuple[int, int]]:
    micrograph, mean, spread = files
    return [
        image_shape(micrograph, warn=False),
        map_shape(mean, MEAN, warn=False),
        map_shape(spread, SPREAD, warn=False),
    ]
