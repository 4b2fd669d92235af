"""Continuous offsets from a particle's alignment and optics."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxrefine.data.batch import Batch
from jaxrefine.data.errors import InputError

# The parameters that a polish may vary, and their numbers of coordinates: a rotation vector
# (deg); y and x of the position (px); defocus, added to both u and v (Å); half of u - v,
# along its axis and at 45° to it (Å); the pixel size (Å); and aberrations as in `Optics`:
# beam tilt x and y (mrad), Z33c and Z33s (rad Å³), Z44c, Z44s (rad Å⁴) and Z60 (rad Å⁶);
# a and b of the magnification [[1 + a, b], [b, 1 - a]].
COORDINATES: dict[str, int] = {
    "orientation": 3,
    "shift": 2,
    "defocus": 1,
    "astigmatism": 2,
    "pixel_size": 1,
    "beam_tilt": 2,
    "trefoil": 2,
    "even_zernikes": 3,
    "magnification": 2,
}
PARAMETERS = tuple(COORDINATES)


class Offsets(Batch):
    """Offsets of a particle's alignment and optics; all zero changes nothing.

    Each value is added to the quantity of the same name.

    Attributes:
        rotation_deg: Rotation vector w in the image frame (xyz), R = R_particle · exp([w]).
            x and y tilt the particle out of the plane, z rotates it in the plane.
        shift_px: Offset (y, x) of the position.
        defocus_angstrom: Offset of (u, v).
        astigmatism_deg: Offset of the direction of u.
        pixel_size_angstrom: Offset of the micrograph's pixel size, for both template and
            CTF.
        phase_shift_deg: Offset of the phase shift.
        spherical_aberration_mm: Offset of Cs.
        amplitude_contrast: Offset of the amplitude contrast, a fraction.
        b_factor_angstrom2: Offset of the B factor.
        beam_tilt_mrad: Offset of (x, y). With None, the default of this and the following
            ones, the optics are unchanged at no cost.
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
        """Offsets of zero, for one particle (`zeros()`) or a batch of n (`zeros(n)`).

        Raises:
            InputError: The argument is not a number of particles.
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
