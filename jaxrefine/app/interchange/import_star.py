"""Particles of another program's STAR file as a particle table."""

from dataclasses import dataclass
from pathlib import Path

from jaxrefine.app.interchange.export_star import files_of, refuse_overwriting
from jaxrefine.data import InputError
from jaxrefine.io.paths import rebase_relative_paths, resolve_path
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
    """What an import wrote.

    Attributes:
        particles: Number of rows.
        statistics: What the maps hold, in the configuration's word for it; None where no
            table tells.
    """

    particles: int
    statistics: MapKind | None


def import_star(
    star: Path,
    output: Path,
    template_side_px: int,
    maps_from: Path | None = None,
    *,
    overwrite: bool = False,
) -> Imported:
    """Writes the particles of a STAR file of RELION or cisTEM as a particle table.

    Positions become whole pixels; `pos_x_img_angstrom` and `pos_y_img_angstrom` keep the
    rest. The defocus is absolute: `relative_defocus` is 0.

    Args:
        star: The file.
        output: The table.
        template_side_px: Side of the template that the table will be refined with.
        maps_from: A particle table that names the statistic maps of the micrographs; None
            leaves their columns empty.
        overwrite: Replace a table that is there.

    Raises:
        InputError: With the errors of the files.
    """
    if not 0 < template_side_px <= MOST_TEMPLATE_PX:
        raise InputError(
            f"a template of {template_side_px} px: its side should be in "
            f"1 … {MOST_TEMPLATE_PX} px"
        )
    particles = read_star(star)
    named = None if maps_from is None else read_particle_table(maps_from)
    maps = {} if named is None else _maps_of(named)
    statistics = None if named is None else _statistics_kind(named)
    # Links without end were refused where they were read: this would not.
    inputs = [star] if maps_from is None else [star, maps_from]
    inputs += [star.absolute().parent / name for name in set(particles.micrograph)]
    inputs += [] if named is None else files_of(named)
    refuse_overwriting(output, *inputs, overwrite=overwrite)
    names = [Path(micrograph).name for micrograph in particles.micrograph]
    unknown = sorted(set(names) - set(maps))
    if maps_from is not None and unknown:
        raise InputError(
            f"{maps_from}: names no maps of {', '.join(name[:60] for name in unknown[:5])}"
            f"{' …' if len(unknown) > 5 else ''}; add them, or leave --maps-from out"
        )
    frame = imported_table(
        particles, template_side_px, [maps.get(name, ("", "")) for name in names]
    )
    frame = rebase_relative_paths(frame, star.absolute().parent, output.absolute().parent)
    write_table(frame, output)
    return Imported(len(frame), statistics)


def _statistics_kind(table: ParticleTable) -> MapKind | None:
    """What the maps of a table hold; None where it does not tell, as tables may."""
    try:
        return decide_statistics(table)
    except InputError:
        return None


def _maps_of(table: ParticleTable) -> dict[str, tuple[str, str]]:
    """Name of a micrograph, less its folder -> its statistic maps, as absolute paths."""
    folder = table.path.absolute().parent
    columns = zip(
        table.micrograph_paths,
        table.correlation_mean_paths,
        table.correlation_variance_paths,
        strict=True,
    )
    found: dict[str, tuple[str, str]] = {}
    for micrograph, *texts in columns:
        mean, spread = (str(resolve_path(t, beside=folder).absolute()) for t in texts)
        if found.setdefault(Path(micrograph).name, (mean, spread)) != (mean, spread):
            raise InputError(
                f"{table.path}: names different maps for micrographs called "
                f"{Path(micrograph).name[:60]}: they cannot be told apart by name"
            )
    return found
