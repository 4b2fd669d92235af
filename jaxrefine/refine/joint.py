"""Fit what particles share, together with each particle's own pose.

Damped Gauss-Newton over all of it at once; see `joint_equations` for one step's equations.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Bool, Float, Int

from jaxrefine.data import Particles, Template
from jaxrefine.refine.design import Design
from jaxrefine.refine.joint_equations import (
    Eliminated,
    Equations,
    eliminate,
    equations,
    log_determinant,
)
from jaxrefine.refine.membership import particle_probability
from jaxrefine.refine.pose_errors import strength_squared
from jaxrefine.refine.scoring import Score
from jaxrefine.refine.shared import OWN_COUNT

# Rows of the table and the particles in them, batch after batch; called for each pass.
Source = Callable[[], Iterable[tuple[Int[np.ndarray, " b"], Particles]]]

# Of a step's damping at the start, its growth after a step that gained nothing, its fall.
_DAMPING, _GROWTH, _FALL, _LEAST_DAMPING, _MOST_DAMPING = 0.05, 8.0, 0.2, 0.01, 1e6
_OWN_DAMPING = 0.1
# The fit ends where the next step promises less than this in the log-likelihood: for each
# shared value (0.06 standard errors), and for a particle's six own coordinates.
_LEAST_GAIN, _LEAST_OWN_GAIN = 2e-3, 1e-2
# A value is determined where the data say more of it than that it lies within its reach.
_KNOWN_SHARE = 0.5


@dataclass(frozen=True, eq=False)
class Model:
    """What images are compared with.

    Attributes:
        source: The particles.
        design: What they share.
        template: With cubic slices.
        score: The score.
        mesh: From `device_mesh`.
    """

    source: Source
    design: Design
    template: Template
    score: Score
    mesh: Mesh | None = None

    def each(
        self, function: Callable[..., Any], coordinates: Float[np.ndarray, "n *p"]
    ) -> Iterator[tuple[Int[np.ndarray, " b"], Any]]:
        """A function of `joint_equations`, batch after batch: rows and what it returns.

        Args:
            function: With the arguments of `equations`.
            coordinates: Of all rows.
        """
        for rows, particles in self.source():
            number = np.minimum(np.arange(len(particles)), len(rows) - 1)
            found = function(
                particles,
                jnp.asarray(coordinates[rows[number]], jnp.float32),
                self.template,
                self.score,
                self.design.local,
                self.mesh,
            )
            count = len(rows)
            yield rows, jax.tree.map(lambda leaf, n=count: np.asarray(leaf)[:n], found)


@dataclass(frozen=True, eq=False)
class State:
    """Where a fit is.

    Attributes:
        shared: The shared values, from their start.
        own: Each particle's own coordinates, from its alignment: a rotation vector in
            degrees, y and x in px, and defocus in Å.
    """

    shared: Float[np.ndarray, " s"]
    own: Float[np.ndarray, "n o"]

    @classmethod
    def start(cls, design: Design) -> "State":
        """No departure."""
        return cls(np.zeros(len(design.shared_sigma)), np.zeros((len(design.index), 6)))


@dataclass(frozen=True, eq=False)
class JointFit:
    """What a fit has found.

    Attributes:
        state: The fitted values.
        covariance: Of the shared values, by the Fisher information; 0 where they were held.
        determined: Which shared values the data determine; the others stayed at the start.
        z: Score of each particle in units of the noise; NaN where it was not read.
        weight: Probability that it is one.
        log_likelihood: Of the particles, those of little weight counting little.
        passes: How often all particles were computed.
        converged: Whether the last step promised next to nothing.
    """

    state: State
    covariance: Float[np.ndarray, "s s"]
    determined: Bool[np.ndarray, " s"]
    z: Float[np.ndarray, " n"]
    weight: Float[np.ndarray, " n"]
    log_likelihood: float
    passes: int
    converged: bool


def fit_jointly(
    model: Model,
    start: State,
    free: Bool[np.ndarray, " s"],
    *,
    robust: bool = True,
    most_passes: int = 25,
    after_pass: Callable[[], None] | None = None,
) -> JointFit:
    """Maximise the likelihood of all particles.

    Args:
        model: The particles, and what they share.
        start: Where to begin.
        free: Which shared values may change. Of these, one after another is held that the
            data do not determine, the least certain first.
        robust: Weigh picks by the probability that they are particles.
        most_passes: Over all particles, at most.
        after_pass: Called after each.
    """
    fit = _Fit(model, start, robust, after_pass)
    free = fit.determined(free)
    while fit.passes < most_passes and fit.damping < _MOST_DAMPING:
        gain, own_gain = fit.step(free)
        if gain > _LEAST_GAIN * free.sum() or own_gain > _LEAST_OWN_GAIN:
            continue
        still = fit.determined(free)
        if (still == free).all():
            return fit.result(free, converged=True)
        fit.put_back(free & ~still, start)
        free = still
    return fit.result(free, converged=False)


class _Fit:
    """A fit under way."""

    def __init__(
        self,
        model: Model,
        start: State,
        robust: bool,
        after_pass: Callable[[], None] | None,
    ):
        self.model, self.state, self.robust = model, start, robust
        self.after_pass, self.passes = after_pass, 0
        self.damping = _DAMPING
        self.own_damping = np.full(len(start.own), _OWN_DAMPING)
        self.found = self._pass(start)
        self.weight = self._weights(self.found)

    def _pass(self, state: State) -> Equations:
        """All particles once."""
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
        z[~np.isfinite(slope).all(axis=1) | ~np.isfinite(matrix).all(axis=(1, 2))] = np.nan
        self.passes += 1
        if self.after_pass is not None:
            self.after_pass()
        return Equations(z, slope, matrix, blurring)

    def _weights(self, found: Equations) -> np.ndarray:
        if self.robust:
            return particle_probability(np.asarray(found.z))
        return np.isfinite(found.z).astype(float)

    def _values(self, found: Equations, state: State) -> np.ndarray:
        """Log-likelihood of each particle and of its own coordinates' prior."""
        z = np.maximum(np.nan_to_num(found.z), 0.0)
        away = state.own / self.model.design.own_sigma
        values = z**2 / 2 - np.sum(away**2, axis=1) / 2
        if found.blurring is not None:
            # With the strength as it was, lest it count as information.
            values -= log_determinant(self.model.design, found, self._strength2()) / 4
        return values

    def _objective(self, found: Equations, state: State) -> float:
        away = state.shared / self.model.design.shared_sigma
        return float(self.weight @ self._values(found, state) - away @ away / 2)

    def _eliminated(self, strength2: np.ndarray, damping: np.ndarray) -> Eliminated:
        own, design = self.state.own, self.model.design
        return eliminate(design, self.found, own, self.weight, strength2, damping)

    def _strength2(self) -> np.ndarray:
        """Squares of the strengths, what was fitted of noise taken off."""
        z = np.nan_to_num(self.found.z)
        strength2 = np.asarray(strength_squared(jnp.asarray(z), OWN_COUNT), float)
        return np.where(z > 0, strength2, 0.0)

    def _information(self, free: np.ndarray) -> np.ndarray:
        """Fisher information of the free shared values and of their reach."""
        strength2 = self._strength2()
        matrix = self._eliminated(strength2, np.zeros(len(strength2))).information
        reach = np.diag(1 / self.model.design.shared_sigma**2)
        return (matrix + reach)[np.ix_(free, free)]

    def determined(self, free: np.ndarray) -> np.ndarray:
        """Of the free shared values those that the data determine, given the others."""
        free = free.copy()
        if not free.any():
            return free
        everything = self._information(np.ones_like(free))
        while free.any():
            at = np.flatnonzero(free)
            variance = np.diagonal(_inverse(everything[np.ix_(at, at)]))
            share = variance / self.model.design.shared_sigma[at] ** 2
            worst = int(np.argmax(share))
            if share[worst] < _KNOWN_SHARE:
                break
            free[at[worst]] = False
        return free

    def step(self, free: np.ndarray) -> tuple[float, float]:
        """One step, taken if it gains; what it promised, of shared and of own values."""
        z = np.maximum(np.nan_to_num(self.found.z), 0.0)
        at, sigma = np.flatnonzero(free), self.model.design.shared_sigma
        parts = self._eliminated(z**2, self.own_damping)
        change, gain = np.zeros(len(free)), 0.0
        if len(at):
            uphill = (parts.gradient - self.state.shared / sigma**2)[at]
            block = parts.information[np.ix_(at, at)] + np.diag(1 / sigma[at] ** 2)
            gain = float(uphill @ np.linalg.solve(block, uphill)) / 2
            damped = block + np.diag(self.damping * np.diagonal(block))
            change[at] = _inverse(damped) @ uphill
        design = self.model.design
        moved = np.einsum("npg,ng->np", design.matrix, change[design.index])
        own = parts.own_step + np.einsum("nop,np->no", parts.own_response, moved)
        own = np.clip(own, -_LONGEST_OWN_STEP, _LONGEST_OWN_STEP)
        candidate = State(self.state.shared + change, self.state.own + own)
        own_gain = self._own_gain(parts.own_step)
        there = self._pass(candidate)
        before, after = self._values(self.found, self.state), self._values(there, candidate)
        better = self._objective(there, candidate) > self._objective(self.found, self.state)
        factor = np.where(after > before, _FALL, _GROWTH)
        self.own_damping = np.clip(self.own_damping * factor, _LEAST_DAMPING, 1e4)
        if better:
            self.state, self.found = candidate, there
            self.weight = self._weights(there)
            self.damping = max(self.damping * _FALL, _LEAST_DAMPING)
        else:
            self.damping *= _GROWTH
        return gain, own_gain

    def put_back(self, held: np.ndarray, start: State) -> None:
        """Take some shared values back to where they began."""
        shared = np.where(held, start.shared, self.state.shared)
        self.state = replace(self.state, shared=shared)
        self.found = self._pass(self.state)

    def _own_gain(self, step: np.ndarray) -> float:
        """Mean gain that the own coordinates' steps promise, by weight."""
        z, slope = np.nan_to_num(self.found.z)[:, None], self.found.slope[:, :OWN_COUNT]
        sigma = self.model.design.own_sigma
        uphill = z * slope - self.state.own / sigma**2
        promised = np.sum(uphill * step, axis=1) / 2
        return float(self.weight @ promised / max(self.weight.sum(), 1e-9))

    def result(self, free: np.ndarray, *, converged: bool) -> JointFit:
        """What was found, with the errors there."""
        covariance = np.zeros((len(free), len(free)))
        at = np.flatnonzero(free)
        if len(at):
            covariance[np.ix_(at, at)] = _inverse(self._information(free))
        values = np.maximum(np.nan_to_num(self.found.z), 0.0) ** 2 / 2
        return JointFit(
            state=self.state,
            covariance=covariance,
            determined=free,
            z=np.asarray(self.found.z),
            weight=self.weight,
            log_likelihood=float(self.weight @ values),
            passes=self.passes,
            converged=converged,
        )


# Degrees, px and Å: where a step would go further, curvature says little.
_LONGEST_OWN_STEP = np.array([3.0, 3.0, 3.0, 1.0, 1.0, 300.0])


def _inverse(matrix: Float[np.ndarray, "s s"]) -> Float[np.ndarray, "s s"]:
    """Of a positive definite matrix of quantities in any units."""
    scale = 1 / np.sqrt(np.diagonal(matrix))
    scaled = matrix * scale[:, None] * scale
    return np.linalg.inv((scaled + scaled.T) / 2) * scale[:, None] * scale
