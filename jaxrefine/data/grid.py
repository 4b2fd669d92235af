"""The offsets that a search visits."""

from typing import Literal

import equinox as eqx
from jaxtyping import Array, Bool, Float


class SearchGrid(eqx.Module):
    """Offsets around each particle's starting values; the search visits every triple.

    Attributes:
        rotation: Offset rotations.
        rotation_at_edge: True where an orientation lies on the border of the grid.
        defocus_angstrom: Offsets added to both defocus values.
        pixel_size_angstrom: Offsets added to the pixel size.
        frame: "image": R = R_particle @ R_offset, so that offsets act in the image's
            frame. "volume": R = R_offset @ R_particle, as Leopard-EM does.
    """

    rotation: Float[Array, "k 3 3"]
    rotation_at_edge: Bool[Array, " k"]
    defocus_angstrom: Float[Array, " l"]
    pixel_size_angstrom: Float[Array, " m"]
    frame: Literal["image", "volume"] = eqx.field(static=True, default="image")

    @property
    def shape(self) -> tuple[int, int, int]:
        """Numbers of (pixel sizes, defoci, orientations)."""
        return (
            self.pixel_size_angstrom.shape[0],
            self.defocus_angstrom.shape[0],
            self.rotation.shape[0],
        )
