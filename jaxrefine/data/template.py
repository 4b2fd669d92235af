"""The reference structure, ready to be sliced."""

from typing import Literal

import equinox as eqx
import jax
from jaxtyping import Array, Complex, Float


class Template(eqx.Module):
    """Fourier transform of the template volume.

    Real and imaginary parts are kept apart: interpolation is several times faster on real
    numbers.

    Attributes:
        real: Real part of the half transform, z and y shifted so that zero frequency is
            at index M//2, and x from 0 to M/2. M is `side` times the padding.
        imaginary: Its imaginary part.
        side: Side of the template in voxels, even.
        order: Of the splines that interpolate: 1 (trilinear) or 3. With 3 each axis of
            the arrays is longer by one sample before its first and two after its last.
    """

    real: Float[Array, "M M Mr"]
    imaginary: Float[Array, "M M Mr"]
    side: int = eqx.field(static=True)
    order: Literal[1, 3] = eqx.field(static=True, default=1)

    @property
    def volume_rfft(self) -> Complex[Array, "M M Mr"]:
        """The half transform."""
        return jax.lax.complex(self.real, self.imaginary)
