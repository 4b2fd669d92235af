"""Which of a file's pixel sizes is that of the micrographs, to which positions refer."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float

from jaxrefine.data.errors import InputError
from jaxrefine.io.star.columns import some
from jaxrefine.io.star.particles import ReadOptions

# Calibrated and nominal pixel sizes differ by a few parts in a thousand, binning by more.
_SAME = 0.01
_ASK = "give the micrographs' own with --pixel-size"

Sizes = Mapping[str, Float[np.ndarray, " n"]]


def micrograph_pixel_size(
    path: Path,
    micrographs: Sequence[str],
    sizes: Sizes,
    options: ReadOptions,
    *,
    own: str | None = None,
) -> tuple[Float[np.ndarray, " n"], list[str]]:
    """Pixel size in Å of the micrograph of each particle.

    In this order: the value given by the user; the one that the file attributes to the
    micrograph; the one on which all others agree; the one that the table of the maps or the
    headers of the micrographs confirm.

    Args:
        path: The file, for messages.
        micrographs: Micrograph of each particle.
        sizes: Pixel sizes in the file, by column name.
        options: Information from the user and other files.
        own: Which of them the file attributes to the micrograph, if any.

    Returns:
        The pixel sizes, and notes.

    Raises:
        InputError: It is unclear which one is the micrographs', or the table of the maps
            has another.
    """
    known = options.pixel_size_of(micrographs)
    if options.pixel_size_angstrom is not None:
        given = np.full(len(micrographs), options.pixel_size_angstrom)
        return given, _difference(given, known, "--pixel-size")
    if not sizes:
        raise InputError(f"{path}: holds no pixel size; {_ask(known)}")
    notes = []
    if own is not None and own in sizes:
        label, taken = own, sizes[own]
    else:
        label, taken = next(iter(sizes.items()))
        if any(_differ(taken, other) for other in sizes.values()):
            hints = np.where(
                np.isfinite(known), known, options.header_pixel_size_of(micrographs)
            )
            label, taken = _confirmed(path, sizes, hints)
            notes.append(f"pixel size: {_shown(taken)} Å (_{label}), as the micrographs'")
        elif not np.isfinite(known).any():
            notes.append(
                f"pixel size: {_shown(taken)} Å (_{label}), the particle images'; if they "
                f"are binned, {_ASK}"
            )
    for difference in _difference(taken, known, f"_{label}"):
        raise InputError(f"{path}: {difference}: {_ask(known)}")
    return taken, notes


def _confirmed(path: Path, sizes: Sizes, hints: np.ndarray) -> tuple[str, np.ndarray]:
    for label, values in sizes.items():
        if np.isfinite(hints).all() and not _differ(values, hints):
            return label, values
    listed = ", ".join(f"{_shown(values)} Å (_{name})" for name, values in sizes.items())
    raise InputError(
        f"{path}: which pixel size is that of the micrographs? It holds {listed}, and "
        f"neither maps nor micrographs decide; {_ask(hints)}"
    )


def _ask(known: np.ndarray) -> str:
    """The remedy, with the value if it is known."""
    there = known[np.isfinite(known)]
    return _ASK + (f" (probably {_shown(there)})" if len(there) else "")


def _difference(taken: np.ndarray, known: np.ndarray, label: str) -> list[str]:
    there = np.isfinite(known)
    if not _differ(taken[there], known[there]):
        return []
    return [
        f"{label} is {_shown(taken[there])} Å, and the pixel size in the table of the maps "
        f"{_shown(known[there])} Å"
    ]


def _differ(one: np.ndarray, other: np.ndarray) -> bool:
    return bool(np.any(np.abs(one / other - 1) > _SAME))


def _shown(values: np.ndarray) -> str:
    return some(np.unique(values).tolist())
