"""Images of some particles beside projections, for the page, as grey values."""

import base64
import logging
from typing import Any

import numpy as np

from jaxrefine.app.config import Config
from jaxrefine.app.report.references import with_their_config
from jaxrefine.app.report.table_data import ReportData
from jaxrefine.app.report.thumbnails import grey
from jaxrefine.data import InputError

log = logging.getLogger("jaxrefine")

_HOW = (
    "This page has images of some particles only. `jaxrefine report TABLE --config "
    "CONFIG.yaml --particles N` adds those of N particles, half of them with the highest "
    "z-scores and half with the lowest. `--indices FILE.csv` adds those of the particles "
    "that the file lists, such as a selection saved here."
)


def no_images(reason: str = "") -> dict[str, Any]:
    """Data for the page's script if there are no images."""
    return {"particles": {}, "advice": f"{reason} {_HOW}".strip()}


def particle_images(data: ReportData, config: Config, rows: list[int]) -> dict[str, Any]:
    """Data for the page's script on some particles, as values for JSON."""
    # Imported only if needed, because it compiles a score.
    from jaxrefine.app.run.particle_views import LOW_PASS_ANGSTROM, particle_views

    try:
        shift = data.sub_pixel_px[:, ::-1]
        views = {}
        for one, members in with_their_config(data, config, rows):
            views |= particle_views(one, data.table.path, members, shift)
    except InputError as error:  # the page is useful without images
        log.warning("no images of particles in the report: %s", "; ".join(error.errors))
        return no_images(f"No images: {error.errors[0]}.")
    found = {}
    for row, view in views.items():
        z = np.nan_to_num(view.z, posinf=0.0, neginf=0.0)
        found[row] = {
            "image": _packed(view.image),
            "projection": _packed(view.projection),
            "difference": _packed(view.difference),
            "peak": _packed(z, percent=0.0),
            "low_pass": LOW_PASS_ANGSTROM,
            "peak_range": [round(float(end), 1) for end in (z.min(), z.max())],
        }
    return {"particles": found, "advice": _HOW}


def best_and_worst(data: ReportData, count: int) -> list[int]:
    """Rows of the refined particles with the highest and the lowest z-scores."""
    good = np.flatnonzero(data.refined)
    ordered = good[np.argsort(-data.z_after[good], kind="stable")].tolist()
    if len(ordered) <= count:
        return ordered
    return ordered[: count - count // 2] + ordered[len(ordered) - count // 2 :]


def _packed(image: np.ndarray, percent: float = 0.5) -> dict[str, Any]:
    height, width = image.shape
    data = base64.b64encode(grey(image, percent).tobytes()).decode()
    return {"width": width, "height": height, "data": data}
