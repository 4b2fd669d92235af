"""docs/errors.md, row by row: invalid input, the message, and the consequence."""

import re
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from jaxrefine.app.cli import main
from jaxrefine.app.run import inputs as inputs_module
from jaxrefine.data import Status
from jaxrefine.io import atomic as replace
from tests.app.run.invalid_input import REFUSED, WARNED, rows_of, set_keys, write_rows
from tests.app.run.unusual_data import QUICK, UNUSUAL, unusual_folder
from tests.reference import reference_set
from tests.subprocess_runs import ROOT, checkpoint_of

DOCUMENT = (ROOT / "docs" / "errors.md").read_text()
TABLE_ROW = re.compile(r"^\| (?P<what>.*?) \| (?P<rest>.*) \| `(?P<test>[^`]+)` \|$", re.M)
ROWS = [match.groupdict() for match in TABLE_ROW.finditer(DOCUMENT)]
MESSAGES = {row["test"]: re.findall(r"`([^`]+)`", row["rest"]) for row in ROWS}
STATUSES = {status.name.lower() for status in Status}


def is_said(message: str, lines: list[str]) -> bool:
    """Whether a line has the pieces of a message between its dots, in their order."""
    pieces = [re.escape(piece.strip()) for piece in message.split("…")]
    # A limit such as 0.01 … 100 has real dots.
    return any(re.search(".*".join(pieces), line) for line in lines)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A valid data set, as current directory."""
    folder = reference_set("basic", tmp_path)
    monkeypatch.chdir(folder)
    return folder


# --- The page and the tests agree --------------------------------------------------


def test_every_row_has_a_test_and_every_test_a_row():
    named = Counter(row["test"] for row in ROWS if "::" not in row["test"])
    assert named == Counter([*REFUSED, *WARNED, *UNUSUAL])
    assert len(REFUSED) > 55 and len(UNUSUAL) > 20
    assert int(re.search(r"(\d+) kinds of invalid and unusual input", DOCUMENT)[1]) == len(
        ROWS
    )
    for row in ROWS:
        if "::" in row["test"]:
            path, function = row["test"].split("::")
            assert f"\ndef {function}(" in (ROOT / path).read_text(), row["test"]


# --- Refused -----------------------------------------------------------------------


def contents(folder: Path) -> dict[Path, tuple[int, int]]:
    return {
        path: (path.stat().st_size, path.stat().st_mtime_ns) for path in folder.rglob("*")
    }


@pytest.mark.parametrize("name", REFUSED)
def test_refused(folder, monkeypatch, capsys, name):
    """With a message, without a traceback, before anything is computed or written."""

    def too_late(*arguments):
        raise AssertionError("the template is transformed after all checks")

    monkeypatch.setattr(inputs_module, "make_template", too_late)
    REFUSED[name](folder)
    before = contents(folder)
    assert main(["refine", "refine.yaml"]) == 2
    printed = capsys.readouterr()
    lines = printed.err.splitlines()
    assert printed.out == "" and lines
    assert all(line.startswith("error: ") for line in lines)
    assert MESSAGES[name]
    for message in MESSAGES[name]:
        assert is_said(message, lines), (message, lines)
    assert contents(folder) == before


# --- Warned of ---------------------------------------------------------------------


@pytest.mark.parametrize("name", WARNED)
def test_warned_of(folder, monkeypatch, capsys, name):
    """Before the search, which does not start here."""

    def enough(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr("jaxrefine.app.run.pipeline.Checkpoint", enough)
    WARNED[name](folder)
    assert main(["refine", "refine.yaml", "--quiet"]) == 130
    lines = capsys.readouterr().err.splitlines()
    (message,) = MESSAGES[name]
    assert is_said(message, lines), lines
    assert sum(line.startswith("warning: ") for line in lines) == 1


# --- Accepted ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def odd(tmp_path_factory):
    """One run over all odd rows: exit code, messages, and its table by row."""
    folder = unusual_folder(reference_set("basic", tmp_path_factory.mktemp("odd")))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        said: list[str] = []
        with open("said", "w") as file:
            patch.setattr("sys.stderr", file)
            code = main(["refine", "refine.yaml", "--strict"])
        said = Path("said").read_text().splitlines()
    table = pd.read_csv(folder / "match_results_refined.csv")
    return code, said, dict(zip(UNUSUAL, table.itertuples(), strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("name", UNUSUAL)
def test_accepted(odd, name):
    _, said, rows = odd
    words = MESSAGES[name]
    status = next((word for word in words if word in STATUSES), None)
    row = rows[name]
    if status is None:
        assert np.isfinite([row.refined_scaled_mip, row.refined_phi, row.refined_snr]).all()
        assert row.refined_status in ("converged", "edge_of_grid", "moved_to_edge")
    else:
        assert row.refined_status == status
        assert np.isnan([row.refined_scaled_mip, row.refined_phi, row.refined_snr]).all()
    for message in words:
        assert message in STATUSES or is_said(message, said), (message, said)


@pytest.mark.slow
def test_odd_forms_of_the_same_image_have_the_same_score(odd):
    _, _, rows = odd
    plain = rows["plain"].refined_scaled_mip
    # In float32's and in the type's own digits; int8 has 24 steps to a deviation.
    close = {
        **dict.fromkeys(["gzip", "bzip2", "position_fraction", "column_unknown"], 1e-6),
        **dict.fromkeys(["byte_swapped", "uint16", "particle_index_twice"], 1e-4),
        **dict.fromkeys(["float16", "int16", "micrograph_dead"], 1e-3),
        **dict.fromkeys(["int8", "other_shape", "micrograph_warm"], 1e-2),
        **dict.fromkeys(["micrograph_hot", "micrograph_band"], 1e-2),
    }
    for name, tolerance in close.items():
        assert rows[name].refined_scaled_mip == pytest.approx(plain, rel=tolerance), name
    million = 1e6 * rows["large_deviations"].refined_scaled_mip
    assert million == pytest.approx(plain, rel=1e-3)
    assert rows["particle_index_twice"].particle_index == 0
    assert rows["column_unknown"].my_note == "kept, as it is"


@pytest.mark.slow
def test_each_row_has_its_own_optics(odd):
    """The particle was simulated with those of `plain`; all others score less."""
    _, _, rows = odd
    plain = rows["plain"].refined_scaled_mip
    others = [name for name in rows if name.startswith("other_") and name != "other_shape"]
    assert len(others) == 6
    for name in others:
        assert 4 < rows[name].refined_scaled_mip < 0.98 * plain, name


@pytest.mark.slow
def test_a_template_over_the_edge_is_searched_within(odd):
    _, _, rows = odd
    row = rows["template_over_the_edge"]
    assert min(row.refined_pos_x, row.refined_pos_y) >= 0
    assert row.refined_pos_x <= -5 + 8 and row.refined_pos_y <= -6 + 8


@pytest.mark.slow
def test_strict_ends_with_its_own_code_and_the_warning_counts(odd):
    code, said, rows = odd
    assert code == 3
    bad = Counter(
        row.refined_status for row in rows.values() if row.refined_phi != row.refined_phi
    )
    assert bad == {"box_outside": 1, "not_finite": 6, "unreadable": 1}
    assert said[-1] == (
        f"warning: 8 of {len(UNUSUAL)} particles were not refined (1 box_outside, "
        "6 not_finite, 1 unreadable): see refined_status in match_results_refined.csv"
    )
    assert not any("Traceback" in line for line in said)


@pytest.mark.slow
def test_one_particle_with_every_search_disabled(folder, capsys):
    """Scored at its place; no effect of --strict."""
    off = {
        f"{name}_refinement_config.enabled": False for name in ("defocus", "orientation")
    }
    set_keys(folder, off)
    write_rows(folder, rows_of(folder)[:1])
    assert main(["refine.yaml", "--strict", "-q"]) == 0
    assert capsys.readouterr().err == ""
    (row,) = pd.read_csv("match_results_refined.csv").itertuples()
    assert (row.refined_phi, row.refined_theta) == (row.phi, row.theta)
    assert row.refined_relative_defocus == row.relative_defocus
    assert row.refined_scaled_mip > 9


# --- A full disk -------------------------------------------------------------------


@pytest.mark.slow
def test_a_full_disk_loses_nothing(folder, monkeypatch, capsys):
    """The table cannot be written: the results are kept, and the next run loads them."""
    set_keys(folder, QUICK)
    move = replace.os.replace

    def full(source, target):
        if Path(target).suffix == ".csv":
            raise OSError(28, "No space left on device")
        move(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(replace.os, "replace", full)
        assert main(["refine.yaml", "-q"]) == 2
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("error: match_results_refined.csv: cannot be written: No space")
    assert (
        "is kept in match_results_refined.csv.parts; the same command continues" in second
    )
    output = Path("match_results_refined.csv")
    assert not output.exists() and len(checkpoint_of(output)) == 1
    assert not list(folder.glob(".*.partial"))
    assert main(["refine.yaml"]) == 0
    assert "7 of 7 particles are already refined" in capsys.readouterr().err
    assert len(pd.read_csv(output)) == 7


@pytest.mark.slow
def test_no_particle_can_be_refined(folder, capsys):
    """The table is written nevertheless; the exit code differs."""
    set_keys(folder, QUICK)
    write_rows(folder, [dict(row, pos_y="-4000") for row in rows_of(folder)])
    assert main(["refine.yaml"]) == 4
    printed = capsys.readouterr()
    assert "refined 0 of 7 particles" in printed.out
    assert "warning: 7 of 7 particles were not refined (7 box_outside)" in printed.err
    refined = pd.read_csv("match_results_refined.csv")
    assert set(refined.refined_status) == {"box_outside"}
    assert refined.refined_scaled_mip.isna().all()
