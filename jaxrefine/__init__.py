"""Local refinement of 2D template matching (2DTM) particles in JAX.

The library's face: the numerical core. Files are in `jaxrefine.io`, the program in
`jaxrefine.app`; importing this imports neither.

Names are imported when they are first used: `import jaxrefine` takes no time, so that the
program can answer to Ctrl-C, and to `--help`, before JAX is there.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxrefine.data import Alignment as Alignment
    from jaxrefine.data import InputError as InputError
    from jaxrefine.data import Offsets as Offsets
    from jaxrefine.data import Optics as Optics
    from jaxrefine.data import Particles as Particles
    from jaxrefine.data import Polished as Polished
    from jaxrefine.data import PoseErrors as PoseErrors
    from jaxrefine.data import Refined as Refined
    from jaxrefine.data import SearchGrid as SearchGrid
    from jaxrefine.data import Status as Status
    from jaxrefine.data import Template as Template
    from jaxrefine.physics.filters import Bandpass as Bandpass
    from jaxrefine.physics.filters import Curve as Curve
    from jaxrefine.physics.filters import Filters as Filters
    from jaxrefine.physics.filters import Whitening as Whitening
    from jaxrefine.physics.rotations import euler_to_matrix as euler_to_matrix
    from jaxrefine.physics.rotations import matrix_to_euler as matrix_to_euler
    from jaxrefine.physics.slices import make_template as make_template
    from jaxrefine.refine.differentiable import z_score as z_score
    from jaxrefine.refine.grids import local_grid as local_grid
    from jaxrefine.refine.grids import search_offsets as search_offsets
    from jaxrefine.refine.grids import uniform_orientations as uniform_orientations
    from jaxrefine.refine.image_ctf import ImageCTF as ImageCTF
    from jaxrefine.refine.polish import Polish as Polish
    from jaxrefine.refine.polish import polish_particles as polish_particles
    from jaxrefine.refine.polish import recentred as recentred
    from jaxrefine.refine.prepare import cut_particles as cut_particles
    from jaxrefine.refine.prepare import prepare_micrograph as prepare_micrograph
    from jaxrefine.refine.refine import refine_particles as refine_particles
    from jaxrefine.refine.refine import score_particles as score_particles
    from jaxrefine.refine.scoring import Score as Score
    from jaxrefine.refine.template_ctf import TemplateCTF as TemplateCTF

_HOMES = {
    "data": (
        "Alignment",
        "InputError",
        "Offsets",
        "Optics",
        "Particles",
        "Polished",
        "PoseErrors",
        "Refined",
        "SearchGrid",
        "Status",
        "Template",
    ),
    "physics.filters": ("Bandpass", "Curve", "Filters", "Whitening"),
    "physics.rotations": ("euler_to_matrix", "matrix_to_euler"),
    "physics.slices": ("make_template",),
    "refine.differentiable": ("z_score",),
    "refine.grids": ("local_grid", "search_offsets", "uniform_orientations"),
    "refine.image_ctf": ("ImageCTF",),
    "refine.polish": ("Polish", "polish_particles", "recentred"),
    "refine.prepare": ("cut_particles", "prepare_micrograph"),
    "refine.refine": ("refine_particles", "score_particles"),
    "refine.scoring": ("Score",),
    "refine.template_ctf": ("TemplateCTF",),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}
_LAYERS = ("data", "physics", "refine")

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name in _LAYERS:
        return import_module(f"jaxrefine.{name}")
    if name not in _HOME:
        raise AttributeError(f"module 'jaxrefine' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"jaxrefine.{_HOME[name]}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME, *_LAYERS})
