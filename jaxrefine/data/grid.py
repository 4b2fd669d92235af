"""The offsets that a search visits."""

from typing import Literal

import equinox as eqx
import numpy as np
from jaxtyping import Array, Bool, Float

from jaxrefine.data.html import shown_in_notebooks


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
        """Numbers of (pixel sizes, defocus values, orientations)."""
        return (
            self.pixel_size_angstrom.shape[0],
            self.defocus_angstrom.shape[0],
            self.rotation.shape[0],
        )

    def _repr_html_(self) -> str:
        def rows() -> tuple[str, dict[str, object]]:
            pixel_sizes, defoci, orientations = self.shape
            cosine = (np.trace(np.asarray(self.rotation), axis1=-2, axis2=-1) - 1) / 2
            farthest = np.rad2deg(np.arccos(np.clip(cosine, -1, 1))).max(initial=0)
            return "SearchGrid", {
                "orientations": f"{orientations:,}, up to {farthest:.2f}° away",
                "defocus values": _steps(self.defocus_angstrom, "Å"),
                "pixel sizes": _steps(self.pixel_size_angstrom, "Å"),
                "poses per particle": f"{orientations * defoci * pixel_sizes:,}",
                "frame": self.frame,
            }

        return shown_in_notebooks(self, rows)


def _steps(offsets: Float[Array, " s"], unit: str) -> str:
    values = np.asarray(offsets)
    if len(values) == 1:
        return f"1, {values[0]:+g} {unit}".replace("-", "−")
    text = f"{len(values)}, {values.min():+g} … {values.max():+g} {unit}"
    return text.replace("-", "−")
