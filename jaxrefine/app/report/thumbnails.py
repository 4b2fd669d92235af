"""Thumbnails of micrographs for the page's browser."""

import base64
import io
import math
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from PIL import Image

from jaxrefine.app.report.micrograph_maps import thumbnail
from jaxrefine.data import InputError
from jaxrefine.io.mrc import read_image

# Thumbnails are smaller if there are many, to limit the size of the page.
_LARGEST_SIDE_PX, _SMALLEST_SIDE_PX, _MANY = 256, 96, 100
_QUALITY = 60
_THREADS = 2
_SMALLEST_RANGE = 1e-30


def thumbnails(
    texts: Sequence[str],
    files: Mapping[str, Path],
    pixel_sizes_angstrom: Sequence[float],
    most: int,
) -> dict[str, Any]:
    """Data on the micrographs for the page's script, as values for JSON.

    Args:
        texts: All micrographs, as named in the table.
        files: Path of each.
        pixel_sizes_angstrom: Pixel size of each.
        most: Number of micrographs to read, from the first.
    """
    chosen = list(zip(texts, pixel_sizes_angstrom, strict=True))[:most]
    side = side_of(len(chosen))
    with ThreadPoolExecutor(_THREADS) as pool:
        images = pool.map(lambda each: _image(files[each[0]], each[1], side), chosen)
        found = dict(enumerate(images))
    return {
        "images": found,
        "advice": (
            "This page has no image of this micrograph. `--thumbnails N` adds those of N "
            "micrographs."
        ),
    }


def side_of(count: int) -> int:
    """Side in px of each of so many thumbnails: together, they keep their area."""
    side = _LARGEST_SIDE_PX * math.sqrt(_MANY / max(count, _MANY))
    return max(_SMALLEST_SIDE_PX, round(side))


def _image(path: Path, pixel_size_angstrom: float, side_px: int) -> dict[str, Any]:
    try:
        whole = read_image(path)
    except InputError as error:
        return {"error": f"No image: {'; '.join(error.errors)}."}
    small = thumbnail(whole, pixel_size_angstrom, side_px)
    stream = io.BytesIO()
    Image.fromarray(grey(small)).save(stream, format="JPEG", quality=_QUALITY)
    source = f"data:image/jpeg;base64,{base64.b64encode(stream.getvalue()).decode()}"
    return {"source": source, "shape": [whole.shape[1], whole.shape[0]]}


def grey(image: Float[np.ndarray, "y x"], percent: float = 0.5) -> np.ndarray:
    """Grey values 0 … 255; outliers beyond the percentiles are clipped."""
    low, high = np.percentile(image, [percent, 100 - percent])
    share = (image - low) / max(high - low, _SMALLEST_RANGE)
    return np.rint(255 * np.clip(share, 0, 1)).astype(np.uint8)
