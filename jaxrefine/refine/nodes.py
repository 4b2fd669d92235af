"""Chebyshev nodes of defocus and orientation, from which other values are interpolated."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxrefine.physics.rotations import AnyArray


def turn(rotation: Float[AnyArray, "b 3 3"]) -> Float[AnyArray, "b 3"]:
    """Rotation axis times twice the sine of the angle: smooth, unlike a rotation vector."""
    r, xp = rotation, rotation.__array_namespace__()
    return xp.stack(
        [r[:, 2, 1] - r[:, 1, 2], r[:, 0, 2] - r[:, 2, 0], r[:, 1, 0] - r[:, 0, 1]], axis=-1
    )


def from_turn(vector: Float[Array, "b 3"]) -> Float[Array, "b 3 3"]:
    """The inverse of `turn`, up to 90 degrees (Rodrigues' formula)."""
    x, y, z = (vector / 2).T
    zero = jnp.zeros_like(x)
    rows = [[zero, -z, y], [z, zero, -x], [-y, x, zero]]
    cross = jnp.stack([jnp.stack(row, axis=-1) for row in rows], axis=-2)
    cosine = jnp.sqrt(1 - x**2 - y**2 - z**2)[:, None, None]
    square = jnp.matmul(cross, cross, precision="highest")
    return jnp.eye(3) + cross + square / (1 + cosine)


def chebyshev(count: int) -> Float[np.ndarray, " r"]:
    """Nodes on [-1, 1]."""
    return np.cos(np.pi * (np.arange(count) + 0.5) / count)


def _weights(x: Float[Array, " b"], count: int) -> Float[Array, "b r"]:
    """Lagrange weights of the nodes on [-1, 1]: l_i(x) = (1 + 2 Σ_j T_j(x_i) T_j(x)) / r.

    T_j are Chebyshev's polynomials, j from 1 to r - 1.
    """
    order = np.arange(count)
    at_nodes = np.cos(np.multiply.outer(np.arccos(chebyshev(count)), order))
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
    return centre + half * chebyshev(count).astype(np.float32), weights


def reach(rotation: Float[AnyArray, "k 3 3"]) -> Float[AnyArray, " 3"]:
    """Half axes of an elliptic cylinder about z that holds rotations, as by `turn`."""
    xp, turned = rotation.__array_namespace__(), turn(rotation)
    half = xp.max(xp.abs(turned), axis=0)
    unit = turned[:, :2] / xp.where(half > 0, half, 1)[:2]
    radius = xp.sqrt(xp.max(xp.sum(unit**2, axis=1)))
    return half * xp.stack([radius, radius, xp.ones_like(radius)])


def _disk_nodes(degrees: int) -> Float[np.ndarray, "r 2"]:
    """Nodes on rings in the unit disk, for polynomials of a total degree below `degrees`.

    From Ramos-López et al., Appl. Math. Comput. 274 (2016), 247.
    """
    if degrees == 1:
        return np.zeros((1, 2))
    zeros = chebyshev(degrees)[: (degrees + 1) // 2]
    radii = 1.1565 * zeros - 0.76535 * zeros**2 + 0.60517 * zeros**3
    rings = []
    for number, radius in enumerate(radii):
        count = 2 * degrees - 1 - 4 * number
        angle = 2 * np.pi * np.arange(count) / count
        rings.append(radius * np.stack([np.cos(angle), np.sin(angle)], axis=-1))
    return np.concatenate(rings)


def _ridges(xy: Float[AnyArray, "b 2"], degrees: int) -> Float[AnyArray, "b r"]:
    """Orthogonal polynomials on the unit disk: U_m(x cos θ + y sin θ), θ = πk / (m + 1).

    Logan and Shepp, Duke Math. J. 42 (1975), 645. U_m, Chebyshev's polynomial of the second
    kind, is the sum of 2 T_j over j = m, m - 2, ..., of which T_0 counts once.
    """
    xp = xy.__array_namespace__()
    degree = np.repeat(np.arange(degrees), np.arange(degrees) + 1)
    number = np.concatenate([np.arange(m + 1) for m in range(degrees)])
    angle = np.pi * number / (degree + 1)
    order = np.arange(degrees)
    summed = (order <= degree[:, None]) & ((degree[:, None] - order) % 2 == 0)
    factor = xp.asarray(np.where(summed, np.where(order == 0, 1, 2), 0), dtype=xy.dtype)
    directions = xp.asarray(np.stack([np.cos(angle), np.sin(angle)]), dtype=xy.dtype)
    along = xp.sum(xy[:, :, None] * directions, axis=1)
    at_order = xp.arccos(xp.clip(along, -1, 1))[..., None] * order.astype(xy.dtype)
    return xp.sum(xp.cos(at_order) * factor, axis=-1)


class OrientationNodes(eqx.Module):
    """Nodes in an elliptic cylinder of rotations: a disk of tilts, times in-plane angles.

    A disk needs half as many nodes as a square.

    Attributes:
        half: From `reach`.
        counts: Polynomials have a total degree below the first number in the tilts about x
            and y, and a degree below the second in the angle about z.
    """

    half: Float[Array, " 3"]
    counts: tuple[int, int] = eqx.field(static=True)

    @classmethod
    def around(
        cls, rotation: Float[Array, "k 3 3"], counts: tuple[int, int]
    ) -> "OrientationNodes":
        """Nodes that span the given offset rotations."""
        return cls(reach(rotation), counts)

    @staticmethod
    def count(counts: tuple[int, int]) -> int:
        """Number of nodes; on the disk as many as there are polynomials."""
        tilt, in_plane = counts
        return tilt * (tilt + 1) // 2 * in_plane

    @property
    def rotation(self) -> Float[Array, "n 3 3"]:
        """Offset rotations at the nodes."""
        tilts, in_plane = _disk_nodes(self.counts[0]), chebyshev(self.counts[1])
        unit = np.concatenate(
            [
                np.repeat(tilts, len(in_plane), axis=0),
                np.tile(in_plane, len(tilts))[:, None],
            ],
            axis=1,
        )
        return from_turn(self.half * unit.astype(np.float32))

    def weights(self, rotation: Float[Array, "b 3 3"]) -> Float[Array, "b n"]:
        """Lagrange weights that interpolate from the nodes to offset rotations."""
        unit = turn(rotation) / jnp.where(self.half > 0, self.half, 1)
        tilt, in_plane = self.counts
        inverse = np.linalg.inv(_ridges(_disk_nodes(tilt), tilt)).astype(np.float32)
        disk = jnp.matmul(_ridges(unit[:, :2], tilt), inverse, precision="highest")
        products = disk[:, :, None] * _weights(unit[:, 2], in_plane)[:, None, :]
        return products.reshape(rotation.shape[0], -1)
