"""The rules of the layout, checked on the source: imports, cycles, sizes, side effects."""

import ast
import functools
import importlib
import os
import re
import subprocess
import sys

import jax.numpy as jnp
import jaxtyping
import pytest

from tests.reference import ROOT

PACKAGE = ROOT / "jaxrefine"
# The stub lists the public names of the library.
FILES = [*sorted(PACKAGE.rglob("*.py")), *sorted(PACKAGE.rglob("*.pyi"))]

# A layer, or a folder of the program, and those below it that it may import.
# refine and io never meet; the simulator shares nothing with what it is made to check.
CORE_ROOMS = {"data", "physics", "refine"}
BELOW = {
    "compilation": set(),
    "data": set(),
    "physics": {"data"},
    "refine": {"data", "physics"},
    "io": {"data"},
    "simulate": set(),
    "app.console": {"data"},
    "app.config": {"data", "io"},
    "app.cluster": {"data", "app.console"},
    "app.run": {*CORE_ROOMS, "io", "app.config", "app.console", "app.cluster"},
    "app.report": {"data", "physics", "io", "app.config", "app.console", "app.run"},
    "app.interchange": {"data", "physics", "io"},
    "app.demo": {*CORE_ROOMS, "io", "simulate"},
    "app.refinement": {*CORE_ROOMS, "io", "app.config", "app.run"},
    "app.commands": {
        *("data", "io", "refine"),
        *("app.config", "app.console", "app.cluster", "app.run"),
        *("app.report", "app.interchange", "app.demo"),
        "compilation",
    },
    "app.cli": {"data", "app.commands", "app.console"},
    "testing": CORE_ROOMS,
    # The top level of the library re-exports the core.
    "__init__": {*CORE_ROOMS, "compilation"},
    "__main__": {"app.cli"},
    "app": set(),
}
# Modules that may import packages that users of the core need not have.
GUARDED = {
    "pandas": {"io"},
    "mrcfile": {"io"},
    "starfile": {"io"},
    "gemmi": {"io"},
    "h5py": {"io"},
    "tifffile": {"io"},
    "yaml": {"app.config"},
    "cattrs": {"app.config"},
    "tqdm": {"app.console"},
    "platformdirs": {"compilation"},
    "psutil": {"app.run"},
    "filelock": {"app.run"},
    "matplotlib": {"app.report"},
    "jinja2": {"app.report"},
    "simpleeval": {"app.interchange"},
    "bokeh": {"app.report"},
    "PIL": {"app.report"},
}
CORE = [
    "jaxrefine",
    "jaxrefine.data",
    *(
        f"jaxrefine.{room}.{path.stem}"
        for room in sorted(CORE_ROOMS)
        for path in sorted((PACKAGE / room).glob("[!_]*.py"))
    ),
]


def module_name(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in FILES}


def room_of(module):
    parts = module.split(".")
    if len(parts) == 1:
        return "__init__"
    return ".".join(parts[1:3]) if parts[1] == "app" else parts[1]


@functools.cache
def tree_of(path):
    return ast.parse(path.read_text(), str(path))


def imported_by(path):
    """Dotted names of all that a file imports, wherever in it: functions, TYPE_CHECKING."""
    package = module_name(path).split(".")
    if path.stem != "__init__":
        package = package[:-1]
    names = []
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*start, *([node.module] if node.module else [])])
            for alias in node.names:
                inner = f"{base}.{alias.name}"
                names.append(inner if inner in MODULES else base)
    return names


def test_the_walk_sees_every_kind_of_import(tmp_path, monkeypatch):
    path = PACKAGE / "refine" / "made_up.py"
    source = """
import os.path
from . import search
from ..io.table import read
from typing import TYPE_CHECKING
if TYPE_CHECKING:
    import jaxrefine.app.cli
def late():
    from jaxrefine.physics import slices, nothing_known
"""
    made_up = ast.parse(source)
    monkeypatch.setitem(globals(), "tree_of", lambda _: made_up)
    assert imported_by(path) == [
        "os.path",
        "jaxrefine.refine.search",
        "jaxrefine.io.table",
        "typing",
        "jaxrefine.app.cli",
        "jaxrefine.physics.slices",
        "jaxrefine.physics",
    ]


def test_imports_point_down():
    upward = []
    for module, path in MODULES.items():
        room = room_of(module)
        allowed = BELOW[room] | {room}
        if room.startswith("app"):  # anyone there may ask the package for its version
            allowed |= {"__init__"}
        upward += [
            f"{module} imports {name}"
            for name in imported_by(path)
            if name.split(".")[0] == "jaxrefine" and room_of(name) not in allowed
        ]
    assert not upward


def test_the_rooms_are_those_of_the_tree():
    assert {room_of(module) for module in MODULES} == set(BELOW)


