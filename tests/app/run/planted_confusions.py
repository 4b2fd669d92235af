"""Deliberate confusions of conventions in a valid data set."""

import dataclasses
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from jaxrefine.app.config import Config
from jaxrefine.io.mrc import read_image, read_volume, write_image, write_volume

Table = pd.DataFrame


@dataclass(frozen=True)
class Planted:
    """One confusion.

    Attributes:
        spoil: Changes a data set; given its folder, its configuration and its table, it
            changes files and table in place and may return another configuration.
        named: A part of what the check should say.
    """

    spoil: Callable[[Path, Config, Table], Config | None]
    named: str


def scaled(names: tuple[str, ...], factor: float):
    """Columns times a number."""

    def spoil(folder: Path, config: Config, table: Table) -> None:
        for name in names:
            if name in table:
                table[name] = table[name].astype(float) * factor

    return spoil


def set_to(name: str, value: float):
    """A column of one number."""

    def spoil(folder: Path, config: Config, table: Table) -> None:
        table[name] = value

    return spoil


def _invert(folder: Path, config: Config, table: Table) -> None:
    for name in table.micrograph_path.unique():
        write_image(folder / name, -read_image(folder / name))


def _centres(folder: Path, config: Config, table: Table) -> None:
    half = config.particle_stack.original_template_size[0] // 2
    table["pos_x"] += half
    table["pos_y"] += half


def _binned(folder: Path, config: Config, table: Table) -> None:
    table["pos_x"] = (table.pos_x / 2).round().astype(int)
    table["pos_y"] = (table.pos_y / 2).round().astype(int)


def _exchanged(folder: Path, config: Config, table: Table) -> None:
    table["pos_x"], table["pos_y"] = table.pos_y.copy(), table.pos_x.copy()


def _angles(change: Callable[..., tuple]):
    def spoil(folder: Path, config: Config, table: Table) -> None:
        new = change(table.phi.copy(), table.theta.copy(), table.psi.copy())
        table["phi"], table["theta"], table["psi"] = new

    return spoil


def _other_template(folder: Path, config: Config, table: Table) -> Config:
    """The same voxels in another order: equal power, but another structure."""
    volume, voxel_size = read_volume(folder / config.template_volume_path)
    middle = volume.shape[0] // 2
    blocks = [volume[:middle], volume[middle:]]
    other = np.concatenate([block.transpose(0, 2, 1)[::-1] for block in blocks])
    write_volume(folder / "other.mrc", np.ascontiguousarray(other), voxel_size or 1.0)
    return dataclasses.replace(config, template_volume_path=str(folder / "other.mrc"))


def _nameless_template(folder: Path, config: Config, table: Table) -> Config:
    table["template_path"] = "gone.mrc"
    return _other_template(folder, config, table)


def _volume(change: Callable[[np.ndarray], np.ndarray]):
    """Another volume than that of the match, which was deleted."""

    def spoil(folder: Path, config: Config, table: Table) -> Config:
        volume, voxel_size = read_volume(folder / config.template_volume_path)
        changed = np.ascontiguousarray(change(volume))
        write_volume(folder / "other.mrc", changed, voxel_size or 1.0)
        table["template_path"] = "gone.mrc"
        other = str(folder / "other.mrc")
        return dataclasses.replace(config, template_volume_path=other)

    return spoil


def _swap(*columns: str):
    """The values of rows of one micrograph in rows of the other."""

    def spoil(folder: Path, config: Config, table: Table) -> None:
        for name in columns:
            first, second = table[name].unique()[:2]
            table[name] = table[name].map({first: second, second: first})

    return spoil


SOUND = Planted(lambda folder, config, table: None, "")
_DEFOCUS = ("defocus_u", "defocus_v")
PLANTED = {
    "contrast": Planted(_invert, "invert_contrast: true"),
    "defocus_um": Planted(scaled(_DEFOCUS, 1e-4), "in µm"),
    "defocus_nm": Planted(scaled(_DEFOCUS, 0.1), "in nm"),
    "defocus_sign": Planted(
        scaled((*_DEFOCUS, "relative_defocus"), -1), "change the sign of defocus_u"
    ),
    "phase_shift": Planted(set_to("phase_shift", 90.0), "set phase_shift to 0"),
    "pixel_size_6": Planted(
        scaled(("pixel_size", "refined_pixel_size"), 1.06), "pixel_size (and refined"
    ),
    "pixel_size_2": Planted(
        scaled(("pixel_size", "refined_pixel_size"), 2), "pixel_size (and refined"
    ),
    "centres": Planted(_centres, "are centres"),
    "binned": Planted(_binned, "multiply pos_x and pos_y by 2"),
    "exchanged": Planted(_exchanged, "exchange pos_x and pos_y"),
    "transposed": Planted(_angles(lambda a, b, c: (-c, -b, -a)), "-psi, -theta, -phi"),
    "zxz": Planted(
        _angles(lambda a, b, c: (a + 90, b, c - 90)), "phi - 90, theta, psi + 90"
    ),
    "radians": Planted(
        _angles(lambda *angles: tuple(map(np.deg2rad, angles))), "are in radians"
    ),
    "mirrored": Planted(_volume(lambda v: v[::-1]), "the other hand"),
    "axes": Planted(_volume(np.transpose), "its x and z are exchanged"),
    "named_template": Planted(_other_template, "set `template_volume_path"),
    "template": Planted(_nameless_template, "the template is another"),
}
OF_TWO_MICROGRAPHS = {
    "micrographs": Planted(_swap("micrograph_path"), "correct micrograph_path"),
    "maps": Planted(
        _swap("correlation_average_path", "correlation_variance_path"),
        "correct correlation_average_path",
    ),
}


def plant(planted: Planted, sound: Path, config_name: str, folder: Path) -> Config:
    """A copy of a data set with a planted confusion, and its configuration."""
    shutil.copytree(sound, folder)
    for path in folder.iterdir():
        path.chmod(0o644)
    config = Config.load(folder / config_name)
    path = folder / config.particle_stack.df_path
    table = pd.read_csv(path)
    config = planted.spoil(folder, config, table) or config
    table.to_csv(path, index=False)
    return config
