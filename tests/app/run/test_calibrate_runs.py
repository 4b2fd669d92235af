"""Whole calibrations: interrupted, by two processes, and with more options."""

import re
import shutil
from dataclasses import replace

import pytest
import yaml

from jaxrefine.app.cluster.process_group import ProcessGroup
from jaxrefine.app.config import Config
from jaxrefine.app.console.exit_codes import EXIT_INTERRUPTED
from jaxrefine.app.console.interrupts import Stop, Stopped
from jaxrefine.app.run.calibrate import calibrate
from jaxrefine.data import InputError
from tests.subprocess_runs import ends, start_many

pytestmark = pytest.mark.nightly


class LateStop(Stop):
    """Asks to stop when the particles have been visited some times."""

    def __init__(self, batches):
        super().__init__()
        self.left = batches

    def check(self):
        self.left -= 1
        if self.left < 0:
            self.request("interrupted", EXIT_INTERRUPTED)
        super().check()


def test_an_interrupted_calibration_goes_on(example, tmp_path, caplog):
    """Wherever it ended: with the same values to the last digit, and nothing left over."""
    shutil.copytree(example[0], tmp_path, dirs_exist_ok=True)
    made = ("picks_calibrated.csv", "picks_calibration.yaml")
    whole = [(tmp_path / name).read_text() for name in made]
    for name in made:
        (tmp_path / name).unlink()
    config, parts = Config.load(tmp_path / "config.yaml"), f"{made[0]}.parts"
    # Batches until the stop: in the first pass, in the poses, and later twice.
    seen = []
    for batches in (1, 10, 30, 20):
        with pytest.raises(Stopped, match="interrupted: ") as stopped:
            calibrate(config, processes=ProcessGroup(LateStop(batches)))
        seen.append(sorted(path.stem for path in tmp_path.glob(f"{parts}/*.npz")))
        assert ("the same command continues" in str(stopped.value)) == bool(seen[-1])
    assert seen[:2] == [[], ["poses"]] and {"all", "scan"} <= set(seen[2])
    assert len(seen[2]) <= len(seen[3])
    other = replace(config, calibrate=replace(config.calibrate, defocus_sigma=60.0))
    with pytest.raises(InputError, match=r"calibrate.defocus_sigma was 50.0 and is 60.0"):
        calibrate(other)
    (tmp_path / parts / "poses.npz").write_bytes(b"damaged")
    with caplog.at_level("INFO"):
        calibrate(config)
    assert "resuming an interrupted calibration: all" in caplog.text
    assert "poses.npz: damaged" in caplog.text
    assert not (tmp_path / parts).exists()
    again = [(tmp_path / name).read_text() for name in made]
    without_times = [re.sub("(table|seconds): .*", "", t) for t in (*whole, *again)]
    assert without_times[:2] == without_times[2:]


def test_spread_and_gains_without_approximation(example, tmp_path):
    """The spread of 30 Å, and gains near those of the quadratic approximation."""
    shutil.copytree(example[0], tmp_path, dirs_exist_ok=True)
    config = Config.load(tmp_path / "config.yaml")
    wanted = {"defocus_sigma": "auto", "likelihood_ratio": True, "held_out": False}
    calibrate(replace(config, calibrate=replace(config.calibrate, **wanted)))
    found = yaml.safe_load((tmp_path / "picks_calibration.yaml").read_text())
    spread = found["defocus_spread"]
    assert abs(spread["value"] - 30) < 3 * spread["standard_error"] < 60
    # Estimated again with the value that a first fit, which assumed 100 Å, gave.
    assert abs(spread["assumed"] - spread["value"]) < 2 * spread["standard_error"]
    for entry in found["parameters"]:
        assert ("likelihood_ratio_gain" in entry) == (entry["group"] == "all")
        if "likelihood_ratio_gain" in entry:
            gain, quadratic = entry["likelihood_ratio_gain"], entry["log_likelihood_gain"]
            # The curvature's share, about 0.9, is squared in one of them.
            assert gain == pytest.approx(quadratic, rel=0.4)


def test_two_processes_find_what_one_finds(example, tmp_path):
    """Each has one of the two micrographs."""
    shutil.copytree(example[0], tmp_path, dirs_exist_ok=True)
    made = tmp_path / "picks_calibration.yaml"
    alone = yaml.safe_load(made.read_text())
    made.unlink()
    runs = start_many(tmp_path, 2, command=("calibrate", "config.yaml"))
    (first, out, err), second = ends(runs)
    assert (first, second[0]) == (0, 0), err + second[2]
    assert "written: " in out and not second[1]
    together = yaml.safe_load(made.read_text())
    for one, other in zip(alone["parameters"], together["parameters"], strict=True):
        for label, value in one["values"].items():
            found, sigma = other["values"][label], value["standard_error"]
            # Sums in another order, of terms in single precision: 1e-7 of them.
            assert found["value"] == pytest.approx(value["value"], abs=1e-4 * sigma)
            assert found["standard_error"] == pytest.approx(sigma, rel=1e-4)
    assert together["held_out"]["gain"] == pytest.approx(
        alone["held_out"]["gain"], rel=1e-3
    )
    assert not list(tmp_path.glob("*.parts"))
