"""Local refinement of 2D template matching (2DTM) particles in JAX.

This is the public interface of the numerical core. Files are handled in `jaxrefine.io`, the
program is in `jaxrefine.app`; importing this package imports neither.

Its names are listed in `__init__.pyi` and imported on first use. `import jaxrefine` is thus
fast, so that the program can handle Ctrl-C and `--help` before JAX is loaded.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
__version__ = "0.1.0"
