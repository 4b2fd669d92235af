"""Small particle tables for tests."""

from pathlib import Path

import pandas as pd

from jaxrefine.io.table import ParticleTable, read_particle_table, write_table

ROW = {
    "pos_x": "20",
    "pos_y": "10",
    "phi": "10.0",
    "theta": "20.0",
    "psi": "30.0",
    "relative_defocus": "100.0",
    "defocus_u": "5200.0",
    "defocus_v": "4950.0",
    "astigmatism_angle": "25.0",
    "pixel_size": "1.5",
    "voltage": "300.0",
    "spherical_aberration": "2.7",
    "amplitude_contrast_ratio": "0.07",
    "phase_shift": "0.0",
    "ctf_B_factor": "60.0",
    "micrograph_path": "a b.mrc",
    "correlation_average_path": "mean.mrc",
    "correlation_variance_path": "variance.mrc",
}


def save(path: Path, *rows: dict[str, str]) -> Path:
    """Writes rows as CSV; the first one's keys are the header."""
    write_table(pd.DataFrame([ROW | row for row in rows] if rows else [ROW]), path)
    return path


def read(tmp_path: Path, *rows: dict[str, str]) -> ParticleTable:
    return read_particle_table(save(tmp_path / "particles.csv", *rows))
