"""Estimate of an envelope from particles and from similar simulated ones."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float

from jaxrefine.data import Particles, Refined, SearchGrid, Template
from jaxrefine.refine.envelope import (
    Rings,
    RingSums,
    cross_validated_sums,
    simulated_like,
)
from jaxrefine.refine.envelope_fit import (
    EnvelopeFit,
    Fitting,
    cross_validated_z,
    expected_errors,
    fit_envelope,
    fit_inflation,
)
from jaxrefine.refine.polish import Polish
from jaxrefine.refine.scoring import Score

# Extra B of the first fit. A large value gives a broad maximum, from which the fit finds a
# sharp one, but not the reverse: on a rippled score a pose stays where the search put it,
# and the search has used the noise of all rings.
FIRST_B_ANGSTROM2 = 300.0
_MOST_PASSES = 3

# Particles, their refined poses, and the images to measure in.
_Batch = tuple[Particles, Refined, Particles]


@dataclass(frozen=True, eq=False)
class EnvelopeStudy:
    """Particles for the estimate of an envelope.

    Attributes:
        batches: Particles, and the results of a search with `FIRST_B_ANGSTROM2`.
        template: Template with cubic slices.
        grid: The grid that was searched.
        score: The score of the search.
        polish: Settings for the fits of poses.
        mesh: From `device_mesh`.
        rings: Rings of the Fourier plane.
    """

    batches: Sequence[tuple[Particles, Refined]]
    template: Template
    grid: SearchGrid
    score: Score
    polish: Polish = field(default_factory=Polish)
    mesh: Mesh | None = None
    rings: Rings = field(default_factory=Rings)

    @property
    def count(self) -> int:
        """Number of particles with a score."""
        return sum(int(_scored(*batch).sum()) for batch in self.batches)

    def fit(
        self,
    ) -> tuple[EnvelopeFit, Float[np.ndarray, " n"], Float[np.ndarray, " p"]]:
        """Estimate the envelope.

        Each pass fits poses with the B of the pass before, and then the poses of as many
        simulated particles, to measure the pose errors. It stops when B changes by less
        than its standard error.

        Returns:
            The envelope, the cross-validated z-scores, and the expected standard errors of
            the pose coordinates.
        """
        b, inflation = FIRST_B_ANGSTROM2, 1.0
        for _ in range(_MOST_PASSES):
            fitting = self._with(b)
            sums = self._measure(fitting)
            found = fit_envelope(sums, fitting, inflation)
            if found.strength <= 0:  # nothing to simulate
                break
            simulated = self._simulate(fitting, found)
            inflation = fit_inflation(simulated, fitting, found)
            found = fit_envelope(sums, fitting, inflation)
            moved, b = abs(found.extra_b_angstrom2 - b), found.extra_b_angstrom2
            if moved < found.sigma_angstrom2:
                break
        return found, cross_validated_z(sums, b), expected_errors(sums, fitting, found)

    def scores(self, extra_b_angstrom2: float) -> Float[np.ndarray, " n"]:
        """Cross-validated z-scores of poses that were fitted with this extra B."""
        sums = self._measure(self._with(extra_b_angstrom2))
        return cross_validated_z(sums, extra_b_angstrom2)

    def _with(self, extra_b_angstrom2: float) -> Fitting:
        return Fitting(self.rings, self.polish.parameters, extra_b_angstrom2)

    def _measure(self, fitting: Fitting) -> RingSums:
        return self._sums(fitting, ((p, r, p) for p, r in self.batches))

    def _simulate(self, fitting: Fitting, truth: EnvelopeFit) -> RingSums:
        """Ring sums of simulated particles, measured in their images without noise."""
        made: list[_Batch] = []
        for number, (particles, found) in enumerate(self.batches):
            noisy, clean = simulated_like(
                particles,
                found,
                self.template,
                self.score,
                truth.strength,
                truth.extra_b_angstrom2,
                number,
            )
            made.append((noisy, found, clean))
        return self._sums(fitting, made)

    def _sums(self, fitting: Fitting, batches: Iterable[_Batch]) -> RingSums:
        each = []
        for particles, found, measured in batches:
            sums = cross_validated_sums(
                particles,
                found,
                self.template,
                self.grid,
                self.score,
                fitting.extra_b_angstrom2,
                fitting.rings,
                self.polish,
                measured=measured,
                mesh=self.mesh,
            )
            good = _scored(particles, found)
            each.append(
                jax.tree.map(lambda x, good=good: np.asarray(x, np.float64)[good], sums)
            )
        return jax.tree.map(lambda *parts: np.concatenate(parts), *each)


def _scored(particles: Particles, found: Refined) -> np.ndarray:
    return np.asarray(particles.valid & jnp.isfinite(found.z_score))
