"""Cleaning of a micrograph before filtering: fill defects, make it periodic."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from jaxrefine.physics.background import find_objects, periodic_part
from jaxrefine.physics.defects import Defects, fill_defects, find_defects


class CleanMicrograph(NamedTuple):
    """A micrograph ready for filtering, and the image to measure its noise on.

    Attributes:
        image: The image with defects filled, made periodic, with mean 0.
        defects: The defects that were filled.
        objects: Strong objects such as contamination and gold, as squares.
        noise: `image` with the strong objects filled as well.
    """

    image: Float[np.ndarray, "Ny Nx"]
    defects: Defects
    objects: Bool[np.ndarray, "Ny Nx"]
    noise: Float[np.ndarray, "Ny Nx"]

    @property
    def filled(self) -> Bool[np.ndarray, "Ny Nx"]:
        """Mask of the pixels that were filled."""
        return self.defects.mask

    @property
    def noise_share(self) -> float:
        """Fraction of the pixels of `noise` that are not filled."""
        return float(1 - (self.filled | self.objects).mean())


def clean_micrograph(image: Float[np.ndarray, "Ny Nx"]) -> CleanMicrograph:
    """Remove from a micrograph what distorts its spectrum and its boxes.

    Runs on the host. A micrograph without a usable pixel is returned unchanged.

    Args:
        image: Raw micrograph, with any gain and offset.
    """
    defects = find_defects(image)
    filled = defects.mask
    if filled.all():
        return CleanMicrograph(image, defects, np.zeros_like(filled), image)
    image = periodic_part(fill_defects(image, filled))
    objects = find_objects(image)
    return CleanMicrograph(image, defects, objects, fill_defects(image, objects))
