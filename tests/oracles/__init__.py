"""Slow, plain references in float64 numpy, one module per piece of the formulas.

They import neither jax nor jaxrefine, so that agreement with them is evidence.
``test_oracles.py`` ties each of them to frozen output of Leopard-EM 1.2 and its
companion packages (``tests/data/peer``); the rest of the test suite may then use them
at any size and in float64.
"""
