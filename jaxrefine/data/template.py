"""The reference structure, ready to be sliced."""

import equinox as eqx
from jaxtyping import Array, Complex


class Template(eqx.Module):
    """Fourier transform of the template volume.

    Attributes:
        volume_rfft: Half transform with z and y shifted so that zero frequency is at
            index M//2, and x from 0 to M/2. M is `side` times the padding.
        side: Side of the template in voxels, even.
    """

    volume_rfft: Complex[Array, "M M Mr"]
    side: int = eqx.field(static=True)