def test_the_drawing_is_that_of_today(monkeypatch):
    """And the script that draws it finds the same imports as this file."""
    monkeypatch.syspath_prepend(ROOT / "docs")
    drawing = importlib.import_module("architecture_drawing")
    edges = {
        (room_of(module), room_of(name))
        for module, path in MODULES.items()
        for name in imported_by(path)
        if name.startswith("jaxrefine.")
    }
    edges = {(room, below) for room, below in edges if room != below}
    assert drawing.imports() == edges
    assert drawing.DRAWING.read_text(encoding="utf-8") == drawing.svg(edges), (
        "imports have changed: run python docs/architecture_drawing.py"
    )


def test_the_list_of_files_is_that_of_today(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "docs")
    listed = importlib.import_module("file_list")
    page = listed.PAGE.read_text(encoding="utf-8")
    assert page == listed.page(), "a file has changed: run python docs/file_list.py"
    assert all(
        f"- `{path.name}`: " in page for path in MODULES.values() if path.stem[0] != "_"
    )


def test_the_page_names_what_is_there():
    """Files of the package, and functions and classes in them."""
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    named = re.findall(r"`([\w/]+/\w+\.py)(?:: ([\w.]+))?`", page)
    assert len(named) > 20
    for file, name in named:
        if "NAME" not in file and not file.startswith("tests/"):
            source = (PACKAGE / file).read_text(encoding="utf-8")
            for part in name.split("."):
                assert re.search(rf"(def|class) {part}\b" if part else "", source), (
                    file,
                    part,
                )


def test_heavy_packages_stay_in_their_room():
    outside = [
        f"{module} imports {name}"
        for module, path in MODULES.items()
        for name in imported_by(path)
        if room_of(module) not in GUARDED.get(name.split(".")[0], {room_of(module)})
    ]
    assert not outside


def test_no_import_cycles():
    edges = {
        module: {name for name in imported_by(path) if name in MODULES and name != module}
        for module, path in MODULES.items()
    }
    assert sum(map(len, edges.values())) > 40  # the walk finds them
    done, path = set(), []

    def visit(module):
        assert module not in path, " -> ".join([*path[path.index(module) :], module])
        if module in done:
            return
        path.append(module)
        for name in edges[module]:
            visit(name)
        path.pop()
        done.add(module)

    for module in edges:
        visit(module)


def test_files_are_short():
    lines = {module: len(path.read_text().splitlines()) for module, path in MODULES.items()}
    assert not {module: count for module, count in lines.items() if count > 400}


def test_no_assert_and_no_print():
    found = []
    for module, path in MODULES.items():
        for node in ast.walk(tree_of(path)):
            where = f"{module}:{getattr(node, 'lineno', 0)}"
            if isinstance(node, ast.Assert):
                found.append(f"{where}: assert in the package")
            if not room_of(module).startswith("app") and isinstance(node, ast.Call):
                if getattr(node.func, "id", None) == "print":
                    found.append(f"{where}: print outside of app")
    assert not found


def run_python(code):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    environment.pop("JAX_ENABLE_X64", None)
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        env=environment,
    )


@pytest.fixture(scope="module")
def fresh_import():
    """The core can be imported without the packages that it must not need."""
    result = run_python(f"""
import sys
for name in {sorted(GUARDED)}:
    sys.modules[name] = None  # makes its import an ImportError
import importlib, jax
before = dict(jax.config.values)
for name in {CORE}:
    importlib.import_module(name)
from jax._src import xla_bridge
print("imported")
print("backends", xla_bridge.backends_are_initialized())
changed = [k for k, v in jax.config.values.items() if before.get(k, v) != v]
print("changed", changed)
print("x64", jax.config.jax_enable_x64)
ours = [name.split(".") for name in sys.modules if name.startswith("jaxrefine.")]
print("layers", sorted({{name[1] for name in ours}}))
""")
    assert result.returncode == 0, result.stderr
    return dict(line.split(" ", 1) for line in result.stdout.splitlines() if " " in line)


@pytest.mark.slow
def test_the_core_imports_without_what_only_files_and_configs_need(fresh_import):
    assert fresh_import["layers"] == "['data', 'physics', 'refine']"


def test_the_core_s_import_has_no_side_effects(fresh_import):
    assert fresh_import["backends"] == "False"
    assert fresh_import["changed"] == "[]"
    assert fresh_import["x64"] == "False"


def test_annotations_are_checked_in_this_run():
    """The tests rely on it: pyproject.toml hands jaxtyping the package and a checker."""
    from jaxrefine.physics.boxes import centre_crop

    with pytest.raises(jaxtyping.TypeCheckError):
        centre_crop(jnp.zeros((2, 2, 2)), (1, 1))
