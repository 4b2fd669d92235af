"""Data for the page's script: packed numbers, and texts that stay texts."""

import base64
import hashlib
import re

import numpy as np
import pandas as pd
import pytest

from jaxrefine.app.config import Config
from jaxrefine.app.report.compare import compare
from jaxrefine.app.report.page import ReportOptions, write_report
from jaxrefine.app.report.particle_images import best_and_worst
from jaxrefine.app.report.references import with_their_config
from jaxrefine.app.report.table_data import load_report_data
from jaxrefine.app.report.thumbnails import side_of
from jaxrefine.data import InputError
from jaxrefine.io.table import write_table
from jaxrefine.io.table.indices import listed_rows
from tests.app.report.test_report import FAILED, POLISHED, REFINED, Page, report
from tests.reference import reference_set


def loaded(path, *rows):
    write_table(pd.DataFrame(list(rows)), path)
    return load_report_data(path)


@pytest.mark.slow
def test_columns_are_the_table_s_to_their_step(tmp_path):
    other = {"refined_phi": "359.99", "refined_pos_x": "900000"}
    page, _ = report(tmp_path, POLISHED, POLISHED | other, POLISHED | FAILED)
    data = load_report_data(tmp_path / "refined.csv")
    expected = {
        "z": data.z_after,
        "tilt": data.tilt_deg,
        "phi": data.table.numbers("refined_phi"),
        "x": data.centre_px[:, 0],
        "defocus_change": data.defocus_change_angstrom,
        "sigma_position": data.sigma["position"],
    }
    for name, values in expected.items():
        found, step = page.column(name)
        # Rounded to the step, of which half is the most that is lost.
        np.testing.assert_allclose(found, values, atol=0.501 * step, err_msg=name)
    concerned = base64.b64decode(page.data["page-data"]["concerned"])[0]
    assert concerned == 0b100
    assert page.data["page-data"]["words"]["status"]["words"][1] == "box_outside"


@pytest.mark.slow
def test_policy_allows_the_page_s_own_scripts_alone(tmp_path):
    page, _ = report(tmp_path, REFINED, micrographs=0)
    policy = re.search(r'Security-Policy" content="([^"]+)"', page.source)[1]
    policy = policy.replace("&#39;", "'")
    hashes = {
        base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        for text in page.scripts
    }
    assert len(hashes) == 2
    assert set(re.findall(r"'sha256-([^']+)'", policy)) == hashes
    assert policy.startswith("default-src 'none';")
    assert "unsafe-eval" not in policy and "http" not in policy
    assert re.search(r"script-src [^;]*unsafe", policy) is None


def test_words_of_a_table_are_words_in_the_data(tmp_path):
    """They cannot end the element that contains them, and are read back unchanged."""
    trap = "</script><!--<script>alert(1)</script>&amp;.mrc"
    index = "</ScRiPt>" + "x" * 60
    names = {"micrograph_path": trap, "particle_index": index}
    page, _ = report(tmp_path, REFINED | names, micrographs=0)
    found = page.data["page-data"]
    assert found["words"]["micrograph"]["words"] == [trap]
    assert found["label"]["texts"] == [index]  # whole: it is what a selection names
    assert len(page.scripts) == 2


@pytest.mark.parametrize("indices", ["unique", "repeated", "row"])
def test_what_tells_particles_apart_is_known(tmp_path, indices):
    rows = [REFINED, REFINED | {"micrograph_path": "other.mrc"}]
    if indices == "unique":
        rows[1] = rows[1] | {"particle_index": "8"}
    if indices == "row":
        rows = [{k: v for k, v in row.items() if k != "particle_index"} for row in rows]
    page, _ = report(tmp_path, *rows, micrographs=0)
    assert page.data["page-data"]["index"] == indices


def test_thumbnails_are_of_the_first_micrographs(tmp_path, rng):
    from jaxrefine.io.mrc import write_image

    write_image(tmp_path / "a b.mrc", rng.standard_normal((96, 80)).astype(np.float32))
    other = REFINED | {"micrograph_path": "gone.mrc"}
    rows = [REFINED, REFINED, REFINED, other, other, REFINED | {"micrograph_path": "x.mrc"}]
    page, _ = report(tmp_path, *rows, micrographs=0, thumbnails=2)
    images = page.data["thumbnails"]["images"]
    assert set(images) == {"0", "1"}
    assert images["0"]["shape"] == [80, 96]
    assert images["0"]["source"].startswith("data:image/jpeg;base64,")
    assert "gone.mrc: no such file" in images["1"]["error"]


def test_thumbnails_of_many_micrographs_are_smaller():
    assert [side_of(n) for n in (1, 100, 200, 500)] == [256, 256, 181, 114]
    assert ReportOptions().thumbnails == 500


def test_particles_of_several_references_are_shown_with_the_best_one_s_template(tmp_path):
    folder = reference_set("basic", tmp_path)
    text = (folder / "refine.yaml").read_text()
    several = text.replace(
        "template_volume_path: template.mrc",
        "template_volume_path: {open: template.mrc, closed: other.mrc}",
    )
    (folder / "several.yaml").write_text(several)
    config = Config.load(folder / "several.yaml")
    names = ["open", "closed", "", "open"]
    rows = [REFINED | {"best_reference": name} for name in names]
    data = loaded(tmp_path / "compared.csv", *rows)
    found = with_their_config(data, config, [3, 1, 2, 0])
    assert [(one.template_volume_path, rows) for one, rows in found] == [
        ("template.mrc", [3, 0]),
        ("other.mrc", [1]),
    ]
    alone = loaded(tmp_path / "alone.csv", REFINED)
    assert with_their_config(alone, config, [0]) == [(config, [0])]


