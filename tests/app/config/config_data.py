"""Plain data for configurations, and the key paths of their tree."""

import copy
import dataclasses
from typing import Any

from jaxrefine.app.config.schema import Section

REQUIRED = {
    "template_volume_path": "template.mrc",
    "particle_stack": {
        "df_path": "particles.csv",
        "extracted_box_size": [528, 528],
        "original_template_size": [512, 512],
    },
}


def with_values(changes: dict[str, Any]) -> dict[str, Any]:
    """The required keys, and these by their paths."""
    data = copy.deepcopy(REQUIRED)
    for path, value in changes.items():
        *parents, name = path.split(".")
        section = data
        for parent in parents:
            section = section.setdefault(parent, {})
        section[name] = value
    return data


def leaves(section: type[Section], parent: str = "") -> dict[str, Any]:
    """Default of every key path of the tree; MISSING for required keys."""
    found = {}
    for field in dataclasses.fields(section):
        if not field.metadata.get("key", True):
            continue
        path = parent + field.name
        if isinstance(field.type, type) and issubclass(field.type, Section):
            found |= leaves(field.type, path + ".")
        else:
            found[path] = field.default
    return found


def value_at(tree: Any, path: str) -> Any:
    for name in path.split("."):
        tree = tree[name] if isinstance(tree, dict) else getattr(tree, name)
    return tree
