"""A run, from configuration to refined table. Start reading at `run`.

Read and check everything, distribute the micrographs, then for each micrograph filter it,
extract batches of particles, search, polish and save; finally write the table.
"""

import logging
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from jaxrefine.app.cluster.process_group import ProcessGroup, balance_loads
from jaxrefine.app.config import Config
from jaxrefine.app.console.exit_codes import EXIT_FAILED
from jaxrefine.app.console.interrupts import Stopped
from jaxrefine.app.console.progress import Progress
from jaxrefine.app.console.summary import Summary
from jaxrefine.app.run.accuracy import ApproximationMonitor, SymmetryMonitor
from jaxrefine.app.run.checkpoint import Checkpoint
from jaxrefine.app.run.checks import Files
from jaxrefine.app.run.convention_check import StartWatch
from jaxrefine.app.run.devices import float32_only
from jaxrefine.app.run.envelope import Envelope, find_envelope, use_envelope
from jaxrefine.app.run.inputs import RunInputs, describe, load_run
from jaxrefine.app.run.particles import extract_rows, read_and_prepare
from jaxrefine.app.run.programs import compile_ahead, refine_particles_of
from jaxrefine.app.run.results import Results
from jaxrefine.data import InputError, Particles, Polished, Refined
from jaxrefine.refine.layout import Layout
from jaxrefine.refine.prepare import Micrograph

log = logging.getLogger("jaxrefine")

# Interval between saves within a micrograph, which may hold a thousand particles.
_SECONDS_BETWEEN_SAVES = 10.0
# Network file systems may show files of another machine with delay.
_SECONDS_FOR_PARTS_TO_APPEAR = 120.0


@float32_only()
def run(
    config: Config,
    *,
    output: Path | None = None,
    quiet: bool = False,
    json_progress: bool = False,
    fresh: bool = False,
    keep_parts: bool = False,
    processes: ProcessGroup | None = None,
    after_each: Callable[[Results, Checkpoint], None] | None = None,
) -> Summary | None:
    """Refine the particles that a configuration names, and write the refined table.

    Finished results are kept beside the output during the run (see `checkpoint`); a run
    that finds such results of the same inputs resumes from them.

    Args:
        config: From `Config.load` or `Config.from_dict`.
        output: Overrides the configuration's output path.
        quiet: Show no progress.
        json_progress: Log progress as events, for `--json-progress`.
        fresh: Delete the checkpoint of an earlier run, and start again.
        keep_parts: Keep the checkpoint after the table is written; starting the same run
            again then ends at once.
        processes: The processes that share the run, from `join_processes`; None for one.
        after_each: Called in the first process after each micrograph but the last.

    Returns:
        Summary of the results; None in all processes except the first.

    Raises:
        InputError: With all errors, before any long work.
        Stopped: The run was asked to stop, or lost a process; finished results are kept.
    """
    started = time.monotonic()
    processes = processes or ProcessGroup()
    inputs = processes.on_all("inputs", lambda: load_run(config, output))
    for line in describe(inputs):
        log.info("%s", line)
    checkpoint = processes.on_all("fingerprint", lambda: Checkpoint(inputs))
    results = Results(inputs)
    try:
        shares = processes.first(
            "shares", lambda: _begin(results, checkpoint, fresh, processes.count)
        )
        mine = shares[processes.index]
        found = processes.first(
            "envelope", lambda: checkpoint.once(lambda: asdict(envelope_of(inputs)))
        )
        log.info("%s", found["text"])
        results.inputs = use_envelope(inputs, found["extra_b_angstrom2"])
        progress = partial(Progress, quiet=quiet, json_lines=json_progress)
        share = (results, checkpoint, mine, processes, progress, after_each)
        processes.on_all("refined", lambda: _refine_share(*share))
        processes.first("written", lambda: _write(results, checkpoint, processes))
        if processes.is_first and not keep_parts:
            checkpoint.remove()
    except Stopped as stopped:
        text = _how_to_continue(stopped, results, checkpoint, processes)
        raise Stopped(text, stopped.exit_code) from None
    except InputError as error:  # for example a full disk
        raise _with_what_is_kept(error, checkpoint, results) from error
    finally:
        checkpoint.close(shared=processes.count > 1)
    return results.summary(time.monotonic() - started) if processes.is_first else None


def _begin(
    results: Results, checkpoint: Checkpoint, fresh: bool, count: int
) -> list[list[int]]:
    """Lock the checkpoint and load it; returns the micrographs of each process."""
    groups = results.inputs.groups
    checkpoint.begin(fresh=fresh)
    results.load(checkpoint, range(len(groups)))
    results.continued = int(results.done.sum())
    if results.continued:
        log.info(
            "resuming an interrupted run: %d of %d particles are already refined (%d of %d "
            "micrographs are complete)",
            results.continued,
            len(results.done),
            sum(results.done[rows].all() for rows in groups.values()),
            len(groups),
        )
    return balance_loads(
        [int((~results.done[rows]).sum()) for rows in groups.values()], count
    )


