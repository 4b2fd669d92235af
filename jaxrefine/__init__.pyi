"""The names of the library, for `lazy_loader`, editors and type checkers."""

from . import data as data
from . import physics as physics
from . import refine as refine
from .data import Alignment as Alignment
from .data import InputError as InputError
from .data import Offsets as Offsets
from .data import Optics as Optics
from .data import Particles as Particles
from .data import Polished as Polished
from .data import PoseErrors as PoseErrors
from .data import Refined as Refined
from .data import SearchGrid as SearchGrid
from .data import Status as Status
from .data import Template as Template
from .physics.atoms import template_from_atoms as template_from_atoms
from .physics.filters import Bandpass as Bandpass
from .physics.filters import Curve as Curve
from .physics.filters import Filters as Filters
from .physics.filters import Whitening as Whitening
from .physics.rotations import euler_to_matrix as euler_to_matrix
from .physics.rotations import matrix_to_euler as matrix_to_euler
from .physics.slices import make_template as make_template
from .physics.support import trim_template as trim_template
from .refine.clean import CleanMicrograph as CleanMicrograph
from .refine.clean import clean_micrograph as clean_micrograph
from .refine.differentiable import z_score as z_score
from .refine.grids import local_grid as local_grid
from .refine.grids import search_offsets as search_offsets
from .refine.grids import uniform_orientations as uniform_orientations
from .refine.image_ctf import ImageCTF as ImageCTF
from .refine.polish import Polish as Polish
from .refine.polish import polish_particles as polish_particles
from .refine.polish import recentred as recentred
from .refine.posterior import GridPosterior as GridPosterior
from .refine.posterior import grid_posterior as grid_posterior
from .refine.prepare import cut_particles as cut_particles
from .refine.prepare import prepare_micrograph as prepare_micrograph
from .refine.refine import refine_particles as refine_particles
from .refine.refine import score_particles as score_particles
from .refine.score_grid import GridScores as GridScores
from .refine.score_grid import score_grid as score_grid
from .refine.scoring import Score as Score
from .refine.template_ctf import TemplateCTF as TemplateCTF

__version__: str
