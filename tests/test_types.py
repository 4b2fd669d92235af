"""The package's types are correct, and sufficient for a program that uses it."""

import json
import subprocess
import sys

import pytest

from tests.reference import ROOT


def complaints(*paths):
    """Messages of the type checker on some files, with the settings in pyproject.toml."""
    done = subprocess.run(
        [
            *(sys.executable, "-m", "basedpyright", "--outputjson"),
            *("--pythonpath", sys.executable, *map(str, paths)),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
    )
    report = json.loads(done.stdout)
    assert report["summary"]["filesAnalyzed"] > 0
    return [
        f"{each['file']}:{each['range']['start']['line'] + 1}: {each['message']}"
        for each in report["generalDiagnostics"]
        if each["severity"] == "error"
    ]


@pytest.mark.nightly
def test_package_and_examples():
    programs = ("library", "own_run", "demo_particles", "pixel_size", "b_factor")
    assert not complaints("jaxrefine", *(f"examples/{name}.py" for name in programs))


@pytest.mark.slow
def test_a_wrong_type_is_seen(tmp_path):
    """The checker knows the package's names, and shapes do not confuse it."""
    path = tmp_path / "wrong.py"
    path.write_text(
        "import jaxrefine as jr\n"
        "from jaxrefine.app.refinement import Refinement\n"
        "run = Refinement.load('refine.yaml')\n"
        "for rows, particles in run.particles():\n"
        "    refined = jr.refine_particles(particles, run.template, run.grid, run.score)\n"
        "    wrong: int = refined.z_score\n"
        "jr.local_grid(nothing=1)\n"
    )
    found = complaints(path)
    assert len(found) == 2
    assert ":6:" in found[0] and "nothing" in found[1]
