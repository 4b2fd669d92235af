"""Base class of everything that has a value per particle: one particle, or a batch."""

from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

_Tree = TypeVar("_Tree", bound="Batch")


class Batch(eqx.Module):
    """A pytree of arrays without leading axis (one particle) or with one (a batch).

    `len(batch)`, `batch[3]` (one particle), `batch[2:5]`, `batch[[0, 7]]`, `batch[mask]`
    with a mask of booleans, and iteration over the particles work as for an array.
    """

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """() for one particle, (n,) for a batch."""
        # The leaf with the fewest axes has one value per particle.
        return min((np.shape(leaf) for leaf in jax.tree.leaves(self)), key=len)

    def __len__(self) -> int:
        if not self.batch_shape:
            raise TypeError(f"{type(self).__name__} of one particle has no length")
        return self.batch_shape[0]

    def __bool__(self) -> bool:
        return True

    def __getitem__(self: _Tree, index: Any) -> _Tree:
        count = len(self)
        if isinstance(index, int | np.integer) and not -count <= index < count:
            raise IndexError(f"particle {index} of {count}")
        if isinstance(index, list):
            index = np.asarray(index, None if index else int)
        return jax.tree.map(lambda leaf: leaf[index], self)

    @classmethod
    def stack(cls: type[_Tree], each: Iterable[_Tree]) -> _Tree:
        """Stack single particles to a batch, or concatenate batches."""
        together = list(each)
        if together and together[0].batch_shape:
            return jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *together)
        return jax.tree.map(lambda *leaves: jnp.stack(leaves), *together)

    def __iter__(self: _Tree) -> Iterator[_Tree]:
        return (self[i] for i in range(len(self)))
