"""Calibration: fit shared parameters to all particles together, and write the result."""

import logging
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
from jaxtyping import Bool, Float, Int

from jaxrefine.app.cluster.process_group import ProcessGroup, balance_loads
from jaxrefine.app.config import Config
from jaxrefine.app.config.calibrate import OF_OPTICS
from jaxrefine.app.config.yaml_writer import write_yaml
from jaxrefine.app.console.interrupts import Stop, Stopped
from jaxrefine.app.run.calibrated_table import write_calibrated_table
from jaxrefine.app.run.calibration import Calibration, HeldOut, mean_z
from jaxrefine.app.run.calibration_inputs import (
    CalibrationInputs,
    in_batches_of,
    load_calibration,
)
from jaxrefine.app.run.calibration_report import calibration_data
from jaxrefine.app.run.checkpoint import Checkpoint
from jaxrefine.app.run.devices import float32_only, free_bytes
from jaxrefine.app.run.kept_fits import KeptFits
from jaxrefine.app.run.landscape import scored_with
from jaxrefine.app.run.pipeline import filled_batches
from jaxrefine.app.run.process_sums import SumsOnDisk
from jaxrefine.data import InputError, Particles
from jaxrefine.refine.joint_equations import reported_scores
from jaxrefine.refine.joint_model import JointFit, Model, State
from jaxrefine.refine.joint_scan import Ranges, coarse_scan

log = logging.getLogger("jaxrefine")

_AT_ONCE = 8  # on each device
_LEAST_SPREAD = 5.0  # Å
_SHARE_OF_MEMORY = 0.25  # for particles; if it is too small, each pass reads them again


@float32_only()
def calibrate(
    config: Config,
    output: Path | None = None,
    *,
    fresh: bool = False,
    processes: ProcessGroup | None = None,
) -> Calibration:
    """Fit the parameters in the configuration's section `calibrate`, and write the results.

    Finished fits, and the state of the running one, are kept beside the output (see
    `kept_fits`); a calibration that finds such of the same inputs resumes from them.

    Args:
        config: Configuration of a refinement, with that section.
        output: The table to write; None: `<stem>_calibrated.csv` beside the particle table.
        fresh: Delete what an interrupted calibration has left, and start again.
        processes: The processes that share the particles, from `join_processes`; None for
            one. The first one writes.

    Raises:
        InputError: With all errors, before any long work; or no particle could be read.
        Stopped: The calibration was asked to stop, or lost a process.
    """
    began = time.monotonic()
    processes = processes or ProcessGroup()
    inputs = processes.on_all("inputs", lambda: load_calibration(config, output))
    checkpoint = processes.on_all(
        "fingerprint", lambda: Checkpoint(inputs.run, calibration=True)
    )
    try:
        processes.first("begin", lambda: checkpoint.begin(fresh=fresh))
        fitted = _fitted(inputs, checkpoint, processes)
        made = replace(fitted, seconds=time.monotonic() - began)
        processes.first("written", lambda: _write(made))
        if processes.is_first:
            checkpoint.remove()
        return made
    except Stopped as stopped:
        kept = "the same command continues" if checkpoint.any_saved() else ""
        text = f"{stopped}: what was fitted is kept in {checkpoint.folder}; {kept}"
        text = text if kept else f"{stopped}: nothing was written"
        raise Stopped(text if processes.is_first else "", stopped.exit_code) from None
    finally:
        checkpoint.close(shared=processes.count > 1)


