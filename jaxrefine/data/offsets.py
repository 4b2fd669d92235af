"""Continuous departures from where a particle is."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxrefine.data.batch import Batch
from jaxrefine.data.errors import InputError

# What a polish may free, and its number of coordinates: a rotation vector (deg); y and x of
# the position (px); defocus, of u and v alike (Å); half of u - v, along its present axis
# and at 45° to it (Å); the pixel size (Å).
COORDINATES: dict[str, int] = {
    "orientation": 3,
    "shift": 2,
    "defocus": 1,
    "astigmatism": 2,
    "pixel_size": 1,
}
PARAMETERS = tuple(COORDINATES)


class Offsets(Batch):
    """What may be added to a particle's alignment and optics; all zero changes nothing.

    Attributes:
        rotation_deg: Rotation vector w in the image frame (xyz), R = R_particle · exp([w]).
            x and y tilt the particle out of the plane, z turns it in the plane.
        shift_px: (y, x) to be added to the position.
        defocus_angstrom: To be added to (u, v).
        astigmatism_deg: To be added to the direction of u.
        pixel_size_angstrom: To be added to the micrograph's pixel size, for template and
            CTF alike.
        phase_shift_deg: To be added to the optics, as are the last three.
        spherical_aberration_mm: Cs.
        amplitude_contrast: The fraction.
        b_factor_angstrom2: B.
        beam_tilt_mrad: Of x and y; None, the default of this and what follows, leaves the
            optics as they are and costs nothing.
        even_zernikes: As in `Optics`.
        odd_zernikes: As in `Optics`.
        mag_matrix: As in `Optics`.
    """

    rotation_deg: Float[Array, "*n 3"]
    shift_px: Float[Array, "*n 2"]
    defocus_angstrom: Float[Array, "*n 2"]
    astigmatism_deg: Float[Array, "*n"]
    pixel_size_angstrom: Float[Array, "*n"]
    phase_shift_deg: Float[Array, "*n"]
    spherical_aberration_mm: Float[Array, "*n"]
    amplitude_contrast: Float[Array, "*n"]
    b_factor_angstrom2: Float[Array, "*n"]
    beam_tilt_mrad: Float[Array, "*n 2"] | None = None
    even_zernikes: Float[Array, "*n 3"] | None = None
    odd_zernikes: Float[Array, "*n 4"] | None = None
    mag_matrix: Float[Array, "*n 2 2"] | None = None

    @classmethod
    def zeros(cls, *batch: int) -> "Offsets":
        """No departure, for one particle (`zeros()`) or for a batch of n (`zeros(n)`).

        Raises:
            InputError: What is given is no number of particles.
        """
        if not all(isinstance(n, int | np.integer) for n in batch):
            given = ", ".join(map(repr, batch))
            raise InputError(
                f"Offsets.zeros({given}): expected the number of particles, such as "
                "Offsets.zeros(3), or nothing for one particle"
            )
        vector = {"rotation_deg": 3, "shift_px": 2, "defocus_angstrom": 2}
        return cls(
            **{
                name: jnp.zeros((*batch, vector[name]) if name in vector else batch)
                for name, field in cls.__dataclass_fields__.items()
                if field.default is not None
            }
        )
