"""Messages during a run: few lines, JSON for programs, and everything in a log file."""

import io
import itertools
import json
import logging
import re
from pathlib import Path

import pytest

from jaxrefine.app.cli import main
from jaxrefine.app.console import progress
from jaxrefine.app.console.logs import keep_warnings, set_up_logging
from jaxrefine.app.console.progress import Progress
from jaxrefine.app.console.summary import Summary, print_summary
from jaxrefine.data import Status

log = logging.getLogger("jaxrefine")


@pytest.fixture
def clock(monkeypatch):
    """A clock that advances by this step at every reading."""

    def every(seconds):
        times = itertools.count(0.0, seconds)
        monkeypatch.setattr(progress.time, "monotonic", lambda: next(times))

    return every


@pytest.mark.parametrize("seconds", [0.01, 1.0, 100.0])
def test_a_long_run_says_little(clock, capsys, seconds):
    """10,000 particles, one after the other, each with the given duration."""
    clock(seconds)
    set_up_logging(quiet=False)
    with Progress(10_000, 118_327) as shown:
        for _ in range(10_000):
            shown.update(1, "m.mrc")
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) <= 100 and "\x1b" not in "".join(lines)
    assert len(lines) >= (3 if seconds == 0.01 else 90)
    assert re.fullmatch(
        r"\d+ of 10000 particles, [\d,]+ correlations/s, \S+ left", lines[0]
    )


def test_without_a_search_no_rate_is_given(clock, capsys):
    clock(100.0)
    set_up_logging(quiet=False)
    with Progress(100, 0, whose=" compared") as shown:
        for _ in range(100):
            shown.update(1, "m.mrc")
    first = capsys.readouterr().err.splitlines()[0]
    assert re.fullmatch(r"\d+ of 100 particles compared, \S+ left", first)


def test_quiet_is_quiet(clock, capsys):
    clock(100.0)
    set_up_logging(quiet=True)
    with Progress(100, 10, quiet=True) as shown:
        for _ in range(100):
            shown.update(1, "m.mrc")
    assert capsys.readouterr().err == ""


def test_progress_as_json(clock, capsys):
    """Every line is a JSON object, including messages; at most one per second."""
    clock(0.6)
    set_up_logging(quiet=False, json_lines=True)
    log.warning("beware of %s", "this")
    with Progress(10, 7, json_lines=True) as shown:
        for number in range(10):
            shown.update(1, f"{number}.mrc")
    summary = Summary(
        Path("out.csv"), 10, 9, 0, 1.0, 2.0, 3.0, {Status.NOT_FINITE: 1}, 12.34
    )
    print_summary(summary, quiet=True, json_progress=True)
    first, *steps, last = map(json.loads, capsys.readouterr().err.splitlines())
    assert first == {"event": "warning", "message": "beware of this"}
    assert [step["done"] for step in steps] == [2, 4, 6, 8, 10]
    assert steps[0] == {
        "event": "progress",
        "done": 2,
        "total": 10,
        "seconds": 1.2,
        "seconds_left": 4.8,
        "correlations_per_second": 12,
        "micrograph": "1.mrc",
    }
    assert last["event"] == "written" and last["output"] == "out.csv"
    assert (last["done"], last["total"], last["statuses"]) == (9, 10, {"not_finite": 1})


