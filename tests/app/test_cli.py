"""The command line: arguments, exit codes and messages."""

import gzip
import re
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import yaml

import jaxrefine
from jaxrefine.app.cli import main
from jaxrefine.io.mrc import read_image, write_image
from tests.reference import ROOT, reference_set

QUICK = {
    "orientation_refinement_config": {
        "psi_step_coarse": 1.0,
        "psi_step_fine": 1.0,
        "theta_step_coarse": 1.0,
        "theta_step_fine": 1.0,
    },
    "defocus_refinement_config": {"enabled": False},
}


@pytest.fixture
def quick(tmp_path):
    """The smallest reference set with a search that takes no time."""
    folder = reference_set("basic", tmp_path)
    data = {**yaml.safe_load((folder / "refine.yaml").read_text()), **QUICK}
    (folder / "refine.yaml").write_text(yaml.safe_dump(data))
    return folder


def change(folder, **values):
    path = folder / "refine.yaml"
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), **values}))


@pytest.mark.slow
def test_module_prints_version_and_help():
    for flag, words in (("--version", jaxrefine.__version__), ("--help", "demo DIR")):
        command = [sys.executable, "-m", "jaxrefine", flag]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0
        assert words in done.stdout


def test_run_writes_the_table_and_a_summary(quick, capsys):
    assert main([str(quick / "refine.yaml")]) == 0
    printed = capsys.readouterr()
    output = quick / "match_results_refined.csv"
    assert f"written: {output}" in printed.out
    assert re.search(r"refined 7 of 7 particles in [\d.]+ s", printed.out)
    assert re.search(r"mean z-score: [\d.]+ at the start, [\d.]+ refined", printed.out)
    assert "7 particles in 1 micrograph" in printed.err
    assert "hold standard deviations" in printed.err
    assert len(pd.read_csv(output)) == 7


def test_table_is_of_the_form_that_leopard_em_has_read(quick):
    """Leopard-EM's own loader accepted the kept table (tests/data/peer/README.md)."""
    accepted = pd.read_csv(ROOT / "tests/data/peer/refined_by_jaxrefine.csv")
    assert main([str(quick / "refine.yaml"), "-q"]) == 0
    written = pd.read_csv(quick / "match_results_refined.csv")
    # The last columns of ours came later: its loader takes any further ones.
    later = ["refined_at_edge", "refined_filled_fraction"]
    assert list(written.columns) == [*accepted.columns, *later]
    assert list(written.dtypes)[:-2] == list(accepted.dtypes)


def test_options_may_stand_before_the_file_or_the_command(tmp_path, capsys):
    for words in (["-q", str(tmp_path / "no.yaml")], ["-q", "refine", "no.yaml"]):
        assert main(words) == 2
        assert "no.yaml" in capsys.readouterr().err
    with pytest.raises(SystemExit) as ended:
        main(["--help", "demo"])
    assert ended.value.code == 0
    assert "jaxrefine demo" in capsys.readouterr().out


def test_output_option_and_quiet(quick, capsys):
    output = quick / "other.csv"
    assert main(["refine", str(quick / "refine.yaml"), "--output", str(output), "-q"]) == 0
    printed = capsys.readouterr()
    assert output.exists()
    assert not (quick / "match_results_refined.csv").exists()
    assert printed.out == printed.err == ""


def test_no_words_shows_usage(capsys):
    assert main([]) == 2
    assert "usage:" in capsys.readouterr().err


