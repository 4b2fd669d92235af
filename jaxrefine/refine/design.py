"""Which shared values each particle has, and how they enter its coordinates."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from jaxrefine.refine.shared import OWN_COUNT, SHARED, LocalCoordinates

# What a match and a search leave of the own coordinates (degrees, px), as a prior: nothing
# to what an image says, but for picks that are no particles.
_POSE_SIGMA = (6.0, 6.0, 6.0, 2.0, 2.0)


class SharedValue(NamedTuple):
    """One number that the particles of a group share.

    Attributes:
        parameter: A name of `SHARED`.
        label: Of its coordinate.
        group: Number of the group, in the parameter's grouping.
    """

    parameter: str
    label: str
    group: int


@dataclass(frozen=True, eq=False)
class Design:
    """Of n particles, whose coordinates are own + matrix @ shared[index].

    Attributes:
        local: The coordinates of a particle.
        values: What the shared values are.
        index: Numbers of a particle's shared values.
        matrix: Its local coordinates from these.
        own_sigma: Standard deviations of the prior of the own coordinates, around 0.
        shared_sigma: Of the prior of the shared values, around 0: how far they may reach.
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
            groups: For each the number of every particle's group, from 0.
            place_angstrom: (y, x) of the particles, of which a defocus plane is a function;
                it adds nothing where they are 0.
            defocus_sigma_angstrom: Of a particle's own defocus around what is shared.
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
        """Where the values of a group's parameter stand."""
        return [
            number
            for number, value in enumerate(self.values)
            if value.parameter == parameter and value.group == group
        ]

    def members(self, parameter: str, group: int) -> Bool[np.ndarray, " n"]:
        """Which particles are of a group of a parameter."""
        some = np.isin(self.index, self.numbers(parameter, group))
        return np.any(np.asarray(some, bool), axis=1, keepdims=True)[:, 0]
