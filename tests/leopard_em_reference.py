"""Frozen output of Leopard-EM 1.2; see `tests/data/peer/README.md`."""

import json
from pathlib import Path
from typing import Any

import numpy as np

_FOLDER = Path(__file__).parent / "data" / "peer"


def frozen(name: str) -> dict[str, np.ndarray]:
    """One file of arrays."""
    with np.load(_FOLDER / f"{name}.npz") as file:
        return dict(file)


def settings(data: dict[str, np.ndarray], key: str = "settings") -> Any:
    """What is stored as a JSON string beside the arrays."""
    return json.loads(str(data[key]))