def test_missing_config_is_one_error_and_no_traceback(tmp_path, capsys):
    assert main([str(tmp_path / "none.yaml")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and "none.yaml" in error
    assert "Traceback" not in error


def test_errors_of_all_inputs_come_together(quick, capsys):
    """Template, table and output are each invalid: three errors, nothing written."""
    change(quick, template_volume_path="gone.mrc", output_path=str(quick / "no/out.csv"))
    table = pd.read_csv(quick / "match_results.csv")
    table.loc[2, "phi"] = None
    table.to_csv(quick / "match_results.csv", index=False)
    before = sorted(quick.rglob("*"))
    assert main([str(quick / "refine.yaml")]) == 2
    error = capsys.readouterr().err
    assert "gone.mrc" in error
    assert "column phi" in error and "line 4" in error
    assert "folder does not exist" in error
    assert sorted(quick.rglob("*")) == before


def test_images_are_checked_before_the_search(quick, capsys):
    table = pd.read_csv(quick / "match_results.csv")
    table.loc[3, "micrograph_path"] = "nowhere.mrc"
    table.loc[4, "correlation_average_path"] = "micrograph.mrc"
    table.to_csv(quick / "match_results.csv", index=False)
    assert main([str(quick / "refine.yaml")]) == 2
    error = capsys.readouterr().err
    assert "nowhere.mrc" in error and "line 5" in error
    assert "(288, 288)" in error and "(225, 225)" in error


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"output_path": "match_results.csv"}, "is an input"),
        (
            {"computational_config": {"gpu_ids": 3}},
            ".yaml: computational_config.gpu_ids",
        ),
        (
            {
                "particle_stack": {
                    "df_path": "match_results.csv",
                    "extracted_box_size": [80, 80],
                    "original_template_size": [62, 62],
                }
            },
            "original_template_size says 62",
        ),
        (
            {
                "pixel_size_refinement_config": {
                    "enabled": True,
                    "pixel_size_min": -1.5,
                    "pixel_size_max": 0.0,
                    "pixel_size_step": 0.5,
                }
            },
            "must stay positive",
        ),
        ({"template_pixel_size": 0.15}, "0.15 Å, for pixels of 1.5 Å"),
    ],
    ids=["output is input", "no GPU", "template side", "pixel size", "voxel in nm"],
)
def test_impossible_combinations(quick, monkeypatch, capsys, changes, words):
    monkeypatch.chdir(quick)
    change(quick, **changes)
    assert main(["refine.yaml"]) == 2
    assert words in capsys.readouterr().err


def test_header_and_table_disagree_on_the_voxel_size(quick, capsys):
    table = pd.read_csv(quick / "match_results.csv")
    table["pixel_size"] = table["refined_pixel_size"] = 1.51
    table.to_csv(quick / "match_results.csv", index=False)
    assert main([str(quick / "refine.yaml")]) == 0
    assert re.search(r"warning: .*1\.5 Å.*1\.51 Å", capsys.readouterr().err)


def test_a_bad_particle_does_not_stop_the_others(quick):
    """One position far outside: its refined cells are empty, the rest is refined."""
    table = pd.read_csv(quick / "match_results.csv")
    table.loc[1, "pos_x"] = 5000
    table.to_csv(quick / "match_results.csv", index=False)
    assert main([str(quick / "refine.yaml"), "-q"]) == 0
    refined = pd.read_csv(quick / "match_results_refined.csv")
    assert refined.refined_status[1] == "box_outside"
    assert pd.isna(refined.refined_scaled_mip[1]) and pd.isna(refined.refined_phi[1])
    assert refined.drop(index=1).refined_scaled_mip.notna().all()


@pytest.mark.parametrize(
    "name", ["micrograph.mrc", "correlation_average.mrc", "refine.yaml"]
)
def test_no_input_is_ever_overwritten(quick, capsys, name):
    before = (quick / name).read_bytes()
    assert main([str(quick / "refine.yaml"), "--output", str(quick / name)]) == 2
    assert "is an input" in capsys.readouterr().err
    assert (quick / name).read_bytes() == before


def test_numbers_in_a_wrong_unit_are_said(quick, capsys):
    """A pixel size far too small: the CTF would spread over thousands of pixels."""
    table = pd.read_csv(quick / "match_results.csv")
    table.loc[2, ["pixel_size", "refined_pixel_size"]] = 0.05
    table.to_csv(quick / "match_results.csv", index=False)
    assert main([str(quick / "refine.yaml")]) == 2
    error = capsys.readouterr().err
    assert "check the units" in error and "the smallest pixel on line 4 of" in error


def test_a_dead_pixel_is_said_and_does_no_harm(quick, capsys):
    assert main([str(quick / "refine.yaml"), "-q"]) == 0
    clean = pd.read_csv(quick / "match_results_refined.csv")
    image = read_image(quick / "micrograph.mrc")
    image[5, 280] = np.nan
    write_image(quick / "micrograph.mrc", image, 1.5)
    assert main([str(quick / "refine.yaml"), "-q"]) == 0
    assert "are defective (1 NaN or infinite)" in capsys.readouterr().err
    dead = pd.read_csv(quick / "match_results_refined.csv")
    # One pixel of noise in 83,000 is another.
    np.testing.assert_allclose(dead.refined_scaled_mip, clean.refined_scaled_mip, atol=0.05)


