"""Every example, every configuration and the commands of the README are run."""

import re
import runpy
import shutil
from pathlib import Path

import matplotlib.image
import numpy as np
import pandas as pd
import pytest

from jaxrefine.app.cli import main
from jaxrefine.app.config import Config
from jaxrefine.io.mrc import read_volume
from jaxrefine.io.table import read_particle_table
from tests.reference import ROOT

pytestmark = pytest.mark.usefixtures("compiled_to_run_fast")

README = (ROOT / "README.md").read_text()
# Examples that are run here; a test below fails if one is not listed.
CONFIGS = {
    "full.yaml": "tests/app/config/test_config_files.py",
    "demo.yaml": "the demo's own",
    "constrained.yaml": "tests/app/run/test_constrained.py",
}
EXAMPLES = {
    "b_factor.py",
    "calibrate.py",  # by tests/app/run/test_calibrate.py
    "defocus_plane.py",
    "demo_particles.py",  # by the others
    "figure.py",  # by the others
    "library.py",
    "own_run.py",
    "own_score.py",
    "pixel_size.py",
    "template_gradient.py",
    "two_states.py",
}


@pytest.fixture
def run_example(monkeypatch, capsys):
    """Runs an example, checks that it makes a figure, and returns what it printed.

    In this process, as `python examples/NAME ARGUMENTS` would: what one example has
    compiled serves the next.
    """
    monkeypatch.syspath_prepend(ROOT / "examples")

    def run(name, *arguments):
        path = str(ROOT / "examples" / name)
        monkeypatch.setattr("sys.argv", [path, *map(str, arguments)])
        runpy.run_path(path, run_name="__main__")
        printed, _, end = capsys.readouterr().out.rpartition("written: ")
        picture = Path(end.strip())
        assert picture.read_bytes().startswith(b"\x89PNG\r\n")
        pixels = matplotlib.image.imread(picture)
        assert min(pixels.shape[:2]) > 300
        colours = np.unique(pixels.reshape(-1, pixels.shape[-1]), axis=0)
        drawn = np.any(pixels[..., :3] < 1, axis=-1).mean()
        assert len(colours) > 20 and drawn > 0.02
        return printed

    return run


def readme_blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def test_all_are_listed():
    assert {path.name for path in (ROOT / "configs").iterdir()} == set(CONFIGS)
    assert {path.name for path in (ROOT / "examples").glob("*.py")} == EXAMPLES


@pytest.mark.slow
def test_demo_config_is_the_one_shipped(demo_folder):
    shipped = (ROOT / "configs" / "demo.yaml").read_text()
    assert shipped == (demo_folder / "config.yaml").read_text()


@pytest.mark.nightly
def test_own_run_example(run_example, demo_folder, tmp_path):
    """Search and polish raise z; the table exists, and contains the errors."""
    folder = tmp_path / "copy"  # the table is written beside the demo's
    shutil.copytree(demo_folder, folder)
    printed = run_example("own_run.py", folder)
    assert f"written: {folder / 'own_run.csv'}" in printed
    mean = re.search(r"mean\s+(\S+)\s+(\S+)\s+(\S+)", printed)
    before, searched, polished = map(float, mean.groups())
    assert before < searched < polished
    table = pd.read_csv(folder / "own_run.csv")
    assert set(table.refined_status) <= {"converged", "edge_of_grid"}
    assert table.refined_relative_defocus_sigma.between(5, 100).all()
    assert (folder / "own_run.png").exists()


@pytest.mark.nightly
def test_library_example(run_example, demo_folder, tmp_path):
    printed = run_example("library.py", demo_folder, tmp_path / "library.png")
    before, after = (
        np.array(re.search(rf"z {when}:\s+\[(.*?)\]", printed)[1].split(), float)
        for when in ("before", "after")
    )
    assert len(before) == 6
    assert np.all(after >= before)
    assert "dz/d(defocus u)" in printed


def measured(printed, name):
    """A value, its standard error and the table's value, from a line of an example."""
    line = next(line for line in printed.splitlines() if line.startswith(name))
    return [float(text) for text in re.findall(r"[-+]?\d+\.?\d*", line.split(":")[1])]


@pytest.mark.nightly
def test_pixel_size_example(run_example, demo_folder, tmp_path):
    """The demo was made at the table's pixel size."""
    printed = run_example("pixel_size.py", demo_folder, tmp_path / "pixel_size.png")
    value, sigma, truth = measured(printed, "pixel size")
    assert 0 < sigma < 0.01 and abs(value - truth) < 4 * sigma


