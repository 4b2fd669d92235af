"""Chebyshev nodes of defocus and orientation, from which other values are interpolated."""

import math

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


def turn(rotation: Float[Array | np.ndarray, "b 3 3"]) -> Float[Array, "b 3"]:
    """Rotation axis times twice the sine of the angle: smooth, unlike a rotation vector."""
    r = rotation
    return jnp.stack(
        [r[:, 2, 1] - r[:, 1, 2], r[:, 0, 2] - r[:, 2, 0], r[:, 1, 0] - r[:, 0, 1]], axis=-1
    )


def _turned(vector: Float[Array, "b 3"]) -> Float[Array, "b 3 3"]:
    """The inverse of `turn`, up to 90 degrees (Rodrigues' formula)."""
    x, y, z = (vector / 2).T
    zero = jnp.zeros_like(x)
    rows = [[zero, -z, y], [z, zero, -x], [-y, x, zero]]
    cross = jnp.stack([jnp.stack(row, axis=-1) for row in rows], axis=-2)
    cosine = jnp.sqrt(1 - x**2 - y**2 - z**2)[:, None, None]
    square = jnp.matmul(cross, cross, precision="highest")
    return jnp.eye(3) + cross + square / (1 + cosine)


def _chebyshev(count: int) -> Float[np.ndarray, " r"]:
    return np.cos(np.pi * (np.arange(count) + 0.5) / count)


def _weights(x: Float[Array, " b"], count: int) -> Float[Array, "b r"]:
    """Lagrange weights of the nodes on [-1, 1]: l_i(x) = (1 + 2 Σ_j T_j(x_i) T_j(x)) / r.

    T_j are Chebyshev's polynomials, j from 1 to r - 1.
    """
    order = np.arange(count)
    at_nodes = np.cos(np.multiply.outer(np.arccos(_chebyshev(count)), order))
    factor = np.where(order == 0, 1, 2) / count * at_nodes
    at_x = jnp.cos(jnp.arccos(jnp.clip(x, -1, 1))[:, None] * order)
    return jnp.matmul(at_x, factor.T.astype(np.float32), precision="highest")


def defocus_nodes(
    offsets: Float[Array, " l"], count: int
) -> tuple[Float[Array, " r"], Float[Array, "l r"]]:
    """Nodes over the range of the offsets, and weights that interpolate to the offsets."""
    if count >= offsets.shape[0]:
        return offsets, jnp.eye(offsets.shape[0])
    centre = (jnp.max(offsets) + jnp.min(offsets)) / 2
    half = (jnp.max(offsets) - jnp.min(offsets)) / 2
    weights = _weights((offsets - centre) / half, count)
    return centre + half * _chebyshev(count).astype(np.float32), weights


class OrientationNodes(eqx.Module):
    """Nodes on a cuboid of rotations, `counts` along each axis.

    Attributes:
        half: Half the sides of the cuboid, in the units of `turn`.
        counts: Number of nodes along x, y and z; 1 for an axis without rotation.
    """

    half: Float[Array, " 3"]
    counts: tuple[int, int, int] = eqx.field(static=True)

    @classmethod
    def around(
        cls, rotation: Float[Array, "k 3 3"], counts: tuple[int, int, int]
    ) -> "OrientationNodes":
        """Nodes that span the given offset rotations."""
        return cls(jnp.max(jnp.abs(turn(rotation)), axis=0), counts)

    @property
    def rotation(self) -> Float[Array, "n 3 3"]:
        """Offset rotations at the nodes."""
        axes = np.meshgrid(*(_chebyshev(count) for count in self.counts), indexing="ij")
        unit = np.stack([axis.ravel() for axis in axes], axis=-1).astype(np.float32)
        return _turned(self.half * unit)

    def weights(self, rotation: Float[Array, "b 3 3"]) -> Float[Array, "b n"]:
        """Lagrange weights that interpolate from the nodes to offset rotations."""
        unit = turn(rotation) / jnp.where(self.half > 0, self.half, 1)
        x, y, z = (_weights(unit[:, i], self.counts[i]) for i in range(3))
        products = x[:, :, None, None] * y[:, None, :, None] * z[:, None, None, :]
        return products.reshape(rotation.shape[0], math.prod(self.counts))
