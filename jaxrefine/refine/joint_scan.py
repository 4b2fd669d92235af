"""Coarse scan before a joint fit, which only finds the nearest maximum."""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Int

from jaxrefine.refine.joint_equations import scores
from jaxrefine.refine.joint_model import Model, State

# Steps that the fit can bridge: half a step changes phases by less than a radian at 4 Å or,
# for the pixel size, at three pixels and the rim of the template.
_DEFOCUS_STEP_ANGSTROM, _TILT_STEP_MRAD = 150.0, 1.0
_PIXEL_SIZE_STEP = 1.67  # divided by the template's side in px
_PIECE = 25  # number of grid points that are scored together


@dataclass(frozen=True)
class Ranges:
    """Ranges of the scan to either side; 0 for none.

    Attributes:
        pixel_size: As a fraction of the pixel size.
        defocus_angstrom: Of the mean defocus.
        beam_tilt_mrad: Of x and y.
    """

    pixel_size: float
    defocus_angstrom: float
    beam_tilt_mrad: float


def coarse_scan(
    model: Model, state: State, ranges: Ranges, pixel_size_angstrom: float
) -> State:
    """Find the best point of a grid of pixel size and defocus, then of beam tilt.

    The likelihood of a group is the sum of its particles' z²/2 at fixed poses.

    Args:
        model: The particles, and the model of their images.
        state: Centre of the grid.
        ranges: Ranges of the grid.
        pixel_size_angstrom: The pixel size to which `ranges` refers.
    """
    fitted = {value.parameter for value in model.design.values}
    step = _PIXEL_SIZE_STEP / model.score.side
    pixel = _steps(ranges.pixel_size, step) * pixel_size_angstrom
    defocus = _steps(ranges.defocus_angstrom, _DEFOCUS_STEP_ANGSTROM)
    tilt = _steps(ranges.beam_tilt_mrad, _TILT_STEP_MRAD)
    none = np.zeros(1)
    pixel = pixel if "pixel_size" in fitted else none
    defocus = defocus if "defocus" in fitted else none
    if len(pixel) * len(defocus) > 1:
        state = _scanned(model, state, {"pixel_size": pixel, "defocus": defocus})
    if len(tilt) > 1 and "beam_tilt" in fitted:
        state = _scanned(model, state, {"beam_tilt_x": tilt, "beam_tilt_y": tilt})
    return state


def _steps(reach: float, step: float) -> Float[np.ndarray, " k"]:
    """Offsets from -reach to reach, including 0, spaced by at most `step`."""
    count = int(np.ceil(reach / step - 1e-9))
    return np.linspace(-reach, reach, 2 * count + 1) if count else np.zeros(1)


def _scanned(
    model: Model, state: State, offsets: dict[str, Float[np.ndarray, " k"]]
) -> State:
    """The best offsets of two parameters.

    For each group of the first parameter, the best pair; for each group of the second, the
    best value given the first.
    """
    (first, a), (second, b) = offsets.items()
    likelihood = _likelihood(model, state, (first, second), a, b)
    of_first, of_second = _groups(model, first), _groups(model, second)
    if len(b) == 1:
        of_second = of_first
    if first.startswith("beam_tilt"):  # two coordinates of one group
        total = _summed(model, likelihood.reshape(len(likelihood), -1), of_first)
        i, j = np.unravel_index(total.argmax(axis=1), (len(a), len(b)))
    else:
        within = _summed(model, likelihood, of_second).max(axis=2)  # (second, a)
        member = np.zeros(len(within), int)
        member[of_second] = of_first
        i = _grouped(within, member).argmax(axis=1)
        chosen = likelihood[np.arange(len(likelihood)), i[of_first]]
        j = _summed(model, chosen, of_second).argmax(axis=1)
    shared = state.shared.copy()
    for label, best, values in ((first, i, a), (second, j, b)):
        for number, value in enumerate(model.design.values):
            if value.label == label and len(values) > 1:
                shared[number] += values[best[value.group]]
    return replace(state, shared=shared)


def _likelihood(
    model: Model,
    state: State,
    labels: tuple[str, str],
    a: Float[np.ndarray, " i"],
    b: Float[np.ndarray, " j"],
) -> Float[np.ndarray, "n i j"]:
    """z²/2 of every particle at each pair of offsets."""
    design = model.design
    at = design.coordinates(state.own, state.shared)
    moved = np.zeros((len(a), len(b), at.shape[1]))
    slices = design.local.slices
    for label, values in zip(labels, (a[:, None], b[None]), strict=True):
        tilt = label.startswith("beam_tilt")
        name = "beam_tilt" if tilt else label
        if name in slices:  # otherwise the only offset is 0
            moved[..., slices[name].start + label.endswith("_y")] = values
    count = len(a) * len(b)
    # In pieces of equal length, padded at the end, so that there is one compilation.
    pieces = np.resize(np.arange(count), (-(-count // _PIECE), _PIECE))
    moved = moved.reshape(count, -1)
    found = np.zeros((len(at), count))
    for piece in pieces:
        for rows, z in model.each(scores, at[:, None] + moved[piece]):
            found[np.ix_(rows, piece)] = z
    found = np.maximum(np.nan_to_num(found), 0.0) ** 2 / 2
    return found.reshape(-1, len(a), len(b))


def _groups(model: Model, label: str) -> Int[np.ndarray, " n"]:
    """Each particle's group of a parameter; a single group if it is not fitted."""
    design = model.design
    numbers = [n for n, value in enumerate(design.values) if value.label == label]
    if not numbers:
        return np.zeros(len(design.index), int)
    column = int(np.argmax(np.isin(design.index, numbers).any(axis=0)))
    return design.index[:, column] - min(numbers)


def _summed(
    model: Model, values: Float[np.ndarray, "n *k"], group: Int[np.ndarray, " n"]
) -> Float[np.ndarray, "g *k"]:
    """Sums over the particles of each group, of all processes."""
    return model.total([_grouped(values, group)])[0]


def _grouped(
    values: Float[np.ndarray, "n *k"], group: Int[np.ndarray, " n"]
) -> Float[np.ndarray, "g *k"]:
    total = np.zeros((group.max() + 1, *values.shape[1:]))
    np.add.at(total, group, values)
    return total
