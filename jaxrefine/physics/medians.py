"""Medians of large images, without sorting."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


@jax.jit
def nanmedian(values: Float[Array, "..."]) -> Float[Array, ""]:
    """Median of all values that are not NaN, in float32; NaN if there are none.

    The two middle values are found by counting: first the upper 16 bits of all values, then
    the lower 16 bits of those with the right upper ones.
    """
    flat = values.ravel().astype(jnp.float32)
    bits = jax.lax.bitcast_convert_type(flat, jnp.uint32)
    sign = jnp.uint32(1 << 31)
    # Unsigned integers in the order of the numbers, with NaN last.
    key = jnp.where(bits >= sign, ~bits, bits | sign)
    key = jnp.where(jnp.isnan(flat), jnp.uint32(0xFFFFFFFF), key)
    count = jnp.sum(~jnp.isnan(flat), dtype=jnp.int32)
    upper, lower = (key >> 16).astype(jnp.int32), (key & 0xFFFF).astype(jnp.int32)
    none = jnp.zeros(1 << 16, jnp.int32)
    up_to = jnp.cumsum(none.at[upper].add(1))

    def of_rank(rank: Array) -> Array:
        first = jnp.searchsorted(up_to, rank, side="right")
        rank -= jnp.where(first > 0, up_to[first - 1], 0)
        inner = jnp.cumsum(none.at[lower].add((upper == first).astype(jnp.int32)))
        second = jnp.searchsorted(inner, rank, side="right")
        return (first.astype(jnp.uint32) << 16) | second.astype(jnp.uint32)

    found = jnp.stack([of_rank((count - 1) // 2), of_rank(count // 2)])
    found = jnp.where(found >= sign, found ^ sign, ~found)
    low, high = jax.lax.bitcast_convert_type(found, jnp.float32)
    middle = jnp.where(low == high, low, low + (high - low) / 2)  # also of infinities
    return jnp.where(count > 0, middle, jnp.nan)
