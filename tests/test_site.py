"""The documentation as a site: complete, without dead links, with valid commands."""

import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from jaxrefine.app import cli
from jaxrefine.app.config import Config
from jaxrefine.app.run.record import read_record
from jaxrefine.io.table import read_particle_table
from tests.reference import ROOT

pytestmark = pytest.mark.usefixtures("compiled_to_run_fast")

DOCS = ROOT / "docs"
PAGES = sorted(DOCS.glob("**/*.md"))
PAGES_AND_README = [*PAGES, ROOT / "README.md"]
BLOCK = re.compile(r"^( *)```(\w*)\n(.*?)^\1```", flags=re.DOTALL | re.MULTILINE)
# Pages whose Python is run by another test.
RUN_ELSEWHERE = {
    "differentiable.md": "tests/test_docs.py::test_differentiable",
    "library.md": "tests/test_docs.py::test_library",
    "scores.md": "tests/test_docs.py::test_differentiable",
}
REQUIRED_SECTIONS = ("template_volume_path", "particle_stack")


def name_of(path):
    return path.name


def prose(path):
    """A page without its blocks of code."""
    return BLOCK.sub("", path.read_text(encoding="utf-8"))


def blocks(path, language):
    found = BLOCK.findall(path.read_text(encoding="utf-8"))
    return [text for _, its_language, text in found if its_language == language]


def navigation():
    entries = yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]
    found = []
    while entries:
        entry = entries.pop()
        if isinstance(entry, str):
            found.append(entry)
        else:
            for inner in entry.values():
                entries += inner if isinstance(inner, list) else [inner]
    return found


def test_every_page_is_in_the_navigation():
    assert sorted(navigation()) == [str(path.relative_to(DOCS)) for path in PAGES]


def anchors(path):
    """Anchors of a page's headings, both in a repository and on the site."""
    found = set()
    for heading in re.findall(r"^#+ (.*)$", prose(path), flags=re.MULTILINE):
        bare = re.sub(r"[^\w\s-]", "", heading).strip().lower()
        repository, site = bare.replace(" ", "-"), re.sub(r"[\s-]+", "-", bare)
        found |= {repository} & {site}
    return found


@pytest.mark.parametrize("page", PAGES_AND_README, ids=name_of)
def test_links_lead_somewhere(page):
    dead = []
    for link in re.findall(r"\]\(([^)]+)\)", prose(page)):
        if link.startswith("https://"):
            continue
        file, _, anchor = link.partition("#")
        target = (page.parent / file).resolve() if file else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            dead.append(link)
        # Folders, and pages from elsewhere with links of their own, are not in the site.
        elsewhere = target.is_dir() or (target.suffix == ".md" and target.parent != DOCS)
        if page.parent == DOCS and elsewhere:
            dead.append(link)
    assert not dead


