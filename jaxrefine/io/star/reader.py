"""Reading other programs' files, and converting them to a particle table."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from jaxrefine.data.errors import InputError
from jaxrefine.io.star.cistem import from_cistem, is_cistem
from jaxrefine.io.star.columns import MOST_TEMPLATE_PX as MOST_TEMPLATE_PX
from jaxrefine.io.star.cryosparc import from_cryosparc, is_cryosparc
from jaxrefine.io.star.particles import ReadOptions, StarParticles
from jaxrefine.io.star.relion import from_relion
from jaxrefine.io.star.text import star_tables, star_text
from jaxrefine.io.table import cells
from jaxrefine.io.table.schema import BY_NAME, OPTICS_FIELDS


def read_star(path: Path, options: ReadOptions | None = None) -> StarParticles:
    """Reads particles of RELION, cisTEM or cryoSPARC.

    Args:
        path: A STAR file of RELION or cisTEM, or cryoSPARC's `.cs`.
        options: Information from the user.

    Raises:
        InputError: The file is missing, of another program or without particles; or a
            column is missing, or holds something that is not a valid number.
    """
    options = options or ReadOptions()
    if is_cryosparc(path):
        return from_cryosparc(path, options)
    tables = star_tables(path)
    of_cistem = [table for table in tables.values() if is_cistem(table)]
    if len(of_cistem) > 1:
        raise InputError(f"{path}: holds two tables of cisTEM; keep one of them")
    if of_cistem:
        first_line = star_text(path).partition("\n")[0]
        return from_cistem(path, of_cistem[0], first_line, options)
    if any(str(name).startswith("rln") for table in tables.values() for name in table):
        return from_relion(path, tables, options)
    raise InputError(
        f"{path}: holds columns neither of RELION (_rln…) nor of cisTEM (_cisTEM…)"
    )


def imported_table(
    particles: StarParticles, template_side_px: int, maps: Sequence[tuple[str, str]]
) -> pd.DataFrame:
    """A particle table, all cells as text.

    Args:
        particles: From `read_star`.
        template_side_px: Side of the template that the table will be refined with; at most
            `MOST_TEMPLATE_PX`.
        maps: Mean maps and standard deviation maps, per particle; may be empty.

    Returns:
        Whole pixels in `pos_x` and `pos_y`, exact positions in `pos_x_img_angstrom` and
        `pos_y_img_angstrom`; absolute defocus, `relative_defocus` being 0.
    """
    half = template_side_px // 2
    centre = particles.box_centre_px + particles.shift_px
    corner = np.rint(centre - half)
    columns: dict[str, object] = {"particle_index": range(len(particles))}
    for i, axis in enumerate("xy"):
        columns[f"pos_{axis}"] = cells.whole_texts(corner[:, i])
        columns[f"pos_{axis}_img"] = cells.whole_texts(corner[:, i] + half)
        angstrom = centre[:, i] * particles.pixel_size_angstrom
        columns[f"pos_{axis}_img_angstrom"] = cells.rounded_texts(angstrom, 4)
    euler = cells.normalised_euler_deg(particles.euler_deg, 4)
    numbers = {
        "phi": (euler[:, 0], 4),
        "theta": (euler[:, 1], 4),
        "psi": (euler[:, 2], 4),
        "relative_defocus": (np.zeros(len(particles)), 2),
        "defocus_u": (particles.defocus_angstrom[:, 0], 4),
        "defocus_v": (particles.defocus_angstrom[:, 1], 4),
        "astigmatism_angle": (particles.astigmatism_deg, 4),
        "pixel_size": (particles.pixel_size_angstrom, 6),
        "scaled_mip": (particles.z_score, 6),
    }
    for of_optics, column in OPTICS_FIELDS.items():
        values = getattr(particles.optics, of_optics)
        if values is not None:  # optional parameters that the file lacks
            numbers[column.name] = (values, 6)
    for name, (values, decimals) in numbers.items():
        columns[name] = cells.rounded_texts(values, decimals)
    columns["micrograph_path"] = list(particles.micrograph)
    for i, name in enumerate(("correlation_average_path", "correlation_variance_path")):
        columns[name] = [pair[i] for pair in maps]
    columns |= particles.kept
    known = [name for name in BY_NAME if name in columns]
    unknown = [name for name in columns if name not in BY_NAME]
    return pd.DataFrame({name: columns[name] for name in (*known, *unknown)})
