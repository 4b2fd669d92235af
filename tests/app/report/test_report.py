"""The report: one self-contained page, for every kind of refined table."""

import base64
import json
import re
import shutil
import sys
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

from jaxrefine.app.cli import main
from jaxrefine.app.config import Config
from jaxrefine.app.console.exit_codes import EXIT_NOTHING_REFINED
from jaxrefine.app.console.summary import Summary
from jaxrefine.app.report.figures import _bins
from jaxrefine.app.report.landscape import landscape_figure
from jaxrefine.app.report.micrograph_maps import thumbnail
from jaxrefine.app.report.page import ReportOptions, write_report
from jaxrefine.app.report.table_data import load_report_data
from jaxrefine.app.run import landscape, pipeline
from jaxrefine.app.run.landscape import LINES, Landscape, landscapes
from jaxrefine.app.run.record import read_record, record_path, write_record
from jaxrefine.data import InputError, Status
from jaxrefine.io.mrc import write_image
from jaxrefine.io.table import write_table
from tests.reference import ROOT, reference_set
from tests.tables import ROW, save

REFINED = ROW | {
    "particle_index": "7",
    "scaled_mip": "9.0",
    "pos_x_img": "52",
    "pos_y_img": "42",
    "refined_scaled_mip": "10.5",
    "refined_pos_x": "21",
    "refined_pos_y": "8",
    "refined_phi": "10.0",
    "refined_theta": "22.0",
    "refined_psi": "27.0",
    "refined_relative_defocus": "140.0",
    "refined_status": "converged",
}
POLISHED = REFINED | {
    "refined_shift_x": "0.25",
    "refined_shift_y": "-0.5",
    "refined_orientation_sigma": "0.3",
    "refined_pos_x_sigma": "0.03",
    "refined_pos_y_sigma": "0.04",
    "refined_relative_defocus_sigma": "30.0",
    "refined_polish": "converged",
}
FAILED = {name: "" for name in REFINED if name.startswith("refined_")}
FAILED |= {"refined_status": "box_outside"}


class Page(HTMLParser):
    """The content for a browser: pictures, links to other files, text, and data."""

    def __init__(self, path):
        super().__init__()
        self.pictures, self.elsewhere, self.text = [], [], ""
        self.scripts, self.data, self._within = [], {}, None
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        if tag == "img":
            assert given["alt"]
            self.pictures.append(given["src"])
        if tag in ("link", "iframe", "object"):
            self.elsewhere.append(tag)
        if tag == "script":
            self._within = given.get("id", "code")
        self.elsewhere += [
            value
            for name, value in attributes
            if name in ("src", "href") and not value.startswith(("data:image/png", "#"))
        ]

    def handle_endtag(self, tag):
        if tag == "script":
            self._within = None

    def handle_data(self, data):
        if self._within == "code":
            self.scripts.append(data)
        elif self._within is not None:
            self.data[self._within] = json.loads(data)
        else:
            self.text += data

    def column(self, name):
        """Numbers of a column as the script reads them, and their step."""
        (packed,) = (c for c in self.data["page-data"]["columns"] if c["name"] == name)
        kind = {2: np.int16, 4: np.int32}[packed["bytes"]]
        whole = np.frombuffer(base64.b64decode(packed["data"]), kind)
        values = (whole.astype(float) + packed["middle"]) * packed["step"]
        return np.where(whole == np.iinfo(kind).min, np.nan, values), packed["step"]


def report(tmp_path, *rows, said=None, **wanted):
    """The report of a table of some rows, and its folder.

    `said` is what its run said, and what it warned of.
    """
    table = tmp_path / "refined.csv"
    write_table(pd.DataFrame(list(rows)), table)
    if said:
        write_record(
            table, Config.load(reference_set("basic", tmp_path) / "refine.yaml"), *said
        )
    folder = tmp_path / "shown"
    return Page(write_report(table, folder, ReportOptions(**wanted))), folder


@pytest.fixture
def micrograph(tmp_path, rng):
    image = rng.standard_normal((96, 80)).astype(np.float32)
    image[0, :3] = np.nan
    write_image(tmp_path / ROW["micrograph_path"], image)