def _fitted(
    inputs: CalibrationInputs, checkpoint: Checkpoint, processes: ProcessGroup
) -> Calibration:
    """All fits of a calibration."""
    wanted, design, run = inputs.run.config.calibrate, inputs.design, inputs.run
    groups = list(run.groups.values())
    share = balance_loads([len(rows) for rows in groups], processes.count)
    rows = np.concatenate([groups[n] for n in share[processes.index]] or [np.zeros(0, int)])
    source = _Source(inputs, rows, processes.stop)
    total = SumsOnDisk(processes, checkpoint.folder)
    template = scored_with(run)
    model = Model(source, design, template, run.score, run.mesh, total)
    fits = KeptFits(checkpoint.folder, checkpoint.digest, processes, total)
    every = np.ones(len(design.values), bool)
    options = {"robust": wanted.robust, "most_passes": wanted.max_passes}
    with jax.default_device(run.mesh.devices.flat[0]):
        before = fits.fit("poses", model, inputs.start, ~every, **options)
        _say("poses alone", before, before.weight)
        start = fits.state(
            "scan",
            lambda: coarse_scan(model, before.state, *_ranges(inputs)),
            len(every),
            len(run.table),
        )
        near = start
        if wanted.defocus_sigma == "auto":
            first = fits.fit("spread", model, start, every, errors=False, **options)
            near = first.state
            model = _with_spread(model, first)
        fit = fits.fit("all", model, near, every, **options)
        _say("with shared parameters", fit, before.weight)
        gains = {}
        if wanted.likelihood_ratio:
            gains = _likelihood_gains(fits, model, inputs, fit, options)
        held_out = None
        if wanted.held_out and set(wanted.parameters) & set(OF_OPTICS):
            held_out = _held_out(fits, model, inputs, before, start, options)
        scores = _scores(model, fit.state)
    inputs = replace(inputs, design=model.design)
    return Calibration(inputs, before, fit, scores, held_out, gains, 0.0)


def _with_spread(model: Model, fit: JointFit) -> Model:
    """The model with the spread of the particles' defocus that a fit has found."""
    found = fit.defocus_spread(model.design)
    if np.isfinite(found.error_angstrom):
        log.info(
            "particles lie %.0f ± %.0f Å around their common defocus",
            found.sigma_angstrom,
            found.error_angstrom,
        )
        sigma = model.design.own_sigma.copy()
        sigma[-1] = max(found.sigma_angstrom, _LEAST_SPREAD)
        model = replace(model, design=replace(model.design, own_sigma=sigma))
    return model


def _likelihood_gains(
    fits: KeptFits, model: Model, inputs: CalibrationInputs, fit: JointFit, options: dict
) -> dict[tuple[str, int], float]:
    """Gain over a fit with one parameter of the optics held at its start, for each."""
    gains = {}
    for name, groups in inputs.groups.items():
        for group in range(len(groups)) if name in OF_OPTICS else ():
            held = model.design.numbers(name, group)
            if not fit.determined[held].any():
                continue
            shared, free = fit.state.shared.copy(), fit.determined.copy()
            shared[held], free[held] = 0.0, False
            start, quick = State(shared, fit.state.own), {**options, "errors": False}
            without = fits.fit(
                f"without_{name}_{group}", model, start, free, strength_z=fit.z, **quick
            )
            away = np.nan_to_num(fit.log_likelihood - without.log_likelihood)
            gains[name, group] = float(fit.weight @ away)
    return gains


def _write(made: Calibration) -> None:
    """Write the table and the values.

    Raises:
        InputError: A file cannot be written, or no particle was scored.
    """
    if not np.isfinite(made.fit.z).any():
        source = made.inputs.run.config.source
        raise InputError(f"{source}: no particle could be read and scored")
    write_calibrated_table(made)
    write_yaml(calibration_data(made), made.inputs.values_path)


def _say(what: str, fit: JointFit, weight: np.ndarray) -> None:
    log.info(
        "fitted %s: mean 2DTM SNR %.2f, %d passes", what, mean_z(fit, weight), fit.passes
    )


def _scores(model: Model, state: State) -> Float[np.ndarray, "n 3"]:
    found, known = np.zeros((len(state.own), 3)), np.zeros(len(state.own))
    at = model.design.coordinates(state.own, state.shared)
    for rows, some in model.each(reported_scores, at):
        found[rows], known[rows] = some, 1.0
    found, known = model.total([found, known])
    return np.where(known[:, None] > 0, found, np.nan)


