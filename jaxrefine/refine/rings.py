"""Narrow rings of the Fourier plane, for sums over each ring."""

import equinox as eqx
import numpy as np
from jaxtyping import Float, Int

from jaxrefine.physics.fourier import radial_frequency

_NYQUIST = 0.5


class Rings(eqx.Module):
    """Narrow rings of the Fourier plane, assigned in turn to folds.

    Attributes:
        number: Number of rings, up to Nyquist.
        folds: Number of folds; ring r is left out of the fits of fold r modulo `folds`.
    """

    number: int = eqx.field(static=True, default=20)
    folds: int = eqx.field(static=True, default=2)

    def of(self, shape: tuple[int, int]) -> Int[np.ndarray, "h r"]:
        """The ring of each coefficient of an image of `shape`; -1 beyond Nyquist."""
        k = radial_frequency(shape)
        ring = np.floor(k * (self.number / _NYQUIST)).astype(np.int32)
        return np.where(k < _NYQUIST, ring, -1)

    def members(self, shape: tuple[int, int]) -> Int[np.ndarray, "b k"]:
        """Flat indices of each ring's coefficients, padded with one beyond the last."""
        ring = self.of(shape).ravel()
        each = [np.flatnonzero(ring == number) for number in range(self.number)]
        longest = max(map(len, each))
        return np.stack(
            [np.pad(at, (0, longest - len(at)), constant_values=ring.size) for at in each]
        )

    def kept(self, shape: tuple[int, int], fold: int) -> Float[np.ndarray, "h r"]:
        """1 for coefficients to which a fold fits poses, 0 for those left out."""
        ring = self.of(shape)
        left_out = (ring >= 0) & (ring % self.folds == fold)
        return np.where(left_out, 0.0, 1.0).astype(np.float32)

    @property
    def middle(self) -> Float[np.ndarray, " b"]:
        """Central frequency of each ring in cycles per pixel."""
        return (np.arange(self.number) + 0.5) * (_NYQUIST / self.number)
