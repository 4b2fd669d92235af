"""Images beside projections: at the refined pose, on one scale, with the score."""

import shutil

import numpy as np
import pytest

from jaxrefine.app.config import Config
from jaxrefine.app.report.table_data import load_report_data
from jaxrefine.app.run.particle_views import particle_views
from jaxrefine.data import InputError
from tests.reference import ROOT, reference_set


@pytest.mark.slow
def test_views_are_of_the_refined_pose(tmp_path):
    folder = reference_set("basic", tmp_path)
    kept = folder / "kept.csv"
    shutil.copy(ROOT / "tests/data/peer/refined_by_jaxrefine.csv", kept)
    config, data = Config.load(folder / "refine.yaml"), load_report_data(kept)
    rows = [0, 2]
    views = []
    particle_views(config, kept, rows, data.sub_pixel_px[:, ::-1], views.append)
    assert [view.row for view in views] == rows
    for view in views:
        # The best position is the middle one, and its score the table's.
        peak = np.unravel_index(np.nanargmax(view.z), view.z.shape)
        assert peak == tuple(side // 2 for side in view.z.shape)
        # As close as a cut elsewhere than in the search gives it: the report's landscape
        # takes 0.05 for agreement, too (0.012 seen).
        assert view.z[peak] == pytest.approx(data.z_after[view.row], abs=0.05)
        # The projection is the image's least-squares part: with the same sign, and what
        # is left has hardly any of it: blocks of pixels and the mean, which the fit does
        # not take off, leave a tenth (0.024 of 0.3).
        before, left = (
            np.corrcoef(each.ravel(), view.projection.ravel())[0, 1]
            for each in (view.image, view.difference)
        )
        assert before > 0 and abs(left) < 0.15 * before
        np.testing.assert_allclose(
            view.image - view.difference, view.projection, atol=1e-3 * view.image.std()
        )
        assert view.image.shape == view.projection.shape and len(view.image) <= 128
    # One whose micrograph has gone is left out where others are, or said.
    (folder / "micrograph.mrc").unlink(missing_ok=True)
    with pytest.raises(InputError):
        particle_views(config, kept, rows, data.sub_pixel_px[:, ::-1], views.append)
