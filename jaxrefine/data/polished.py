"""The result of a polish."""

import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jaxrefine.data.batch import Batch
from jaxrefine.data.html import shown_in_notebooks, span
from jaxrefine.data.refined import Refined

# The possible outcomes of a polish, and their meaning.
POLISH_MEANING = {
    "converged": "an optimum: no further step would have improved the score",
    "multimodal": "an optimum, but one of several modes: separate poses, more than two "
    "standard errors away, hold at least 5 % of the posterior; the standard errors cover "
    "them",
    "at_limit": "stopped at the edge of the grid cell: search a finer grid, or set "
    "bound_to_cell: false; the standard errors are not those of an optimum",
    "not_converged": "max_steps was reached: the best pose so far",
}


class PoseErrors(Batch):
    """Standard errors; each includes the uncertainty of all other free parameters.

    From the curvature of the score at the optimum, or the Fisher information of the
    expected image in white noise. NaN for parameters that were not free, and for particles
    that were not refined.

    Attributes:
        rotation_deg: Rotation vector in the image frame: tilts about x and y, and the
            in-plane angle.
        largest_rotation_deg: Rotation about the least certain axis.
        defocus_angstrom: Mean of u and v. If astigmatism is not free, u and v change
            together, and it is the standard error of either.
        astigmatism_angstrom: (u - v)/2 along the axis of astigmatism, and at 45° to it.
        shift_px: Position (y, x).
        pixel_size_angstrom: Pixel size.
        beam_tilt_mrad: Beam tilt (x, y); this and the following are None if not free.
        trefoil: Z33c and Z33s in rad Å³.
        even_zernikes: As in `Optics`.
        magnification: Anisotropic part of `mag_matrix`: half the difference of its diagonal
            elements, and the mean of the others.
    """

    rotation_deg: Float[Array, "*n 3"]
    largest_rotation_deg: Float[Array, "*n"]
    defocus_angstrom: Float[Array, "*n"]
    astigmatism_angstrom: Float[Array, "*n 2"]
    shift_px: Float[Array, "*n 2"]
    pixel_size_angstrom: Float[Array, "*n"]
    beam_tilt_mrad: Float[Array, "*n 2"] | None = None
    trefoil: Float[Array, "*n 2"] | None = None
    even_zernikes: Float[Array, "*n 3"] | None = None
    magnification: Float[Array, "*n 2"] | None = None


class Polished(Batch):
    """Continuous optimum of each particle.

    Attributes:
        refined: The result of the search with the polished alignment (sub-pixel position)
            and its scores; unchanged where the polish found nothing better.
        errors: Standard errors of the alignment.
        evaluations: Number of evaluations of score and derivatives.
        converged: No further step would have improved the score.
        at_limit: A coordinate stopped at the edge of the grid cell: the optimum lies
            outside, and the errors are not those of an optimum.
        expected_z: Expected z-score: that at this alignment in independent data of the same
            particle, which is the z-score minus the contribution of fitting noise.
        covariance: Covariance of the free coordinates, in the order of `Polish.parameters`;
            `errors` are the square roots of its diagonal.
        optima: Number of possible optima of the pose. If there are several, the errors
            include the distances from the best to the others.
        beam_tilt_mrad: Beam tilt (x, y) of each particle, the table's included; this and
            the following are None if not free, and NaN for particles without a polish.
        trefoil: Z33c and Z33s in rad Å³.
        even_zernikes: As in `Optics`.
        magnification: Anisotropic part of `mag_matrix`: half the difference of its diagonal
            elements, and the mean of the others.
    """

    refined: Refined
    errors: PoseErrors
    evaluations: Int[Array, "*n"]
    converged: Bool[Array, "*n"]
    at_limit: Bool[Array, "*n"]
    expected_z: Float[Array, "*n"]
    covariance: Float[Array, "*n p p"]
    optima: Int[Array, "*n"]
    beam_tilt_mrad: Float[Array, "*n 2"] | None = None
    trefoil: Float[Array, "*n 2"] | None = None
    even_zernikes: Float[Array, "*n 3"] | None = None
    magnification: Float[Array, "*n 2"] | None = None

    def _repr_html_(self) -> str:
        return shown_in_notebooks(
            self,
            lambda: (
                "Polished",
                {
                    **self.refined.html_rows(),
                    "expected z-score in independent data": span(self.expected_z),
                    "converged": int(np.sum(self.converged)),
                    "at a limit": int(np.sum(self.at_limit)),
                    "standard error, orientation": span(
                        self.errors.largest_rotation_deg, "°"
                    ),
                    "standard error, position": span(self.errors.shift_px, "px", "{:.3f}"),
                    "standard error, defocus": span(
                        self.errors.defocus_angstrom, "Å", "{:.0f}"
                    ),
                },
            ),
        )
