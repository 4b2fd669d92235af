"""Writing plain data as YAML."""

from pathlib import Path
from typing import Any

import yaml

from jaxrefine.io.atomic import atomic_open


def write_yaml(data: Any, path: Path) -> None:
    """Write mappings, lists, text and numbers; an older file is replaced atomically.

    Raises:
        InputError: The file cannot be written.
    """
    with atomic_open(path, encoding="utf-8") as file:
        yaml.safe_dump(data, file, sort_keys=False, allow_unicode=True, width=100)
