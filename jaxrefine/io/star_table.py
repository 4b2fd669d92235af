"""Particles of a STAR file as a particle table."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from jaxrefine.io import cells
from jaxrefine.io.columns import BY_NAME
from jaxrefine.io.star import StarParticles


def imported_table(
    particles: StarParticles, template_side_px: int, maps: Sequence[tuple[str, str]]
) -> pd.DataFrame:
    """A particle table, all cells as text.

    Args:
        particles: From `read_star`.
        template_side_px: Side of the template that the table will be refined with.
        maps: Maps of the correlation's mean and spread, per particle; may be empty.

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
        "voltage": (particles.voltage_kv, 6),
        "spherical_aberration": (particles.spherical_aberration_mm, 6),
        "amplitude_contrast_ratio": (particles.amplitude_contrast, 6),
        "phase_shift": (particles.phase_shift_deg, 6),
        "ctf_B_factor": (particles.b_factor_angstrom2, 6),
        "scaled_mip": (particles.z_score, 6),
    }
    for name, (values, decimals) in numbers.items():
        columns[name] = cells.rounded_texts(values, decimals)
    columns["micrograph_path"] = list(particles.micrograph)
    for i, name in enumerate(("correlation_average_path", "correlation_variance_path")):
        columns[name] = [pair[i] for pair in maps]
    return pd.DataFrame({name: columns[name] for name in BY_NAME if name in columns})
