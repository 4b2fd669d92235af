"""Images of particles in the page, or in a folder beside it."""

import base64
import io
import shutil
import sys

import numpy as np
import pytest
from PIL import Image

from jaxrefine.app.cli import main
from jaxrefine.app.config import Config
from jaxrefine.app.report import particle_images as images
from jaxrefine.app.report.page import ReportOptions, write_report
from jaxrefine.app.report.table_data import load_report_data
from jaxrefine.app.run import particle_views as views
from jaxrefine.app.run.particle_views import ParticleView
from jaxrefine.app.run.record import recorded_config, write_record
from jaxrefine.data import InputError
from tests.app.report.test_report import REFINED, Page, save
from tests.reference import ROOT, reference_set

SIDE = 64
MORE_THAN_ONE_SHEET = 60_000  # bytes: the second one makes all of them files
OPTIONS = {"micrographs": 0, "thumbnails": 0}


def view(row):
    """Four images that differ between particles and from each other."""
    ramp = np.linspace(0, 1, SIDE)
    up = np.broadcast_to(ramp[:, None], (SIDE, SIDE))
    z = np.full((5, 5), -1.5)
    z[2, 2] = 10.0 + row
    return ParticleView(row, up, up.T, -up if row % 2 else -up.T, z)


@pytest.fixture
def drawn(monkeypatch):
    """Nothing is scored: every particle asked for has simple images."""

    def all_of(config, table, rows, shift_px, see):
        for row in sorted(rows, reverse=True):  # as micrographs may come
            see(view(row))

    monkeypatch.setattr(views, "particle_views", all_of)


@pytest.fixture
def config(tmp_path):
    return Config.load(reference_set("basic", tmp_path / "set") / "refine.yaml")


def made(tmp_path, config, count, **wanted):
    rows = [
        REFINED | {"particle_index": str(i), "refined_scaled_mip": f"{9 + i / count}"}
        for i in range(count)
    ]
    table = save(tmp_path / "refined.csv", *rows)
    options = ReportOptions(config=config, **OPTIONS, **wanted)
    return Page(write_report(table, tmp_path / "shown", options))


def cells(page, folder, row):
    """The four images of a particle, as the page's script finds them."""
    data = page.data["particle-images"]
    rows = np.frombuffer(base64.b64decode(data["rows"]), "<i4").tolist()
    place = rows.index(row)
    source = data["sheets"][place // data["per_sheet"]]
    if source.startswith("data:"):
        file = io.BytesIO(base64.b64decode(source.partition(",")[2]))
    else:
        file = folder / source
    sheet = np.asarray(Image.open(file), float)
    side = sheet.shape[1] // 4
    top = place % data["per_sheet"] * side
    ranges = np.frombuffer(base64.b64decode(data["z_ranges"]), "<i2").reshape(-1, 2)
    strip = sheet[top : top + side]
    return np.split(strip, 4, axis=1), ranges[place] * data["z_step"]


@pytest.mark.parametrize("count", [5, 101])
def test_each_particle_s_images_are_where_the_script_looks(
    tmp_path, config, drawn, monkeypatch, count
):
    monkeypatch.setattr(images, "MOST_BYTES_IN_PAGE", MORE_THAN_ONE_SHEET)
    page, folder = made(tmp_path, config, count), tmp_path / "shown"
    for row in {0, 1, count // 2, count - 1}:
        (image, projection, difference, peak), z_range = cells(page, folder, row)
        expected = view(row)
        for found, wanted in (
            (image, expected.image),
            (projection, expected.projection),
            (difference, expected.difference),
        ):
            # JPEG of a smooth ramp: a few of 255 grey values, half a per cent clipped
            wanted = 255 * (wanted - wanted.min()) / np.ptp(wanted)
            assert np.abs(found - wanted).max() < 12
        assert peak[SIDE // 2, SIDE // 2] > 240 and peak[:10].max() < 15
        np.testing.assert_allclose(z_range, [-1.5, 10 + row], atol=0.05)
    files = sorted((folder / "particles").glob("*")) if count > 5 else []
    assert len(files) == (3 if files else 0)
    policy = page.source.partition("</head>")[0]
    assert ("file:" in policy) == bool(files)


@pytest.mark.slow
def test_an_older_report_s_images_are_removed(tmp_path, config, drawn, monkeypatch):
    monkeypatch.setattr(images, "MOST_BYTES_IN_PAGE", MORE_THAN_ONE_SHEET)
    made(tmp_path, config, 101)
    assert len(list((tmp_path / "shown" / "particles").iterdir())) == 3
    made(tmp_path, config, 4)
    assert not list((tmp_path / "shown" / "particles").iterdir())


def test_all_of_a_short_table_and_some_of_a_long_one(tmp_path):
    rows = [REFINED | {"refined_scaled_mip": f"{9 + i / 100}"} for i in range(501)]
    long = load_report_data(save(tmp_path / "long.csv", *rows))
    short = load_report_data(save(tmp_path / "short.csv", *rows[1:]))
    assert sorted(images.best_and_worst(short, None)) == [*range(500)]
    assert sorted(images.best_and_worst(long, None)) == [*range(8), *range(493, 501)]
    assert len(images.best_and_worst(long, sys.maxsize)) == 501


def test_unreadable_images_leave_a_page_that_says_so(tmp_path, config, monkeypatch):
    def refused(*arguments):
        raise InputError("template.mrc: no such file")

    monkeypatch.setattr(views, "particle_views", refused)
    data = made(tmp_path, config, 3).data["particle-images"]
    assert data["advice"].startswith("No images: template.mrc: no such file.")
    assert data["sheets"] == []


def test_the_run_s_own_configuration_is_used(tmp_path, monkeypatch, capsys):
    """Unless its file was changed, or the table is of another run."""
    folder = reference_set("basic", tmp_path / "set")
    kept = folder / "kept.csv"
    shutil.copy(ROOT / "tests/data/peer/refined_by_jaxrefine.csv", kept)
    assert recorded_config(kept) is None
    monkeypatch.chdir(folder)
    config = Config.load("refine.yaml")
    write_record(kept, config, [], [])
    assert recorded_config(kept) == config
    monkeypatch.chdir(tmp_path)  # found beside the table
    assert recorded_config(kept).template_volume_path == config.template_volume_path
    with (folder / "refine.yaml").open("a") as file:
        file.write("# changed\n")
    assert recorded_config(kept) is None
    for option in (["--particles", "all"], ["--landscape", "2"], ["--indices", "x.csv"]):
        assert main(["report", str(kept), *option]) == 2
        assert f"{option[0]} needs the run's configuration" in capsys.readouterr().err
