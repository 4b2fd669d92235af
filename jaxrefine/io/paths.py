"""Paths in a table that is written into another folder than it was read from."""

import os
from pathlib import Path

import pandas as pd


def rebase_relative_paths(table: pd.DataFrame, source: Path, target: Path) -> pd.DataFrame:
    """Make relative paths absolute where they would no longer be found.

    Relative paths are looked for in the current directory, then beside the table. Those
    that were found beside the table it was read from are not found from another folder.

    Args:
        table: All cells as text; its columns of paths end in `_path`.
        source: Folder that the table was read from.
        target: Folder that it will be written into.
    """
    if source.resolve() == target.resolve():
        return table

    def moved(text: str) -> str:
        beside = source / text
        lost = text and not os.path.isabs(text) and not os.path.exists(text)
        return str(beside.resolve()) if lost and os.path.exists(beside) else text

    paths = [name for name in table.columns if str(name).endswith("_path")]
    return table.assign(**{name: table[name].map(moved) for name in paths})


def resolve_path(text: str, *, beside: Path) -> Path:
    """Finds a file that a YAML or CSV file names.

    Args:
        text: The path. An absolute one stays as it is.
        beside: The folder of the file that names it.

    Returns:
        The path from the current directory if the file is there, else from `beside`,
        whether it is there or not.
    """
    return Path(text) if os.path.exists(text) else beside / text
