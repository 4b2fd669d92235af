"""The page's scripts and data, and the security policy that allows only these scripts."""

import base64
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from jaxrefine.app.report.linked_plots import bokeh_script

_FOLDER = Path(__file__).parent / "page_script"
# In order of dependence.
_FILES = ("store.js", "plots.js", "table.js", "detail.js", "micrographs.js", "main.js")


@dataclass(frozen=True)
class Script:
    """The parts that make a page interactive.

    Attributes:
        texts: Scripts, in order.
        data: Id -> JSON for the scripts, which the page does not execute.
        policy: The Content-Security-Policy.
    """

    texts: list[Markup]
    data: dict[str, Markup]
    policy: str


def page_script(data: dict[str, Any], *, images_beside: bool = False) -> Script:
    """The scripts, with their data.

    Args:
        data: Id -> plain values.
        images_beside: Whether the page shows images from its own folder.
    """
    parts = [(_FOLDER / name).read_text(encoding="utf-8") for name in _FILES]
    own = "(() => {\n'use strict';\n" + "\n".join(parts) + "})();\n"
    texts = [_in_a_script(bokeh_script()), _in_a_script(own)]
    images = "data: 'self' file:" if images_beside else "data:"
    hashes = " ".join(f"'sha256-{_sha256(text)}'" for text in texts)
    return Script(
        texts=[Markup(text) for text in texts],
        data={name: Markup(_json(values)) for name, values in data.items()},
        policy=(
            f"default-src 'none'; script-src {hashes}; img-src {images}; "
            "style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
        ),
    )


def _in_a_script(text: str) -> str:
    """Escape a script so that its strings cannot end the script element."""
    return text.replace("</script", r"<\/script").replace("<!--", r"<\!--")


def _json(values: Any) -> str:
    """JSON in which no text can end the script element."""
    text = json.dumps(values, separators=(",", ":"), allow_nan=False)
    return text.replace("&", r"\u0026").replace("<", r"\u003c").replace(">", r"\u003e")


def _sha256(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