@pytest.mark.nightly
def test_b_factor_example(run_example, demo_folder, tmp_path):
    """The demo was made with the table's B-factor and amplitude contrast."""
    printed = run_example("b_factor.py", demo_folder, tmp_path / "b_factor.png")
    for name, most in (("B-factor", 20.0), ("amplitude contrast", 10.0)):
        value, sigma, truth = measured(printed, name)[:3]
        assert 0 < sigma < most and abs(value - truth) < 4 * sigma
    assert float(printed.split("gained:")[1]) >= 0


@pytest.mark.nightly
def test_defocus_plane_example(run_example, tmp_path):
    """The tilt is found, and with it each defocus better than by its particle alone."""
    printed = run_example("defocus_plane.py", tmp_path / "plane.png")
    for name in ("mean defocus", "tilt along y", "tilt along x"):
        value, sigma, truth = measured(printed, name)
        assert 0 < sigma < 60 and abs(value - truth) < 3 * sigma
    for_all, alone, plane = (
        float(re.search(rf"{name}: (\d+) Å", printed)[1])
        for name in ("one for all", "each alone", "plane")
    )
    assert plane < alone < for_all


@pytest.mark.nightly
def test_own_score_example(run_example, demo_folder, tmp_path):
    """Both scores are best where the particles are; the coarser one has the wider peak."""
    printed = run_example("own_score.py", demo_folder, tmp_path / "own_score.png")
    fine, coarse = (
        np.array(text.split(), float) for text in re.findall(r"\[([^]]*)\]", printed)
    )
    assert len(fine) == len(coarse) == 7
    assert fine.argmax() == coarse.argmax() == 3 and fine[3] > coarse[3]
    assert (fine / fine[3])[[0, 6]].max() < (coarse / coarse[3])[[0, 6]].min()


@pytest.mark.nightly
def test_template_gradient_example(run_example, demo_folder, tmp_path):
    printed = run_example("template_gradient.py", demo_folder, tmp_path / "gradient.mrc")
    # An argument that is left out is reported.
    whole, less = measured(printed, "slope of Σz along the piece")
    assert abs(whole) < 1 and less > 4
    # The score does not change with the template's strength.
    assert abs(float(re.search(r"template: ([-\d.]+)", printed)[1])) < 0.02
    gradient, voxel_size = read_volume(tmp_path / "gradient.mrc")
    volume, of_template = read_volume(demo_folder / "template.mrc")
    assert gradient.shape == volume.shape and voxel_size == of_template
    assert np.all(np.isfinite(gradient)) and gradient.std() > 0


def test_ci_runs_the_readmes_test_line():
    lines = [line for block in readme_blocks("bash") for line in block.splitlines()]
    (test_line,) = [line for line in lines if "pytest" in line]
    assert test_line in (ROOT / ".ci" / "run").read_text().splitlines()


def test_readmes_smallest_config(tmp_path):
    (block,) = readme_blocks_indented("yaml")
    path = tmp_path / "config.yaml"
    path.write_text(block)
    assert Config.load(path).particle_stack.extracted_box_size == (528, 528)


def readme_blocks_indented(language):
    """Blocks inside a list, their indentation taken off."""
    blocks = re.findall(rf"^   ```{language}\n(.*?)^   ```", README, flags=re.S | re.M)
    return [re.sub(r"^   ", "", block, flags=re.M) for block in blocks]


@pytest.mark.nightly
def test_demo_refines_from_its_own_folder(demo_folder, tmp_path, monkeypatch, capsys):
    """`jaxrefine config.yaml`, in a copy, with its search cut down."""
    folder = tmp_path / "copy"
    shutil.copytree(demo_folder, folder)
    config = (folder / "config.yaml").read_text()
    quick = config.replace("psi_step_fine: 0.25", "psi_step_fine: 1.5").replace(
        "theta_step_fine: 0.5", "theta_step_fine: 2.5"
    )
    (folder / "config.yaml").write_text(quick)
    monkeypatch.chdir(folder)
    assert main(["config.yaml"]) == 0
    assert "written: match_results_refined.csv" in capsys.readouterr().out
    table = read_particle_table(folder / "match_results_refined.csv")
    z = table.numbers("refined_scaled_mip")
    assert np.all(np.isfinite(z))
    assert z.mean() > table.numbers("scaled_mip").mean()


@pytest.mark.nightly
def test_two_states_example(run_example, tmp_path):
    """Nearly all are assigned to their state, and the number of certain ones is printed."""
    printed = run_example("two_states.py", tmp_path)
    right = int(re.search(r"right: (\d+) of 36", printed)[1])
    assert right >= 32
    assert re.search(
        r"references: closed \d+, open \d+, \d+ undecided \(P < 0.9\)", printed
    )
    assert "in all, by the sum of the probabilities: closed " in printed
