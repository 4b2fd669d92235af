"""A first configuration, and the plan of its run."""

import re

import numpy as np
import pandas as pd
import pytest
import yaml

from jaxrefine.app.cli import main
from jaxrefine.app.config import Config
from jaxrefine.app.run.checkpoint import Checkpoint
from jaxrefine.app.run.inputs import load_inputs
from jaxrefine.app.run.results import Results
from jaxrefine.io.mrc import write_volume
from tests.reference import reference_set

# As Leopard-EM's documentation has it.
MATCH = """
template_volume_path: template.mrc
micrograph_path: micrograph.mrc
match_template_result:
  allow_file_overwrite: true
  mip_path: mip.mrc
optics_group: {label: basic, pixel_size: 1.5, voltage: 300.0}
defocus_search_config: {enabled: true, defocus_max: 1200.0, defocus_min: -1200.0, defocus_step: 160.0}
orientation_search_config: {base_grid_method: uniform, psi_step: 2.0, theta_step: 3.0}
preprocessing_filters:
  whitening_filter: {enabled: true, do_power_spectrum: true, max_freq: 1.0, num_freq_bins: null}
  bandpass_filter: {enabled: true, falloff: 0.05, high_freq_cutoff: 0.45, low_freq_cutoff: 0.01}
computational_config: {gpu_ids: 0, num_cpus: 4}
"""  # noqa: E501


@pytest.fixture
def folder(tmp_path):
    return reference_set("basic", tmp_path)


def initialise(folder, *options, source="match_results.csv"):
    return main(
        ["init", str(folder / source), "--output", str(folder / "new.yaml"), *options]
    )


def plan(folder, *options):
    return main(["plan", str(folder / "new.yaml"), *options])


def test_a_table_alone(folder, capsys):
    assert initialise(folder, "--default-steps") == 0
    printed = capsys.readouterr().out
    assert (
        "7 particles" in printed and f"next: python -m jaxrefine plan {folder}" in printed
    )
    config = Config.load(folder / "new.yaml")
    # Below its own folder files have relative paths, so that it can be moved.
    assert config.template_volume_path == "template.mrc"
    assert config.particle_stack.df_path == "match_results.csv"
    assert config.particle_stack.extracted_box_size == (72, 72)
    default = Config.from_dict(
        {
            "template_volume_path": "template.mrc",
            "particle_stack": {
                "df_path": "match_results.csv",
                "extracted_box_size": [72, 72],
                "original_template_size": [64, 64],
            },
        }
    )
    for section in ("orientation", "defocus", "pixel_size"):
        name = f"{section}_refinement_config"
        assert getattr(config, name) == getattr(default, name)
    assert config.preprocessing_filters == default.preprocessing_filters
    assert config.computational_config == default.computational_config
    assert load_inputs(config).score.box == (72, 72)


@pytest.mark.slow
def test_steps_are_made_of_the_errors_to_expect(folder, capsys):
    """As the table's own z-scores, of 9 to 17, have them; no reach is below the match's."""
    assert initialise(folder) == 0
    said = capsys.readouterr().out
    assert "standard errors to expect at z = " in said and "signal falls off faster" in said
    config, text = Config.load(folder / "new.yaml"), (folder / "new.yaml").read_text()
    orientation, defocus = (
        config.orientation_refinement_config,
        config.defocus_refinement_config,
    )
    # Half of the mean errors that a refinement leaves (docs/accuracy.md) to thrice.
    assert 0.15 <= orientation.theta_step_fine <= 1.0
    assert 0.1 <= orientation.psi_step_fine <= 1.0
    assert 10.0 <= defocus.defocus_step <= 90.0
    assert orientation.theta_step_coarse >= max(2.5, 2 * orientation.theta_step_fine)
    assert defocus.defocus_max == -defocus.defocus_min >= 100.0
    assert text.count("about one standard error; default if omitted: ") == 3
    assert "if the table's B is right" in text


def test_without_images_the_documented_steps_are_taken(folder, capsys):
    (folder / "micrograph.mrc").unlink()
    assert initialise(folder) == 0
    assert "the documented steps are used" in capsys.readouterr().out
    config = Config.load(folder / "new.yaml")
    assert config.orientation_refinement_config.theta_step_fine == 0.25


