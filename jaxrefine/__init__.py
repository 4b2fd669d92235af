"""Local refinement of 2D template matching (2DTM) particles in JAX."""

__version__ = "0.1.0"
