"""Several references: from YAML to the table that assigns particles to them."""

import re

import numpy as np
import pandas as pd
import pytest
import starfile
import yaml

from jaxrefine.app.cli import main
from jaxrefine.app.config import Config
from jaxrefine.app.console.interrupts import Stopped
from jaxrefine.app.refinement import Refinement
from jaxrefine.app.run import several
from jaxrefine.data import InputError
from jaxrefine.io.mrc import read_volume, write_volume
from jaxrefine.io.table.schema import compared_names, reference_columns
from tests import subprocess_runs
from tests.app.config.config_data import REQUIRED
from tests.app.run.test_polishing import GRID
from tests.reference import reference_set

POLISH = {"polish": {"enabled": True}}


def configure(folder, name, **changes):
    config = yaml.safe_load((folder / "refine.yaml").read_text())
    path = folder / f"{name}.yaml"
    path.write_text(
        yaml.safe_dump({**config, **GRID, **POLISH, **changes}, sort_keys=False)
    )
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The particles are of the template; the other reference lacks a fifth of the mass."""
    folder = reference_set("basic", tmp_path_factory.mktemp("references"))
    volume, voxel_size = read_volume(folder / "template.mrc")
    x = np.arange(volume.shape[0])
    mass = np.cumsum(np.maximum(volume - volume.mean(), 0).sum(axis=(0, 1)))
    part = np.where(x < np.searchsorted(mass, 0.8 * mass[-1]), volume, np.median(volume))
    write_volume(folder / "part.mrc", part.astype(np.float32), voxel_size)
    return folder


@pytest.fixture(scope="module")
def both(folder):
    """The combined table, and the messages."""
    templates = {"whole": "template.mrc", "part": "part.mrc"}
    path = configure(folder, "both", template_volume_path=templates)
    assert main([str(path), "-q", "--output", str(folder / "both.csv")]) == 0
    return pd.read_csv(folder / "both.csv")


@pytest.mark.slow
def test_each_particle_is_given_to_what_it_is_of(both):
    """All but the last, which is hardly above the noise."""
    assert (both.best_reference[:-1] == "whole").all()
    assert both.reference_probability[:-1].min() > 0.5
    total = both.probability_whole + both.probability_part
    np.testing.assert_allclose(total, 1, atol=2e-6)
    assert both.reference_overlap.between(0.5, 0.99).all()
    higher = both.refined_scaled_mip_whole > both.refined_scaled_mip_part
    assert higher[:-1].all() and (both.reference_log_ratio[:-1] > 0).all()
    for name in ("whole", "part"):
        assert set(both[f"refined_status_{name}"]) <= {"converged", "edge_of_grid"}
    order = [c.name for c in reference_columns(["whole", "part"])]
    assert list(both.columns[-len(order) :]) == order


@pytest.mark.nightly
def test_several_processes_assign_as_one_does(tmp_path):
    """Four micrographs, two references and two real processes: the same files."""
    folder = subprocess_runs.several_micrographs(tmp_path)
    volume, voxel_size = read_volume(folder / "template.mrc")
    half = np.where(np.arange(len(volume)) < len(volume) // 2, volume, np.median(volume))
    write_volume(folder / "half.mrc", half.astype(np.float32), voxel_size)
    templates = {"whole": "template.mrc", "half": "half.mrc"}
    subprocess_runs.change(folder, template_volume_path=templates)
    (alone,) = subprocess_runs.ends([subprocess_runs.start(folder, "--output", "one.csv")])
    assert alone[0] == 0, alone
    shared = subprocess_runs.ends(
        subprocess_runs.start_many(folder, 2, "--output", "two.csv")
    )
    assert [code for code, *_ in shared] == [0, 0], shared
    for name in ("", "_whole", "_half"):
        one, two = ((folder / f"{n}{name}.csv").read_bytes() for n in ("one", "two"))
        assert one == two, name
    # The first process says for all how many there are of each, and nothing is left.
    assert "references: " in shared[0][1] and "references: " not in shared[1][1]
    assert not list(folder.glob("*.parts"))


@pytest.mark.slow
def test_the_best_s_row_is_that_of_its_own_run(folder, both):
    tables = {name: pd.read_csv(folder / f"both_{name}.csv") for name in ("whole", "part")}
    for row, name in enumerate(both.best_reference):
        expected = tables[name].iloc[row]
        pd.testing.assert_series_equal(both.loc[row, expected.index], expected)
    # Polished once more, from the other's pose, too: never worse.
    for name, table in tables.items():
        gain = both[f"refined_scaled_mip_{name}"] - table.refined_scaled_mip
        assert gain.min() > -0.01
        turned = both[f"refined_phi_{name}"] - table.refined_phi
        assert turned.abs().median() < 1
    assert not list(folder.glob("*.parts"))


@pytest.mark.slow
def test_tables_that_exist_are_compared_alike(folder, both, capsys):
    files = [str(folder / f"both_{name}.csv") for name in ("whole", "part")]
    for name in ("template", "part"):
        configure(folder, name, template_volume_path=f"{name}.mrc")
    configs = [str(folder / f"{name}.yaml") for name in ("template", "part")]
    output = str(folder / "compared.csv")
    arguments = ["compare", *files, "--output", output, "--config"]
    assert main([*arguments, *configs]) == 0
    printed = capsys.readouterr().out
    assert "references: template " in printed and "undecided (P < 0.9)" in printed
    compared = pd.read_csv(output)
    named = {name: name.replace("template", "whole") for name in compared.columns}
    compared = compared.rename(
        columns={n: w for n, w in named.items() if n != "template_path"}
    )
    compared["best_reference"] = compared.best_reference.replace("template", "whole")
    pd.testing.assert_frame_equal(compared[both.columns], both)
    assert main([*arguments, configs[0]]) == 2
    assert main([*arguments, *configs, "--overwrite", "--priors", "1,2,3"]) == 2
    assert (
        main(["compare", files[0], "--output", output, "--overwrite", "--config", *configs])
        == 2
    )


@pytest.mark.slow
def test_tables_of_other_particles_are_refused(folder, both, capsys):
    table = pd.read_csv(folder / "both_part.csv", dtype=str)
    table.loc[2, "pos_x"] = "3"
    table.to_csv(folder / "other.csv", index=False)
    table[:-1].to_csv(folder / "fewer.csv", index=False)
    for other, said in (("other", "line 4, column pos_x: '3'"), ("fewer", "6 particles")):
        arguments = [
            "compare",
            str(folder / "both_whole.csv"),
            str(folder / f"{other}.csv"),
        ]
        more = ["--config", str(folder / "both.yaml"), "--output", str(folder / "no.csv")]
        assert main([*arguments, *more]) == 2
        assert said in capsys.readouterr().err
    assert not (folder / "no.csv").exists()


@pytest.mark.nightly
def test_an_interrupted_comparison_goes_on(folder, both, monkeypatch, capsys):
    """The refined tables exist; the next run compares them."""

    def stopped(*arguments, **more):
        raise Stopped("asked to stop", 130)

    output = folder / "again.csv"
    with monkeypatch.context() as patched:
        patched.setattr(several, "compare", stopped)
        assert main([str(folder / "both.yaml"), "-q", "--output", str(output)]) == 130
    assert len(list(folder.glob("again_*.csv.parts"))) == 2 and not output.exists()
    capsys.readouterr()
    assert main([str(folder / "both.yaml"), "--output", str(output)]) == 0
    said = capsys.readouterr()
    assert said.err.count("7 of 7 particles are already refined") == 2
    assert "references: whole 6, part 0, 1 undecided (P < 0.9)" in said.out
    pd.testing.assert_frame_equal(pd.read_csv(output), both)
    assert not list(folder.glob("*.parts"))


@pytest.mark.slow
def test_the_report_and_a_star_file_say_so(folder, both):
    table = str(folder / "both.csv")
    assert main(["report", table, "-q", "--micrographs", "0"]) == 0
    page = (folder / "both_report" / "report.html").read_text()
    assert '<h2 id="references">' in page and "<td>whole</td>" in page
    assert (folder / "both_report" / "figures" / "references.png").exists()
    star = folder / "both.star"
    assert main(["export", table, "-q", "--to", "relion", "--output", str(star)]) == 0
    numbers = starfile.read(star)["particles"].rlnClassNumber
    expected = [["whole", "part"].index(name) + 1 for name in both.best_reference]
    np.testing.assert_array_equal(numbers, expected)


@pytest.mark.nightly
def test_template_bias(folder, both, capsys):
    """The part that `part` lacks is in the images; a few particles say so roughly."""
    tables = [str(folder / f"both_{name}.csv") for name in ("whole", "part")]
    more = ["--config", str(folder / "both.yaml"), "--output", str(folder / "bias")]
    assert main(["bias", *tables, *more]) == 0
    said = capsys.readouterr().out
    omega = float(re.search(r"template bias: (\S+) ± ", said)[1])
    assert abs(omega) < 0.5 and "7 particles" in said
    volume, _ = read_volume(folder / "bias" / "omit.mrc")
    assert volume.shape == (64, 64, 64) and np.isfinite(volume).all()
    assert main(["bias", *tables, *more, "--mask", str(folder / "mean.mrc")]) == 2
    swapped = configure(
        folder, "swapped", template_volume_path={"a": "part.mrc", "b": "template.mrc"}
    )
    arguments = ["bias", *tables[::-1], "--config", str(swapped), *more[2:]]
    assert main(arguments) == 2
    assert "lacks no density" in capsys.readouterr().err


@pytest.mark.slow
def test_plan_and_check_go_through_the_references(folder, both, capsys):
    assert main(["plan", "--no-timing", str(folder / "both.yaml")]) == 0
    printed = capsys.readouterr().out
    assert "reference whole:" in printed and "reference part:" in printed
    assert "match_results_refined_part.csv" in printed
    assert main(["check", str(folder / "both.yaml")]) in (0, 1)
    assert "reference part:" in capsys.readouterr().out


@pytest.mark.slow
def test_refined_again_it_is_no_comparison_any_more(folder, both):
    stack = yaml.safe_load((folder / "refine.yaml").read_text())["particle_stack"]
    stack["df_path"] = str(folder / "both.csv")
    path = configure(
        folder, "more", particle_stack=stack, template_volume_path="template.mrc"
    )
    assert main([str(path), "-q", "--output", str(folder / "more.csv")]) == 0
    again = pd.read_csv(folder / "more.csv")
    assert not compared_names(again.columns)
    assert list(again.columns) == list(pd.read_csv(folder / "both_whole.csv").columns)


def references_of(**changes):
    return Config.from_dict({**REQUIRED, **changes}).references


def test_names_and_pixel_sizes():
    listed = references_of(template_volume_path=["a/open.mrc", "b/closed.map"])
    assert [each.name for each in listed] == ["open", "closed"]
    assert {each.template_pixel_size for each in listed} == {None}
    named = references_of(
        template_volume_path={"a": "x.mrc", "b": "y.mrc"},
        template_pixel_size={"b": 1.2},
        reference_priors=[0.7, 0.3],
    )
    assert [each.template_pixel_size for each in named] == [None, 1.2]
    config = Config.from_dict({**REQUIRED, "template_volume_path": {"a": "x", "b": "y"}})
    assert config.of_references()["b"].template_volume_path == "y"
    assert not config.of_references()["b"].references
    assert not references_of() and not Config.from_dict(REQUIRED).of_references()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"template_volume_path": ["a/t.mrc", "b/t.mrc"]}, "have a different name"),
        ({"template_volume_path": ["a.mrc"]}, "at least two"),
        ({"template_volume_path": ["a.mrc", 3]}, r"template_volume_path\[1\]: 3"),
        ({"template_volume_path": {"a b": "a.mrc", "c": "c.mrc"}}, "letters, digits"),
        ({"template_volume_path": ["ä.mrc", "c.mrc"]}, "write `NAME: FILE`"),
        ({"template_volume_path": {"img": "a.mrc", "c": "c.mrc"}}, "has a column"),
        (
            {
                "template_volume_path": ["a.mrc", "b.mrc"],
                "template_pixel_size": {"a": -1.0, "c": 1.0},
            },
            r"(?s)size.c: 1.0 — no such reference.*template_pixel_size.a: -1",
        ),
        (
            {"template_volume_path": ["a.mrc", "b.mrc"], "template_pixel_size": [1, 2, 3]},
            "one for each of the 2 templates",
        ),
        (
            {"template_volume_path": ["a.mrc", "b.mrc"], "reference_priors": [1.0]},
            "template_volume_path names 2",
        ),
        ({"reference_priors": [0.5, 0.5]}, "template_volume_path names one"),
        ({"reference_priors": "flat"}, "equal, estimated"),
        (
            {"template_volume_path": ["a.mrc", "b.mrc"], "reference_priors": [1.0, -1.0]},
            "larger than 0",
        ),
    ],
)
def test_errors_of_the_configuration(changes, message):
    with pytest.raises(InputError, match=message):
        Config.from_dict({**REQUIRED, **changes})


def test_a_run_in_one_s_own_hands_is_of_one_reference(folder):
    config = Config.load(
        configure(folder, "two", template_volume_path=["part.mrc", "x.mrc"])
    )
    with pytest.raises(InputError, match=r"names several references \(part, x\)"):
        Refinement(config)


def test_all_references_are_checked_before_any_is_refined(folder, capsys):
    templates = {"whole": "template.mrc", "gone": "gone.mrc", "lost": "lost.mrc"}
    path = configure(folder, "gone", template_volume_path=templates)
    assert main([str(path), "-q", "--output", str(folder / "gone.csv")]) == 2
    said = capsys.readouterr().err
    assert "reference gone: " in said and "reference lost: " in said
    assert not list(folder.glob("gone*.csv*"))
