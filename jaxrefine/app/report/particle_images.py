"""Images of particles beside projections, for the page: in it, or in a folder beside it.

They are JPEG images, each a sheet of some dozens of particles: a row for each, with four
cells, which the page's script cuts out.
"""

import base64
import io
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from jaxrefine.app.config import Config
from jaxrefine.app.report.references import with_their_config
from jaxrefine.app.report.table_data import ReportData
from jaxrefine.app.report.thumbnails import grey
from jaxrefine.data import InputError
from jaxrefine.io.atomic import atomic_open

if TYPE_CHECKING:
    from jaxrefine.app.run.particle_views import ParticleView

log = logging.getLogger("jaxrefine")

FOLDER = "particles"
# If there are more bytes of images, they are kept in a folder, so that a page of 100,000
# particles stays below 15 MB.
MOST_BYTES_IN_PAGE = 1_000_000
# By default, all particles of a table up to this length are shown, otherwise some.
_ALL_OF, _SOME = 500, 16
_PER_SHEET = 40
_QUALITY = 85
_SMALLEST_CELL_PX = 48
# Step of the packed z-scores.
_Z_STEP = 0.1

_HOW = (
    "`jaxrefine report TABLE --config CONFIG.yaml --particles all` adds images of all "
    "particles, `--particles N` those of the N / 2 with the highest and the N / 2 with the "
    "lowest z-scores, and `--indices FILE.csv` those of the particles that the file lists, "
    "such as a selection saved here."
)


def no_images(reason: str = "") -> dict[str, Any]:
    """Data for the page's script if there are no images."""
    return _data([], [], [], f"{reason} {_HOW}".strip())


def particle_images(
    data: ReportData, config: Config, rows: list[int], folder: Path
) -> dict[str, Any]:
    """Data for the page's script on images of some particles, as values for JSON.

    Args:
        data: The refined table.
        config: The configuration of its run.
        rows: Rows of the particles.
        folder: Folder of the page. If there are many, images are written to a folder in it,
            otherwise they are in the data.
    """
    # Imported only if needed, because it compiles a score.
    from jaxrefine.app.run.particle_views import LOW_PASS_ANGSTROM, particle_views

    sheets = _Sheets(folder)
    try:
        shift = data.sub_pixel_px[:, ::-1]
        for one, members in with_their_config(data, config, rows):
            particle_views(one, data.table.path, members, shift, sheets.add)
    except InputError as error:  # the page is useful without images
        log.warning("no images of particles in the report: %s", "; ".join(error.errors))
        return no_images(f"No images: {error.errors[0]}.")
    sheets.end()
    found = _data(sheets.rows, sheets.z_ranges, sheets.sources, f"No images. {_HOW}")
    return found | {"low_pass": LOW_PASS_ANGSTROM}


def remove_other_sheets(folder: Path, sources: list[str]) -> None:
    """Remove the sheets of an older report from the folder of the page."""
    for path in (folder / FOLDER).glob("[0-9]*.jpg"):
        if f"{FOLDER}/{path.name}" not in sources:
            path.unlink()


def best_and_worst(data: ReportData, count: int | None) -> list[int]:
    """Rows of the refined particles with the highest and the lowest z-scores.

    Args:
        data: The refined table.
        count: Their number; None: all of a short table, and some of a long one.
    """
    if count is None:
        count = _ALL_OF if len(data) <= _ALL_OF else _SOME
    good = np.flatnonzero(data.refined)
    ordered = good[np.argsort(-data.z_after[good], kind="stable")].tolist()
    if len(ordered) <= count:
        return ordered
    return ordered[: count - count // 2] + ordered[len(ordered) - count // 2 :]


class _Sheets:
    """Collects the images of particles in sheets.

    Attributes:
        rows: Rows of the particles, in order.
        z_ranges: Lowest and highest z-score in the box of each.
        sources: Where the script finds each sheet.
    """

    def __init__(self, folder: Path):
        self._folder = folder
        self._embedded: list[bytes] | None = []  # None once they are files
        self._waiting: list[list[np.ndarray]] = []
        self.rows: list[int] = []
        self.z_ranges: list[tuple[float, float]] = []
        self.sources: list[str] = []

    def add(self, view: "ParticleView") -> None:
        """Add the images of a particle."""
        z = np.nan_to_num(view.z, posinf=0.0, neginf=0.0)
        shown = (view.image, view.projection, view.difference)
        self._waiting.append([*map(grey, shown), grey(z, percent=0.0)])
        self.rows.append(view.row)
        self.z_ranges.append((float(z.min()), float(z.max())))
        if len(self._waiting) == _PER_SHEET:
            self.end()

    def end(self) -> None:
        """Keep what has been added as a sheet."""
        if not self._waiting:
            return
        sides = (len(image) for images in self._waiting for image in images)
        side = max(_SMALLEST_CELL_PX, *sides)
        strips = [
            np.hstack([_resized(image, side) for image in images])
            for images in self._waiting
        ]
        stream = io.BytesIO()
        sheet = Image.fromarray(np.vstack(strips))
        sheet.save(stream, format="JPEG", quality=_QUALITY)
        self._keep(stream.getvalue())
        self._waiting = []

    def _keep(self, jpeg: bytes) -> None:
        if self._embedded is None:
            self.sources.append(_written(self._folder, len(self.sources), jpeg))
            return
        self._embedded.append(jpeg)
        self.sources.append(f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}")
        if sum(map(len, self._embedded)) > MOST_BYTES_IN_PAGE:
            each = enumerate(self._embedded)
            self.sources = [_written(self._folder, number, jpeg) for number, jpeg in each]
            self._embedded = None


def _resized(image: np.ndarray, side: int) -> np.ndarray:
    """Square pixels of the given image, on a square of another side."""
    kind = Image.Resampling.NEAREST
    return np.asarray(Image.fromarray(image).resize((side, side), kind))


def _written(folder: Path, number: int, jpeg: bytes) -> str:
    """Write a sheet; its path from the page's folder."""
    name = f"{FOLDER}/{number:05d}.jpg"
    try:
        (folder / FOLDER).mkdir(exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder / FOLDER}: cannot be made: {error.strerror}") from error
    with atomic_open(folder / name) as file:
        file.write(jpeg)
    return name


def _data(
    rows: list[int], z_ranges: list[tuple[float, float]], sources: list[str], advice: str
) -> dict[str, Any]:
    ranges = np.asarray(z_ranges).reshape(-1, 2) / _Z_STEP
    whole = np.rint(np.clip(ranges, -(2**15), 2**15 - 1)).astype("<i2")
    return {
        "rows": _base64(np.asarray(rows, "<i4")),
        "z_ranges": _base64(whole),
        "z_step": _Z_STEP,
        "sheets": sources,
        "per_sheet": _PER_SHEET,
        "advice": advice,
    }


def _base64(values: np.ndarray) -> str:
    return base64.b64encode(values.tobytes()).decode()
