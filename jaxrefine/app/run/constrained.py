"""A constrained search for a partner at a known place beside each refined particle.

It is a refinement of the partner's template with a particle table that is made here. Its
rows are those of the reference, its starting values the predicted poses of the partner, and
its statistic maps those of a match with the partner's template.
"""

import csv
import dataclasses
import logging
import math
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist

import numpy as np
from jaxtyping import Bool, Float

from jaxrefine.app.config import Config
from jaxrefine.app.config.constrained import ConstrainedConfig
from jaxrefine.data import InputError, Refined, SearchGrid
from jaxrefine.io.atomic import atomic_open
from jaxrefine.io.paths import resolve_paths
from jaxrefine.io.table import ParticleTable
from jaxrefine.physics.rotations import euler_to_matrix
from jaxrefine.refine.constrained_grid import about_axis, constrained_offsets

log = logging.getLogger("jaxrefine")

_MAPS = ("correlation_average_path", "correlation_variance_path")
_MOST_NAMED = 5
# Below this distance the two frames count as the same.
_SHORT_ANGSTROM = 5.0


# --- Predicted poses of the partner -------------------------------------------------


def partner_from_reference(
    center_vector: tuple[float, float, float],
    euler_deg: Float[np.ndarray, "n 3"],
) -> Float[np.ndarray, "n 3"]:
    """Vector from reference to partner centre in the image frame: Rᵀ·v, xyz in Å.

    Args:
        center_vector: The same vector in the volume frame, v.
        euler_deg: Orientations R of the references, image to volume.
    """
    return np.einsum("nji,j->ni", euler_to_matrix(euler_deg), np.asarray(center_vector))


def _height_as_leopard_em(
    center_vector: tuple[float, float, float], euler_deg: Float[np.ndarray, "n 3"]
) -> Float[np.ndarray, " n"]:
    """The height in Leopard-EM 1.2: that of R·v, with degrees in R taken as radians."""
    return euler_to_matrix(np.rad2deg(euler_deg))[:, 2] @ np.asarray(center_vector)


def predicted_table(
    config: Config,
    constraint: ConstrainedConfig,
    reference: ParticleTable,
    constrained: ParticleTable,
) -> ParticleTable:
    """The reference's table, with starting values and statistic maps of the partners.

    Args:
        config: The configuration.
        constraint: Its section on the partner.
        reference: Table of refined particles.
        constrained: Table of a match with the partner's template; only its maps are used.

    Raises:
        InputError: The second table has no maps of a micrograph of the first.
    """
    start, vector = reference.start(), constraint.center_vector
    offset = partner_from_reference(vector, start.euler_deg)
    height = offset[:, 2]
    if config.reproduce == "leopard_em":
        height = _height_as_leopard_em(vector, start.euler_deg)
    defocus = start.relative_defocus_angstrom - constraint.defocus_hand * height
    columns = {
        **_maps_of(reference, constrained, config),
        "refined_relative_defocus": [repr(float(value)) for value in defocus],
    }
    if constraint.template_frame == "partner":
        sides = [
            stack.original_template_size[0] // 2
            for stack in (
                constraint.particle_stack_reference,
                constraint.particle_stack_constrained,
            )
        ]
        shift = [reference.numbers(f"refined_shift_{axis}") for axis in "yx"]
        centre = start.position_px + sides[0] + np.nan_to_num(np.stack(shift, axis=-1))
        centre += offset[:, 1::-1] / start.pixel_size_angstrom[:, None]
        corner = np.rint(centre - sides[1]).astype(int)
        columns |= {f"refined_pos_{axis}": corner[:, i] for i, axis in enumerate("yx")}
        columns = {name: list(map(str, cells)) for name, cells in columns.items()}
    return dataclasses.replace(reference, raw=reference.raw.assign(**columns))


