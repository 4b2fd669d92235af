"""Atomic models from PDB and mmCIF files, read with gemmi."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from jaxrefine.data.errors import InputError
from jaxrefine.io.optional import require_packages
from jaxrefine.io.paths import no_such_file

_SUFFIXES = (".pdb", ".ent", ".cif", ".mmcif")


@dataclass(frozen=True)
class Model:
    """Atoms of a model.

    Attributes:
        positions_angstrom: xyz.
        elements: Symbols such as "C" or "Mg".
        b_factor_angstrom2: Isotropic B factors.
        occupancy: Occupancies; each alternative location has its own.
        waters: Number of water atoms that were omitted.
    """

    positions_angstrom: Float[np.ndarray, "a 3"]
    elements: tuple[str, ...]
    b_factor_angstrom2: Float[np.ndarray, " a"]
    occupancy: Float[np.ndarray, " a"]
    waters: int


def read_model(path: Path) -> Model:
    """Read the first model of a file, without waters; no symmetry is applied.

    Args:
        path: PDB or mmCIF file, optionally compressed (.gz).

    Raises:
        InputError: The file is missing, cannot be read, or holds no atoms.
    """
    require_packages("reading atomic models", "gemmi", extra="model")
    import gemmi

    suffix = Path(path.stem if path.suffix == ".gz" else path).suffix.lower()
    if not path.is_file():
        raise no_such_file(path)
    if suffix not in _SUFFIXES:
        raise InputError(
            f"{path}: expected an atomic model, a file that ends in one of "
            f"{', '.join(_SUFFIXES)} (or these with .gz)"
        )
    try:
        structure = gemmi.read_structure(str(path))
    except (ValueError, RuntimeError, OSError) as error:
        raise InputError(f"{path}: cannot be read as an atomic model: {error}") from error
    if not len(structure):
        raise InputError(f"{path}: holds no atoms; expected an atomic model")
    structure.setup_entities()
    atoms, waters = [], 0
    for chain in structure[0]:
        for residue in chain:
            if residue.is_water():
                waters += len(residue)
            else:
                atoms += list(residue)
    if not atoms:
        raise InputError(f"{path}: holds no atoms but waters; expected an atomic model")
    return Model(
        positions_angstrom=np.array([atom.pos.tolist() for atom in atoms]),
        elements=tuple(atom.element.name for atom in atoms),
        b_factor_angstrom2=np.array([atom.b_iso for atom in atoms], np.float64),
        occupancy=np.array([atom.occ for atom in atoms], np.float64),
        waters=waters,
    )