def test_a_table_written_elsewhere_can_be_refined(quick, tmp_path, capsys):
    """Its relative paths are found from its new folder too."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    first = elsewhere / "first.csv"
    assert main([str(quick / "refine.yaml"), "-q", "--output", str(first)]) == 0
    stack = {"extracted_box_size": [80, 80], "original_template_size": [64, 64]}
    change(quick, particle_stack={"df_path": str(first), **stack})
    assert main([str(quick / "refine.yaml")]) == 0
    assert (elsewhere / "first_refined.csv").exists()
    assert "7 of them already refined" in capsys.readouterr().err


def test_positions_without_a_positive_deviation_are_not_scored(quick):
    """A negative standard deviation would make the worst correlation the best score."""
    table = pd.read_csv(quick / "match_results.csv")
    std = read_image(quick / "correlation_variance.mrc").copy()
    std[table.pos_y[0] - 3, table.pos_x[0] - 3] = -1e-3
    write_image(quick / "correlation_variance.mrc", std)
    assert main([str(quick / "refine.yaml"), "-q"]) == 0
    refined = pd.read_csv(quick / "match_results_refined.csv")
    assert refined.refined_scaled_mip.max() < 20


def test_a_file_that_turns_out_damaged_costs_its_own_particles_alone(quick, capsys):
    """A compressed micrograph is not checked beforehand; the other one is refined."""
    table = pd.read_csv(quick / "match_results.csv")
    whole = gzip.compress((quick / "micrograph.mrc").read_bytes())
    (quick / "cut.mrc.gz").write_bytes(whole[: len(whole) // 2])
    table.loc[4:, "micrograph_path"] = "cut.mrc.gz"
    table.to_csv(quick / "match_results.csv", index=False)
    assert main([str(quick / "refine.yaml")]) == 0
    printed = capsys.readouterr()
    assert "cut.mrc.gz" in printed.err
    assert "refined 4 of 7 particles" in printed.out
    refined = pd.read_csv(quick / "match_results_refined.csv")
    assert list(refined.refined_status[4:]) == ["unreadable"] * 3
    assert refined.refined_scaled_mip[:4].notna().all()


def test_demo_leaves_other_files_alone(tmp_path, capsys):
    (tmp_path / "config.yaml").write_text("mine")
    assert main(["demo", str(tmp_path)]) == 2
    assert "holds other files" in capsys.readouterr().err
    assert (tmp_path / "config.yaml").read_text() == "mine"
    assert main(["demo", str(tmp_path / "config.yaml")]) == 2


def test_refined_table_can_be_refined_again(quick):
    assert main([str(quick / "refine.yaml"), "-q"]) == 0
    first = pd.read_csv(quick / "match_results_refined.csv")
    change(
        quick,
        particle_stack={
            "df_path": "match_results_refined.csv",
            "extracted_box_size": [80, 80],
            "original_template_size": [64, 64],
        },
    )
    assert main([str(quick / "refine.yaml"), "-q"]) == 0
    second = pd.read_csv(quick / "match_results_refined_refined.csv")
    # The start is among the poses searched; angles were written to 4 decimals, which
    # moves z by less than 1e-4.
    assert (second.refined_scaled_mip >= first.refined_scaled_mip - 1e-3).all()
    assert list(second.columns) == list(first.columns)


def test_a_mistyped_command_is_named(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["reprot", "refined.csv"])
    assert ended.value.code == 2
    assert "reprot: no such file; did you mean 'report'?" in capsys.readouterr().err


def test_a_table_is_no_configuration(tmp_path, capsys):
    path = tmp_path / "match_results.csv"
    path.write_text("pos_x\n1\n")
    assert main([str(path)]) == 2
    assert f"`jaxrefine init {path}` makes one" in capsys.readouterr().err


@pytest.mark.parametrize("target", ["out.csv", "gone.csv"])
def test_an_output_that_is_a_broken_link(tmp_path, capsys, target):
    folder = reference_set("basic", tmp_path)
    (folder / "out.csv").symlink_to(folder / target)
    words = [str(folder / "refine.yaml"), "--output", str(folder / "out.csv")]
    assert main(words) == 2
    assert "is a broken link" in capsys.readouterr().err
