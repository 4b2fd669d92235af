"""The reference's density in a constrained search, to be removed from the images."""

from dataclasses import dataclass, replace

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from jaxrefine.app.config.constrained import ConstrainedConfig
from jaxrefine.app.run.constrained import partner_from_reference
from jaxrefine.data import Alignment, Particles, Template
from jaxrefine.io.table import ParticleTable, StartingValues
from jaxrefine.physics.slices import make_template
from jaxrefine.refine.project_out import project_out
from jaxrefine.refine.scoring import Score


@dataclass(frozen=True, eq=False)
class ReferenceDensity:
    """The structure beside which a partner is searched, at its refined pose.

    Attributes:
        template: Its template, with cubic slices.
        score: The score with the side of this template.
        defocus_angstrom: Defocus of each reference minus that predicted for its partner.
        shift_px: Sub-pixel shift (y, x) of each reference from its whole position.
    """

    template: Template
    score: Score
    defocus_angstrom: Float[np.ndarray, " n"]
    shift_px: Float[np.ndarray, "n 2"]

    def removed_from(
        self, particles: Particles, predicted: Alignment, rows: np.ndarray
    ) -> Particles:
        """The particles without the density of their references.

        Args:
            particles: Particles of the partner's search.
            predicted: Predicted alignment of their partners, from which they were cut.
            rows: Their rows in the table.
        """
        defocus = jnp.asarray(self.defocus_angstrom[rows], jnp.float32)
        at = replace(
            predicted,
            position_px=particles.alignment.position_px
            + jnp.asarray(self.shift_px[rows], jnp.float32),
            defocus_angstrom=predicted.defocus_angstrom + defocus[:, None],
        )
        return project_out(particles, at, self.template, self.score)


def reference_density(
    constraint: ConstrainedConfig | None,
    volume: Float[np.ndarray, "n n n"] | None,
    table: ParticleTable,
    start: StartingValues,
    score: Score,
) -> ReferenceDensity | None:
    """The reference of a constrained search; None if its volume is not given.

    Args:
        constraint: Settings of the search.
        volume: The reference's volume.
        table: The table with the predicted starting values of the partners.
        start: These starting values.
        score: The score for templates of the reference's side.
    """
    if constraint is None or volume is None:
        return None
    shift = [table.numbers(f"refined_shift_{axis}") for axis in "yx"]
    height = partner_from_reference(constraint.center_vector, start.euler_deg)[:, 2]
    return ReferenceDensity(
        template=make_template(volume, "cubic"),
        score=score,
        defocus_angstrom=constraint.defocus_hand * height,
        shift_px=np.nan_to_num(np.stack(shift, axis=-1)),
    )
