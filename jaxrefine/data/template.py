"""The template, ready for slicing."""

from typing import Literal

import equinox as eqx
import jax
from jaxtyping import Array, Complex, Float

from jaxrefine.data.html import shown_in_notebooks


class Template(eqx.Module):
    """Fourier transform of the template volume.

    Real and imaginary parts are stored separately, because interpolation is several times
    faster on real numbers.

    Attributes:
        real: Real part of the half transform, z and y shifted so that zero frequency is
            at index M//2, and x from 0 to M/2. M is `side` times the padding.
        imaginary: Its imaginary part.
        side: Side of the template in voxels, even.
        order: Order of the interpolating splines: 1 (trilinear) or 3. With 3 each axis of
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

    def _repr_html_(self) -> str:
        def rows() -> tuple[str, dict[str, object]]:
            bytes_held = sum(leaf.nbytes for leaf in jax.tree.leaves(self))
            words = {1: "trilinear", 3: "cubic"}
            return "Template", {
                "side": f"{self.side} voxels",
                "transform": " × ".join(map(str, self.real.shape)),
                "slices": words[self.order],
                "memory": f"{bytes_held / 1e6:,.0f} MB",
            }

        return shown_in_notebooks(self, rows)
