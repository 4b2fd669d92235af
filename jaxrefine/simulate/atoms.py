"""Objects to simulate: point scatterers, from a structure or random."""

import gzip
from dataclasses import dataclass, replace
from importlib.resources import files

import numpy as np

from jaxrefine.simulate.arrays import FloatArray

_ATOMIC_NUMBER = {"H": 1.0, "C": 6.0, "N": 7.0, "O": 8.0, "P": 15.0, "S": 16.0}


@dataclass(frozen=True)
class Atoms:
    """Point scatterers, each blurred by its own Gaussian.

    Attributes:
        positions_angstrom: (n, 3), xyz relative to the centroid.
        weights: (n,), scattering weights, approximately the atomic numbers.
        b_factor_angstrom2: (n,), B of exp(-B k²/4), k in 1/Å.
    """

    positions_angstrom: FloatArray
    weights: FloatArray
    b_factor_angstrom2: FloatArray

    def blurred(self, b_factor_angstrom2: float) -> "Atoms":
        """The same atoms with this value added to every B factor."""
        return replace(
            self, b_factor_angstrom2=self.b_factor_angstrom2 + b_factor_angstrom2
        )


def load_antibody() -> Atoms:
    """The intact mouse antibody of PDB entry 1IGY (CC0), without hydrogens."""
    raw = files("jaxrefine.simulate").joinpath("1igy.csv.gz").read_bytes()
    lines = gzip.decompress(raw).decode().splitlines()[1:]
    elements, *numbers = zip(*(line.split(",") for line in lines), strict=True)
    x, y, z, b_factor = np.array(numbers, dtype=np.float64)
    positions = np.stack([x, y, z], axis=1)
    return Atoms(
        positions_angstrom=positions - positions.mean(axis=0),
        weights=np.array([_ATOMIC_NUMBER[element] for element in elements]),
        b_factor_angstrom2=b_factor,
    )


def random_globule(n_atoms: int, radius_angstrom: float, rng: np.random.Generator) -> Atoms:
    """A random object of the size of a small protein: seven unequal lobes, no symmetry.

    Args:
        n_atoms: Number of atoms.
        radius_angstrom: Distance of the outermost atom from the centroid.
        rng: Random generator.
    """
    directions = rng.standard_normal((7, 3))
    directions /= np.linalg.norm(directions, axis=1)[:, None]
    lobes = 0.6 * directions * rng.uniform(0.3, 1.0, (7, 1))
    share = rng.dirichlet(np.full(7, 4.0))
    spread = rng.uniform(0.12, 0.25, 7)
    lobe = rng.choice(7, n_atoms, p=share)
    offsets = rng.standard_normal((n_atoms, 3))
    offsets *= np.minimum(1.0, 2.0 / np.linalg.norm(offsets, axis=1))[:, None]
    positions = lobes[lobe] + spread[lobe, None] * offsets
    positions -= positions.mean(axis=0)
    positions *= radius_angstrom / np.linalg.norm(positions, axis=1).max()
    weights = rng.choice([6.0, 7.0, 8.0, 16.0], n_atoms, p=[0.63, 0.165, 0.2, 0.005])
    return Atoms(positions, weights, rng.uniform(10.0, 40.0, n_atoms))
