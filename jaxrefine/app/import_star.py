"""Particles of another program's STAR file as a particle table."""

from pathlib import Path

from jaxrefine.app.config import resolve_path
from jaxrefine.app.export import refuse_overwriting
from jaxrefine.data import InputError
from jaxrefine.io.paths import rebased
from jaxrefine.io.star_table import imported_table, read_star
from jaxrefine.io.table import read_particle_table, write_table


def import_star(
    star: Path, output: Path, template_side_px: int, maps_from: Path | None = None
) -> int:
    """Writes the particles of a STAR file of RELION or cisTEM as a particle table.

    Positions become whole pixels; `pos_x_img_angstrom` and `pos_y_img_angstrom` keep the
    rest. The defocus is absolute: `relative_defocus` is 0.

    Args:
        star: The file.
        output: The table.
        template_side_px: Side of the template that the table will be refined with.
        maps_from: A particle table that names the statistic maps of the micrographs; None
            leaves their columns empty.

    Returns:
        The number of particles.

    Raises:
        InputError: With the faults of the files.
    """
    refuse_overwriting(output, star, *([] if maps_from is None else [maps_from]))
    particles = read_star(star)
    maps = {} if maps_from is None else _maps_of(maps_from)
    names = [Path(micrograph).name for micrograph in particles.micrograph]
    unknown = sorted(set(names) - set(maps))
    if maps_from is not None and unknown:
        raise InputError(
            f"{maps_from}: names no maps of {', '.join(unknown[:5])}"
            f"{' …' if len(unknown) > 5 else ''}; add them, or leave --maps-from out"
        )
    frame = imported_table(
        particles, template_side_px, [maps.get(name, ("", "")) for name in names]
    )
    frame = rebased(frame, star.absolute().parent, output.absolute().parent)
    write_table(frame, output)
    return len(frame)


def _maps_of(path: Path) -> dict[str, tuple[str, str]]:
    """Name of a micrograph, less its folder -> its statistic maps, as absolute paths."""
    table = read_particle_table(path)
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
                f"{path}: names different maps for micrographs called "
                f"{Path(micrograph).name}: they cannot be told apart by name"
            )
    return found
