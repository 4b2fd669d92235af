"""The particle table: its columns, reading and checking it, and writing a refined one."""

from jaxrefine.io.table.particle_table import ParticleTable as ParticleTable
from jaxrefine.io.table.particle_table import StartingValues as StartingValues
from jaxrefine.io.table.particle_table import decide_statistics as decide_statistics
from jaxrefine.io.table.particle_table import ignored_aberrations as ignored_aberrations
from jaxrefine.io.table.particle_table import read_particle_table as read_particle_table
from jaxrefine.io.table.readers import write_table as write_table
