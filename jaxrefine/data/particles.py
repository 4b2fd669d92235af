"""Particles: alignment, which refinement may change, and the images to compare with."""

from dataclasses import replace

import numpy as np
from jaxtyping import Array, Bool, Float

from jaxrefine.data.batch import Batch
from jaxrefine.data.errors import InputError
from jaxrefine.data.optics import Optics


class Alignment(Batch):
    """Everything that refinement may change, per particle.

    Attributes:
        rotation: Matrix that takes xyz column vectors of the image frame into the
            volume frame: the central slice samples the volume at rotation @ (kx, ky, 0).
        position_px: (y, x) of the template's top-left corner in the micrograph.
        defocus_angstrom: Absolute defocus (u, v); underfocus is positive.
        astigmatism_deg: Direction of defocus_u, from the x axis towards y.
        pixel_size_angstrom: Pixel size of the micrograph.
    """

    rotation: Float[Array, "*n 3 3"]
    position_px: Float[Array, "*n 2"]
    defocus_angstrom: Float[Array, "*n 2"]
    astigmatism_deg: Float[Array, "*n"]
    pixel_size_angstrom: Float[Array, "*n"]


class Particles(Batch):
    """A batch of particles, ready to score. `*n` is no axis or one batch axis.

    Attributes:
        alignment: Starting values of the search.
        optics: The optics, per particle.
        template_pixel_size_angstrom: Voxel size of the template, per particle.
        image: The padded box, extracted from the filtered micrograph, with the box in its
            centre. Noise has power 1 per Fourier coefficient inside the band (pixel
            variance 1 without a bandpass). Its size is Q ≥ H; the margin holds the spread
            of the CTF.
        filter_image: The projective filter on the half-plane Fourier grid of the padded
            box.
        filter_template: The same filter on the second grid of the score: that of the
            template (`TemplateCTF`) or the fine one of the norm (`ImageCTF`).
        corr_mean: Mean of the correlation at each searched position, (H-h+1, W-w+1).
        corr_std: Its standard deviation.
        background_mean: Median of the whole mean map.
        background_std: Median of the whole standard deviation map.
        noise_std: Standard deviation of the correlation of noise at one pose.
        mean_peaks: Whether the mean map peaks at the particle, as for templates of high
            symmetry; the position is then found by the correlation over the background.
        valid: False for padding of a batch.
    """

    alignment: Alignment
    optics: Optics
    template_pixel_size_angstrom: Float[Array, "*n"]
    image: Float[Array, "*n Qh Qw"]
    filter_image: Float[Array, "*n Qh Qr"]
    filter_template: Float[Array, "*n Gh Gr"]
    corr_mean: Float[Array, "*n Y X"]
    corr_std: Float[Array, "*n Y X"]
    background_mean: Float[Array, "*n"]
    background_std: Float[Array, "*n"]
    noise_std: Float[Array, "*n"]
    mean_peaks: Bool[Array, "*n"]
    valid: Bool[Array, "*n"]

    def padded(self, count: int) -> "Particles":
        """Pad the batch to `count` with invalid copies of its last particle.

        Batches of equal length share one compilation, and invalid particles cost no time.

        Raises:
            InputError: `count` is less than the number of particles, or there are none.
        """
        there = len(self)
        if not 0 < there <= count:
            raise InputError(f"{there} particles cannot be filled up to {count}")
        number = np.minimum(np.arange(count), there - 1)
        return replace(self[number], valid=self.valid[number] & (np.arange(count) < there))