def _ranges(inputs: CalibrationInputs) -> tuple[Ranges, float]:
    wanted = inputs.run.config.calibrate
    ranges = Ranges(wanted.pixel_size_range, wanted.defocus_range, wanted.beam_tilt_range)
    return ranges, float(inputs.run.start.pixel_size_angstrom.mean())


class _Source:
    """Some particles of a run for repeated passes; kept in memory if they fit."""

    def __init__(self, inputs: CalibrationInputs, rows: np.ndarray, stop: Stop):
        self.run, self.rows, self.stop = in_batches_of(inputs.run, _AT_ONCE), rows, stop
        self._kept: list[tuple[np.ndarray, Particles]] = []
        self._complete, self._room = False, True

    def __call__(self) -> Iterator[tuple[Int[np.ndarray, " b"], Particles]]:
        batches = self._kept if self._complete else filled_batches(self.run, self.rows)
        keeping = self._room and not self._complete
        for some, particles in batches:
            self.stop.check()
            if keeping and self._room:
                self._keep(some, particles)
            yield some, particles
        self._complete = self._complete or (keeping and self._room)

    def _keep(self, rows: np.ndarray, particles: Particles) -> None:
        size = sum(leaf.nbytes for leaf in jax.tree.leaves(particles))
        left = free_bytes(self.run.mesh.devices.flat[0]) * _SHARE_OF_MEMORY
        batches = len(self.rows) / len(rows)
        if (batches - len(self._kept)) * size > left:
            self._room, self._kept = False, []
            log.info("particles do not fit into memory: they are read in each pass")
        else:
            self._kept.append((rows, particles))


def _held_out(
    fits: KeptFits,
    model: Model,
    inputs: CalibrationInputs,
    before: JointFit,
    start: State,
    options: dict,
) -> HeldOut:
    """Fit the optics to half of the micrographs, and score the others with the result."""
    design, groups = model.design, list(inputs.run.groups.values())
    of_rows = len(groups) == 1
    first = np.zeros(len(inputs.run.table), bool)
    if of_rows:
        first[::2] = True
    else:
        for rows in groups[::2]:
            first[rows] = True
    options = {**options, "errors": False}
    every = np.ones(len(design.values), bool)
    optics = np.array([value.parameter in OF_OPTICS for value in design.values])
    fitted = fits.fit("half", _only(model, first), start, every, **options)
    others = _only(model, ~first)
    scores = []
    cases = {"half_start": before.state.shared, "half_fitted": fitted.state.shared}
    for name, shared in cases.items():
        values = np.where(optics, shared, start.shared)
        there = State(values, before.state.own)
        scores.append(fits.fit(name, others, there, ~optics, **options).z)
    weight = np.where(first | ~np.isfinite(scores[0] + scores[1]), 0.0, before.weight)
    total, gain = weight.sum(), np.where(first, np.nan, scores[1] - scores[0])
    if total == 0:
        return HeldOut(0.0, np.nan, np.nan, np.nan, of_rows, gain)
    z_before, z_after = (float(weight @ np.nan_to_num(z) / total) for z in scores)
    away = np.nan_to_num(gain) - (z_after - z_before)
    sigma = float(np.sqrt(weight**2 @ away**2) / total)
    return HeldOut(float(total), z_before, z_after, sigma, of_rows, gain)


def _only(model: Model, rows: Bool[np.ndarray, " n"]) -> Model:
    """The model with some rows only; rows in no batch do not contribute."""

    def source() -> Iterator[tuple[np.ndarray, Particles]]:
        for some, particles in model.source():
            chosen = np.flatnonzero(rows[some])
            if len(chosen):
                yield some[chosen], particles[chosen].padded(len(particles))

    return replace(model, source=source)