def _maps_of(
    reference: ParticleTable, constrained: ParticleTable, config: Config
) -> dict[str, list[str]]:
    """For each row of the reference, the maps that the other table has of its image."""
    images = _found(reference, "micrograph_path", config)
    theirs = _found(constrained, "micrograph_path", config)
    maps = [_map_texts(constrained, reference, name, config) for name in _MAPS]
    by_path: dict[Path, tuple[str, ...]] = {}
    for row, (image, *files) in enumerate(zip(theirs, *maps, strict=True)):
        if by_path.setdefault(image, tuple(files)) != tuple(files):
            raise InputError(
                f"{constrained.path}, {constrained.locate(row)}: names other maps "
                f"of {constrained.micrograph_paths[row]} than a line before; a constrained "
                "search needs those of one match"
            )
    # Otherwise by file name, if it is unique.
    names = Counter(image.name for image in by_path)
    by_name = {i.name: files for i, files in by_path.items() if names[i.name] == 1}
    chosen = [by_path.get(image) or by_name.get(image.name) for image in images]
    without = [row for row, files in enumerate(chosen) if files is None]
    missing = {images[row]: row for row in reversed(without)}  # first row of each
    if missing:
        raise InputError(
            f"{constrained.path}: no row is of {reference.micrograph_paths[row]} (named on "
            f"{reference.locate(row)} of {reference.path}), so that the statistic maps of "
            "the partner's match are not known there"
            for row in sorted(missing.values())[:_MOST_NAMED]
        )
    known = [files for files in chosen if files is not None]
    return {name: [each[place] for each in known] for place, name in enumerate(_MAPS)}


def _found(table: ParticleTable, column: str, config: Config) -> list[Path]:
    """Resolved paths of the files in a column."""
    texts, beside = table.paths(column), table.path.absolute().parent
    found = resolve_paths(texts, beside=beside, path_map=config.path_map)
    return [Path(os.path.realpath(found[text])) for text in texts]


def _map_texts(
    table: ParticleTable, other: ParticleTable, column: str, config: Config
) -> list[str]:
    """Texts of a column of paths, made valid for another table."""
    folders = {os.path.realpath(each.path.absolute().parent) for each in (table, other)}
    if len(folders) == 1:
        return table.paths(column)
    return [str(path) for path in _found(table, column, config)]


def warn_of_template_frame(
    constraint: ConstrainedConfig,
    volume: Float[np.ndarray, "n n n"],
    voxel_size_angstrom: float,
) -> None:
    """Warn if the template's density is where it should be in the other frame.

    Args:
        constraint: Section of the configuration that states the expected frame.
        volume: The template.
        voxel_size_angstrom: Voxel size of the template.
    """
    vector = np.asarray(constraint.center_vector)
    density = np.clip(volume, 0.0, None)  # without negative rings around atoms
    places = np.arange(len(volume)) - len(volume) // 2
    sums = [density.sum(axis=axes) for axes in ((0, 1), (0, 2), (1, 2))]  # of x, y, z
    centre = np.array([each @ places for each in sums]) / density.sum()
    centre *= voxel_size_angstrom
    to_middle, to_vector = (np.linalg.norm(centre - place) for place in (0.0, vector))
    if np.linalg.norm(vector) < _SHORT_ANGSTROM:
        return
    in_reference = constraint.template_frame == "reference"
    if (to_vector < to_middle) == in_reference:
        return
    other, there = (
        ("partner", "in its middle")
        if in_reference
        else ("reference", "where center_vector says")
    )
    log.warning(
        "the template's density is centred at (%.0f, %.0f, %.0f) Å of its volume, as for "
        "template_frame: %s (%s), but the configuration has template_frame: %s",
        *centre,
        other,
        there,
        constraint.template_frame,
    )


# --- Search grid --------------------------------------------------------------------


def _offset_angles(
    constraint: ConstrainedConfig,
) -> tuple[Float[np.ndarray, "k 3"], Bool[np.ndarray, " k"]]:
    """Euler angles of the offsets about the axis, and a mask of the outermost."""
    chosen = constraint.orientation_refinement_config
    if not chosen.enabled:
        return np.zeros((1, 3)), np.zeros(1, bool)
    return constrained_offsets(
        chosen.base_grid_method,
        phi=(chosen.phi_min, chosen.phi_max, chosen.phi_step or 2.5),
        theta=(chosen.theta_min, chosen.theta_max, chosen.theta_step),
        psi=(chosen.psi_min, chosen.psi_max, chosen.psi_step),
        roll_axis=None if chosen.search_roll_axis else chosen.roll_axis,
        roll_step=chosen.roll_step,
        as_leopard_em=constraint.reproduce == "leopard_em",
    )


def partner_orientations(
    constraint: ConstrainedConfig,
) -> tuple[Float[np.ndarray, "k 3 3"], Bool[np.ndarray, " k"]]:
    """Offset rotations in the volume frame, and a mask of the outermost."""
    euler, at_edge = _offset_angles(constraint)
    axis = constraint.orientation_refinement_config.rotation_axis_euler_angles
    return about_axis(euler, axis), at_edge


