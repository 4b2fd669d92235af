"""The house's rules, read off the source: layers, cycles, sizes, imports, side effects."""

import ast
import functools
import os
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import jaxtyping
import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "jaxrefine"
FILES = sorted(PACKAGE.rglob("*.py"))

# A layer, and those below it that it may import. refine and io never meet.
BELOW = {
    "data": set(),
    "physics": {"data"},
    "refine": {"data", "physics"},
    "io": {"data"},
    "app": {"data", "physics", "refine", "io"},
    # The library's face re-exports the core.
    "__init__": {"data", "physics", "refine"},
    "__main__": {"app"},
}
# Who may import what a user of the core need not have.
GUARDED = {
    "pandas": {"io"},
    "mrcfile": {"io"},
    "starfile": {"io"},
    "gemmi": {"io"},
    "yaml": {"app"},
    "cattrs": {"app"},
    "tqdm": {"app"},
    "platformdirs": {"app"},
    "psutil": {"app"},
    "filelock": {"app"},
    "matplotlib": {"app"},
    "jinja2": {"app"},
}
CORE = [
    "jaxrefine",
    "jaxrefine.data",
    *(
        f"jaxrefine.{layer}.{path.stem}"
        for layer in ("data", "physics", "refine")
        for path in sorted((PACKAGE / layer).glob("[!_]*.py"))
    ),
]


def module_name(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in FILES}


def layer_of(module):
    parts = module.split(".")
    if len(parts) == 1:
        return "__init__"
    return parts[1]


@functools.cache
def tree_of(path):
    return ast.parse(path.read_text(), str(path))


def imported_by(path):
    """Dotted names of all that a file imports, wherever in it: functions, TYPE_CHECKING."""
    package = module_name(path).split(".")
    if path.name != "__init__.py":
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
        "jaxrefine.io.table.particle_table",
        "typing",
        "jaxrefine.app.cli",
        "jaxrefine.physics.slices",
        "jaxrefine.physics",
    ]


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_imports_point_down(path):
    layer = layer_of(module_name(path))
    allowed = BELOW[layer] | {layer}
    for name in imported_by(path):
        if name.split(".")[0] == "jaxrefine":
            target = layer_of(name)
            # Anyone may ask the package for its version.
            fine = target in allowed or (target == "__init__" and layer == "app")
            assert fine, f"{module_name(path)} imports {name}"


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_heavy_packages_stay_in_their_layer(path):
    layer = layer_of(module_name(path))
    for name in imported_by(path):
        owners = GUARDED.get(name.split(".")[0])
        assert owners is None or layer in owners, f"{module_name(path)} imports {name}"


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


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_files_are_short(path):
    assert len(path.read_text().splitlines()) <= 400


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_no_assert_and_no_print(path):
    for node in ast.walk(tree_of(path)):
        where = f"{path.name}:{getattr(node, 'lineno', 0)}"
        assert not isinstance(node, ast.Assert), f"{where}: assert in the package"
        if layer_of(module_name(path)) != "app" and isinstance(node, ast.Call):
            name = getattr(node.func, "id", None)
            assert name != "print", f"{where}: print outside of app"


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
    """The core imported in a new interpreter in which what it must not need is missing."""
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
