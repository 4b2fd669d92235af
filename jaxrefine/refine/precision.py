"""Single precision, in which search and polish compute."""

from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

_Tree = TypeVar("_Tree")

_SINGLE = {"float64": "float32", "complex128": "complex64", "int64": "int32"}


def in_single_precision(tree: _Tree) -> _Tree:
    """The same tree, its double-precision arrays converted; other leaves are unchanged.

    Weak types go, too, so that numbers from different sources share a compilation.
    """

    def single(leaf: Any) -> Any:
        if not isinstance(leaf, jax.Array | np.ndarray | np.generic):
            return leaf
        if getattr(leaf, "weak_type", False):
            leaf = jnp.asarray(leaf, leaf.dtype)
        name = _SINGLE.get(str(leaf.dtype))
        return leaf if name is None else leaf.astype(name)

    return jax.tree.map(single, tree)
