"""Writes docs/files.md: every file of the package with the first line of its docstring.

python docs/file_list.py

A test compares the page with the source.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "files.md"
HEAD = """# Files

Every file of the package and what it is for, folder by folder; written by
[file_list.py](../docs/file_list.py) from the first line of each docstring.
[Architecture](architecture.md) describes the folders and which files a change touches.
"""


def page() -> str:
    """The page."""
    return HEAD + "".join(_lines())


def _lines() -> Iterator[str]:
    package = ROOT / "jaxrefine"
    folders = sorted({path.parent for path in package.rglob("*.py")})
    for folder in folders:
        yield f"\n## {folder.relative_to(ROOT).as_posix()}\n\n"
        for path in sorted(folder.glob("*.py")):
            doc = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
            if doc is None and path.name != "__init__.py":
                raise ValueError(f"{path} has no docstring")
            if doc is not None:
                yield f"- `{path.name}`: {doc.splitlines()[0]}\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
