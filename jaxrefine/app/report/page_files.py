"""A page from its template, and its files: one self-contained page, and its figures."""

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2

from jaxrefine.app.report.figures import RenderedFigure
from jaxrefine.data import InputError
from jaxrefine.io.atomic import atomic_open

PAGE, FIGURES = "report.html", "figures"


def render_page(template: str, **values: Any) -> str:
    """Fill a template of this folder; values are escaped."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["embedded"] = _embedded
    return environment.get_template(template).render(**values)


def _embedded(picture: RenderedFigure) -> str:
    return f"data:image/png;base64,{base64.b64encode(picture.png).decode()}"


def make_folder(folder: Path) -> None:
    """Create the folder of a page and its figures.

    Raises:
        InputError: It cannot be created.
    """
    try:
        (folder / FIGURES).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(folder, error) from error


def write_files(
    folder: Path, page: str, pictures: Sequence[RenderedFigure], names: Sequence[str]
) -> Path:
    """Write a page and its figures, replacing those of an older one.

    Args:
        folder: From `make_folder`.
        page: Text of the page.
        pictures: Figures to write beside it.
        names: Names (glob patterns) of all figures that such a page may have.

    Returns:
        Path of the page.

    Raises:
        InputError: The folder cannot be written.
    """
    try:
        if (folder / PAGE).exists():  # remove the figures of an older report
            for name in names:
                for path in (folder / FIGURES).glob(f"{name}.png"):
                    path.unlink()
        for picture in pictures:
            with atomic_open(folder / FIGURES / f"{picture.name}.png") as file:
                file.write(picture.png)
    except OSError as error:
        raise _unwritable(folder, error) from error
    with atomic_open(folder / PAGE, encoding="utf-8") as file:
        file.write(page)
    return folder / PAGE


def _unwritable(folder: Path, error: OSError) -> InputError:
    return InputError(
        f"{folder}: no report can be written there: {error.strerror or error}"
    )
