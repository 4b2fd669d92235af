"""The release script detects what does not match a version."""

import re
import runpy
import shutil
import subprocess

import pytest

from tests.reference import ROOT

SCRIPT = runpy.run_path(str(ROOT / ".ci" / "release.py"))
FILES = ("pyproject.toml", "CITATION.cff", "CHANGELOG.md")
VERSION = "9.8.7"


@pytest.fixture
def project(tmp_path):
    """The files of this project, as they would be for a release."""
    for name in FILES:
        shutil.copy(ROOT / name, tmp_path)
    change(tmp_path / "pyproject.toml", r'^version = ".*"$', f'version = "{VERSION}"')
    change(tmp_path / "CITATION.cff", r"^version: .*$", f"version: {VERSION}")
    change(tmp_path / "CITATION.cff", r"^date-released: .*$", 'date-released: "2030-01-31"')
    (tmp_path / "CHANGELOG.md").write_text(
        f"# Changelog\n\n## Unreleased\n\n## {VERSION} - 2030-01-31\n\n- All.\n"
    )
    return tmp_path


def change(path, pattern, replacement):
    text, count = re.subn(pattern, replacement, path.read_text(), flags=re.MULTILINE)
    assert count == 1
    path.write_text(text)


def test_a_version_that_fits(project):
    assert SCRIPT["file_errors"](project, VERSION) == []


@pytest.mark.parametrize(
    ("file", "pattern", "replacement", "error"),
    [
        ("pyproject.toml", '^version = ".*"$', 'version = "9.8.6"', "version is 9.8.6"),
        ("CITATION.cff", "^version: .*$", "version: 9.8.6", "CITATION.cff: version"),
        ("CITATION.cff", '"2030-01-31"', '"2030-01-30"', "date-released is not 2030-01-31"),
        ("CHANGELOG.md", "^## 9.*$", "## 9.8.7", "no heading '## 9.8.7 - YYYY-MM-DD'"),
        ("CHANGELOG.md", "^## Unreleased$", "## Unreleased\n\n- One.\n", "left under"),
    ],
)
def test_what_does_not_fit_is_named(project, file, pattern, replacement, error):
    change(project / file, pattern, replacement)
    (found,) = SCRIPT["file_errors"](project, VERSION)
    assert error in found


def test_an_old_tag_and_changes_are_seen(tmp_path):
    def git(*words):
        subprocess.run(["git", *words], cwd=tmp_path, check=True, capture_output=True)

    git("init")
    git("-c", "user.name=a", "-c", "user.email=a@b", "commit", "--allow-empty", "-m", "x")
    assert SCRIPT["git_errors"](tmp_path, VERSION) == []
    git("tag", f"v{VERSION}")
    (tmp_path / "file").write_text("new")
    errors = SCRIPT["git_errors"](tmp_path, VERSION)
    assert len(errors) == 2 and VERSION in errors[1]
