"""Expected standard errors of a table's particles, before anything is searched."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxrefine.app.config.starter import ExpectedErrors
from jaxrefine.app.run.convention_check import best_rows
from jaxrefine.app.run.devices import float32_only
from jaxrefine.app.run.inputs import RunInputs
from jaxrefine.app.run.pipeline import particles_of
from jaxrefine.app.run.score_changes import z_at_start
from jaxrefine.data import Particles, PoseErrors
from jaxrefine.refine.information import pose_information
from jaxrefine.refine.polish import Polish
from jaxrefine.refine.pose_errors import standard_errors


@float32_only()
def expected_errors(inputs: RunInputs) -> ExpectedErrors | None:
    """Medians over the best particles of one micrograph, at the table's poses and z-scores.

    They follow from the Fisher information with the table's B factor. If the signal decays
    faster with frequency, the errors are larger. None if the table has no z-scores, or the
    image holds no information.

    Raises:
        InputError: A file of the micrograph cannot be read.
    """
    z = z_at_start(inputs.table, inputs.start)
    files, members = max(inputs.groups.items(), key=lambda group: len(group[1]))
    rows = best_rows(members[np.isfinite(z[members])], z)
    if not len(rows):
        return None
    with jax.default_device(inputs.mesh.devices.flat[0]):
        particles = particles_of(inputs, files, rows)
        free = Polish().parameters

        def one(both: tuple[Particles, jax.Array]) -> PoseErrors:
            particle, z_score = both
            at = jnp.zeros(6)
            known = pose_information(at, particle, inputs.template, inputs.score, free)
            return standard_errors(known, z_score, free)

        scores = jnp.asarray(z[rows], jnp.float32)
        found = jax.jit(lambda both: jax.lax.map(one, both))((particles, scores))
    tilt_x, tilt_y, in_plane = np.median(np.asarray(found.rotation_deg), axis=0)
    expected = ExpectedErrors(
        tilt_deg=float(tilt_x + tilt_y) / 2,
        in_plane_deg=float(in_plane),
        defocus_angstrom=float(np.median(np.asarray(found.defocus_angstrom))),
        z_score=float(np.median(z[rows])),
    )
    return expected if expected.sound else None
