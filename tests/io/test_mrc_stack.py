"""Stacks of boxes take their name when they are whole."""

import mrcfile
import numpy as np
import pytest

from jaxrefine.io.mrc_stack import new_stack


def test_an_interrupted_stack_leaves_nothing(tmp_path):
    path = tmp_path / "boxes.mrcs"
    path.write_bytes(b"older")
    with pytest.raises(KeyboardInterrupt), new_stack(path, 3, 16, 1.5) as boxes:
        boxes[0] = 1
        raise KeyboardInterrupt
    assert [each.name for each in tmp_path.iterdir()] == ["boxes.mrcs"]
    assert path.read_bytes() == b"older"


def test_a_whole_one_replaces_an_older(tmp_path):
    path = tmp_path / "boxes.mrcs"
    path.write_bytes(b"older")
    with new_stack(path, 2, 16, 1.5) as boxes:
        boxes[:] = np.arange(2)[:, None, None]
    with mrcfile.open(path) as file:
        assert file.is_image_stack()
        assert file.data[:, 0, 0].tolist() == [0, 1]
    assert [each.name for each in tmp_path.iterdir()] == ["boxes.mrcs"]
