"""The report during a run: finished particles, limited time, and no disturbance."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from jaxrefine.app.config import Config
from jaxrefine.app.report import live
from jaxrefine.app.report.live import LivePage
from jaxrefine.app.run.checkpoint import Checkpoint
from jaxrefine.app.run.results import Results
from jaxrefine.io.table import ParticleTable
from tests.app.report.test_report import POLISHED, Page
from tests.reference import reference_set


class Clock:
    """A clock that the test advances."""

    def __init__(self):
        self.now = 1000.0

    def monotonic(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    made = Clock()
    monkeypatch.setattr(live, "time", made)
    return made


def results_of(tmp_path, *done):
    tmp_path.mkdir(exist_ok=True)
    folder = reference_set("basic", tmp_path)
    empty = {name: "" for name in POLISHED if name.startswith("refined_")}
    rows = [POLISHED | {"particle_index": str(7 + i)} for i in range(len(done))]
    rows = [row if d else row | empty for row, d in zip(rows, done, strict=True)]
    numbers = tuple(range(2, 2 + len(done)))
    inputs = SimpleNamespace(
        output=folder / "out.csv",
        config=Config.load(folder / "refine.yaml"),
        table=ParticleTable(folder / "in.csv", pd.DataFrame(rows), numbers),
        groups={"a": None, "b": None},
    )
    results = object.__new__(Results)
    results.inputs, results.done = inputs, np.array(done)
    results.table = lambda: pd.DataFrame(rows)
    return results


NO_CHECKPOINT = object.__new__(Checkpoint)


@pytest.mark.slow
def test_what_is_done_is_shown(tmp_path, clock):
    results = results_of(tmp_path, True, False, True)
    LivePage()(results, NO_CHECKPOINT)
    page = Page(results.inputs.output.with_name("out_report") / "report.html")
    assert "2 of 3 particles have been refined" in page.text
    assert page.data["page-data"]["count"] == 2
    assert page.data["page-data"]["renewed_s"] == 10
    assert not page.pictures and "No particle was refined" not in page.text
    assert "no score" not in page.text and "box_outside" not in page.text
    assert not results.inputs.output.exists()


def test_it_costs_a_twentieth_of_the_time_at_most(tmp_path, clock, monkeypatch):
    made = []

    def write(data, folder, options):
        made.append(clock.now)
        clock.now += 6.0  # of work
        return folder / "report.html"

    monkeypatch.setattr(live, "write_page", write)
    page, results = LivePage(), results_of(tmp_path, True)
    for _ in range(300):
        page(results, NO_CHECKPOINT)
        clock.now += 1.0
    gaps = np.diff(made)
    assert len(made) == 3 and gaps.min() >= 126.0


def test_it_is_renewed_after_every_micrograph_that_takes_a_while(
    tmp_path, clock, monkeypatch
):
    made = []

    def write(data, folder, options):
        made.append(clock.now)
        clock.now += 0.2
        return folder / "report.html"

    monkeypatch.setattr(live, "write_page", write)
    page, results = LivePage(), results_of(tmp_path, True)
    for _ in range(20):
        page(results, NO_CHECKPOINT)
        clock.now += 5.0
    assert len(made) == 20


def test_nothing_done_makes_no_page_and_a_fault_ends_no_run(
    tmp_path, clock, caplog, monkeypatch
):
    results = results_of(tmp_path / "x", False)
    LivePage()(results, NO_CHECKPOINT)
    folder = results.inputs.output.with_name("out_report")
    assert not folder.exists()
    page, results = LivePage(), results_of(tmp_path, True)
    results.inputs.output.with_name("out_report").write_text("in the way")
    for _ in range(3):
        page(results, NO_CHECKPOINT)
        clock.now += 1e4
    assert caplog.text.count("no report during the run") == 1


def test_what_other_processes_saved_is_taken(tmp_path, clock):
    results, loaded = results_of(tmp_path, True), []
    results.load = lambda checkpoint, numbers: loaded.append((checkpoint, list(numbers)))
    LivePage(shared=True)(results, NO_CHECKPOINT)
    assert loaded == [(NO_CHECKPOINT, [0, 1])]
