"""Joint fit of shared parameters and of each particle's own pose.

Damped Gauss-Newton over all of them together; `joint_equations` has the equations.
"""

from collections.abc import Callable
from dataclasses import replace

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from jaxrefine.refine.joint_equations import (
    Eliminated,
    Equations,
    eliminate,
    equations,
    log_determinant,
    own_defocus,
)
from jaxrefine.refine.joint_model import JointFit, Model, Progress, State
from jaxrefine.refine.membership import particle_probability
from jaxrefine.refine.pose_errors import strength_squared
from jaxrefine.refine.shared import OWN_COUNT

# Initial damping, its factors after a step without and with gain, and its limits.
_DAMPING, _GROWTH, _FALL, _LEAST_DAMPING, _MOST_DAMPING = 0.05, 8.0, 0.2, 0.01, 1e6
_OWN_DAMPING = 0.1
# Degrees, px and Å: limits of a step, beyond which the curvature is not valid.
_LONGEST_OWN_STEP = np.array([3.0, 3.0, 3.0, 1.0, 1.0, 300.0])
# The fit ends if the predicted gain in log likelihood of the next step is below this: per
# shared value (0.06 standard errors), and for the six own coordinates of a particle; or
# below the roughness of the scores, around which those wander.
_LEAST_GAIN, _LEAST_OWN_GAIN = 2e-3, 1e-2
# Fraction of z² by which scores are rough, since frequencies of a rotated slice leave the
# stored cube one by one. A step may lose as much; otherwise the fit would end, with all
# damping, at a point that is higher by chance.
_ROUGHNESS = 5e-4
# A value is determined if at least this fraction of its information is from the data, not
# from its prior.
_KNOWN_SHARE = 0.5
# Values of a smaller correlation may be held together.
_UNRELATED = 0.1
# Passes in which poses follow a displacement of the shared values.
_POSE_PASSES = 2
# Least curvature relative to the Fisher information that is taken as it is measured.
_LEAST_CURVATURE = 0.25


def fit_jointly(
    model: Model,
    start: State,
    free: Bool[np.ndarray, " s"],
    *,
    robust: bool = True,
    errors: bool = True,
    most_passes: int = 25,
    strength_z: Float[np.ndarray, " n"] | None = None,
    resume: Progress | None = None,
    keep: Callable[[Progress], None] | None = None,
) -> JointFit:
    """Maximise the likelihood of all particles.

    Args:
        model: The particles, and the model of their images.
        start: Starting values.
        free: Mask of the shared values to fit. Those that the data do not determine are
            fixed one after another, the least certain first.
        robust: Weight picks by the probability that they are particles.
        errors: Compute the covariance, in four more passes; otherwise it is that of the
            Fisher information, whose standard errors are too small by some per cent.
        most_passes: Largest number of passes over all particles.
        strength_z: Scores whose strengths the reported log likelihood adjusts a B-factor
            with, for comparison with another fit; None: those of this fit.
        resume: Go on from there, to the same result.
        keep: Called before each step.
    """
    fit = _Fit(model, start, robust, resume)
    free = fit.determined(free) if resume is None else resume.free
    while fit.passes < most_passes and fit.damping < _MOST_DAMPING:
        if keep is not None:
            keep(fit.progress(free))
        gain, own_gain = fit.step(free)
        if gain > _LEAST_GAIN * free.sum() or own_gain > fit.least_own_gain():
            continue
        still = fit.determined(free)
        if (still == free).all():
            return fit.result(free, strength_z, converged=True, errors=errors)
        fit.put_back(free & ~still, start)
        free = still
    return fit.result(free, strength_z, converged=False, errors=errors)


