"""Check that a version can be released, and build it.

python .ci/release.py 0.1.0

pyproject.toml, CITATION.cff and CHANGELOG.md must all name this version, and nothing may be
left under "Unreleased". The tag must be new, and the working tree clean. Then the source
distribution and the wheel are built into dist/. CONTRIBUTING.md lists the steps before and
after.
"""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
_DATE = r"\d{4}-\d{2}-\d{2}"


def file_errors(root: Path, version: str) -> list[str]:
    """What the files say that does not fit a version; empty if all is right."""
    errors = []
    project = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["project"]
    if project["version"] != version:
        errors.append(f"pyproject.toml: version is {project['version']}, not {version}")
    citation = (root / "CITATION.cff").read_text("utf-8")
    if not re.search(rf"^version: {re.escape(version)}$", citation, flags=re.M):
        errors.append(f"CITATION.cff: version is not {version}")
    released = re.search(rf"^date-released: ['\"]?({_DATE})", citation, flags=re.M)
    changelog = (root / "CHANGELOG.md").read_text("utf-8")
    heading = re.search(rf"^## {re.escape(version)} - ({_DATE})$", changelog, flags=re.M)
    if not heading:
        errors.append(f"CHANGELOG.md: no heading '## {version} - YYYY-MM-DD'")
    elif not released or released[1] != heading[1]:
        errors.append(f"CITATION.cff: date-released is not {heading[1]}, the changelog's")
    unreleased = re.search(r"^## Unreleased\n(.*?)^## ", changelog, flags=re.M | re.S)
    if unreleased and re.search(r"^- ", unreleased[1], flags=re.M):
        errors.append("CHANGELOG.md: entries are left under Unreleased")
    return errors


def git_errors(root: Path, version: str) -> list[str]:
    """What the repository holds that does not fit a new release."""

    def git(*words: str) -> str:
        done = subprocess.run(
            ["git", *words], cwd=root, check=True, capture_output=True, text=True
        )
        return done.stdout.strip()

    errors = []
    if git("status", "--porcelain"):
        errors.append("the working tree has changes that are not committed")
    if git("tag", "--list", f"v{version}"):
        errors.append(f"the tag v{version} exists already")
    return errors


def main(version: str) -> int:
    """Check and build; the exit code."""
    errors = file_errors(ROOT, version) + git_errors(ROOT, version)
    for error in errors:
        print(f"error: {error}", file=sys.stderr)
    if errors:
        return 1
    built = subprocess.run([sys.executable, "-m", "build"], cwd=ROOT)
    if built.returncode == 0:
        print(f"built in dist/; next: git tag -a v{version} -m 'jaxrefine {version}'")
    return built.returncode


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    sys.exit(main(sys.argv[1]))