def page_of_many(folder, rng, n):
    frame = pd.DataFrame({name: [text] * n for name, text in POLISHED.items()})
    frame["particle_index"] = np.arange(n).astype(str)
    frame["micrograph_path"] = [f"m{i % 500}.mrc" for i in range(n)]
    spread = {"refined_scaled_mip": (11, 2), "refined_phi": (180, 60), "pos_x": (2000, 500)}
    for name, (mean, deviation) in spread.items():
        frame[name] = np.round(rng.normal(mean, deviation, n), 3).astype(str)
    write_table(frame, folder / "many.csv")
    return write_report(
        folder / "many.csv", folder / f"shown_{n}", ReportOptions(micrographs=1)
    )


@pytest.mark.nightly
def test_a_hundred_thousand_particles_make_a_page_below_15_mb(tmp_path, rng):
    """By the size that each particle adds: all of them take a minute to write."""
    few, more = 4_000, 16_000
    size = {n: page_of_many(tmp_path, rng, n).stat().st_size for n in (few, more)}
    slope = (size[more] - size[few]) / (more - few)
    # 500 thumbnails, which are not there, are at most 4 MB.
    assert size[more] + slope * (100_000 - more) < 11e6
    page = Page(tmp_path / f"shown_{more}" / "report.html")
    assert len(page.data["page-data"]["micrographs"]) == 500


@pytest.mark.slow
def test_another_refinement_is_compared_particle_by_particle(tmp_path):
    """By the index, in any order; particles in only one table are ignored."""
    first = POLISHED | {"particle_index": "1"}
    moved = first | {"refined_scaled_mip": "9.5", "refined_psi": "28.0"}
    moved |= {"refined_pos_x": "24", "refined_pos_y": "12", "refined_shift_x": "0.25"}
    moved |= {"refined_relative_defocus": "100.0"}
    here = loaded(tmp_path / "here.csv", REFINED, first)
    there = loaded(tmp_path / "there.csv", moved, POLISHED | {"particle_index": "2"})
    found = compare(here, there)
    assert np.isnan(found.z[0]) and found.z[1] == 9.5
    assert found.gain[1] == pytest.approx(1.0)
    assert found.angle_deg[1] == pytest.approx(1.0, abs=1e-6)
    assert found.distance_px[1] == pytest.approx(5.0)
    assert found.defocus_change_angstrom[1] == pytest.approx(40.0)
    page, _ = report(tmp_path, REFINED, first, micrographs=0, against=there.table.path)
    values, _ = page.column("gain_other")
    np.testing.assert_allclose(values, [np.nan, 1.0], atol=1e-9)
    assert "Comparison with there.csv" in page.text and "+1.00" in page.text


def test_repeated_indices_are_told_apart_by_the_micrograph(tmp_path):
    other = REFINED | {"micrograph_path": "/x/other.mrc", "refined_scaled_mip": "8.0"}
    here = loaded(tmp_path / "here.csv", REFINED, other)
    moved = other | {"micrograph_path": "/y/other.mrc"}
    there = loaded(tmp_path / "there.csv", moved, REFINED)
    np.testing.assert_array_equal(compare(here, there).gain, [0, 0])
    twice = loaded(tmp_path / "twice.csv", REFINED, REFINED)
    with pytest.raises(InputError, match=r"twice.csv.*more than once for one micrograph"):
        compare(here, twice)


def test_tables_that_cannot_be_compared_are_refused(tmp_path):
    here = loaded(tmp_path / "here.csv", REFINED)
    there = loaded(tmp_path / "there.csv", REFINED | {"particle_index": "99"})
    with pytest.raises(InputError, match="no particle_index occurs in both"):
        compare(here, there)
    bare = {name: text for name, text in REFINED.items() if name != "particle_index"}
    longer = loaded(tmp_path / "bare.csv", bare, bare)
    with pytest.raises(InputError, match="the same rows, but have 1 and 2"):
        compare(here, longer)


def test_particles_are_chosen_by_score_or_by_index(tmp_path):
    rows = [
        REFINED | {"particle_index": str(10 * i), "refined_scaled_mip": f"{9 + i}"}
        for i in range(5)
    ]
    data = loaded(tmp_path / "r.csv", *rows, FAILED | rows[0] | FAILED)
    assert best_and_worst(data, 3) == [4, 3, 0]
    assert best_and_worst(data, 9) == [4, 3, 2, 1, 0]


def test_particles_are_found_by_a_saved_selection(tmp_path):
    """If an index occurs twice, together with the micrograph, as saved by the page."""
    other = REFINED | {"micrograph_path": "other.mrc"}
    data = loaded(tmp_path / "r.csv", REFINED, other, REFINED | {"particle_index": "8"})
    some = tmp_path / "some.csv"
    some.write_text("particle_index,micrograph_path\n7,other.mrc\n 8,a b.mrc\n")
    assert listed_rows(data.table, some).tolist() == [False, True, True]
    some.write_text("row\n0\n")
    assert listed_rows(data.table, some).tolist() == [True, False, False]
    some.write_text("particle_index\n7\n")
    with pytest.raises(InputError, match="more than once"):
        listed_rows(data.table, some)
