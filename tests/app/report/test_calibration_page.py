"""The page of a calibration: what it says is what the calibration found."""

import base64
import re
from dataclasses import replace
from html import unescape

import numpy as np
import pytest

from jaxrefine.app.config import Config
from jaxrefine.app.report.calibration_page import write_calibration_page
from jaxrefine.app.run.calibration import Calibration, HeldOut
from jaxrefine.app.run.calibration_inputs import load_calibration
from jaxrefine.app.run.calibration_report import calibration_data
from jaxrefine.refine.joint import JointFit
from tests.app.report.test_report import Page
from tests.reference import reference_set

# By the likelihood ratio, of beam tilt alone.
GAINS = {("beam_tilt", 0): 4.0}
_TRAP = "<script>alert(1)</script>.mrc"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A calibration of particles in two micrographs, with invented results."""
    folder = reference_set("two_micrographs", tmp_path_factory.mktemp("calibration"))
    config = replace(Config.load(folder / "refine.yaml"), output_path=None)
    inputs = load_calibration(config)
    values, count = inputs.design.values, len(inputs.run.table)
    rng = np.random.default_rng(0)
    found = {
        "pixel_size": (0.0123, 0.0045),
        "magnification_yy": (0.0, 0.002),
        "beam_tilt_x": (0.52, 0.1),
        "defocus": (60.0, 20.0),
        "defocus_slope_y": (0.36397, 0.05),  # 20°
    }
    shared, sigma = np.array([found.get(v.label, (0.0, 0.1)) for v in values]).T
    determined = np.array([value.label != "beam_tilt_y" for value in values])
    own = inputs.start.own.copy()
    own[:, 5] = rng.normal(0, 30, count)
    z = rng.uniform(8, 12, count)
    weight = np.ones(count)
    z[1], weight[1], weight[2] = np.nan, 0.0, 0.1
    state = replace(inputs.start, shared=shared * determined, own=own)
    covariance = np.diag((sigma * determined) ** 2)
    covariance[0, 3] = covariance[3, 0] = 0.5 * sigma[0] * sigma[3]
    fit = JointFit(
        state,
        covariance=covariance,
        determined=determined,
        curvature=0.9,
        z=z + 0.25,
        log_likelihood=z,
        own_defocus=np.stack([own[:, 5], np.full(count, 5.0)], axis=1),
        weight=weight,
        passes=9,
        converged=False,
    )
    before = replace(fit, z=z)
    gain = np.where(np.arange(count) % 2, np.nan, 0.1)
    held_out = HeldOut(count / 2, 9.0, 9.004, 0.01, False, gain)
    return Calibration(inputs, before, fit, np.ones((count, 3)), held_out, GAINS, 1.0)


def page_of(made, folder):
    inputs = replace(made.inputs, output=folder / "picks_calibrated.csv")
    made = replace(made, inputs=inputs)
    path = write_calibration_page(made, calibration_data(made))
    assert path == folder / "picks_calibration_report" / "report.html"
    return Page(path), path.parent


def rows_of(page):
    """Cells of the page's tables, by the first."""
    rows = re.findall(r"<tr>(<td.*?)</tr>", page.source)
    cells = [[unescape(c) for c in re.findall(r"<td[^>]*>(.*?)</td>", r)] for r in rows]
    # Without a column of groups, all particles are one group.
    whole = [c if len(c) == 7 else [c[0], "all", *c[1:]] for c in cells]
    return {(row[0], row[1]): row for row in whole}


def test_what_the_page_says(made, tmp_path):
    page, folder = page_of(made, tmp_path)
    assert page.elsewhere == [] and page.scripts == []
    inside = [base64.b64decode(source.split(",")[1]) for source in page.pictures]
    files = {path.read_bytes() for path in (folder / "figures").glob("*.png")}
    # values, scores, correlation, micrographs, and a plane of each micrograph
    assert set(inside) == files and len(files) == 6
    rows = rows_of(page)
    start = made.inputs.run.start.pixel_size_angstrom.mean()
    pixel_size = rows["pixel_size", "all"]
    assert pixel_size[4] == f"{start + 0.0123:.4f} ± 0.0045 Å"
    # χ² = (0.0123/0.0045)² of one degree of freedom
    assert pixel_size[5:] == ["3.74 (1)", "0.0063, significant"]
    assert rows["magnification_yy", "all"][6] == "1, not significant"
    assert rows["beam_tilt_x", "all"][4] == "0.52 ± 0.10 mrad"
    # p of 2 · 4 times the curvature, for one degree of freedom, as the tables have it.
    assert rows["beam_tilt_x", "all"][5:] == ["4.00 (1)", "0.0073, significant"]
    assert rows["beam_tilt_y", "all"][3:] == ["0", "not determined", "", ""]
    names = list(dict.fromkeys(made.inputs.run.table.raw.micrograph_path))
    for name in names:
        # The slope's error of 0.05 by the derivative of the arc tangent.
        assert rows["tilt", name][4] == "(20.0 ± 2.5)°, axis at 0°"
        assert name in page.text
    assert "held at the starting value: beam_tilt_y." in page.text
    assert "The fit has not converged after 18 passes" in page.text
    assert "a gain of +0.004 ± 0.010, not significant." in page.text
    assert "has not risen significantly" in page.text
    alternatives = page.source
    assert "the largest correlation is +0.50, of pixel_size and" in alternatives
    assert "pixel_size +2.7" in alternatives
    assert "groups.defocus: micrograph_path" in page.text
    spread = made.fit.defocus_spread(made.inputs.design)
    assert f"{spread.sigma_angstrom:.0f} Å" in page.text
    assert f"± {spread.error_angstrom:.0f} Å; 100 Å was assumed" in page.text


@pytest.mark.slow
def test_a_page_without_check_planes_and_optics(made, tmp_path):
    """Sections without content are left out; figures of the older page are removed."""
    page_of(made, tmp_path)
    config = made.inputs.run.config
    section = replace(config.calibrate, parameters=("defocus",), held_out=False)
    inputs = load_calibration(replace(config, calibrate=section))
    free = np.ones(len(inputs.design.values), bool)
    state = replace(inputs.start, shared=np.full(len(free), 30.0))
    covariance = np.diag(np.full(len(free), 100.0))
    fit = replace(made.fit, state=state, covariance=covariance, determined=free)
    fit = replace(fit, converged=True)
    inputs.groups["defocus"][1] = _TRAP
    some = Calibration(inputs, made.before, fit, made.scores, None, {}, 1.0)
    page, folder = page_of(some, tmp_path)
    assert {path.stem for path in (folder / "figures").iterdir()} == {
        *("correlation", "scores", "micrographs"),
    }
    for absent in ("Parameters of the optics", "Defocus planes", "not converged"):
        assert absent not in page.text
    assert [name for name, _ in rows_of(page)] == ["defocus", "defocus"]
    assert page.scripts == [] and _TRAP in page.text  # a name stays text
