"""What a polish returns."""

import equinox as eqx
from jaxtyping import Array, Bool, Float, Int

from jaxrefine.data.refined import Refined

# How a polish may end, and what that means.
POLISH_MEANING = {
    "converged": "an optimum: no further step promised a gain",
    "at_limit": "it stopped where the grid's cell ends: search a finer grid, or set "
    "bound_to_cell: false; the standard errors are not those of an optimum",
    "not_converged": "max_steps were not enough: the best so far",
}


class PoseErrors(eqx.Module):
    """Standard errors, each with all the other free parameters unknown as well.

    From the curvature of the score at the optimum, or the Fisher information of the
    expected image in white noise. NaN for what was not free, and for particles that were
    not refined.

    Attributes:
        rotation_deg: Of the rotation vector in the image frame: tilts about x and about
            y, and the in-plane angle.
        largest_rotation_deg: Along the direction of rotation that is known worst.
        defocus_angstrom: Of the mean of u and v; that of either where astigmatism is not
            free, since both then move together.
        astigmatism_angstrom: Of (u - v)/2 along the astigmatism's axis, and at 45° to it.
        shift_px: Of the position, (y, x).
        pixel_size_angstrom: Of the pixel size.
    """

    rotation_deg: Float[Array, "*n 3"]
    largest_rotation_deg: Float[Array, "*n"]
    defocus_angstrom: Float[Array, "*n"]
    astigmatism_angstrom: Float[Array, "*n 2"]
    shift_px: Float[Array, "*n 2"]
    pixel_size_angstrom: Float[Array, "*n"]


class Polished(eqx.Module):
    """Continuous optimum of each particle.

    Attributes:
        refined: As from the search, with the better alignment (sub-pixel position) and
            its scores; what the search found where the polish found nothing better.
        errors: Standard errors of the alignment.
        evaluations: How often score and derivatives were computed.
        converged: No further step promised a gain.
        at_limit: A coordinate stopped where the search grid's cell ends: the optimum lies
            beyond, and the errors are not those of an optimum.
        expected_z: The z-score to expect at this alignment in other data of the same
            particle: the z-score less what fitting noise adds.
    """

    refined: Refined
    errors: PoseErrors
    evaluations: Int[Array, "*n"]
    converged: Bool[Array, "*n"]
    at_limit: Bool[Array, "*n"]
    expected_z: Float[Array, "*n"]
