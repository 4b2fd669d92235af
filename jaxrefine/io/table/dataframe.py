"""Results as pandas data frames of numbers, for research code."""

import io
from collections.abc import Sequence
from dataclasses import fields
from typing import TypeAlias

import numpy as np
import pandas as pd

from jaxrefine.data import PoseErrors, Refined, Status
from jaxrefine.io.table.schema import REFINED_FIELDS

DataFrame: TypeAlias = pd.DataFrame

_FIELDS = [field.name for field in fields(Refined) if field.name in REFINED_FIELDS]


def results_to_dataframe(
    refined: Refined, euler_deg: np.ndarray, errors: PoseErrors | None = None
) -> DataFrame:
    """One row per particle; units are in the column names.

    Args:
        refined: Results for n particles.
        euler_deg: (n, 3): their phi, theta, psi.
        errors: Standard errors of a polish; None omits their columns.
    """
    there = refined.alignment
    columns = {
        "status": [Status(int(status)).name.lower() for status in refined.status],
        **{name: getattr(refined, name) for name in _FIELDS},
        **_numbered(euler_deg, "phi_deg", "theta_deg", "psi_deg"),
        **_numbered(there.position_px, "position_y_px", "position_x_px"),
        **_numbered(there.defocus_angstrom, "defocus_u_angstrom", "defocus_v_angstrom"),
        "astigmatism_deg": there.astigmatism_deg,
        "pixel_size_angstrom": there.pixel_size_angstrom,
    }
    if errors is not None:
        turns = ("tilt_x_sigma_deg", "tilt_y_sigma_deg", "in_plane_sigma_deg")
        astigmatism = ("along", "across")
        columns |= {
            **_numbered(errors.rotation_deg, *turns),
            "orientation_sigma_deg": errors.largest_rotation_deg,
            **_numbered(errors.shift_px, "position_y_sigma_px", "position_x_sigma_px"),
            "defocus_sigma_angstrom": errors.defocus_angstrom,
            **_numbered(
                errors.astigmatism_angstrom,
                *(f"astigmatism_{name}_sigma_angstrom" for name in astigmatism),
            ),
            "pixel_size_sigma_angstrom": errors.pixel_size_angstrom,
        }
    return pd.DataFrame({name: np.asarray(values) for name, values in columns.items()})


def _numbered(values, *names: str) -> dict[str, np.ndarray]:
    """The columns of an array, by name."""
    return dict(zip(names, np.asarray(values).T, strict=True))


def roundtrip_csv(table: DataFrame) -> DataFrame:
    """A table of text cells as pandas would read it from its CSV file."""
    return pd.read_csv(io.StringIO(table.to_csv(index=False)))


def concatenated(tables: Sequence[DataFrame], names: Sequence[str]) -> DataFrame:
    """Tables of texts, one below the other; empty cells where a table lacks a column.

    Args:
        tables: All cells as text.
        names: The columns, in order.
    """
    filled = [table.reindex(columns=list(names), fill_value="") for table in tables]
    return pd.concat(filled, ignore_index=True)
