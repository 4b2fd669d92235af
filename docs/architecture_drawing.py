"""Draws the folders of the package and their imports, from the imports themselves.

python docs/architecture_drawing.py

writes docs/images/architecture.svg. An arrow is left out where others lead the same way;
the list of all imports is in the file's <desc>. A test compares both with the source.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
DRAWING = ROOT / "docs" / "images" / "architecture.svg"

# Room -> (x, y) of its middle, in boxes; and what it is for.
PLACES: dict[str, tuple[float, float, str]] = {
    "__main__": (1.5, 0, "python -m jaxrefine"),
    "app.cli": (1.5, 1, "command line"),
    "app.commands": (1.5, 2, "a file per command"),
    "app.refinement": (0, 3, "a run, for research code"),
    "app.report": (1, 3, "the page of a run"),
    "app.interchange": (2, 3, "export and import"),
    "app.demo": (3, 3, "demo and selftest"),
    "app.run": (0.5, 4, "read, check, build, refine"),
    "app.cluster": (0, 5, "processes"),
    "app.config": (1.2, 5, "every key"),
    "app.console": (0, 6, "messages, progress"),
    "compilation": (2.2, 6, "compiled programs on disk"),
    "__init__": (-1, 6, "import jaxrefine as jr"),
    "testing": (-1, 7, "a kit for own scores"),
    "refine": (0.75, 7, "scores, search, polish"),
    "io": (2, 7, "MRC, tables, STAR"),
    "simulate": (3, 7, "numpy only"),
    "physics": (0.75, 8, "CTF, filters, slices"),
    "data": (1, 9, "what things are"),
}
WIDTH, HEIGHT, STEP_X, STEP_Y, MARGIN = 168, 44, 190, 82, 20
WIDER = {"data": 4.5 * WIDTH}
COLOUR = "#667"


def room_of(module: str) -> str:
    """The room of a module: a layer, or a folder or file of the program."""
    parts = module.split(".")
    if len(parts) == 1:
        return "__init__"
    return ".".join(parts[1:3]) if parts[1] == "app" else parts[1]


def imports() -> set[tuple[str, str]]:
    """(room, room that it imports); who asks the package for its version is no one."""
    package = ROOT / "jaxrefine"
    found = set()
    for path in [*package.rglob("*.py"), *package.rglob("*.pyi")]:
        parts = path.relative_to(ROOT).with_suffix("").parts
        module = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        for name in _names(path):
            if name.startswith("jaxrefine."):
                found.add((room_of(module), room_of(name)))
    return {(a, b) for a, b in found if a != b and b in PLACES}


def _names(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level:  # of the stub alone
            yield from (f"jaxrefine.{node.module or a.name}" for a in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module == "jaxrefine":
            yield from (f"jaxrefine.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""


def drawn(edges: set[tuple[str, str]]) -> set[tuple[str, str]]:
    """Those that do not follow from others."""
    below = {room: {b for a, b in edges if a == room} for room in PLACES}

    def reaches(room: str, goal: str) -> bool:
        return goal in below[room] or any(reaches(one, goal) for one in below[room])

    return {
        (room, goal)
        for room, goal in edges
        if not any(reaches(one, goal) for one in below[room] - {goal})
    }


def svg(edges: set[tuple[str, str]]) -> str:
    """The drawing."""
    left = min(x for x, _, _ in PLACES.values())

    def middle(room: str) -> tuple[float, float]:
        x, y, _ = PLACES[room]
        across = MARGIN + (x - left) * STEP_X + WIDTH / 2
        return across, MARGIN + y * STEP_Y + HEIGHT / 2

    width = max(middle(room)[0] for room in PLACES) + WIDTH / 2 + MARGIN
    height = max(middle(room)[1] for room in PLACES) + HEIGHT / 2 + MARGIN
    listed = "\n".join(f"{room} imports {below}" for room, below in sorted(edges))
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" '
        f'width="{width:g}" font-family="sans-serif" text-anchor="middle">',
        f"<title>The folders of jaxrefine</title>\n<desc>\n{listed}\n</desc>",
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" '
        'markerHeight="7" orient="auto">'
        f'<path d="M0 0L8 4L0 8z" fill="{COLOUR}"/></marker></defs>',
        f'<rect width="{width:g}" height="{height:g}" fill="#fff"/>',
    ]
    for room, below in sorted(drawn(edges)):
        (x, y), (to_x, to_y) = middle(room), middle(below)
        reach = max(WIDER.get(below, 0.0) - WIDTH, 0.0) / 2
        to_x = min(max(x, to_x - reach), to_x + reach)
        lines.append(
            f'<path d="M{x:g} {y + HEIGHT / 2:g}L{to_x:g} {to_y - HEIGHT / 2:g}" '
            f'stroke="{COLOUR}" fill="none" marker-end="url(#tip)"/>'
        )
    for room, (_, _, meaning) in PLACES.items():
        (x, y), wide = middle(room), WIDER.get(room, WIDTH)
        fill = "#e8eefc" if room.startswith(("app", "__main__")) else "#e9f6ea"
        lines += [
            f'<rect x="{x - wide / 2:g}" y="{y - HEIGHT / 2:g}" width="{wide:g}" '
            f'height="{HEIGHT}" rx="6" fill="{fill}" stroke="{COLOUR}"/>',
            f'<text x="{x:g}" y="{y - 3:g}" font-size="14" font-weight="bold">'
            f"{room}</text>",
            f'<text x="{x:g}" y="{y + 14:g}" font-size="11">{meaning}</text>',
        ]
    return "\n".join([*lines, "</svg>", ""])


if __name__ == "__main__":
    DRAWING.parent.mkdir(exist_ok=True)
    DRAWING.write_text(svg(imports()), encoding="utf-8")
