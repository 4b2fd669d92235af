"""Tests, their worlds and oracles: one package, imported as `tests`."""

# jaxtyping finds the checker as an attribute of this package (pyproject.toml).
from tests import typechecker as typechecker
