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
        noise: The image, strong objects filled, too.
        noise_share: Share of its pixels that are not filled.
    """

    image: Float[np.ndarray, "Ny Nx"]
    defects: Defects
    noise: Float[np.ndarray, "Ny Nx"]
    noise_share: float

    @property
    def filled(self) -> Bool[np.ndarray, "Ny Nx"]:
        """Where the image is none."""
        return self.defects.mask


def clean_micrograph(image: Float[np.ndarray, "Ny Nx"]) -> CleanMicrograph:
    """Take from a micrograph what spoils its spectrum and its boxes.

    Runs on the host. A micrograph without a sound pixel stays as it is.

    Args:
        image: Raw micrograph, any gain and offset.
    """
    defects = find_defects(image)
    filled = defects.mask
    if filled.all():
        return CleanMicrograph(image, defects, image, 1.0)
    image = periodic_part(fill_defects(image, filled))
    objects = find_objects(image)
    noise = fill_defects(image, objects)
    return CleanMicrograph(image, defects, noise, float(1 - (filled | objects).mean()))