def test_the_log_file_has_everything(tmp_path, capsys):
    """Even with a quiet terminal; with times, and several runs in one file."""
    path = tmp_path / "run.log"
    for _ in range(2):
        set_up_logging(quiet=True, log_file=path)
        log.info("first")
        log.warning("second")
        print_summary(
            Summary(Path("out.csv"), 1, 1, 0, 1.0, 2.0, 3.0, {}, 1.0),
            quiet=True,
            json_progress=False,
        )
    set_up_logging(quiet=True)  # which closes it
    assert capsys.readouterr().err.splitlines() == ["warning: second"] * 2
    lines = path.read_text().splitlines()
    stamp = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d "
    assert all(re.match(stamp, line) for line in lines)
    words = [re.sub(f"^{stamp}", "", line) for line in lines]
    assert (
        words[:2] == ["first", "warning: second"] and words[: len(words) // 2] * 2 == words
    )
    assert "written: out.csv" in words


def test_errors_are_kept_and_told_as_json(tmp_path, capsys):
    path = tmp_path / "run.log"
    missing = str(tmp_path / "none.yaml")
    assert main([missing, "--json-progress", "--log-file", str(path)]) == 2
    set_up_logging(quiet=True)
    (line,) = capsys.readouterr().err.splitlines()
    told = json.loads(line)
    assert told["event"] == "error" and missing in told["message"]
    assert "error: " in path.read_text() and missing in path.read_text()


def test_a_log_file_that_cannot_be_written(tmp_path, capsys):
    path = tmp_path / "nowhere" / "run.log"
    assert main(["selftest", "--log-file", str(path)]) == 2
    assert capsys.readouterr().err.startswith(
        f"error: --log-file: {path} — cannot be written"
    )


def test_the_first_batch_which_compiles_says_nothing_of_the_pace(monkeypatch, caplog):
    """100 s for the first of ten, 2 s for each of the others."""
    times = iter([0.0, 100.0, 102.0, 104.0])
    monkeypatch.setattr(
        "jaxrefine.app.console.progress.time.monotonic", lambda: next(times)
    )
    with caplog.at_level("INFO", "jaxrefine"), Progress(10, 7, json_lines=True) as shown:
        for _ in range(3):
            shown.update(1, "m.mrc")
    left = [record.event["seconds_left"] for record in caplog.records]
    assert left == [900.0, 16.0, 14.0]


def test_a_log_is_appended_to_nothing_but_a_log(tmp_path, capsys):
    path = tmp_path / "match_results.csv"
    path.write_text("pos_x,pos_y\n")
    assert main(["selftest", "--log-file", str(path)]) == 2
    assert f"{path} — is not a log file" in capsys.readouterr().err
    assert path.read_text() == "pos_x,pos_y\n"


def test_without_an_error_stream(monkeypatch):
    """As if it were closed."""
    monkeypatch.setattr("sys.stderr", None)
    with Progress(2, 7) as shown:
        shown.update(2, "m.mrc")


def test_warnings_of_one_kind_do_not_fill_the_screen(tmp_path, capsys):
    """For example dead pixels in many micrographs; the log file contains all of them."""
    path = tmp_path / "run.log"
    set_up_logging(quiet=False, log_file=path)
    for number in range(400):
        log.warning("%s: a dead pixel", f"{number}.mrc")
        log.info("%d done", number)
    log.warning("something else")
    set_up_logging(quiet=True)
    lines = [line for line in capsys.readouterr().err.splitlines() if "warning" in line]
    assert len(lines) == 21 and lines[-1] == "warning: something else"
    assert "19.mrc: a dead pixel (further ones only in --log-file)" in lines[-2]
    assert path.read_text().count("a dead pixel") == 400


def test_a_notebook_shows_the_bar(monkeypatch):
    """Its stream is not a terminal, but shows overwritten lines correctly."""
    notebook = type("OutStream", (io.StringIO,), {"__module__": "ipykernel.iostream"})()
    for stream, bar in ((notebook, True), (io.StringIO(), False)):
        monkeypatch.setattr("sys.stderr", stream)
        with Progress(2, 7) as shown:
            shown.update(2, "a.mrc")
        assert ("2/2" in stream.getvalue()) == bar


def test_warnings_are_kept_once_each():
    with keep_warnings() as kept:
        for word in ("one", "two", "one"):
            log.warning("%s \x1b", word)
        log.info("three")
    log.warning("four")
    assert kept == ["one \\x1b", "two \\x1b"]
