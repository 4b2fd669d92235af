"""Export of refined particles for other programs: a STAR file, and particle images."""

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import jax
import numpy as np
from jaxtyping import Float, Int

from jaxrefine.app.interchange.boxes import box_side, extract_boxes, normalised
from jaxrefine.data import InputError
from jaxrefine.io.atomic import refuse_no_file
from jaxrefine.io.mrc import image_shape, read_image
from jaxrefine.io.mrc_stack import new_stack
from jaxrefine.io.paths import PathMap, rebase_relative_paths, resolve_path, resolve_paths
from jaxrefine.io.star.optics import group_names
from jaxrefine.io.star.particles import KEPT, StarParticles
from jaxrefine.io.star.writer import (
    Stack,
    refuse_unsafe_names,
    write_cistem,
    write_relion,
)
from jaxrefine.io.table import ParticleTable, StartingValues, read_particle_table
from jaxrefine.io.table.schema import ANGLES, compared_names

log = logging.getLogger("jaxrefine")

# cryoSPARC imports files in RELION's format.
PROGRAMS = ("relion", "cistem", "cryosparc")
# Half a pixel, plus rounding.
_LARGEST_SHIFT_PX = 0.51
_REFINED = tuple(
    f"refined_{name}"
    for name in ("pos_x_img", "pos_y_img", *ANGLES, "relative_defocus", "scaled_mip")
)


@dataclass(frozen=True)
class Exported:
    """Result of an export.

    Attributes:
        star: The STAR file.
        stack: The particle images; None if not requested.
        written: Number of particles in the file.
        left_out: Number of particles that were not refined.
    """

    star: Path
    stack: Path | None
    written: int
    left_out: int


def export(
    table_path: Path,
    program: str,
    star: Path,
    *,
    boxes: bool = False,
    box_px: int | None = None,
    optics_from: Path | None = None,
    overwrite: bool = False,
    path_map: PathMap = (),
) -> Exported:
    """Write the refined particles of a table as another program's STAR file.

    Args:
        table_path: A refined table.
        program: One of `PROGRAMS`.
        star: The file to write.
        boxes: Also extract the particles, into a stack `.mrcs` beside the file.
        box_px: Side of the boxes, even; None: 1.5 times the template's.
        optics_from: RELION's micrographs.star, whose names the optics groups get, so that
            RELION recognises them.
        overwrite: Replace existing files.
        path_map: Folders that have moved: (OLD, NEW).

    Raises:
        InputError: With all errors of the table; no particle was refined; a micrograph
            cannot be read; or a file cannot be written.
    """
    if boxes and star.suffix != ".star":
        raise InputError(f"{star}: should end in .star: the images go into .mrcs beside it")
    for path in [star, *([star.with_suffix(".mrcs")] if boxes else [])]:
        refuse_overwriting(path, table_path, overwrite=overwrite)
    table = read_particle_table(table_path, ignore_aberrations=True)
    missing = [name for name in _REFINED if name not in table.raw.columns]
    if missing:
        raise InputError(
            f"{table_path}: missing columns: {', '.join(missing)}; name a refined "
            "table, as `jaxrefine CONFIG.yaml` writes it"
        )
    for path in [star, *([star.with_suffix(".mrcs")] if boxes else [])]:
        refuse_overwriting(path, *files_of(table), overwrite=True)
    start = table.start()
    rows = _refined_rows(table, start)
    if not len(rows):
        raise InputError(f"{table_path}: holds no refined particle: nothing to export")
    found = resolve_paths(
        table.micrograph_paths, beside=table.path.absolute().parent, path_map=path_map
    )
    particles = _particles(table, start, rows, star.absolute().parent)
    particles = replace(particles, micrograph=_as_found(particles.micrograph, found))
    if program != "cistem":
        particles = _with_one_pixel_size(particles, start.nominal_pixel_size_angstrom[rows])
    names = compared_names(table.raw.columns)
    if names:
        best = (table.raw["best_reference"].iloc[row] for row in rows)
        numbers = [names.index(name) + 1 if name in names else 0 for name in best]
        particles = replace(particles, class_number=numbers)
    if optics_from is not None:
        groups = {"rlnOpticsGroupName": group_names(optics_from, particles.micrograph)}
        particles = replace(particles, kept={**particles.kept, **groups})
    stack = None
    refuse_unsafe_names(star, particles.micrograph)
    side = box_px or box_side(_template_side(table, rows))
    if boxes:
        stack = Stack(str(star.with_suffix(".mrcs")), side)
        refuse_unsafe_names(star, [stack.name])
        _write_boxes(table, rows, particles, stack, found, bright=program != "cistem")
    if program == "cistem":
        write_cistem(star, particles, stack)
    else:
        write_relion(star, particles, stack, side)
    return Exported(
        star=star,
        stack=None if stack is None else Path(stack.name),
        written=len(rows),
        left_out=len(table) - len(rows),
    )


def _refined_rows(table: ParticleTable, start: StartingValues) -> Int[np.ndarray, " n"]:
    """Rows with a refined score, position, orientation and defocus."""
    there = np.isfinite([table.numbers(name) for name in _REFINED]).all(axis=0)
    return np.flatnonzero(there & start.from_refined)


