"""z-scores that are drawn as lines: the user's, the match's, the refinement's."""

import math

import numpy as np
import pytest

from jaxrefine.app.report.table_data import load_report_data
from jaxrefine.app.report.thresholds import find_thresholds
from jaxrefine.io.mrc import write_image
from tests.app.report.test_report import REFINED, report, save


def lines(path, *rows, given=None):
    found = find_thresholds(load_report_data(save(path / "t.csv", *rows)), given)
    return {each.name: each for each in found}


def test_what_is_not_known_is_not_drawn(tmp_path):
    assert lines(tmp_path, REFINED | {"total_correlations": "1000"}) == {}
    assert lines(tmp_path, REFINED, given=8.5)["threshold"].z == 8.5


def test_the_match_s_is_leopard_em_s(tmp_path):
    """Of noise, one of all correlations of a micrograph exceeds it."""
    maps = np.zeros((300, 200), np.float32)
    write_image(tmp_path / REFINED["correlation_average_path"], maps)
    rows = [REFINED | {"total_correlations": "10000000"}] * 2
    found = lines(tmp_path, *rows)["match"]
    expected = math.erfc(found.z / math.sqrt(2)) / 2 * 300 * 200 * 1e7
    assert expected == pytest.approx(1, rel=1e-6) and found.of == "match"


def test_the_refinement_s_is_where_one_false_positive_is_expected(tmp_path):
    """Only if there are particles on either side of it."""
    counts = {"8.5": "3.2", "9.1": "0.9", "9.6": "0.2", "7.0": ""}
    rows = [
        REFINED | {"refined_scaled_mip": z, "refined_false_positives": count}
        for z, count in counts.items()
    ]
    assert lines(tmp_path, *rows)["refined"].z == 9.1
    assert "refined" not in lines(tmp_path, *rows[1:])


@pytest.mark.slow
def test_lines_are_explained_below_the_plots(tmp_path):
    page, _ = report(tmp_path, REFINED, threshold=8.5, micrographs=0)
    assert "Broken lines at z-scores: The threshold as given." in page.text
    (histogram,) = [plot for plot in page.data["plots"] if plot["kind"] == "histogram"]
    assert '"text": "threshold 8.50"' in str(histogram).replace("'", '"')
    page, _ = report(tmp_path, REFINED, micrographs=0)
    assert "Broken lines" not in page.text
