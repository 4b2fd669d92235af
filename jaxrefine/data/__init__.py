"""Data types, as equinox modules, that all other layers use."""

from jaxrefine.data.errors import ErrorCollector as ErrorCollector
from jaxrefine.data.errors import InputError as InputError
from jaxrefine.data.errors import add_error_context as add_error_context
from jaxrefine.data.errors import is_out_of_memory as is_out_of_memory
from jaxrefine.data.grid import SearchGrid as SearchGrid
from jaxrefine.data.offsets import COORDINATES as COORDINATES
from jaxrefine.data.offsets import PARAMETERS as PARAMETERS
from jaxrefine.data.offsets import Offsets as Offsets
from jaxrefine.data.optics import Optics as Optics
from jaxrefine.data.particles import Alignment as Alignment
from jaxrefine.data.particles import Particles as Particles
from jaxrefine.data.polished import POLISH_MEANING as POLISH_MEANING
from jaxrefine.data.polished import Polished as Polished
from jaxrefine.data.polished import PoseErrors as PoseErrors
from jaxrefine.data.refined import STATUS_MEANING as STATUS_MEANING
from jaxrefine.data.refined import Refined as Refined
from jaxrefine.data.refined import Status as Status
from jaxrefine.data.template import Template as Template