def _particles(
    table: ParticleTable, start: StartingValues, rows: np.ndarray, folder: Path
) -> StarParticles:
    """Refined values of some rows; relative paths refer to `folder`."""
    centre = np.stack([table.numbers(f"refined_pos_{axis}_img") for axis in "xy"], -1)
    moved = rebase_relative_paths(table.raw, table.path.absolute().parent, folder)
    return StarParticles(
        micrograph=[moved["micrograph_path"].iloc[row] for row in rows],
        box_centre_px=centre[rows],
        shift_px=_shift(table, centre)[rows],
        euler_deg=start.euler_deg[rows],
        defocus_angstrom=start.defocus_angstrom[rows],
        astigmatism_deg=start.astigmatism_deg[rows],
        pixel_size_angstrom=start.pixel_size_angstrom[rows],
        optics=jax.tree.map(lambda values: values[rows], start.optics),
        z_score=table.numbers("refined_scaled_mip")[rows],
        kept={
            name: table.raw[name].iloc[rows].tolist()
            for name in KEPT
            if name in table.raw.columns and any(table.raw[name].iloc[rows])
        },
    )


def _as_found(texts: Sequence[str], found: Mapping[str, Path]) -> list[str]:
    """Replace absolute paths that do not exist by those where their files were found."""

    def written(text: str) -> str:
        moved = os.path.isabs(text) and not os.path.exists(text)
        there = moved and os.path.exists(found[text])
        return str(found[text].absolute()) if there else text

    return [written(text) for text in texts]


def _shift(table: ParticleTable, centre: np.ndarray) -> Float[np.ndarray, "n 2"]:
    """Sub-pixel shift (x, y): difference between positions in Å and whole pixels."""
    names = [f"refined_pos_{axis}_img_angstrom" for axis in "xy"]
    angstrom = np.stack([table.numbers(name) for name in names], axis=-1)
    shift = angstrom / table.numbers("pixel_size")[:, None] - centre
    odd = np.flatnonzero((np.abs(shift) > _LARGEST_SHIFT_PX).any(axis=-1))
    if len(odd):
        raise InputError(
            f"{table.path}, {table.locate(odd[0])}: refined_pos_x_img_angstrom and "
            "refined_pos_y_img_angstrom are more than half a pixel from "
            "refined_pos_x_img and refined_pos_y_img times pixel_size; they should be the "
            "same position"
        )
    return np.nan_to_num(np.round(shift, 5))


def _with_one_pixel_size(
    particles: StarParticles, nominal_angstrom: Float[np.ndarray, " n"]
) -> StarParticles:
    """Give all particles of one nominal pixel size the same pixel size, the median.

    RELION has one pixel size per optics group; otherwise each particle would need a group.
    """
    refined = particles.pixel_size_angstrom
    one = refined.copy()
    for nominal in np.unique(nominal_angstrom):
        same = nominal_angstrom == nominal
        one[same] = np.median(refined[same])
    spread = float(np.abs(one - refined).max())
    if spread > 1e-6:
        log.warning(
            "refined pixel sizes differ by up to %.6f Å from their median, which is "
            "written: a STAR file of RELION has one for each optics group",
            spread,
        )
    return replace(particles, pixel_size_angstrom=one)


def _template_side(table: ParticleTable, rows: np.ndarray) -> int:
    half = table.numbers("refined_pos_x_img") - table.numbers("refined_pos_x")
    return 2 * round(float(np.median(half[rows])))


def _write_boxes(
    table: ParticleTable,
    rows: np.ndarray,
    particles: StarParticles,
    stack: Stack,
    found: Mapping[str, Path],
    bright: bool,
) -> None:
    """Extract the boxes, with one micrograph in memory at a time."""
    images: dict[str, list[int]] = {}
    for place, row in enumerate(rows):
        images.setdefault(table.micrograph_paths[row], []).append(place)
    centre = particles.box_centre_px.astype(np.int64)
    pixel_size = float(np.median(particles.pixel_size_angstrom))
    with new_stack(Path(stack.name), len(rows), stack.box_px, pixel_size) as array:
        for text, places in images.items():
            path = found[text]
            try:
                image_shape(path)  # warns of unusual headers
                cut = extract_boxes(read_image(path), centre[places], stack.box_px)
                for place, box in zip(places, cut, strict=True):
                    array[place] = normalised(box, matter_is_bright=bright)
            except InputError as error:
                named = (f if str(path) in f else f"{path}: {f}" for f in error.errors)
                raise InputError(named) from error


def files_of(table: ParticleTable) -> set[Path]:
    """All files that a table names; they must not be overwritten."""
    folder = table.path.absolute().parent
    names = [name for name in table.raw.columns if str(name).endswith("_path")]
    texts = {text for name in names for text in table.raw[name] if text}
    return {resolve_path(text, beside=folder) for text in texts}


def refuse_overwriting(output: Path, *inputs: Path, overwrite: bool) -> None:
    """Refuse an output that is an input, or that exists unless `overwrite` is set.

    Raises:
        InputError: The output must not be written.
    """
    refuse_no_file(output)
    # realpath, because resolve() raises for circular links.
    if os.path.realpath(output) in map(os.path.realpath, inputs):
        raise InputError(f"{output}: is an input; name another file")
    if output.exists() and not overwrite:
        raise InputError(f"{output}: exists already; give another name, or --overwrite")