class _Fit:
    """The state of a running fit."""

    def __init__(
        self, model: Model, start: State, robust: bool, resume: Progress | None = None
    ):
        self.model, self.robust = model, robust
        self.state = start if resume is None else resume.state
        self.damping, self.passes = _DAMPING, 0
        self.own_damping = np.full(len(start.own), _OWN_DAMPING)
        self.found = self._pass(self.state)
        # The rows that this process reads; the others contribute nothing to its sums.
        self.mine = np.isfinite(self.found.z)
        self.weight = self._weights(self.found)
        if resume is not None:
            self.damping, self.own_damping = resume.damping, resume.own_damping
            self.passes = resume.passes

    def progress(self, free: np.ndarray) -> Progress:
        """What a later fit needs to go on from here."""
        own, own_damping = self._of_all(self.state.own, self.own_damping)
        state = State(self.state.shared, own)
        return Progress(state, free, self.damping, own_damping, self.passes)

    def _of_all(self, *values: np.ndarray) -> list[np.ndarray]:
        """Values of all rows, each from the process that reads it."""
        mine = self.mine.astype(float)
        parts = [
            np.nan_to_num(value) * (mine if value.ndim == 1 else mine[:, None])
            for value in values
        ]
        count, *parts = self.model.total([mine, *parts])
        there = count > 0
        return [
            np.where(there if value.ndim == 1 else there[:, None], part, value)
            for value, part in zip(values, parts, strict=True)
        ]

    def _pass(self, state: State) -> Equations:
        """One pass over all particles."""
        model, design = self.model, self.model.design
        at = design.coordinates(state.own, state.shared)
        count, p = at.shape
        z = np.full(count, np.nan)
        slope, matrix = np.zeros((count, p)), np.zeros((count, p, p))
        blurs = "b_factor" in design.local.optics
        blurring = np.zeros((count, OWN_COUNT, OWN_COUNT)) if blurs else None
        for rows, some in model.each(equations, at):
            z[rows], slope[rows], matrix[rows] = some.z, some.slope, some.information
            if blurring is not None:
                blurring[rows] = some.blurring
        finite = np.isfinite(slope).all(axis=1) & np.isfinite(matrix).all(axis=(1, 2))
        lost = ~(finite & np.isfinite(z))
        z[lost], slope[lost], matrix[lost] = np.nan, 0.0, 0.0
        self.passes += 1
        return Equations(z, slope, matrix, blurring)

    def _weights(self, found: Equations) -> np.ndarray:
        z = self._z_of_all(found)
        return particle_probability(z) if self.robust else np.isfinite(z).astype(float)

    def _z_of_all(self, found: Equations) -> np.ndarray:
        """Scores of all rows; NaN for those that no process has read."""
        known = np.isfinite(found.z)
        z, count = self.model.total([np.nan_to_num(found.z), known.astype(float)])
        return np.where(count > 0, z, np.nan)

    def _values(
        self, found: Equations, state: State, strength_z: np.ndarray | None = None
    ) -> np.ndarray:
        """Log likelihood of each particle, including the prior of its own coordinates."""
        z = np.maximum(np.nan_to_num(found.z), 0.0)
        away = state.own / self.model.design.own_sigma
        values = z**2 / 2 - np.sum(away**2, axis=1) / 2
        if found.blurring is not None:
            # With the strength fixed, so that its changes do not count as information.
            strength2 = self._strength2(strength_z)
            values -= log_determinant(self.model.design, found, strength2) / 4
        return values

    def _prior(self, state: State) -> float:
        """Log prior of the shared values."""
        away = state.shared / self.model.design.shared_sigma
        return -float(away @ away) / 2

    def _eliminated(self, found: Equations, own: np.ndarray) -> Eliminated:
        """Undamped equations of the shared values, with the Fisher information."""
        strength2 = self._strength2()
        return self._summed(found, own, strength2, np.zeros_like(strength2))

    def _summed(
        self, found: Equations, own: np.ndarray, strength2: np.ndarray, damping: np.ndarray
    ) -> Eliminated:
        """Equations of the shared values, summed over all processes."""
        parts = eliminate(self.model.design, found, own, self.weight, strength2, damping)
        sums = self.model.total([parts.gradient, parts.information])
        return replace(parts, gradient=sums[0], information=sums[1])

    def _strength2(self, z: np.ndarray | None = None) -> np.ndarray:
        """Squares of the strengths, corrected for fitted noise; by default the present."""
        z = np.nan_to_num(np.asarray(self.found.z if z is None else z))
        strength2 = np.asarray(strength_squared(jnp.asarray(z), OWN_COUNT), float)
        return np.where(z > 0, strength2, 0.0)

    def _information(self, free: np.ndarray) -> np.ndarray:
        """Fisher information of the free shared values, including their prior."""
        matrix = self._eliminated(self.found, self.state.own).information
        reach = np.diag(1 / self.model.design.shared_sigma**2)
        return (matrix + reach)[np.ix_(free, free)]

    def determined(self, free: np.ndarray) -> np.ndarray:
        """Of the free shared values, those that the data determine, given the others."""
        free = free.copy()
        if not free.any():
            return free
        everything = self._information(np.ones_like(free))
        while free.any():
            at = np.flatnonzero(free)
            covariance = _inverse(everything[np.ix_(at, at)])
            variance = np.diagonal(covariance)
            share = variance / self.model.design.shared_sigma[at] ** 2
            if share.max() < _KNOWN_SHARE:
                break
            free[at[_least_certain(covariance, share)]] = False
        return free

    def step(self, free: np.ndarray) -> tuple[float, float]:
        """Take one step if it gains; returns predicted gains of shared and own values."""
        at, sigma = np.flatnonzero(free), self.model.design.shared_sigma
        z = np.maximum(np.nan_to_num(self.found.z), 0.0)
        own = self.state.own
        parts = self._summed(self.found, own, z**2, self.own_damping)
        change, gain = np.zeros(len(free)), 0.0
        if len(at):
            uphill = (parts.gradient - self.state.shared / sigma**2)[at]
            block = parts.information[np.ix_(at, at)] + np.diag(1 / sigma[at] ** 2)
            gain = float(uphill @ np.linalg.solve(block, uphill)) / 2
            damped = block + np.diag(self.damping * np.diagonal(block))
            change[at] = _inverse(damped) @ uphill
        own = self._own_step(parts, change)
        candidate = State(self.state.shared + change, self.state.own + own)
        promised = self._own_gain(parts.own_step)
        there = self._pass(candidate)
        before, after = self._values(self.found, self.state), self._values(there, candidate)
        weight, rough = self.weight * self.mine, _ROUGHNESS * z**2 / 2
        sums = np.array(
            [weight @ (after - before), promised, np.sum((weight * rough) ** 2)]
        )
        rise, promised, variance = self.model.total([sums])[0]
        own_gain = float(promised) / max(self.weight.sum(), 1e-9)
        rise += self._prior(candidate) - self._prior(self.state)
        better = rise > -2 * np.sqrt(variance)
        lost = np.where(after > before - rough, 1.0, _GROWTH)
        factor = np.where(after > before, _FALL, lost)
        self.own_damping = np.clip(self.own_damping * factor, _LEAST_DAMPING, 1e4)
        if better:
            self.state, self.found = candidate, there
            self.weight = self._weights(there)
            self.damping = max(self.damping * _FALL, _LEAST_DAMPING)
        else:
            self.damping *= _GROWTH
        return gain, own_gain

    def _own_step(self, parts: Eliminated, change: np.ndarray) -> np.ndarray:
        """Step of the own coordinates along with a change of the shared values."""
        design = self.model.design
        moved = np.einsum("npg,ng->np", design.matrix, change[design.index])
        step = parts.own_step + np.einsum("nop,np->no", parts.own_response, moved)
        return np.clip(step, -_LONGEST_OWN_STEP, _LONGEST_OWN_STEP)

    def least_own_gain(self) -> float:
        """Mean gain below which own steps follow the roughness of the scores."""
        z = np.nan_to_num(self.found.z)
        rough = np.sum(self.weight * self.mine * _ROUGHNESS * z**2 / 2)
        mean = self.model.total([np.array([rough])])[0][0] / max(self.weight.sum(), 1e-9)
        return max(_LEAST_OWN_GAIN, float(mean))

    def put_back(self, held: np.ndarray, start: State) -> None:
        """Reset some shared values to their start."""
        shared = np.where(held, start.shared, self.state.shared)
        self.state = replace(self.state, shared=shared)
        self.found = self._pass(self.state)
        self.weight = self._weights(self.found)

    def _curvature(self, at: np.ndarray, inverse: np.ndarray) -> float:
        """Curvature of the log likelihood as a fraction of the Fisher information.

        Measured between two points one standard error away on either side, in a direction
        in which all free values have the same share.
        """
        sigma = np.sqrt(np.diagonal(inverse))
        root = np.linalg.cholesky(inverse / sigma[:, None] / sigma)
        change = np.zeros(len(self.state.shared))
        change[at] = sigma * root.sum(axis=1)
        uphill = [self._uphill_at(sign * change) for sign in (-1, 1)]
        share = float(change @ (uphill[0] - uphill[1])) / 2 / len(at)
        return float(np.clip(share, _LEAST_CURVATURE, 1.0))

    def _uphill_at(self, change: np.ndarray) -> np.ndarray:
        """Gradient of the log posterior away from the fitted values, poses refitted."""
        shared, own, found = self.state.shared + change, self.state.own, self.found
        moved = change
        for _ in range(_POSE_PASSES):
            own = own + self._own_step(self._eliminated(found, own), moved)
            found = self._pass(State(shared, own))
            moved = np.zeros_like(change)
        parts = self._eliminated(found, own)
        return parts.gradient - shared / self.model.design.shared_sigma**2

    def _own_gain(self, step: np.ndarray) -> float:
        """Predicted gain of the steps of the own coordinates of this process, weighted."""
        z, slope = np.nan_to_num(self.found.z)[:, None], self.found.slope[:, :OWN_COUNT]
        sigma = self.model.design.own_sigma
        uphill = z * slope - self.state.own / sigma**2
        promised = np.sum(uphill * step, axis=1) / 2
        return float((self.weight * self.mine) @ promised)

    def result(
        self,
        free: np.ndarray,
        strength_z: np.ndarray | None,
        *,
        converged: bool,
        errors: bool,
    ) -> JointFit:
        """The fitted values, and their errors."""
        covariance = np.zeros((len(free), len(free)))
        at, curvature = np.flatnonzero(free), 1.0
        if len(at):
            inverse = _inverse(self._information(free))
            curvature = self._curvature(at, inverse) if errors else 1.0
            covariance[np.ix_(at, at)] = inverse / curvature**2
        defocus = own_defocus(
            self.model.design, self.found, self.state.own, self._strength2()
        )
        own, values, defocus = self._of_all(
            self.state.own, self._values(self.found, self.state, strength_z), defocus
        )
        return JointFit(
            state=State(self.state.shared, own),
            covariance=covariance,
            determined=free,
            curvature=curvature,
            z=self._z_of_all(self.found),
            log_likelihood=values,
            own_defocus=defocus,
            weight=self.weight,
            passes=self.passes,
            converged=converged,
        )


def _least_certain(
    covariance: Float[np.ndarray, "s s"], share: Float[np.ndarray, " s"]
) -> list[int]:
    """The least certain value, and others that it has nothing to do with.

    A data set may have thousands of micrographs with undetermined values; held one at a
    time, each would cost an inversion.
    """
    sigma = np.sqrt(np.diagonal(covariance))
    chosen: list[int] = []
    taken = np.zeros(len(share), bool)
    for number in np.argsort(-share).tolist():
        if share[number] < _KNOWN_SHARE:
            break
        if taken[number]:
            continue
        chosen.append(number)
        along = covariance[number] / (sigma[number] * sigma)
        taken |= np.abs(along) > _UNRELATED
    return chosen


def _inverse(matrix: Float[np.ndarray, "s s"]) -> Float[np.ndarray, "s s"]:
    """Inverse of a positive definite matrix of quantities with different units."""
    scale = 1 / np.sqrt(np.diagonal(matrix))
    scaled = matrix * scale[:, None] * scale
    return np.linalg.inv((scaled + scaled.T) / 2) * scale[:, None] * scale