def envelope_of(inputs: RunInputs) -> Envelope:
    """The envelope with which the run's particles are refined."""
    with jax.default_device(inputs.mesh.devices.flat[0]):
        return find_envelope(inputs, partial(filled_batches, meanwhile=compile_ahead))


def _refine_share(
    results: Results,
    checkpoint: Checkpoint,
    numbers: list[int],
    processes: ProcessGroup,
    new_progress: Callable[..., Progress],
    after_each: Callable[[Results, Checkpoint], None] | None,
) -> None:
    """Refine the remaining particles of some micrographs, and save results regularly."""
    inputs = results.inputs
    if not processes.is_first:  # the first process has loaded everything
        results.load(checkpoint, numbers)
    files, groups = list(inputs.groups), list(inputs.groups.values())
    left = {number: groups[number][~results.done[groups[number]]] for number in numbers}
    if left:
        log.info("compiling: up to a minute the first time; later runs reuse the programs")
    total = sum(map(len, left.values()))
    of_all = (
        f" of process {processes.index} of {processes.count}" if processes.count > 1 else ""
    )
    progress = new_progress(total, inputs.poses, whose=of_all)
    layout = inputs.layout

    def compile_meanwhile(inputs: RunInputs) -> None:
        nonlocal layout
        layout = _less_memory(layout, compile_ahead(inputs))

    monitor = ApproximationMonitor(enabled=not inputs.scores_all_exactly)
    symmetry = SymmetryMonitor()
    watch = StartWatch(inputs, read_and_prepare, enabled=processes.is_first)
    with progress, jax.default_device(inputs.mesh.devices.flat[0]):
        for number, micrograph in micrographs(inputs, left, compile_meanwhile):
            processes.stop.check()
            if after_each is not None and processes.is_first:
                after_each(results, checkpoint)
            saved, name = time.monotonic(), files[number][0].name
            try:
                if micrograph is None:
                    results.store_unreadable(left[number])
                    progress.update(len(left[number]), name)
                    continue
                places = inputs.start.position_px[left[number]]
                symmetry.check(files[number][0], micrograph, places, inputs.score)
                results.mark_filled(left[number], micrograph)
                for batch in in_batches(left[number], inputs.particles_at_once):
                    found, fitting = refine_batch(inputs, micrograph, batch, layout)
                    layout = _less_memory(layout, fitting)
                    results.store(batch, *found[:2])
                    results.mark_significance(batch, found[0], found[2], micrograph)
                    monitor.check(found[0])
                    last = bool(batch[-1] == left[number][-1])
                    watch.see(number, batch, np.asarray(found[0].z_score), last=last)
                    progress.update(len(batch), name)
                    if time.monotonic() - saved > _SECONDS_BETWEEN_SAVES:
                        results.save(checkpoint, number, groups[number])
                        saved = time.monotonic()
                    processes.stop.check()
            finally:  # also after a request to stop, or if out of memory
                results.save(checkpoint, number, groups[number])


def _less_memory(layout: Layout, fitting: Layout) -> Layout:
    """The layout that fitted; a warning if it is not the given one."""
    if fitting != layout:
        log.warning(
            "a device ran out of memory: %d orientations at once from here on, of %d",
            fitting.orientations,
            layout.orientations,
        )
    return fitting


def _write(results: Results, checkpoint: Checkpoint, processes: ProcessGroup) -> None:
    """Write the table with the results of all processes, in the order of the input."""
    inputs = results.inputs
    if processes.count > 1:
        patience = time.monotonic() + _SECONDS_FOR_PARTS_TO_APPEAR
        while not results.load(checkpoint, range(len(inputs.groups)), final=True):
            if time.monotonic() > patience:
                missing = int((~results.done).sum())
                text = f"results of {missing} particles, which another process wrote, are "
                text += f"not to be seen in {checkpoint.folder} (do all machines share it?)"
                raise Stopped(text, EXIT_FAILED)
            processes.stop.check()
            time.sleep(1.0)
    results.write(inputs.output)


def _how_to_continue(
    stopped: Stopped, results: Results, checkpoint: Checkpoint, processes: ProcessGroup
) -> str:
    """Message about resuming a run that ended early, printed by process 0."""
    if not processes.is_first:
        return ""
    kept = f"{results.done.sum()} of {len(results.done)} particles are"
    if processes.count > 1:
        kept = "what all processes refined is"
    elif not results.done.any():
        return f"{stopped}: nothing was written"
    return f"{stopped}: {kept} kept in {checkpoint.folder}; the same command continues"


