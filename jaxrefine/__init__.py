"""Local refinement of 2D template matching (2DTM) particles in JAX.

The library's face: the numerical core. Files are in `jaxrefine.io`, the program in
`jaxrefine.app`; importing this imports neither.

Its names are listed in `__init__.pyi` and imported when they are first used: `import
jaxrefine` takes no time, so that the program can answer to Ctrl-C, and to `--help`, before
JAX is there.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
__version__ = "0.1.0"