@pytest.mark.slow
def test_page_holds_its_pictures_and_needs_no_other_file(tmp_path, micrograph):
    other = {"refined_scaled_mip": "8.0", "refined_status": "edge_of_grid"}
    other |= {"refined_at_edge": "orientation defocus"}
    page, folder = report(tmp_path, POLISHED, POLISHED | other, threshold=8.5)
    files = {path.read_bytes() for path in (folder / "figures").glob("*.png")}
    inside = {base64.b64decode(source.split(",")[1]) for source in page.pictures}
    assert inside == files and len(files) == 5
    assert page.elsewhere == []
    assert "Standard errors" in page.text
    assert "the best grid point lies on the border" in page.text
    assert "orientation, defocus" in page.text
    assert "No image: " not in page.text


@pytest.mark.slow
def test_what_is_read_first(tmp_path):
    weaker = {"scaled_mip": "8.0", "refined_scaled_mip": "9.25"}
    page, _ = report(tmp_path, REFINED, REFINED | weaker, threshold=8.5, micrographs=0)
    words = re.sub(r"\s+", " ", page.text)
    assert "mean z-score 9.88 8.50 in the match".replace(" ", "") in words.replace(" ", "")
    assert "above8.521inthematch" in words.replace(" ", "")
    assert "+1.38" in words and "2 of 2 gained" in words


@pytest.mark.slow
def test_micrographs_whose_scores_fell_are_named(tmp_path):
    page, _ = report(tmp_path, REFINED, micrographs=0)
    assert "fell from" not in page.text
    fallen = REFINED | {"refined_scaled_mip": "3.0"}
    page, _ = report(tmp_path, fallen, fallen, REFINED, micrographs=0)
    said = "a b.mrc: the median z-score of 3 particles fell from 9.0 to 3.0"
    assert said in page.text


def test_numbers_are_those_of_the_table(tmp_path):
    data = load_report_data(save(tmp_path / "polished.csv", POLISHED, POLISHED | FAILED))
    first = {
        "tilt_deg": 2.0,
        "in_plane_deg": -3.0,
        "shift_px": [1.25, -2.5],
        "defocus_change_angstrom": 40.0,
        "centre_px": [53.25, 39.5],
    }
    for name, expected in first.items():
        np.testing.assert_allclose(getattr(data, name)[0], expected, atol=1e-9)
    assert data.refined.tolist() == [True, False]
    assert data.template_side_px == 64
    assert data.sigma["position"][0] == pytest.approx(0.05)
    np.testing.assert_array_equal(data.centre_px[1], [52, 42])  # the match's


def test_table_without_standard_errors_status_or_match_scores(tmp_path):
    plain = {
        name: text
        for name, text in REFINED.items()
        if name not in ("refined_status", "scaled_mip", "particle_index")
    }
    page, folder = report(tmp_path, plain, plain, micrographs=0)
    assert "Standard errors" not in page.text
    assert "no column refined_status" in page.text
    assert {path.stem for path in (folder / "figures").iterdir()} >= {"scores", "changes"}


@pytest.mark.slow
def test_one_particle_and_a_missing_micrograph(tmp_path):
    page, _ = report(tmp_path, REFINED)
    assert "of 1 particles" in page.text
    assert "No image: " in page.text and "a b.mrc': no such file" in page.text
    assert len(page.pictures) == 4


def test_all_failed(tmp_path):
    worse = {"refined_status": "unreadable"}
    page, folder = report(tmp_path, REFINED | FAILED, REFINED | FAILED | worse)
    assert "No particle was refined" in page.text
    assert "the micrograph or a statistic map could not be read" in page.text
    assert "2 particles were not refined" in page.text
    drawn = [path.name for path in (folder / "figures").iterdir()]
    assert drawn == ["micrograph_000.png"]


