"""A template in a larger volume: only its centre is searched, and results are equal."""

from pathlib import Path

import mrcfile
import numpy as np
import pandas as pd
import pytest

from jaxrefine.app.cli import main
from jaxrefine.app.config import Config
from jaxrefine.app.run import inputs as inputs_module
from jaxrefine.io.mrc import read_image, read_volume, write_image
from jaxrefine.physics.rotations import angle_between_deg, euler_to_matrix
from tests.app.run.invalid_input import MEAN, SPREAD, TABLE, set_keys
from tests.app.run.unusual_data import QUICK
from tests.reference import reference_set

pytestmark = pytest.mark.slow
MARGIN = 32  # voxels added before and after the template's 64
POSITIONS = ["pos_x", "pos_y"]


def write_template(volume: np.ndarray) -> None:
    with mrcfile.new("template.mrc", overwrite=True) as file:
        file.set_data(np.ascontiguousarray(volume))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The basic set, as it is with its template in a volume of 128 voxels."""
    folder = reference_set("basic", tmp_path)
    monkeypatch.chdir(folder)
    volume, _ = read_volume(Path("template.mrc"))
    faces = [volume[0], volume[-1], volume[:, 0], volume[:, -1]]
    background = float(np.mean([face.mean() for face in faces]))
    write_template(np.pad(volume, MARGIN, constant_values=background))
    for name in (MEAN, SPREAD):
        values = read_image(folder / name)
        write_image(folder / name, values[MARGIN:-MARGIN, MARGIN:-MARGIN])
    table = pd.read_csv(TABLE)
    table[POSITIONS] -= MARGIN
    height, width = read_image(folder / MEAN).shape
    inside = table.pos_y.between(0, height - 1) & table.pos_x.between(0, width - 1)
    assert inside.sum() >= 3
    table[inside].to_csv(TABLE, index=False)
    keys = {"original_template_size": [128, 128], "extracted_box_size": [144, 144]}
    set_keys(folder, QUICK)
    set_keys(folder, {f"particle_stack.{key}": value for key, value in keys.items()})
    return folder


def refined(output):
    assert main(["refine.yaml", "-q", "--output", output]) == 0
    return pd.read_csv(output)


@pytest.mark.nightly
def test_the_table_is_that_of_a_search_of_the_whole(folder, monkeypatch):
    inputs = inputs_module.load_inputs(Config.load("refine.yaml"))
    side = inputs.score.side
    assert 64 <= side < 90 and inputs.template.side == side
    said = "\n".join(inputs_module.describe(inputs))
    assert (
        f"template 128 px, its signal within {side} px (padded), box 144 x 144 px" in said
    )
    middle = refined("middle.csv")
    with monkeypatch.context() as patch:
        patch.setattr(inputs_module, "trims_template", lambda config: False)
        whole = refined("whole.csv")
    # Slices end sharply at Nyquist, where this template has signal: each side samples that
    # edge in its own way, which moves z by 0.02, in sides of 96 and 108 voxels as well.
    z, places = "refined_scaled_mip", ["refined_pos_y", "refined_pos_x"]
    np.testing.assert_allclose(middle[z], whole[z], atol=0.06)
    np.testing.assert_array_equal(middle[places], whole[places])
    names = ["refined_phi", "refined_theta", "refined_psi"]
    one, other = (euler_to_matrix(table[names].to_numpy()) for table in (middle, whole))
    assert angle_between_deg(one, other).max() < 1.5  # a step of the grid, of 1 degree


@pytest.mark.nightly
def test_confusions_are_tried_with_the_middle(folder, capsys):
    assert main(["check", "refine.yaml"]) == 0
    volume, _ = read_volume(Path("template.mrc"))
    write_template(volume.transpose())
    capsys.readouterr()
    assert main(["check", "refine.yaml"]) == 1
    assert "with the template's axes in the reverse order" in capsys.readouterr().out
