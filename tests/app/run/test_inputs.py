"""The three passes over a run's inputs, and the check of the output."""

import pandas as pd
import pytest
import yaml

from jaxrefine.app.config import Config
from jaxrefine.app.run.inputs import load_inputs, load_run
from jaxrefine.data import InputError
from tests.reference import reference_set


def config_with(folder, **keys):
    config = yaml.safe_load((folder / "refine.yaml").read_text())
    (folder / "changed.yaml").write_text(yaml.safe_dump(config | keys))
    return Config.load(folder / "changed.yaml")


def test_only_who_writes_asks_for_an_output_that_can_be_written(tmp_path):
    folder = reference_set("basic", tmp_path)
    config = config_with(folder, output_path=str(folder / "nowhere" / "out.csv"))
    assert len(load_inputs(config).table) == 7
    with pytest.raises(InputError, match="its folder does not exist"):
        load_run(config)
    with pytest.raises(InputError, match="is an input of the run"):
        load_run(config, folder / "micrograph.mrc")


def test_phase_shifts_count_once(tmp_path):
    """Those of the table and those of a laser phase plate would be added."""
    folder = reference_set("basic", tmp_path)
    plate = {"enabled": True, "peak_phase_deg": 45.0}
    config = config_with(folder, laser_phase_plate=plate)
    assert load_inputs(config).score.phase_plate.peak_phase_deg == 45.0
    table = pd.read_csv(folder / "match_results.csv").assign(phase_shift=90.0)
    table.to_csv(folder / "match_results.csv", index=False)
    with pytest.raises(InputError, match="phase_shift of the particle table is not 0"):
        load_inputs(config)


def test_errors_of_output_and_inputs_come_together(tmp_path):
    folder = reference_set("basic", tmp_path)
    (folder / "match_results.csv").unlink()
    (folder / "template.mrc").unlink()
    config = config_with(folder, output_path=str(folder / "nowhere" / "out.csv"))
    with pytest.raises(InputError) as error:
        load_run(config)
    assert len(error.value.errors) == 3