# --- Decision -----------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Constraint:
    """Criteria of a constrained search.

    Attributes:
        table: The table whose statistic maps are used.
        offset_euler_deg: Offset about the axis, for each orientation of the search.
        projections: Number of orientations times defocus values searched per particle.
        positions: Number of positions searched per projection.
        false_positives: Expected number per particle if no partner is present.
        center_vector: Vector from the reference's centre to the partner's, in Å.
        side: Side of the template in px.
        in_reference_frame: Whether positions are those of the reference.
    """

    table: ParticleTable
    offset_euler_deg: Float[np.ndarray, "k 3"]
    projections: int
    positions: int
    false_positives: float
    center_vector: tuple[float, float, float]
    side: int
    in_reference_frame: bool

    @property
    def correlations(self) -> int:
        """Number of correlations per particle."""
        return self.projections * self.positions

    @property
    def threshold(self) -> float:
        """z-score that noise exceeds `false_positives` times in all correlations.

        Correlations are taken as Gaussian and independent, as in Leopard-EM. Neighbours are
        correlated, so that there are fewer false positives.
        """
        share = self.false_positives / self.correlations
        return -NormalDist().inv_cdf(share) if share < 1 else -math.inf

    def p_value(self, z_score: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
        """Probability that the best of all correlations in noise is at least this high."""
        single = np.array([math.erfc(z / math.sqrt(2)) / 2 for z in z_score.tolist()])
        with np.errstate(divide="ignore"):
            return -np.expm1(self.correlations * np.log1p(-single))

    def describe(self) -> list[str]:
        """Description of the criteria, one line each."""
        return [
            f"{self.projections:,} projections x {self.positions:,} positions = "
            f"{self.correlations:,} correlations per particle; found: z above "
            f"{self.threshold:.2f} ({self.false_positives:g} false positives per particle)"
        ]

    def columns(
        self, refined: Refined, found: dict[str, np.ndarray], pixel_size: np.ndarray
    ) -> dict[str, np.ndarray]:
        """For each particle, the offset of the best, and whether the partner was found.

        Args:
            refined: Results of the search, as numpy arrays.
            found: The same as columns.
            pixel_size: Pixel size of each particle in Å.
        """
        orientation = np.asarray(refined.grid_index)[:, 2]
        z_score = np.asarray(refined.z_score, np.float64)
        centre = np.stack([found["refined_pos_x"], found["refined_pos_y"]], axis=-1)
        centre = centre + self.side // 2
        if self.in_reference_frame:
            angles = [found[f"refined_{name}"] for name in ("phi", "theta", "psi")]
            offset = partner_from_reference(self.center_vector, np.stack(angles, axis=-1))
            centre = centre + offset[:, :2] / pixel_size[:, None]
        offsets = self.offset_euler_deg[orientation]
        names = ("phi", "theta", "psi")
        return {
            **{f"original_offset_{name}": offsets[:, i] for i, name in enumerate(names)},
            "partner_p_value": self.p_value(z_score),
            "partner_found": z_score > self.threshold,
            "partner_pos_x_img": centre[:, 0],
            "partner_pos_y_img": centre[:, 1],
        }

    def parameters(self) -> dict[str, float]:
        """The numbers that determine the threshold, with Leopard-EM's names."""
        return {
            "num_projections": self.projections,
            "num_px": self.positions,
            "num_correlations": self.correlations,
            "false_positives": self.false_positives,
            "threshold": self.threshold,
        }


def build_constraint(
    config: Config, table: ParticleTable, grid: SearchGrid
) -> Constraint | None:
    """Criteria of a constrained search; None for a refinement.

    Args:
        config: The configuration.
        table: The table whose statistic maps are used.
        grid: The search grid.
    """
    constraint = config.constraint
    if constraint is None:
        return None
    stack = config.particle_stack
    sizes = zip(stack.extracted_box_size, stack.original_template_size, strict=True)
    return Constraint(
        table=table,
        offset_euler_deg=_offset_angles(constraint)[0],
        projections=math.prod(grid.shape),
        positions=math.prod(box - side + 1 for box, side in sizes),
        false_positives=constraint.false_positives,
        center_vector=constraint.center_vector,
        side=stack.original_template_size[0],
        in_reference_frame=constraint.template_frame == "reference",
    )


def side_files(output: Path) -> tuple[Path, Path]:
    """Files beside the table, with Leopard-EM's names: found partners, and parameters."""
    stem = output.stem
    return (
        output.with_name(f"{stem}_above_threshold.csv"),
        output.with_name(f"{stem}_parameters.csv"),
    )


def write_parameters(path: Path, constraint: Constraint) -> None:
    """Write the numbers that determine the threshold: a header, and a row."""
    parameters = constraint.parameters()
    with atomic_open(path, encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(parameters), lineterminator="\n")
        writer.writeheader()
        writer.writerow(parameters)
