"""The particles of a joint fit, the model of their images, and what the fit finds."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Bool, Float, Int

from jaxrefine.data import Particles, Template
from jaxrefine.refine.defocus_spread import DefocusSpread, defocus_spread
from jaxrefine.refine.design import Design
from jaxrefine.refine.scoring import Score

# Rows of the table and their particles, in batches; called once per pass.
Source = Callable[[], Iterable[tuple[Int[np.ndarray, " b"], Particles]]]
# Sums arrays over all processes that share the particles.
Total = Callable[[Sequence[np.ndarray]], list[np.ndarray]]


def of_one_process(arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The `Total` of a process that has all particles."""
    return list(arrays)


@dataclass(frozen=True, eq=False)
class Model:
    """The particles, and the model of their images.

    Attributes:
        source: The particles.
        design: The shared values.
        template: Template with cubic slices.
        score: The score.
        mesh: From `device_mesh`.
        total: Sums arrays over the processes that share the particles.
    """

    source: Source
    design: Design
    template: Template
    score: Score
    mesh: Mesh | None = None
    total: Total = of_one_process

    def each(
        self, function: Callable[..., Any], coordinates: Float[np.ndarray, "n *p"]
    ) -> Iterator[tuple[Int[np.ndarray, " b"], Any]]:
        """Apply a function of `joint_equations` to all batches; yields rows and results.

        Args:
            function: A function with the arguments of `equations`.
            coordinates: Coordinates of all rows.
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
    """The values during a fit.

    Attributes:
        shared: Shared values, relative to their start.
        own: Own coordinates of each particle, relative to its alignment: a rotation vector
            in degrees, y and x in px, and defocus in Å.
    """

    shared: Float[np.ndarray, " s"]
    own: Float[np.ndarray, "n o"]

    @classmethod
    def start(cls, design: Design) -> "State":
        """The starting values: all 0."""
        return cls(np.zeros(len(design.shared_sigma)), np.zeros((len(design.index), 6)))


@dataclass(frozen=True, eq=False)
class Progress:
    """A fit that has not ended, from which `fit_jointly` can go on.

    Attributes:
        state: The values so far.
        free: Mask of the shared values that are fitted.
        damping: Damping of the shared values.
        own_damping: Damping of each particle's own coordinates.
        passes: Number of passes so far.
    """

    state: State
    free: Bool[np.ndarray, " s"]
    damping: float
    own_damping: Float[np.ndarray, " n"]
    passes: int


@dataclass(frozen=True, eq=False)
class JointFit:
    """Result of a joint fit.

    Attributes:
        state: The fitted values.
        covariance: Covariance of the shared values (`joint_equations`); 0 for those that
            were fixed.
        determined: Mask of the shared values that the data determine; the others are at
            their start.
        curvature: Curvature of the log likelihood as a fraction of the Fisher information.
        z: Score of each particle in units of the noise; NaN for particles not read.
        log_likelihood: Of each particle, including the prior of its own coordinates.
        own_defocus: Each particle's own defocus (Å) as its image alone gives it, and the
            standard error.
        weight: Probability that the pick is a particle.
        passes: Number of passes over all particles.
        converged: Whether the predicted gain of the last step was negligible.
    """

    state: State
    covariance: Float[np.ndarray, "s s"]
    determined: Bool[np.ndarray, " s"]
    curvature: float
    z: Float[np.ndarray, " n"]
    log_likelihood: Float[np.ndarray, " n"]
    own_defocus: Float[np.ndarray, "n 2"]
    weight: Float[np.ndarray, " n"]
    passes: int
    converged: bool

    def defocus_spread(self, design: Design) -> DefocusSpread:
        """How far the particles lie around the defocus and the planes that they share."""
        common = np.array([v.label.startswith("defocus") for v in design.values], bool)
        fitted = int(np.sum(common & self.determined))
        return defocus_spread(self.own_defocus, self.weight, fitted)
