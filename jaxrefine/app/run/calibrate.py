"""Calibration: fit shared parameters to all particles together, and write the result."""

import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import jax
import numpy as np
from jaxtyping import Bool, Float, Int

from jaxrefine.app.config import Config
from jaxrefine.app.config.calibrate import OF_OPTICS
from jaxrefine.app.console.interrupts import Stop
from jaxrefine.app.run.calibration_inputs import (
    CalibrationInputs,
    in_batches_of,
    load_calibration,
)
from jaxrefine.app.run.devices import float32_only, free_bytes
from jaxrefine.app.run.landscape import scored_with
from jaxrefine.app.run.pipeline import filled_batches
from jaxrefine.data import Particles
from jaxrefine.refine.joint import JointFit, Model, State, fit_jointly
from jaxrefine.refine.joint_equations import reported_scores
from jaxrefine.refine.joint_scan import Ranges, coarse_scan

log = logging.getLogger("jaxrefine")

_AT_ONCE = 8  # on each device
_SHARE_OF_MEMORY = 0.25  # for particles; if it is too small, each pass reads them again


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Effect of a calibration on one half of the micrographs on the other half.

    Attributes:
        particles: Number of probable particles in the other half.
        z_before: Their mean score with refined poses and the starting values.
        z_after: The same with the values from the first half.
        gain_sigma: Standard error of the difference.
        of_rows: Whether the halves are of particles, because there is one micrograph.
        gain: Gain of each row; NaN for the first half.
    """

    particles: float
    z_before: float
    z_after: float
    gain_sigma: float
    of_rows: bool
    gain: Float[np.ndarray, " n"]


@dataclass(frozen=True, eq=False)
class Calibration:
    """Result of a calibration.

    Attributes:
        inputs: The inputs.
        before: Fit of the poses with fixed shared values.
        fit: Fit of all values.
        scores: Correlation, z-score and SNR of each row at the fitted values; NaN if it
            was not read.
        held_out: The check on other micrographs; None if there was none.
        seconds: Duration in seconds.
    """

    inputs: CalibrationInputs
    before: JointFit
    fit: JointFit
    scores: Float[np.ndarray, "n 3"]
    held_out: HeldOut | None
    seconds: float


@float32_only()
def calibrate(
    config: Config,
    output: Path | None = None,
    *,
    stop: Stop | None = None,
) -> Calibration:
    """Fit the parameters in the configuration's section `calibrate`.

    Args:
        config: Configuration of a refinement, with that section.
        output: The table that will be written; None: `<stem>_calibrated.csv` beside the
            particle table.
        stop: Called between batches.

    Raises:
        InputError: With all errors, before any long work.
        Stopped: The calibration was asked to stop.
    """
    began = time.monotonic()
    inputs = load_calibration(config, output)
    wanted, design = config.calibrate, inputs.design
    source = _Source(inputs, stop or Stop())
    mesh, template = inputs.run.mesh, scored_with(inputs.run)
    model = Model(source, design, template, inputs.run.score, mesh)
    every = np.ones(len(design.values), bool)
    options = {"robust": wanted.robust, "most_passes": wanted.max_passes}
    with jax.default_device(mesh.devices.flat[0]):
        before = fit_jointly(model, inputs.start, ~every, **options)
        _say("poses alone", before, before.weight)
        start = coarse_scan(model, before.state, *_ranges(inputs))
        fit = fit_jointly(model, start, every, **options)
        _say("with shared parameters", fit, before.weight)
        held_out = None
        if wanted.held_out and set(wanted.parameters) & set(OF_OPTICS):
            held_out = _held_out(model, inputs, before, start, options)
        scores = _scores(model, fit.state)
    return Calibration(inputs, before, fit, scores, held_out, time.monotonic() - began)


def _say(what: str, fit: JointFit, weight: np.ndarray) -> None:
    log.info(
        "fitted %s: mean 2DTM SNR %.2f, %d passes", what, mean_z(fit, weight), fit.passes
    )


def _scores(model: Model, state: State) -> Float[np.ndarray, "n 3"]:
    found = np.full((len(state.own), 3), np.nan)
    at = model.design.coordinates(state.own, state.shared)
    for rows, some in model.each(reported_scores, at):
        found[rows] = some
    return found


def _ranges(inputs: CalibrationInputs) -> tuple[Ranges, float]:
    wanted = inputs.run.config.calibrate
    ranges = Ranges(wanted.pixel_size_range, wanted.defocus_range, wanted.beam_tilt_range)
    return ranges, float(inputs.run.start.pixel_size_angstrom.mean())


class _Source:
    """The particles of a run for repeated passes; kept in memory if they fit."""

    def __init__(self, inputs: CalibrationInputs, stop: Stop):
        self.run, self.stop = in_batches_of(inputs.run, _AT_ONCE), stop
        self._kept: list[tuple[np.ndarray, Particles]] = []
        self._complete, self._room = False, True

    def __call__(self) -> Iterator[tuple[Int[np.ndarray, " b"], Particles]]:
        rows = np.arange(len(self.run.table))
        batches = self._kept if self._complete else filled_batches(self.run, rows)
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
        batches = len(self.run.table) / len(rows)
        if (batches - len(self._kept)) * size > left:
            self._room, self._kept = False, []
            log.info("particles do not fit into memory: they are read in each pass")
        else:
            self._kept.append((rows, particles))


def _held_out(
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
    fitted = fit_jointly(_only(model, first), start, every, **options)
    others = _only(model, ~first)
    scores = []
    for shared in (before.state.shared, fitted.state.shared):
        values = np.where(optics, shared, start.shared)
        fit = fit_jointly(others, State(values, before.state.own), ~optics, **options)
        scores.append(fit.z)
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


def mean_z(fit: JointFit, weight: Float[np.ndarray, " n"]) -> float:
    """Mean score of the probable particles."""
    known = np.isfinite(fit.z)
    return float(np.average(fit.z[known], weights=weight[known] + 1e-12))
