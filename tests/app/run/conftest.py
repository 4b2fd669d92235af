"""A calibration that tests share."""

import runpy

import pytest

from tests.reference import ROOT


@pytest.fixture(scope="session")
def example(tmp_path_factory):
    """The folder of `python examples/calibrate.py`, and the values that it knows."""
    folder = tmp_path_factory.mktemp("calibrate")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "examples")
        path = str(ROOT / "examples" / "calibrate.py")
        patch.setattr("sys.argv", [path, str(folder)])
        names = runpy.run_path(path, run_name="__main__")
    return folder, names
