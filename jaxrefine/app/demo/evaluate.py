"""Errors of particles with respect to the truth, before and after refinement."""

import csv
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from jaxrefine import simulate as sim

_SAME_PARTICLE_PX = 20.0

BeforeAfter = tuple[float, float]


@dataclass(frozen=True)
class ParticleErrors:
    """One simulated particle: errors of its row in the table, before and after.

    Attributes:
        particle_index: Its index in the table.
        angle_deg: Angle of the rotation between the row's orientation and the true one.
        position_px: Distance in the image.
        defocus_angstrom: Absolute difference.
        z_score: Not an error: scaled_mip, before and after.
    """

    particle_index: str
    angle_deg: BeforeAfter
    position_px: BeforeAfter
    defocus_angstrom: BeforeAfter
    z_score: BeforeAfter


@dataclass(frozen=True)
class Comparison:
    """Comparison of a particle table with the truth; str() gives a text table.

    Attributes:
        particles: Simulated particles with a row in the table, in the table's order.
        n_missed: Simulated particles without a row.
        n_false: Rows without a simulated particle.
    """

    particles: tuple[ParticleErrors, ...]
    n_missed: int
    n_false: int

    def mean(self, name: str) -> BeforeAfter:
        """Mean over the particles of one of the fields of `ParticleErrors`."""
        values = np.array([getattr(particle, name) for particle in self.particles])
        before, after = values.mean(axis=0)
        return float(before), float(after)

    def __str__(self) -> str:
        heads = ("angle error (°)", "position error (px)", "defocus error (Å)", "z-score")
        names = [field.name for field in fields(ParticleErrors)][1:]
        digits = (2, 2, 0, 2)
        lines = ["particle" + "".join(f"{head:>22}" for head in heads)]

        def add(label: str, values: list[BeforeAfter]) -> None:
            cells = [
                f"{before:.{n}f} -> {after:.{n}f}"
                for (before, after), n in zip(values, digits, strict=True)
            ]
            lines.append(f"{label:<8}" + "".join(f"{cell:>22}" for cell in cells))

        for particle in self.particles:
            add(particle.particle_index, [getattr(particle, name) for name in names])
        if self.particles:
            add("mean", [self.mean(name) for name in names])
        if self.n_missed or self.n_false:
            lines.append(
                f"{self.n_missed} simulated particles have no row; "
                f"{self.n_false} rows match no simulated particle"
            )
        return "\n".join(lines)


def compare_with_truth(folder: str | Path, refined_csv: str | Path) -> Comparison:
    """Compares the demo's particles with the truth.

    Args:
        folder: The demo's folder, which holds truth.csv.
        refined_csv: Table of particles. Each row belongs to the nearest simulated particle
            in the same micrograph; particles that were not refined count as unchanged.
    """
    truth, rows = _read(Path(folder) / "truth.csv"), _read(Path(refined_csv))
    owners = [_owner(row, truth) for row in rows]
    particles, found = [], set()
    for row, owner in zip(rows, owners, strict=True):
        if owner is not None and owner not in found:
            found.add(owner)
            particles.append(_errors(truth[owner], row))
    return Comparison(
        particles=tuple(particles),
        n_missed=len(truth) - len(particles),
        n_false=owners.count(None),
    )


def _owner(row: dict[str, str], truth: list[dict[str, str]]) -> int | None:
    micrograph = Path(row["micrograph_path"]).name
    distances = [
        _distance(true_row, row, "")
        if Path(true_row["micrograph_path"]).name == micrograph
        else np.inf
        for true_row in truth
    ]
    nearest = int(np.argmin(distances))
    return nearest if distances[nearest] < _SAME_PARTICLE_PX else None


def _errors(true_row: dict[str, str], row: dict[str, str]) -> ParticleErrors:
    states = ("", "refined_")
    true_rotation = _rotation(true_row, "")
    defocus = _value(true_row, "", "relative_defocus")
    angles, places, defoci, scores = zip(
        *(
            (
                sim.angle_between_deg(_rotation(row, state), true_rotation),
                _distance(true_row, row, state),
                abs(_value(row, state, "relative_defocus") - defocus),
                _value(row, state, "scaled_mip"),
            )
            for state in states
        ),
        strict=True,
    )
    return ParticleErrors(row["particle_index"], angles, places, defoci, scores)


def _rotation(row: dict[str, str], state: str) -> sim.FloatArray:
    return sim.matrix_from_euler(
        *(_value(row, state, name) for name in ("phi", "theta", "psi"))
    )


def _distance(true_row: dict[str, str], row: dict[str, str], state: str) -> float:
    y, x = (
        _value(row, state, f"pos_{axis}")
        + float(row.get(f"{state}shift_{axis}") or 0.0)  # sub-pixel, after a polish
        - _value(true_row, "", f"pos_{axis}")
        for axis in "yx"
    )
    return float(np.hypot(y, x))


def _value(row: dict[str, str], state: str, name: str) -> float:
    """The refined value if there is one, otherwise the starting one."""
    return float(row.get(state + name) or row[name])


def _read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))
