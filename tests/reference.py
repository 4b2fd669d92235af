"""Assembles the reference sets: simulated data that Leopard-EM 1.2 refined."""

import shutil
from pathlib import Path

ROOT = Path(__file__).parents[1]
REFERENCE = Path(__file__).parent / "data" / "reference"
SETS = ("basic", "two_micrographs", "disabled", "rerefine")
_RESULTS_OF_BASIC = ("refine.yaml", "refined.csv")


def reference_set(name: str, tmp_path: Path) -> Path:
    """Copies a complete reference set, so that its relative paths hold.

    `disabled` and `rerefine` use the images and the match table of `basic`, which are
    stored once.

    Args:
        name: One of `SETS`.
        tmp_path: An existing folder, such as pytest's `tmp_path`.

    Returns:
        The set's new folder, tmp_path / name; be there to use the set's paths.
    """
    if name not in SETS:
        raise ValueError(f"no reference set {name!r}; there are {', '.join(SETS)}")
    folder = tmp_path / name
    if name in ("disabled", "rerefine"):
        ignored = shutil.ignore_patterns(*_RESULTS_OF_BASIC)
        shutil.copytree(REFERENCE / "basic", folder, ignore=ignored)
    if name == "rerefine":
        shutil.copy(REFERENCE / "basic" / "refined.csv", folder / "basic_refined.csv")
    shutil.copytree(REFERENCE / name, folder, dirs_exist_ok=True)
    return folder
