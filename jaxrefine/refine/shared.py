"""Parameters that many particles share, and the coordinates that represent them.

A particle's image depends on its own coordinates (orientation, shift, defocus) and on those
of its optics. All are relative to the particle's starting values, as in `Offsets`.
"""

from dataclasses import replace
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxrefine.data import COORDINATES, Alignment, Offsets
from jaxrefine.refine.coordinates import anisotropy, offsets_from, parameter_slices

# Coordinates that a particle does not share; they come first.
OWN = ("orientation", "shift", "defocus")
OWN_COUNT = sum(COORDINATES[name] for name in OWN)


class Shared(NamedTuple):
    """A parameter that particles share.

    Attributes:
        labels: Labels of its coordinates.
        unit: Unit of the coordinates.
        reach: Largest plausible distance from the starting value, as a standard deviation.
            If the data contain less information than this, they do not determine it.
        field: The field of `Optics` and `Offsets`; None for parameters of pose and defocus.
    """

    labels: tuple[str, ...]
    unit: str
    reach: float
    field: str | None = None


# Astigmatism is a vector of length (u - v)/2 at twice the angle of u, in the image frame. A
# magnification matrix is [[1 + a, b], [b, 1 - a]]; the remaining components are the pixel
# size and an in-plane rotation. Slopes of a defocus plane are in Å/Å: tangents of tilts.
SHARED: dict[str, Shared] = {
    "pixel_size": Shared(("pixel_size",), "Å", 0.1),
    "magnification": Shared(
        ("magnification_yy", "magnification_yx"), "", 0.05, "mag_matrix"
    ),
    "beam_tilt": Shared(("beam_tilt_x", "beam_tilt_y"), "mrad", 5.0, "beam_tilt_mrad"),
    "trefoil": Shared(("Z33c", "Z33s"), "rad Å³", 300.0, "odd_zernikes"),
    "even_zernikes": Shared(
        ("Z44c", "Z44s", "Z60"), "rad Å⁴, Z60 rad Å⁶", 3000.0, "even_zernikes"
    ),
    "spherical_aberration": Shared(
        ("spherical_aberration",), "mm", 1.0, "spherical_aberration_mm"
    ),
    "amplitude_contrast": Shared(("amplitude_contrast",), "", 0.2, "amplitude_contrast"),
    "phase_shift": Shared(("phase_shift",), "°", 90.0, "phase_shift_deg"),
    "b_factor": Shared(("b_factor",), "Å²", 500.0, "b_factor_angstrom2"),
    "defocus": Shared(("defocus",), "Å", 1000.0),
    "astigmatism": Shared(("astigmatism_0", "astigmatism_45"), "Å", 1000.0),
    "defocus_plane": Shared(("defocus_slope_y", "defocus_slope_x"), "Å/Å", 1.0),
}


class LocalCoordinates(NamedTuple):
    """The coordinates in which a particle's image is differentiated.

    Attributes:
        pose: The ones in `COORDINATES`, `OWN` first.
        optics: The parameters in `SHARED` that are fields of the optics.
    """

    pose: tuple[str, ...]
    optics: tuple[str, ...]

    @classmethod
    def of(cls, shared: tuple[str, ...]) -> "LocalCoordinates":
        """The coordinates that some shared parameters need."""
        pose = [name for name in ("astigmatism", "pixel_size") if name in shared]
        planar = {"defocus", "defocus_plane", *pose}
        return cls((*OWN, *pose), tuple(n for n in shared if n not in planar))

    @property
    def count(self) -> int:
        """Number of coordinates."""
        return sum(part.stop - part.start for part in self.slices.values())

    @property
    def slices(self) -> dict[str, slice]:
        """The slice of the coordinates of each parameter."""
        at = parameter_slices(self.pose)
        end = max(part.stop for part in at.values())
        for name in self.optics:
            at[name] = slice(end, end + len(SHARED[name].labels))
            end = at[name].stop
        return at

    def offsets(self, coordinates: Float[Array, " p"], start: Alignment) -> Offsets:
        """Convert coordinates to offsets around an alignment."""
        at = self.slices
        if "astigmatism" in self.pose:
            # `offsets_from` uses the current axis of astigmatism.
            double = 2 * jnp.deg2rad(start.astigmatism_deg)
            a, b = coordinates[at["astigmatism"]]
            turned = jnp.stack(
                [
                    a * jnp.cos(double) + b * jnp.sin(double),
                    b * jnp.cos(double) - a * jnp.sin(double),
                ]
            )
            coordinates = coordinates.at[at["astigmatism"]].set(turned)
        offsets = offsets_from(coordinates, self.pose, start)
        changed = {}
        for name in self.optics:
            values = coordinates[at[name]]
            if name == "magnification":
                values = anisotropy(values)
            elif name == "trefoil":
                values = jnp.concatenate([jnp.zeros(2), values])
            elif len(values) == 1:
                values = values[0]
            changed[SHARED[name].field] = values
        return replace(offsets, **changed)
