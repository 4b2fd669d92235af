"""What a micrograph is before it is filtered: no defects, no step from edge to edge."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from jaxrefine.physics.background import find_objects, periodic_part
from jaxrefine.physics.defects import Defects, fill_defects, find_defects


class CleanMicrograph(NamedTuple):
    """A micrograph to filter, and what its noise is to be measured on.

    Attributes:
        image: Defects filled, made periodic; its mean is 0.
        defects: What was filled.
        objects: Strong objects, such as contamination and gold, in squares.
        noise: The image, strong objects filled, too.
    """

    image: Float[np.ndarray, "Ny Nx"]
    defects: Defects
    objects: Bool[np.ndarray, "Ny Nx"]
    noise: Float[np.ndarray, "Ny Nx"]

    @property
    def filled(self) -> Bool[np.ndarray, "Ny Nx"]:
        """Where the image is none."""
        return self.defects.mask

    @property
    def noise_share(self) -> float:
        """Share of the pixels of `noise` that are not filled."""
        return float(1 - (self.filled | self.objects).mean())


def clean_micrograph(image: Float[np.ndarray, "Ny Nx"]) -> CleanMicrograph:
    """Take from a micrograph what spoils its spectrum and its boxes.

    Runs on the host. A micrograph without a sound pixel stays as it is.

    Args:
        image: Raw micrograph, any gain and offset.
    """
    defects = find_defects(image)
    filled = defects.mask
    if filled.all():
        return CleanMicrograph(image, defects, np.zeros_like(filled), image)
    image = periodic_part(fill_defects(image, filled))
    objects = find_objects(image)
    return CleanMicrograph(image, defects, objects, fill_defects(image, objects))
