"""Import of particles from another program's file to a particle table."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from jaxrefine.app.interchange.export_star import files_of, refuse_overwriting
from jaxrefine.app.interchange.flat_maps import write_flat_maps
from jaxrefine.app.interchange.micrograph_names import matched_names
from jaxrefine.data import InputError
from jaxrefine.io.mrc import image_pixel_size, image_shape
from jaxrefine.io.paths import rebase_relative_paths, resolve_path
from jaxrefine.io.star.particles import ReadOptions, StarParticles
from jaxrefine.io.star.reader import MOST_TEMPLATE_PX, imported_table, read_star
from jaxrefine.io.table import (
    ParticleTable,
    decide_statistics,
    read_particle_table,
    write_table,
)
from jaxrefine.io.table.statistic_maps import MapKind


@dataclass(frozen=True)
class Imported:
    """Result of an import.

    Attributes:
        particles: Number of rows.
        statistics: Kind of the maps, as the configuration calls it; None if unknown.
        notes: Notes for the user on how the file was read.
    """

    particles: int
    statistics: MapKind | None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Known:
    """What a table of maps contains about one micrograph."""

    micrograph: str
    maps: tuple[str, str]
    pixel_size_angstrom: float


def import_star(
    star: Path,
    output: Path,
    template_side_px: int,
    maps_from: Path | None = None,
    *,
    flat_maps: bool = False,
    options: ReadOptions | None = None,
    overwrite: bool = False,
) -> Imported:
    """Write the particles of a file of RELION, cisTEM or cryoSPARC as a particle table.

    Positions are rounded to whole pixels; `pos_x_img_angstrom` and `pos_y_img_angstrom` are
    exact. The defocus is absolute, and `relative_defocus` is 0.

    Args:
        star: The file.
        output: The table to write.
        template_side_px: Side of the template that the table will be refined with.
        maps_from: A particle table that names the statistic maps of the micrographs; None
            leaves their columns empty.
        flat_maps: Write maps of mean 0 and standard deviation 1, if there is no match.
        options: Information from the user about the file.
        overwrite: Replace an existing table.

    Raises:
        InputError: With all errors of the files.
    """
    if not 0 < template_side_px <= MOST_TEMPLATE_PX:
        raise InputError(
            f"a template of {template_side_px} px: its side should be in "
            f"1 … {MOST_TEMPLATE_PX} px"
        )
    named = None
    if maps_from is not None:
        named = read_particle_table(maps_from, ignore_aberrations=True)
    known = {} if named is None else _known_micrographs(named)

    def pixel_sizes(names: Sequence[str]) -> np.ndarray:
        if named is None:
            return np.full(len(names), np.nan)
        meant = matched_names(names, known, named.path)
        return np.array([known[meant[name]].pixel_size_angstrom for name in names])

    def header_pixel_sizes(names: Sequence[str]) -> np.ndarray:
        found = {name: _header_pixel_size(star, name) for name in set(names)}
        return np.array([found[name] for name in names])

    options = replace(
        options or ReadOptions(),
        pixel_size_of=pixel_sizes,
        header_pixel_size_of=header_pixel_sizes,
    )
    particles = read_star(star, options)
    # Circular links were refused during reading; realpath would not refuse them.
    inputs = [star, *options.passthrough]
    inputs += [star.absolute().parent / name for name in set(particles.micrograph)]
    inputs += [] if named is None else [named.path, *files_of(named)]
    refuse_overwriting(output, *inputs, overwrite=overwrite)
    maps, notes = [("", "")] * len(particles), list(particles.notes)
    if named is not None:
        meant = matched_names(particles.micrograph, known, named.path)
        maps = [known[meant[name]].maps for name in particles.micrograph]
        particles, more = _with_found_images(star, particles, meant, known)
        notes += more
    elif flat_maps:
        beside = star.absolute().parent
        maps = write_flat_maps(
            output, particles.micrograph, beside, template_side_px, overwrite=overwrite
        )
    frame = imported_table(particles, template_side_px, maps)
    frame = rebase_relative_paths(frame, star.absolute().parent, output.absolute().parent)
    notes += _outside(star, particles)
    write_table(frame, output)
    statistics: MapKind | None = "standard_deviation" if flat_maps else None
    if named is not None:
        statistics = _statistics_kind(named)
    return Imported(len(frame), statistics, tuple(notes))


def _with_found_images(
    star: Path, particles: StarParticles, meant: dict[str, str], known: dict[str, _Known]
) -> tuple[StarParticles, list[str]]:
    """The particles, with the table's images if their own do not exist."""
    beside = star.absolute().parent
    image = {
        name: name
        if resolve_path(name, beside=beside).exists()
        else known[other].micrograph
        for name, other in meant.items()
    }
    notes = [
        f"micrograph {name} is assumed to be {image[name]}"
        for name in meant
        if Path(image[name]).name != Path(name).name
    ]
    if len(notes) > 3:
        notes = [*notes[:2], f"… and {len(notes) - 2} more micrographs by their names"]
    return replace(particles, micrograph=[image[n] for n in particles.micrograph]), notes


def _outside(star: Path, particles: StarParticles) -> list[str]:
    """A note on particles outside their micrographs, if these exist."""
    beside, shapes = star.absolute().parent, {}
    for name in set(particles.micrograph):
        try:
            shapes[name] = image_shape(resolve_path(name, beside=beside))[::-1]
        except InputError:  # reported when it is refined
            shapes[name] = (np.inf, np.inf)
    side = np.array([shapes[name] for name in particles.micrograph])
    place = particles.box_centre_px + particles.shift_px
    count = int(((place < 0) | (place > side - 1)).any(axis=-1).sum())
    if not count:
        return []
    return [
        f"{count} of {len(particles)} particles lie outside their micrographs: check "
        "the pixel size and the binning"
    ]


def _header_pixel_size(star: Path, name: str) -> float:
    """Pixel size in the header of a micrograph, if it exists and has one."""
    try:
        found = image_pixel_size(resolve_path(name, beside=star.absolute().parent))
    except InputError:
        return np.nan
    return np.nan if found is None else found


def _statistics_kind(table: ParticleTable) -> MapKind | None:
    """Kind of the maps of a table; None if the table does not determine it."""
    try:
        return decide_statistics(table)
    except InputError:
        return None


def _known_micrographs(table: ParticleTable) -> dict[str, _Known]:
    """Micrographs of a table by file name, without folder; paths are absolute."""
    folder = table.path.absolute().parent
    columns = zip(
        table.micrograph_paths,
        table.correlation_mean_paths,
        table.correlation_variance_paths,
        table.numbers("pixel_size").tolist(),
        strict=True,
    )
    found: dict[str, _Known] = {}
    for *texts, pixel_size in columns:
        image, *maps = (str(resolve_path(t, beside=folder).absolute()) for t in texts)
        known = _Known(image, (maps[0], maps[1]), pixel_size)
        if found.setdefault(Path(image).name, known).maps != known.maps:
            raise InputError(
                f"{table.path}: names different maps for micrographs called "
                f"{Path(image).name[:60]}: they cannot be distinguished by name"
            )
    return found
