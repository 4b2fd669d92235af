"""Assignment of shared values to particles, and their effect on the coordinates."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from jaxrefine.refine.shared import OWN_COUNT, SHARED, LocalCoordinates

# Standard deviations (degrees, px) of a pose after match and search, as a prior. It matters
# only for picks that are not particles.
_POSE_SIGMA = (6.0, 6.0, 6.0, 2.0, 2.0)


class SharedValue(NamedTuple):
    """One number that the particles of a group share.

    Attributes:
        parameter: A name of `SHARED`.
        label: Label of its coordinate.
        group: Number of the group in the grouping of this parameter.
    """

    parameter: str
    label: str
    group: int


@dataclass(frozen=True, eq=False)
class Design:
    """The shared values of n particles, whose coordinates are own + matrix @ shared[index].

    Attributes:
        local: The coordinates of a particle.
        values: The shared values.
        index: Numbers of the shared values of each particle.
        matrix: Matrix from these to the particle's local coordinates.
        own_sigma: Standard deviations of the prior of the own coordinates, around 0.
        shared_sigma: Standard deviations of the prior of the shared values, around 0.
    """

    local: LocalCoordinates
    values: tuple[SharedValue, ...]
    index: Int[np.ndarray, "n g"]
    matrix: Float[np.ndarray, "n p g"]
    own_sigma: Float[np.ndarray, " o"]
    shared_sigma: Float[np.ndarray, " s"]

    @classmethod
    def of(
        cls,
        parameters: Sequence[str],
        groups: Mapping[str, Int[np.ndarray, " n"]],
        place_angstrom: Float[np.ndarray, "n 2"],
        defocus_sigma_angstrom: float,
    ) -> "Design":
        """Share some parameters within groups.

        Args:
            parameters: Names of `SHARED`.
            groups: For each parameter, the number of every particle's group, from 0.
            place_angstrom: (y, x) of the particles, for a defocus plane; it has no effect
                where they are 0.
            defocus_sigma_angstrom: Standard deviation of a particle's own defocus around
                the shared one.
        """
        local = LocalCoordinates.of(tuple(parameters))
        count, at = len(place_angstrom), local.slices
        values: list[SharedValue] = []
        index, columns = [], []
        for name in parameters:
            of_group, labels = np.asarray(groups[name]), SHARED[name].labels
            in_defocus = name in ("defocus", "defocus_plane")
            first = at["defocus" if in_defocus else name].start
            for number, label in enumerate(labels):
                index.append(len(values) + of_group)
                values += [SharedValue(name, label, g) for g in range(of_group.max() + 1)]
                column = np.zeros((count, local.count))
                row = first if in_defocus else first + number
                plane = name == "defocus_plane"
                column[:, row] = place_angstrom[:, number] if plane else 1.0
                columns.append(column)
        none = np.zeros((count, local.count, 0))
        return cls(
            local=local,
            values=tuple(values),
            index=np.stack(index, axis=1) if index else np.zeros((count, 0), int),
            matrix=np.stack(columns, axis=2) if columns else none,
            own_sigma=np.array([*_POSE_SIGMA, defocus_sigma_angstrom]),
            shared_sigma=np.array([SHARED[value.parameter].reach for value in values]),
        )

    def coordinates(
        self, own: Float[np.ndarray, "n o"], shared: Float[np.ndarray, " s"]
    ) -> Float[np.ndarray, "n p"]:
        """Local coordinates of all particles."""
        found = np.einsum("npg,ng->np", self.matrix, shared[self.index])
        found[:, :OWN_COUNT] += own
        return found

    def numbers(self, parameter: str, group: int) -> list[int]:
        """Indices of the values of a parameter for one group."""
        return [
            number
            for number, value in enumerate(self.values)
            if value.parameter == parameter and value.group == group
        ]

    def members(self, parameter: str, group: int) -> Bool[np.ndarray, " n"]:
        """Mask of the particles in one group of a parameter."""
        some = np.isin(self.index, self.numbers(parameter, group))
        return np.any(np.asarray(some, bool), axis=1, keepdims=True)[:, 0]
