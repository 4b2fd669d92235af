"""The choices that `reproduce: leopard_em` implies."""

from collections.abc import Mapping
from operator import attrgetter
from typing import Any, NamedTuple

from jaxrefine.app.config.schema import Rule


class PresetOverride(NamedTuple):
    """A choice that `reproduce: leopard_em` implies."""

    key: str
    choice: str | bool
    give_way: tuple[str, ...] = ()  # values that it may replace

    @property
    def rule(self) -> Rule:
        return Rule(
            self.key,
            lambda c: c.reproduce is None or attrgetter(self.key)(c) == self.choice,
            f"contradicts reproduce: leopard_em, which needs {str(self.choice).lower()}; "
            "remove one of the two",
        )


IMPLIED = (
    PresetOverride("scoring", "template_ctf"),
    PresetOverride("template_sampling", "trilinear"),
    PresetOverride("fill_defects", False),
    PresetOverride("template_envelope", "none", ("auto",)),
    # Leopard-EM calls its own grid uniform.
    PresetOverride(
        "orientation_refinement_config.base_grid_method", "leopard_em", ("uniform",)
    ),
)


def with_implied(data: Any, *, below: bool = True) -> Any:
    """The data, with the choices that `reproduce` implies unless the user chose others.

    Args:
        data: Plain data of the configuration.
        below: Apply them in the sections as well.
    """
    if not isinstance(data, Mapping) or data.get("reproduce") != "leopard_em":
        return data
    data = dict(data)
    for key, choice, give_way in IMPLIED:
        parent, _, name = key.rpartition(".")
        if parent and not below:
            continue
        section = data
        if parent:
            section = {} if data.get(parent) is None else data[parent]
            if not isinstance(section, Mapping):
                continue
            section = data[parent] = dict(section)
        if name not in section or section[name] in give_way:
            section[name] = choice
    return data