def test_a_dead_link_is_seen(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# Some heading\n[a](gone.md) [b](#some-heading) [c](#no-heading)\n")
    with pytest.raises(AssertionError, match=r"\['gone.md', '#no-heading'\]"):
        test_links_lead_somewhere(page)


def command_lines(page):
    """Each command line of a page, of its blocks and of its sentences."""
    for block in blocks(page, "bash"):
        yield from block.replace("\\\n", " ").splitlines()
    for text in re.findall(r"`([^`]+)`", prose(page)):
        text = " ".join(text.split())
        if re.match(r"(\S*python -m jaxrefine|srun|mpirun|jaxrefine) [^.]", text):
            yield text


def check_command(line, extras):
    """Fails if a line is not a valid command."""
    for words in split_at_and(shlex.split(line, comments=True)):
        if words[:1] == ["srun"]:
            words = [word for word in words[1:] if not word.startswith("--mpi=")]
        elif words[:2] == ["mpirun", "-n"]:
            words = words[3:]
        program = Path(words[0]).name if words else ""
        if not words:
            continue
        if program.startswith("python") and words[1:3] == ["-m", "jaxrefine"]:
            words = ["jaxrefine", *words[3:]]
            program = "jaxrefine"
        if program == "jaxrefine":
            # Ends with an error of its own where the words mean nothing.
            cli.parse(words[1:])
        elif program == "pip":
            asked = re.findall(r"\.\[([\w,]+)\]", " ".join(words))
            assert words[1] == "install", line
            assert {name for part in asked for name in part.split(",")} <= extras, line
        else:
            known = ("python3 -m venv", "python -m pytest", "mkdocs serve")
            assert " ".join([program, *words[1:]]).startswith(known), line


def split_at_and(words):
    parts = [[]]
    for word in words:
        if word == "&&":
            parts.append([])
        else:
            parts[-1].append(word)
    return parts


def extras():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return set(project["optional-dependencies"])


# files.md has the first lines of docstrings, which leave out arguments.
WITH_COMMANDS = [page for page in PAGES_AND_README if page.name != "files.md"]


@pytest.mark.parametrize("page", WITH_COMMANDS, ids=name_of)
def test_commands_parse(page):
    for line in command_lines(page):
        check_command(line, extras())


@pytest.mark.parametrize(
    "line",
    [
        "python -m jaxrefine config.yaml --no-such-option",
        "python -m jaxrefine export refined.csv --to nowhere --output o.star",
        "rm -rf somewhere",
    ],
)
def test_a_wrong_command_is_seen(line):
    with pytest.raises((SystemExit, AssertionError)):
        check_command(line, extras())


@pytest.mark.parametrize("page", [p for p in PAGES if blocks(p, "python")], ids=name_of)
def test_python_runs(page, monkeypatch):
    """In a folder with the configuration refine.yaml, as on the pages."""
    if page.name in RUN_ELSEWHERE:
        file, _, test = RUN_ELSEWHERE[page.name].partition("::")
        text = (ROOT / file).read_text()
        assert f"def {test}(" in text and page.name in text
        return
    monkeypatch.chdir(ROOT / "tests" / "data" / "reference" / "basic")
    names = {}
    for block in blocks(page, "python"):
        exec(block, names)


@pytest.mark.parametrize(
    "page", [p for p in PAGES_AND_README if blocks(p, "yaml")], ids=name_of
)
def test_configurations_are_valid(page, tmp_path):
    """Whole ones as they are, others with the keys that are required."""
    for number, block in enumerate(blocks(page, "yaml")):
        required = (ROOT / "configs" / "full.yaml").read_text()
        required = {k: yaml.safe_load(required)[k] for k in REQUIRED_SECTIONS}
        if "particle_stack_reference" in yaml.safe_load(block):
            required = {}  # a constrained search, whole
        path = tmp_path / f"{number}.yaml"
        path.write_text(yaml.safe_dump(required | yaml.safe_load(block)))
        Config.load(path)


@pytest.mark.nightly
def test_the_pages_commands_run(tmp_path, monkeypatch, capsys):
    """The commands of a first day, unchanged: start, report, export and import."""

    def run(page, which, change=None):
        ran = 0
        for line in blocks(page, "bash")[which].splitlines():
            words = shlex.split(line, comments=True)
            if words[1:3] != ["-m", "jaxrefine"]:
                continue
            assert cli.main(words[3:]) == 0, (line, capsys.readouterr().err)
            if change is not None and words[3] == "init":
                change(Path("config.yaml"))
            ran += 1
        return ran

    monkeypatch.chdir(tmp_path)
    start = DOCS / "tutorial.md"
    assert run(start, 0) == 2
    assert "angle error (°)" in capsys.readouterr().out
    assert any("demo demo --run" in block for block in blocks(ROOT / "README.md", "bash"))
    assert Path("demo/match_results_refined_report/report.html").is_file()
    # A later report finds the record of the demo's run.
    record = read_record(Path("demo/match_results_refined.csv"))
    assert record and record.config_text == Path("demo/config.yaml").read_text()
    assert any("11" in line for line in record.lines)

    monkeypatch.chdir("demo")
    Path("config.yaml").unlink()
    assert run(start, 1, change=coarsened) == 4
    assert run(DOCS / "report.md", 0) == 1
    shutil.copy("match_results_refined.csv", "refined.csv")
    assert run(DOCS / "export.md", 0) == 1
    assert Path("refined.mrcs").is_file()
    assert run(DOCS / "export.md", 1) == 1
    assert len(read_particle_table("particles.csv")) == 11


def coarsened(path):
    """The grid that `init` writes has 118,327 poses; other tests search it."""
    config = yaml.safe_load(path.read_text())
    steps = {"psi_step_fine": 0.5, "theta_step_fine": 0.5}
    config["orientation_refinement_config"] |= steps
    path.write_text(yaml.safe_dump(config))


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("mkdocs") is None,
    reason="the site is built where the extra docs is installed, as test has it",
)
def test_the_site_builds(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", tmp_path],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    names = (tmp_path / "api" / "index.html").read_text()
    for documented in ("polish_particles", "image frame", "read_particle_table"):
        assert documented in names
    assert (tmp_path / "files" / "configs" / "full.yaml").is_file()
