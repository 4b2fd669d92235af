"""Representation of results in notebooks: small HTML tables, of text only."""

from collections.abc import Callable, Mapping
from html import escape
from typing import Any

import jax
import numpy as np
from jax.core import Tracer


def html_table(title: str, rows: Mapping[str, object]) -> str:
    """A heading and a row for each entry; everything is escaped as text."""
    lines = "".join(
        f'<tr><th style="text-align: left">{escape(name)}</th>'
        f'<td style="text-align: left">{escape(str(value))}</td></tr>'
        for name, value in rows.items()
    )
    return f"<table><caption><b>{escape(title)}</b></caption>{lines}</table>"


def shown_in_notebooks(
    of: Any, rows: Callable[[], tuple[str, Mapping[str, object]]]
) -> str:
    """`html_table` of known values; for traced ones, as inside `jit`, the usual text."""
    leaves = jax.tree.leaves(of)
    if not all(isinstance(x, np.ndarray | jax.Array | float | int) for x in leaves):
        return f"<pre>{escape(repr(of))}</pre>"
    if any(isinstance(x, Tracer) for x in leaves):
        return f"<pre>{escape(repr(of))}</pre>"
    return html_table(*rows())


def span(values: Any, unit: str = "", form: str = "{:.2f}") -> str:
    """Mean and range of the finite values."""
    known = np.asarray(values, np.float64)
    known = known[np.isfinite(known)]
    if not known.size:
        return "none"
    mean, low, high = (form.format(x) for x in (known.mean(), known.min(), known.max()))
    space = " " if unit and unit != "°" else ""
    return f"mean {mean}, {low} … {high}{space}{unit}".replace("-", "−")
