"""Parameters that many particles share, and the coordinates that they are made of.

A particle's image depends on its own coordinates (orientation, shift, defocus) and on those
of its microscope. All are departures from where the particle starts, as `Offsets` has them.
"""

from dataclasses import replace
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxrefine.data import COORDINATES, Alignment, Offsets
from jaxrefine.refine.coordinates import offsets_from, parameter_slices

# Coordinates of one particle that no other has: they come first.
OWN = ("orientation", "shift", "defocus")
OWN_COUNT = sum(COORDINATES[name] for name in OWN)


class Shared(NamedTuple):
    """A parameter that particles share.

    Attributes:
        labels: Of its coordinates.
        unit: Theirs.
        reach: How far it may plausibly be from its starting value. What the data say less
            of than this is not determined by them.
    """

    labels: tuple[str, ...]
    unit: str
    reach: float


# Astigmatism is a vector of length (u - v)/2 at twice the angle of u, in the image's frame.
# Of a magnification matrix [[1 + a, b], [b, 1 - a]]: its rest is the pixel size and an
# in-plane rotation. A defocus plane's slopes are Å of defocus per Å, the tangent of a tilt.
SHARED: dict[str, Shared] = {
    "pixel_size": Shared(("pixel_size",), "Å", 0.1),
    "magnification": Shared(("magnification_yy", "magnification_yx"), "", 0.05),
    "beam_tilt": Shared(("beam_tilt_x", "beam_tilt_y"), "mrad", 5.0),
    "trefoil": Shared(("Z33c", "Z33s"), "rad Å³", 300.0),
    "even_zernikes": Shared(("Z44c", "Z44s", "Z60"), "rad Å⁴, Z60 rad Å⁶", 3000.0),
    "spherical_aberration": Shared(("spherical_aberration",), "mm", 1.0),
    "amplitude_contrast": Shared(("amplitude_contrast",), "", 0.2),
    "phase_shift": Shared(("phase_shift",), "°", 90.0),
    "b_factor": Shared(("b_factor",), "Å²", 500.0),
    "defocus": Shared(("defocus",), "Å", 1000.0),
    "astigmatism": Shared(("astigmatism_0", "astigmatism_45"), "Å", 1000.0),
    "defocus_plane": Shared(("defocus_slope_y", "defocus_slope_x"), "Å/Å", 1.0),
}


class LocalCoordinates(NamedTuple):
    """Which coordinates a particle's image is differentiated in.

    Attributes:
        pose: Those of `COORDINATES`, `OWN` first.
        optics: Parameters of `SHARED` that are fields of the optics.
    """

    pose: tuple[str, ...]
    optics: tuple[str, ...]

    @classmethod
    def of(cls, shared: tuple[str, ...]) -> "LocalCoordinates":
        """What some shared parameters need."""
        pose = [name for name in ("astigmatism", "pixel_size") if name in shared]
        planar = {"defocus", "defocus_plane", *pose}
        return cls((*OWN, *pose), tuple(n for n in shared if n not in planar))

    @property
    def count(self) -> int:
        """Number of coordinates."""
        return sum(part.stop - part.start for part in self.slices.values())

    @property
    def slices(self) -> dict[str, slice]:
        """Where each parameter's coordinates stand."""
        at = parameter_slices(self.pose)
        end = max(part.stop for part in at.values())
        for name in self.optics:
            at[name] = slice(end, end + len(SHARED[name].labels))
            end = at[name].stop
        return at

    def offsets(self, coordinates: Float[Array, " p"], start: Alignment) -> Offsets:
        """What the coordinates stand for, around an alignment."""
        at = self.slices
        if "astigmatism" in self.pose:
            # `offsets_from` counts along the present axis.
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
                a, b = values
                changed["mag_matrix"] = jnp.array([[a, b], [b, -a]])
            elif name == "trefoil":
                changed["odd_zernikes"] = jnp.concatenate([jnp.zeros(2), values])
            elif name in _VECTORS:
                changed[_VECTORS[name]] = values
            else:
                changed[_SCALARS[name]] = values[0]
        return replace(offsets, **changed)


# Names of `SHARED` -> fields of `Offsets`.
_VECTORS = {"beam_tilt": "beam_tilt_mrad", "even_zernikes": "even_zernikes"}
_SCALARS = {
    "spherical_aberration": "spherical_aberration_mm",
    "amplitude_contrast": "amplitude_contrast",
    "phase_shift": "phase_shift_deg",
    "b_factor": "b_factor_angstrom2",
}
