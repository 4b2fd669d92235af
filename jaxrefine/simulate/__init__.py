"""Simulated micrographs with known truth, in plain float64 numpy.

It serves to test the rest of the package and therefore shares no code with it: projections
are exact Fourier sums over rotated atoms, never slices of a sampled volume, and CTF,
rotations and noise are implemented independently.

Conventions: a rotation maps xyz column vectors of the image frame to the volume frame, so
that an atom at p in the volume appears at rotation.T @ p in the image, with x along the
columns and y along the rows. Volumes have axes z, y, x and their centre at voxel
side // 2. Images are detector counts: in underfocus, matter is dark.
"""

from jaxrefine.simulate.arrays import ComplexArray as ComplexArray
from jaxrefine.simulate.arrays import FloatArray as FloatArray
from jaxrefine.simulate.atoms import Atoms as Atoms
from jaxrefine.simulate.atoms import load_antibody as load_antibody
from jaxrefine.simulate.atoms import random_globule as random_globule
from jaxrefine.simulate.ctf import Microscope as Microscope
from jaxrefine.simulate.ctf import ctf_rfft as ctf_rfft
from jaxrefine.simulate.ctf import (
    electron_wavelength_angstrom as electron_wavelength_angstrom,
)
from jaxrefine.simulate.micrograph import NoiseSpectrum as NoiseSpectrum
from jaxrefine.simulate.micrograph import SimulatedMicrograph as SimulatedMicrograph
from jaxrefine.simulate.micrograph import SimulatedParticle as SimulatedParticle
from jaxrefine.simulate.micrograph import ideal_snr as ideal_snr
from jaxrefine.simulate.micrograph import particle_rfft as particle_rfft
from jaxrefine.simulate.micrograph import simulate_micrograph as simulate_micrograph
from jaxrefine.simulate.projection import exact_projection_rfft as exact_projection_rfft
from jaxrefine.simulate.projection import potential_volume as potential_volume
from jaxrefine.simulate.rotations import angle_between_deg as angle_between_deg
from jaxrefine.simulate.rotations import euler_from_matrix as euler_from_matrix
from jaxrefine.simulate.rotations import matrix_from_euler as matrix_from_euler
from jaxrefine.simulate.rotations import perturbed_rotation as perturbed_rotation
from jaxrefine.simulate.rotations import random_rotations as random_rotations
