"""Particles of another program's STAR file as a particle table."""

import os
from pathlib import Path

from jaxrefine.app.config import resolve_path
from jaxrefine.app.export import refuse_overwriting
from jaxrefine.data import InputError
from jaxrefine.io.paths import rebased
from jaxrefine.io.star_table import MOST_TEMPLATE_PX, imported_table, read_star
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
    if os.path.lexists(output) and not os.path.isfile(output):
        raise InputError(
            f"{output}: is a folder, a device, a pipe or a broken link; name a file"
        )
    if not 0 < template_side_px <= MOST_TEMPLATE_PX:
        raise InputError(
            f"a template of {template_side_px} px: its side should be in "
            f"1 … {MOST_TEMPLATE_PX} px"
        )
    particles = read_star(star)
    maps = {} if maps_from is None else _maps_of(maps_from)
    # Links without end were refused where they were read: this would not.
    refuse_overwriting(output, star, *([] if maps_from is None else [maps_from]))
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
    try:
        frame = rebased(frame, star.absolute().parent, output.absolute().parent)
    except OSError as error:  # a name that is too long, or in a folder that is closed
        raise InputError(
            f"{star}: a file cannot be looked for: {Path(str(error.filename)).name[:60]}: "
            f"{error.strerror}"
        ) from error
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
                f"{Path(micrograph).name[:60]}: they cannot be told apart by name"
            )
    return found
