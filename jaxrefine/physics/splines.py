"""Interpolation in a volume by cubic B-splines, with derivatives of any order."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Array, Float, Int

# Polynomial coefficients (cubic, quadratic, …) of the four pieces of a spline, at samples
# -1, 0, 1 and 2, and factors for their derivatives, the fourth of which is 0.
_SPLINE = np.array([[-1, 3, -3, 1], [3, -6, 0, 4], [-3, 3, 3, 1], [1, 0, 0, 0]]) / 6
_TIMES = [np.diag(values) for values in ([1, 1, 1, 1], [3, 2, 1], [6, 2], [6])]
_PIECES = np.stack(
    [np.pad(_SPLINE[:, : len(t)] @ t, ((0, 0), (4 - len(t), 0))) for t in _TIMES]
    + [np.zeros((4, 4))]
).astype(np.float32)

# Orders of differentiation along z, y and x.
Orders = tuple[int, int, int]
_Arrays = tuple[Float[Array, "..."], ...]


def trilinear(
    volumes: tuple[Float[Array, " v"], ...],
    strides: tuple[int, int, int],
    base: Int[Array, "..."],
    shares: _Arrays,
) -> _Arrays:
    """Like `tricubic`, between the 8 corners of a voxel, of which `base` is the first."""

    def along(volume: Float[Array, " v"], base: Int[Array, "..."], axis: int) -> Array:
        if axis == len(strides):
            return volume.at[base].get(mode="promise_in_bounds")
        first = along(volume, base, axis + 1)
        second = along(volume, base + strides[axis], axis + 1)
        return first + (second - first) * shares[axis]

    return tuple(along(volume, base, 0) for volume in volumes)


def tricubic(
    volumes: tuple[Float[Array, " v"], ...],
    strides: tuple[int, int, int],
    base: Int[Array, "..."],
    shares: _Arrays,
) -> _Arrays:
    """Interpolate by cubic B-splines from four samples along each axis.

    Args:
        volumes: Flat volumes of equal shape.
        strides: Distance between neighbours along z, y and x in the flat volumes.
        base: Index of the first of the 64 samples, one before the voxel along each axis.
        shares: Fraction of the voxel along z, y and x, from 0 to 1.

    Returns:
        Values of each volume. Differentiable in volumes and shares, to any order.
    """
    return _derivatives(strides, ((0, 0, 0),), volumes, base, shares)[0]


@partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _derivatives(
    strides: tuple[int, int, int],
    orders: tuple[Orders, ...],
    volumes: tuple[Float[Array, " v"], ...],
    base: Int[Array, "..."],
    shares: _Arrays,
) -> tuple[_Arrays, ...]:
    """Derivatives of each volume, of several orders, in one pass over the samples."""
    plane, row, column = strides
    of_z, of_y, of_x = (
        jnp.asarray(_PIECES[np.array(each)]) for each in zip(*orders, strict=True)
    )
    zero = jnp.zeros((len(orders), *base.shape), jnp.result_type(*volumes, *shares))

    def polynomial(
        coefficients: Float[Array, "q 4"], share: Float[Array, "..."]
    ) -> Float[Array, "q ..."]:
        at = coefficients.reshape(*coefficients.shape, *[1] * share.ndim)
        return ((at[:, 0] * share + at[:, 1]) * share + at[:, 2]) * share + at[:, 3]

    # A loop over the 16 lines of 4 samples compiles in a fraction of the time.
    def add_line(totals: _Arrays, tap: Array) -> tuple[_Arrays, None]:
        at_z, at_y = jnp.divmod(tap, 4)
        first = base + (at_z * plane + at_y * row)
        along_z = polynomial(of_z[:, at_z], shares[0])
        across = along_z * polynomial(of_y[:, at_y], shares[1])
        along_x = [polynomial(of_x[:, step], shares[2]) for step in range(4)]

        def line(volume: Float[Array, " v"]) -> Float[Array, "q ..."]:
            samples = (
                volume.at[first + step * column].get(mode="promise_in_bounds")
                for step in range(4)
            )
            return sum((s * x for s, x in zip(samples, along_x, strict=True)), zero)

        added = [t + line(v) * across for t, v in zip(totals, volumes, strict=True)]
        return tuple(added), None

    taps = jnp.arange(16, dtype=base.dtype)
    totals, _ = jax.lax.scan(add_line, (zero,) * len(volumes), taps)
    return tuple(tuple(total[n] for total in totals) for n in range(len(orders)))


@partial(_derivatives.defjvp, symbolic_zeros=True)
def _slopes(strides, orders, primals, tangents):
    """JVP rule: the derivative along an axis has the next order, in the same pass."""
    volumes, base, shares = primals
    of_volumes, _, of_shares = tangents
    moving = [axis for axis in range(3) if not isinstance(of_shares[axis], SymbolicZero)]
    raised = [_raised(each, axis) for each in orders for axis in moving]
    wanted = tuple(dict.fromkeys([*orders, *raised]))
    values = _derivatives(strides, wanted, volumes, base, shares)
    found = dict(zip(wanted, values, strict=True))
    slopes = [[jnp.zeros_like(values[0][0]) for _ in volumes] for _ in orders]
    if not any(isinstance(tangent, SymbolicZero) for tangent in of_volumes):
        slopes = _derivatives(strides, orders, of_volumes, base, shares)  # linear in them
    for axis in moving:
        slopes = [
            [
                slope + along * of_shares[axis]
                for slope, along in zip(of_each, found[_raised(each, axis)], strict=True)
            ]
            for each, of_each in zip(orders, slopes, strict=True)
        ]
    return tuple(found[each] for each in orders), tuple(map(tuple, slopes))


def _raised(orders: Orders, axis: int) -> Orders:
    z, y, x = (order + (axis == at) for at, order in enumerate(orders))
    return z, y, x
