"""Errors that a user can make: each spoils one thing in a folder that was sound.

Their names are those of docs/errors.md, which says what the program answers.
"""

import csv
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
import yaml

from jaxrefine.io.mrc import read_image, read_volume, write_image, write_volume

Spoil = Callable[[Path], None]

CONFIG, TABLE = "refine.yaml", "match_results.csv"
IMAGE, MEAN, SPREAD = (
    "micrograph.mrc",
    "correlation_average.mrc",
    "correlation_variance.mrc",
)
TEMPLATE = "template.mrc"


def set_keys(folder: Path, keys: dict[str, Any]) -> None:
    """Change keys of the configuration, named with dots; None of a key deletes it."""
    data = yaml.safe_load((folder / CONFIG).read_text())
    for path, value in keys.items():
        *parents, name = path.split(".")
        section = data
        for parent in parents:
            section = section[parent]
        section[name] = value
    (folder / CONFIG).write_text(yaml.safe_dump(data, sort_keys=False))


def rows_of(folder: Path) -> list[dict[str, str]]:
    with open(folder / TABLE, newline="") as file:
        return list(csv.DictReader(file))


def write_rows(folder: Path, rows: list[dict[str, str]]) -> None:
    with open(folder / TABLE, "w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def keys(**values: Any) -> Spoil:
    """Keys of the configuration; two underscores for a dot."""
    return lambda folder: set_keys(
        folder, {name.replace("__", "."): value for name, value in values.items()}
    )


def text(name: str, content: str | bytes) -> Spoil:
    """A file of other content."""
    raw = content.encode() if isinstance(content, str) else content
    return lambda folder: void((folder / name).write_bytes(raw))


def both(*each: Spoil) -> Spoil:
    """Several things at once."""
    return lambda folder: void([spoil(folder) for spoil in each])


def cell(column: str, value: str, row: int = 1) -> Spoil:
    """One cell of the table; row 1 is line 3 of the file."""

    def spoil(folder: Path) -> None:
        rows = rows_of(folder)
        rows[row][column] = value
        write_rows(folder, rows)

    return spoil


def column(name: str, value: str) -> Spoil:
    """All cells of one column."""
    return lambda folder: write_rows(
        folder, [row | {name: value} for row in rows_of(folder)]
    )


def without_column(name: str) -> Spoil:
    def spoil(folder: Path) -> None:
        write_rows(
            folder, [{k: v for k, v in row.items() if k != name} for row in rows_of(folder)]
        )

    return spoil


def lines(change: Callable[[list[str]], list[str]]) -> Spoil:
    """The table's lines, the header first."""

    def spoil(folder: Path) -> None:
        found = (folder / TABLE).read_text().splitlines()
        (folder / TABLE).write_text("\n".join(change(found)) + "\n")

    return spoil


def gone(name: str) -> Spoil:
    return lambda folder: (folder / name).unlink()


def cut(name: str) -> Spoil:
    """The file's first half."""

    def spoil(folder: Path) -> None:
        whole = (folder / name).read_bytes()
        (folder / name).write_bytes(whole[: len(whole) // 2])

    return spoil


def volume(change: Callable[[np.ndarray], np.ndarray]) -> Spoil:
    def spoil(folder: Path) -> None:
        values, _ = read_volume(folder / TEMPLATE)
        write_volume(folder / TEMPLATE, change(values.copy()), 1.5)

    return spoil


def image(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Spoil:
    def spoil(folder: Path) -> None:
        write_image(folder / name, change(read_image(folder / name).copy()), 1.5)

    return spoil


def stack(folder: Path) -> None:
    write_volume(folder / IMAGE, np.stack([read_image(folder / IMAGE)] * 3), 1.5)


def complex_values(folder: Path) -> None:
    values = read_image(folder / IMAGE).astype(np.complex64)
    mrcfile.write(folder / IMAGE, values, overwrite=True)


def pipe(folder: Path) -> None:
    os.mkfifo(folder / "pipe")
    set_keys(folder, {"output_path": "pipe"})


def header(name: str, offset: int, content: bytes) -> Spoil:
    """Some bytes of a file's header."""

    def spoil(folder: Path) -> None:
        raw = bytearray((folder / name).read_bytes())
        raw[offset : offset + len(content)] = content
        (folder / name).write_bytes(raw)

    return spoil


def many_invalid_cells(folder: Path) -> None:
    rows = [dict(row, phi="x", psi="y") for row in rows_of(folder) * 4]
    write_rows(folder, rows)


def many_missing(folder: Path) -> None:
    """35 micrographs in a folder that was moved."""
    rows = rows_of(folder) * 5
    names = [{"micrograph_path": f"gone/{number}.mrc"} for number in range(len(rows))]
    write_rows(folder, [row | name for row, name in zip(rows, names, strict=True)])


def with_nan(values: np.ndarray) -> np.ndarray:
    values[3, 4, 5] = np.nan
    return values


def void(_: object) -> None:
    """Drop what a function returns."""


SEARCH = "orientation_refinement_config"
BOX, SIDE = "particle_stack__extracted_box_size", "particle_stack__original_template_size"

REFUSED: dict[str, Spoil] = {
    # configuration
    "yaml_missing": gone(CONFIG),
    "yaml_empty": text(CONFIG, ""),
    "yaml_broken": text(CONFIG, "a: 1\nb: [1, 2\nc: 3\n"),
    "yaml_no_mapping": text(CONFIG, "- just\n- a list\n"),
    "yaml_key_twice": text(CONFIG, "scoring: image_ctf\nscoring: template_ctf\n"),
    "yaml_runs_code": text(CONFIG, "a: !!python/object/apply:os.system [touch run]\n"),
    "yaml_of_a_match": keys(match_template_result={}),
    "key_unknown": keys(defocus_refinment_config={}),
    "key_missing": text(CONFIG, "template_volume_path: template.mrc\n"),
    "key_of_wrong_type": keys(defocus_refinement_config__defocus_min="far"),
    "step_zero": keys(defocus_refinement_config__defocus_step=0),
    "min_above_max": keys(defocus_refinement_config__defocus_min=300),
    "fine_step_zero": keys(
        orientation_refinement_config__psi_step_coarse=0,
        orientation_refinement_config__psi_step_fine=0,
    ),
    "max_freq_low": keys(preprocessing_filters={"whitening_filter": {"max_freq": 0.0001}}),
    "grid_too_fine": keys(
        orientation_refinement_config__psi_step_fine=0.005,
        orientation_refinement_config__theta_step_fine=0.005,
    ),
    "box_odd": keys(**{BOX: [81, 80]}),
    "box_smaller": keys(**{BOX: [62, 80]}),
    "side_odd": keys(**{SIDE: [63, 63]}),
    "side_not_square": keys(**{SIDE: [64, 62]}),
    "several_errors": keys(
        scorng="x", apply_global_filtering="no", computational_config__num_cpus=0
    ),
    # template
    "template_missing": gone(TEMPLATE),
    "template_not_cubic": volume(lambda v: v[:, :, :62]),
    "template_odd": volume(lambda v: v[:63, :63, :63]),
    "template_nan": volume(with_nan),
    "template_constant": volume(np.zeros_like),
    "template_image": lambda folder: write_image(folder / TEMPLATE, np.eye(64)),
    "template_cut": cut(TEMPLATE),
    "template_no_mrc": text(TEMPLATE, "a picture, perhaps" * 100),
    "envelope_missing": keys(template_envelope="fall_off.csv"),
    "envelope_wrong": both(
        keys(template_envelope="fall_off.csv"),
        text("fall_off.csv", "1/A,factor\n0.0,1.0\n0.2,half\n0.1,-1\n0.0,0.2\n"),
    ),
    # particle table
    "table_missing": gone(TABLE),
    "table_empty": text(TABLE, ""),
    "table_header_only": lines(lambda found: found[:1]),
    "table_no_text": text(TABLE, b"pos_x,\xff\xfe\n"),
    "table_semicolons": lines(lambda found: [line.replace(",", ";") for line in found]),
    "column_missing": without_column("defocus_u"),
    "column_twice": lines(lambda found: [f"{line},{line.split(',')[2]}" for line in found]),
    "row_short": lines(lambda found: [*found[:2], "1,2,3", *found[3:]]),
    "cell_text": cell("phi", "many"),
    "cell_empty": cell("phi", ""),
    "position_nan": cell("pos_x", "nan"),
    "angle_inf": cell("psi", "inf"),
    "angle_huge": cell("theta", "1e9"),
    "start_huge": column("refined_theta", "1e9"),
    "start_pixel_size_unit": column("refined_pixel_size", "1500"),
    "defocus_nan": cell("defocus_u", "nan"),
    "defocus_unit": cell("defocus_u", "5.2e9"),
    "pixel_size_zero": cell("pixel_size", "0"),
    "voltage_zero": cell("voltage", "0"),
    "voltage_unit": cell("voltage", "300000"),
    "cs_negative": cell("spherical_aberration", "-2.7"),
    "contrast_one": cell("amplitude_contrast_ratio", "1.0"),
    "path_empty": cell("micrograph_path", ""),
    "paths_all_empty": column("correlation_average_path", ""),
    "path_obeyed_by_terminals": cell("micrograph_path", "\x1b[31mred.mrc"),
    "aberrations": cell("even_zernikes", '{"Z40": 0.1}'),
    "many_invalid_cells": many_invalid_cells,
    "statistics_unknown": without_column("mip"),
    # micrographs and maps
    "micrograph_missing": gone(IMAGE),
    "micrographs_missing": many_missing,
    "micrograph_moved": cell("micrograph_path", "/scratch/x/gone.mrc"),
    "micrograph_space": cell("micrograph_path", f"{IMAGE} "),
    "map_missing": gone(MEAN),
    "micrograph_cut": cut(IMAGE),
    "map_cut": cut(SPREAD),
    "micrograph_no_mrc": text(IMAGE, "a picture, perhaps" * 100),
    "micrograph_complex": complex_values,
    "micrograph_stack": stack,
    "micrograph_small": image(IMAGE, lambda found: found[:60]),
    "map_of_other_shape": image(MEAN, lambda found: found[:-1]),
    # output
    "output_folder_missing": keys(output_path="nowhere/out.csv"),
    "output_is_folder": keys(output_path="."),
    "output_is_pipe": pipe,
    "output_not_writable": keys(output_path="/proc/out.csv"),
    "output_is_table": keys(output_path=TABLE),
    "output_is_micrograph": keys(output_path=IMAGE),
}

# Accepted, and run as they are, with a warning before the search.
WARNED: dict[str, Spoil] = {
    "box_huge": keys(**{BOX: [288, 288]}),
    "defocus_far": cell("defocus_u", "90000"),
    "stamp_odd": header(TEMPLATE, 212, b"\x44\x20\x20\x20"),
    "stamp_of_the_other_order": header(TEMPLATE, 212, b"\x11\x11\0\0"),
    "mark_missing": header(TEMPLATE, 208, bytes(8)),
    "axes_turned": header(TEMPLATE, 64, np.array([3, 2, 1], "<i4").tobytes()),
    "paths_moved": column("micrograph_path", f"/scratch/proj/{IMAGE}"),
    "template_voxel_size": lambda folder: write_volume(
        folder / TEMPLATE, read_volume(folder / TEMPLATE)[0], 1.55
    ),
}
