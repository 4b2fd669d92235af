"""Local refinement of 2D template matching (2DTM) particles in JAX.

The library's face: the numerical core. Files are in `jaxrefine.io`, the program in
`jaxrefine.app`; importing this imports neither.
"""

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
from jaxrefine.physics.filters import Filters as Filters
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
from jaxrefine.refine.template_ctf import TemplateCTF as TemplateCTF

__version__ = "0.1.0"