def _with_what_is_kept(
    error: InputError, checkpoint: Checkpoint, results: Results
) -> InputError:
    """An error during the run, with a note on the results that are kept."""
    if not (error.errors and results.done.any() and checkpoint.any_saved()):
        return error
    kept = (
        f"what was saved before is kept in {checkpoint.folder}; the same command continues"
    )
    return InputError([*error.errors, kept])


def micrographs(
    inputs: RunInputs,
    left: Mapping[int, np.ndarray],
    meanwhile: Callable[[RunInputs], object] | None = None,
) -> Iterator[tuple[int, Micrograph | None]]:
    """Number and micrograph of each group; threads read and prepare ahead.

    The function `meanwhile` is called while they read the first ones. The program that
    extracts particles is then compiled by one of them.
    """
    # The frames of one movie at a time: they use all processors, and much memory.
    workers = 1 if inputs.movies else inputs.threads
    files = list(inputs.groups)
    prepare = read_and_prepare if meanwhile is None else _prepare_and_extract
    waiting: deque[tuple[int, int, Future[Micrograph]]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        for number, rows in left.items():
            prepared = pool.submit(prepare, inputs, files[number], rows)
            prepare = read_and_prepare
            waiting.append((number, len(rows), prepared))
            if len(waiting) > workers:
                if meanwhile is not None:
                    meanwhile(inputs)
                    meanwhile = None
                yield _result(*waiting.popleft())
        if meanwhile is not None and waiting:
            meanwhile(inputs)
        while waiting:
            yield _result(*waiting.popleft())


def _prepare_and_extract(inputs: RunInputs, files: Files, rows: np.ndarray) -> Micrograph:
    """`read_and_prepare`; the first batch is extracted to compile the program for it."""
    micrograph = read_and_prepare(inputs, files, rows)
    device = inputs.mesh.devices.flat[0]
    # An error appears again when the batch is extracted to be refined.
    with suppress(InputError), jax.default_device(device):  # each thread has its own
        _filled(inputs, micrograph, rows[: inputs.particles_at_once])
    return micrograph


def _result(
    number: int, particles: int, micrograph: "Future[Micrograph]"
) -> tuple[int, Micrograph | None]:
    """The prepared micrograph; None, with a warning, if a file is damaged."""
    try:
        return number, micrograph.result()
    except InputError as error:
        log.warning("%s: %d particles are not refined", error, particles)
        return number, None


def filled_batches(
    inputs: RunInputs,
    rows: np.ndarray,
    meanwhile: Callable[[RunInputs], object] | None = None,
) -> Iterator[tuple[np.ndarray, Particles]]:
    """Rows and their particles, in batches padded to one size, without unreadable ones.

    `meanwhile` as in `micrographs`.
    """
    at_once = inputs.particles_at_once
    left = {
        number: np.intersect1d(members, rows)
        for number, members in enumerate(inputs.groups.values())
    }
    left = {number: some for number, some in left.items() if len(some)}
    for number, micrograph in micrographs(inputs, left, meanwhile):
        if micrograph is None:
            continue
        for batch in in_batches(left[number], at_once):
            yield batch, _filled(inputs, micrograph, batch)


def _filled(inputs: RunInputs, micrograph: Micrograph, rows: np.ndarray) -> Particles:
    """Some particles, padded to a fixed size, so that the run compiles once."""
    missing = inputs.particles_at_once - len(rows)
    filled = np.concatenate([rows, np.repeat(rows[-1:], missing)])
    valid = jnp.asarray(np.arange(len(filled)) < len(rows))
    return extract_rows(inputs, micrograph, filled, valid)


def in_batches(rows: np.ndarray, size: int) -> Iterator[np.ndarray]:
    for first in range(0, len(rows), size):
        yield rows[first : first + size]


def refine_batch(
    inputs: RunInputs, micrograph: Micrograph, rows: np.ndarray, layout: Layout
) -> tuple[tuple[Refined, Polished | None, np.ndarray | None], Layout]:
    """Search and polish one batch, and compute the score's metric if it is needed; also
    returns the layout that fitted into the devices' memory."""
    particles = _filled(inputs, micrograph, rows)
    found, fitting = refine_particles_of(inputs, particles, layout)
    return jax.tree.map(lambda x: np.asarray(x)[: len(rows)], found), fitting


def particles_of(inputs: RunInputs, files: Files, rows: np.ndarray) -> Particles:
    """Some particles of one micrograph, as the search receives them.

    Raises:
        InputError: A file cannot be read.
    """
    return extract_rows(inputs, read_and_prepare(inputs, files, rows), rows)