def test_a_match(folder, tmp_path, capsys):
    """Its filters, its steps, its template; written elsewhere, with whole paths."""
    (folder / "match.yaml").write_text(MATCH)
    table, elsewhere = folder / "match_results.csv", tmp_path / "config.yaml"
    command = ["init", str(folder / "match.yaml"), "--output", str(elsewhere)]
    assert main(command) == 2
    assert "give it with --particles" in capsys.readouterr().err
    assert main([*command, "--particles", str(table)]) == 0
    config = Config.load(elsewhere)
    wanted = yaml.safe_load(MATCH)["preprocessing_filters"]
    for name, keys in wanted.items():
        section = getattr(config.preprocessing_filters, name)
        assert {key: getattr(section, key) for key in keys} == keys
    orientation = config.orientation_refinement_config
    assert (orientation.psi_step_coarse, orientation.theta_step_coarse) == (2.0, 3.0)
    defocus = config.defocus_refinement_config
    assert (defocus.defocus_min, defocus.defocus_max) == (-80.0, 80.0)
    assert load_inputs(config).output == folder / "match_results_refined.csv"


def test_nothing_is_overwritten(folder, capsys):
    (folder / "new.yaml").write_text("mine")
    assert initialise(folder) == 2
    assert "exists already" in capsys.readouterr().err
    assert (folder / "new.yaml").read_text() == "mine"


def test_what_cannot_be_made(folder, capsys):
    def message(*options, source="match_results.csv"):
        assert initialise(folder, *options, source=source) == 2
        assert not (folder / "new.yaml").exists()
        return capsys.readouterr().err

    write_volume(folder / "flat.mrc", np.zeros((4, 8, 8), np.float32))
    assert "omit --particles" in message("--particles", "other.csv")
    assert "a cube of even side" in message("--template", str(folder / "flat.mrc"))
    (folder / "match.yaml").write_text(MATCH.replace("match_template_result", "result"))
    needs = ("--particles", str(folder / "match_results.csv"))
    assert "has no match_template_result" in message(*needs, source="match.yaml")
    (folder / "match.yaml").write_text(MATCH.replace("max_freq: 1.0", "max_freq: -1.0"))
    assert "must be larger than 0" in message(*needs, source="match.yaml")
    table = pd.read_csv(folder / "match_results.csv", index_col=0)
    table.loc[3:, "template_path"] = "other.mrc"
    table.to_csv(folder / "match_results.csv")
    assert "it names: other.mrc, template.mrc" in message()


def test_a_run_that_was_interrupted(folder, capsys):
    initialise(folder, "--default-steps")
    inputs = load_inputs(Config.load(folder / "new.yaml"))
    checkpoint, results = Checkpoint(inputs), Results(inputs)
    checkpoint.begin(fresh=False)
    results.store_unreadable(np.arange(3))
    results.columns["refined_status"][:3] = "converged"
    results.save(checkpoint, 0, np.arange(7))
    checkpoint.close(shared=False)
    before = sorted(path.name for path in checkpoint.folder.iterdir())
    capsys.readouterr()
    assert plan(folder, "--no-timing") == 0
    printed = capsys.readouterr().out
    assert "resumes an interrupted run: 3 of 7 particles are already" in printed
    assert f"{4 * 118_327:,} correlations in total" in printed
    assert sorted(path.name for path in checkpoint.folder.iterdir()) == before
    assert plan(folder, "--no-timing", "--fresh") == 0
    assert "starts from the beginning: --fresh" in capsys.readouterr().out
    text = (folder / "new.yaml").read_text()
    (folder / "new.yaml").write_text(
        text.replace("psi_step_fine: 0.1", "psi_step_fine: 0.5")
    )
    assert plan(folder, "--no-timing") == 2
    assert "psi_step_fine was 0.1 and is 0.5" in capsys.readouterr().err


@pytest.mark.slow
def test_a_plan_and_then_the_run(folder, capsys):
    initialise(folder, "--default-steps")
    text = (folder / "new.yaml").read_text()
    for finer, coarser in (("psi_step_fine: 0.1", "psi_step_fine: 0.5"), ("0.25", "0.5")):
        assert finer in text
        text = text.replace(finer, coarser)
    (folder / "new.yaml").write_text(text)
    assert plan(folder) == 0
    printed = capsys.readouterr().out
    output = folder / "match_results_refined.csv"
    assert "7 particles in 1 micrograph" in printed
    assert "correlations per particle" in printed
    assert f"writes {output}" in printed and "there is no interrupted run" in printed
    assert re.search(
        r"about \d+ s on this machine: 2 batches of up to 4 particles", printed
    )
    assert re.search(r"template 8 MiB on each device", printed)
    assert not output.exists() and not output.with_name(f"{output.name}.parts").exists()

    assert main([str(folder / "new.yaml"), "-q"]) == 0
    refined, ours = pd.read_csv(folder / "refined.csv"), pd.read_csv(output)
    assert (ours.refined_scaled_mip > refined.scaled_mip).mean() > 0.5
    assert plan(folder, "--no-timing") == 0
    assert f"overwrites {output}" in capsys.readouterr().out