@pytest.mark.nightly
def test_ten_thousand_particles_make_no_larger_page(tmp_path, rng):
    n = 10_000
    z, corners = rng.normal(11, 2, n), rng.integers(0, 4000, (n, 2))
    rows = [
        POLISHED
        | {
            "particle_index": f"{i}",
            "micrograph_path": f"m{i % 80}.mrc",
            "refined_scaled_mip": f"{z[i]}",
            "refined_pos_x": f"{corners[i, 0]}",
            "refined_pos_y": f"{corners[i, 1]}",
        }
        | (FAILED if i < 1000 else {})
        for i in range(n)
    ]
    write_table(pd.DataFrame(rows), tmp_path / "many.csv")
    path = write_report(
        tmp_path / "many.csv", tmp_path / "shown", ReportOptions(micrographs=2)
    )
    assert path.stat().st_size < 3e6
    page = Page(path)
    assert len(page.pictures) == 6
    assert page.source.count("no position in the box") == 2
    assert page.source.count('<td class="word">box_outside</td>') == 1 + 200
    assert "… and 800 more." in page.text
    assert "… and 30 more micrographs" in page.text
    assert "Shown: 2 of 80" in page.text


def test_words_of_files_are_words_in_the_page(tmp_path):
    """No text from a table or a configuration is interpreted as HTML or mathematics."""
    trap = {
        "micrograph_path": "<img src=x onerror=alert(1)>.mrc",
        "particle_index": r"$\frac{1}</td>",
        "refined_status": '"><script>alert(2)</script>',
    }
    page, _ = report(tmp_path, REFINED | trap, said=(["<b>said</b>"], ["<i>beware</i>"]))
    assert page.elsewhere == []
    for word in (*trap.values(), "<b>said</b>", "<i>beware</i>"):
        assert word in page.text


@pytest.mark.slow
def test_an_older_report_is_replaced(tmp_path):
    one = REFINED | FAILED  # of which only maps are drawn
    _, folder = report(tmp_path, one, one | {"micrograph_path": "other.mrc"})
    (folder / "figures" / "my own.png").touch()
    _, folder = report(tmp_path, one)
    assert not (folder / "figures" / "micrograph_001.png").exists()
    assert (folder / "figures" / "micrograph_000.png").exists()
    assert (folder / "figures" / "my own.png").exists()


@pytest.mark.slow
def test_landscape_is_that_of_the_search(tmp_path):
    """Around the values of a stored table: its scores at zero, none much better nearby."""
    folder = reference_set("basic", tmp_path)
    kept = ROOT / "tests/data/peer/refined_by_jaxrefine.csv"
    shutil.copy(kept, folder / "kept.csv")
    config = Config.load(folder / "refine.yaml")
    data = load_report_data(folder / "kept.csv")
    (found,) = landscapes(config, folder / "kept.csv", [2], data.sub_pixel_px)
    assert found.z_at_best == pytest.approx(data.z_after[2], abs=0.01)
    for name, z in found.z.items():
        assert z[0] < z[20] and z[-1] < z[20] and z.max() < z[20] + 0.1, name
        assert found.offset[name][20] == 0
    assert found.offset["tilt about x"][-1] == 2.5 and found.offset["defocus"][0] == -100


@pytest.mark.slow
def test_landscape_says_whether_it_is_the_table_s(tmp_path, monkeypatch):
    line = np.linspace(-1.0, 1.0, 5)
    lines = {name: line for name in LINES}
    same, other = (Landscape(0, lines, lines, z) for z in (10.5, 11.5))
    monkeypatch.setattr(landscape, "landscapes", lambda config, table, rows, *rest: [same])
    config = Config.load(reference_set("basic", tmp_path) / "refine.yaml")
    page, _ = report(tmp_path, POLISHED, micrographs=0, landscape=3, config=config)
    assert "Score landscapes" in page.text and "scores agree with the table's" in page.text
    data = load_report_data(tmp_path / "refined.csv")
    caption = landscape_figure(data, [other]).caption
    assert "differ from the table's by up to 1.00" in caption


def test_landscape_needs_the_configuration(tmp_path):
    with pytest.raises(InputError, match="--config"):
        report(tmp_path, POLISHED, micrographs=0, landscape=3)


