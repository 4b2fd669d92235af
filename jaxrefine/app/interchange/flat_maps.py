"""Statistic maps for micrographs without template matching."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from jaxrefine.app.interchange.export_star import refuse_overwriting
from jaxrefine.data import InputError
from jaxrefine.io.mrc import image_shape, write_image
from jaxrefine.io.paths import resolve_path


def write_flat_maps(
    table: Path, micrographs: Sequence[str], beside: Path, side: int, *, overwrite: bool
) -> list[tuple[str, str]]:
    """Write maps of mean 0 and standard deviation 1, as for noise with the measured
    spectrum.

    They are written beside a table, two for all micrographs of one shape.

    Args:
        table: The table that will name them.
        micrographs: Micrograph of each particle, as named in the table.
        beside: Folder to which relative names refer.
        side: Side of the template, in pixels.
        overwrite: Replace existing maps.

    Returns:
        Paths of the two maps, for each particle.

    Raises:
        InputError: A micrograph is missing or smaller than the template, or a map exists
            already.
    """
    made: dict[tuple[int, int], tuple[str, str]] = {}
    maps: dict[str, tuple[str, str]] = {}
    for name in dict.fromkeys(micrographs):
        path = resolve_path(name, beside=beside)
        image = image_shape(path)
        if min(image) < side:
            raise InputError(
                f"{path}: has shape {image}; it must be at least as large as the "
                f"template, {side} px"
            )
        shape = image[0] - side + 1, image[1] - side + 1
        if shape not in made:
            tag = f"{shape[0]}x{shape[1]}"
            paths = [
                table.with_name(f"{table.stem}_flat_{kind}_{tag}.mrc").absolute()
                for kind in ("average", "deviation")
            ]
            for each in paths:
                refuse_overwriting(each, path, overwrite=overwrite)
            for each, value in zip(paths, (0.0, 1.0), strict=True):
                write_image(each, np.full(shape, value, np.float32))
            made[shape] = str(paths[0]), str(paths[1])
        maps[name] = made[shape]
    return [maps[name] for name in micrographs]