def test_each_step_of_a_grid_has_a_bin():
    """Steps of 40 Å: other bins would hold one or two steps; no step for other values."""
    steps = np.repeat(np.arange(-5, 6) * 40.0, 3)
    edges = np.array(_bins(steps))
    np.testing.assert_allclose(np.diff(edges), 40.0)
    assert np.histogram(steps, edges)[0].tolist() == [3] * 11
    fine = np.repeat(np.arange(100) * 0.25, 3)  # two or three steps each
    assert len(set(np.histogram(fine, _bins(fine))[0][:-1])) == 1
    spread = np.random.default_rng(0).normal(size=50)
    assert np.histogram(spread, _bins(spread))[0].sum() == 50
    assert np.histogram([3.0, 3.0], _bins(np.array([3.0, 3.0])))[0].tolist() == [2]


def test_thumbnail_is_small_and_finite():
    image = np.ones((900, 30), np.float32)
    image[:450] = np.nan
    small = thumbnail(image, 1.0)
    assert small.shape == (300, 10) and np.isfinite(small).all()
    assert thumbnail(np.ones((3, 2000), np.float32), 1.0).shape == (1, 400)


def test_a_table_that_was_not_refined_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"refined_scaled_mip.*name a refined table"):
        load_report_data(save(tmp_path / "match.csv"))


@pytest.mark.parametrize("missing", ["matplotlib", "jinja2", "bokeh"])
@pytest.mark.parametrize("words", [["report", "x.csv"], ["x.yaml", "--report"]])
def test_missing_packages_are_named_before_any_work(monkeypatch, capsys, missing, words):
    monkeypatch.setitem(sys.modules, missing, None)
    assert main(words) == 2
    error = capsys.readouterr().err
    assert f"-m pip install {missing} " in error and "x." not in error


@pytest.mark.parametrize("option", [["--threshold", "nan"], ["--micrographs", "-1"]])
def test_odd_options_are_refused(option, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["report", "x.csv", *option])
    assert ended.value.code == 2
    assert "should be" in capsys.readouterr().err


@pytest.mark.slow
def test_a_run_can_end_with_its_report(tmp_path, capsys, monkeypatch):
    """Another test covers the search; here it has just written its table."""
    folder = reference_set("basic", tmp_path)
    table = save(folder / "match_results_refined.csv", REFINED | FAILED)
    nan = float("nan")
    statuses = dict.fromkeys(Status, 0) | {Status.BOX_OUTSIDE: 1}
    ended = Summary(table, 1, 0, 0, 9.0, nan, nan, statuses, 1.5)
    monkeypatch.setattr(pipeline, "run", lambda config, **options: ended)
    assert main([str(folder / "refine.yaml"), "--report"]) == EXIT_NOTHING_REFINED
    path = folder / "match_results_refined_report" / "report.html"
    assert f"report: {path}" in capsys.readouterr().out
    page = Page(path)
    assert "refined 0 of 1 particles in 1.5 s" in page.text
    assert "original_template_size:" in page.text
    # A later report shows it, unless the table has changed since.
    assert main(["report", str(table), "-q"]) == 0
    for words in ("refined 0 of 1 particles in 1.5 s", "original_template_size:"):
        assert words in Page(path).text
    table.write_text(table.read_text().replace("box_outside", "not_finite"))
    assert main(["report", str(table), "-q"]) == 0
    assert "The configuration is unknown" in Page(path).text
    assert main(["report", str(table), "-q", "--config", str(folder / "refine.yaml")]) == 0
    assert "not known whether the table was refined with it" in Page(path).text


def test_a_record_that_was_damaged_is_left_out(tmp_path, caplog):
    table = save(tmp_path / "refined.csv", REFINED)
    config = Config.load(reference_set("basic", tmp_path) / "refine.yaml")
    write_record(table, config, ["done"], ["beware"])
    assert read_record(table).warnings == ["beware"]
    whole = json.loads(record_path(table).read_text())
    for damaged in ("{", "[]", json.dumps(whole | {"lines": [1]}), '{"ended": 1}'):
        record_path(table).write_text(damaged)
        caplog.clear()
        assert read_record(table) is None and "damaged" in caplog.text, damaged
