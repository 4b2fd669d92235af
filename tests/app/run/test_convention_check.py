"""Planted confusions of conventions are named; and no warning for valid data."""

import dataclasses

import numpy as np
import pytest

from jaxrefine.app.cli import main
from jaxrefine.app.console.summary import format_fallen, format_noise_fitted
from jaxrefine.app.run.confusion_evidence import (
    Evidence,
    Tried,
    agrees,
    chance_level,
    decide,
    doubt,
    likeness,
    scatter,
)
from jaxrefine.app.run.confusions import Confusion
from jaxrefine.app.run.convention_check import check_conventions, format_problems
from jaxrefine.app.run.inputs import load_inputs
from jaxrefine.app.run.pipeline import read_and_prepare
from jaxrefine.app.run.score_changes import compare_expected, fallen_micrographs
from jaxrefine.io.mrc import read_image, write_image
from jaxrefine.physics.rotations import euler_to_matrix
from tests.app.run.invalid_input import keys
from tests.app.run.planted_confusions import (
    OF_TWO_MICROGRAPHS,
    PLANTED,
    SOUND,
    plant,
)
from tests.reference import reference_set

pytestmark = pytest.mark.usefixtures("compiled_to_run_fast")

NOISE_Z = 4.4


def tried(*scores):
    return [Tried(Confusion(str(z), "", lambda s: s), z) for z in scores]


@pytest.mark.parametrize(
    ("z", "table_z", "scores", "named", "nearest"),
    [
        (3.1, 11.4, (2.0, 11.3, 9.4), ["11.3"], None),
        (3.1, 11.4, (11.2, 11.3), ["11.3", "11.2"], None),  # cannot be told apart
        (3.1, 11.4, (2.0, 3.9), [], None),  # the best of noise
        (3.1, 11.4, (8.0, 3.9), [], "8.0"),
        (8.4, 11.4, (9.5,), [], None),  # no clear jump
        (3.1, np.nan, (7.0, 4.0), ["7.0"], None),
        (3.9, np.nan, (4.5,), [], None),
    ],
)
def test_what_restores_the_score_is_named(z, table_z, scores, named, nearest):
    restoring, near = decide(Evidence(z, table_z, 8, 289), tried(*scores))
    assert [each.confusion.name for each in restoring] == named
    assert (near and near.confusion.name) == nearest


def test_chance_names_nothing():
    """Single weak particles: the level of the best of a hundred trials in noise."""
    rng = np.random.default_rng(0)
    for particles in (1, 3, 8):
        level = chance_level(289, particles, 100)
        noise = rng.standard_normal((100, 100, particles, 289), np.float32).max(axis=-1)
        best = np.median(noise, axis=-1).max(axis=-1)
        assert (best > level).sum() <= 1  # of 100
        assert best.max() > level - 1  # not too careful, either
    one = Evidence(2.7, 5.6, particles=1, positions=289)
    assert decide(one, tried(5.0, *[2.0] * 100))[0] == []
    assert decide(one, tried(5.5, *[2.0] * 100))[0] != []


def test_each_particle_comes_back_where_the_right_one_is_named():
    table = np.array([6.0, 5.0, 5.5, 8.0])
    assert scatter(0.9 * table, table) < 1e-9
    assert scatter(table[::-1], table) > 0.1
    assert scatter(table, np.full(4, np.nan)) == 0
    weak = Evidence(3.2, 5.5, particles=8, positions=289)
    right, other = tried(5.3, 5.7)
    other = dataclasses.replace(other, scatter=0.15)
    assert decide(weak, [other, right])[0] == [right, other]


def test_doubt_is_said():
    one, other, same = tried(6.3, 5.5, 6.2)
    assert doubt([one, same], 1) == "" and likeness(one, same) == "nearly the same"
    assert "1 particle cannot distinguish this" in doubt([one, other], 1)
    assert likeness(one, other) == "as likely"


def test_a_table_without_scores_is_judged_by_noise():
    assert agrees(9.0, 11.4, NOISE_Z)
    assert not agrees(8.0, 11.4, NOISE_Z)
    assert agrees(5.0, np.nan, NOISE_Z)
    assert not agrees(4.0, np.nan, NOISE_Z)


def test_angles_are_rewritten_as_said():
    # The remedies are formulas in Euler angles; what they should do, in matrices.
    phi, theta, psi = euler = np.array([31.0, 77.0, 140.0])
    rotation = euler_to_matrix(euler)
    transposed = euler_to_matrix(np.array([-psi, -theta, -phi]))
    np.testing.assert_allclose(transposed, rotation.T, atol=1e-12)
    x = np.deg2rad(theta)
    about_x = np.array([[1, 0, 0], [0, np.cos(x), -np.sin(x)], [0, np.sin(x), np.cos(x)]])
    turns = (euler_to_matrix(np.array([angle, 0.0, 0.0])) for angle in (phi, psi))
    first, last = turns
    zxz = euler_to_matrix(np.array([phi - 90, theta, psi + 90]))
    np.testing.assert_allclose(zxz, first @ about_x @ last, atol=1e-12)


def test_fallen_micrographs_are_named():
    before = np.array([10.0, 12.0, 11.0, np.nan, 9.0])
    after = np.array([3.0, 3.5, 11.5, 4.0, np.nan])
    groups = {"a.mrc": np.array([0, 1]), "b.mrc": np.array([2, 3, 4])}
    found = fallen_micrographs(before, after, groups)
    assert [each.name for each in found] == ["a.mrc"]
    assert format_fallen(found)[0] == (
        "a.mrc: the median z-score of 2 particles fell from 11.0 to 3.2"
    )
    assert format_fallen(()) == []


def test_poses_that_are_worth_less_in_other_data_are_warned_of():
    before = np.array([10.0, 8.0, np.nan, 9.0])
    (said,) = format_noise_fitted(
        compare_expected(before, np.array([9.0, 7.0, 9.0, np.nan]))
    )
    assert "of 2 particles in independent data is 8.00, below the starting 9.00" in said
    assert not format_noise_fitted(compare_expected(before, before + 1))
    assert compare_expected(before, np.full(4, np.nan)) is None
    assert not format_noise_fitted(None)


@pytest.fixture
def quick(tmp_path, monkeypatch):
    """The basic set, with a search of few poses."""
    folder = reference_set("basic", tmp_path)
    monkeypatch.chdir(folder)
    keys(
        defocus_refinement_config__enabled=False,
        orientation_refinement_config__enabled=False,
    )(folder)
    return folder


@pytest.mark.nightly
def test_the_contrast_is_named_by_check_and_run(quick, tmp_path, monkeypatch, capsys):
    assert main(["check", "refine.yaml"]) == 0
    said = capsys.readouterr().out
    assert "does not agree" not in said and "too few to estimate it" in said
    plant(PLANTED["contrast"], quick, "refine.yaml", tmp_path / "spoiled")
    config = tmp_path / "spoiled" / "refine.yaml"
    monkeypatch.chdir(config.parent)
    assert main(["check", str(config)]) == 1
    assert "set `invert_contrast: true`" in capsys.readouterr().out
    assert main([str(config), "-q"]) == 0
    said = capsys.readouterr().err
    assert "something is wrong; trying what" in said
    assert "set `invert_contrast: true`" in said
    assert "the median z-score of 7 particles fell from" in said
    keys(invert_contrast=True)(config.parent)
    assert main([str(config), "-q"]) == 0
    assert "fell from" not in capsys.readouterr().err


@pytest.mark.slow
def test_where_nothing_is_refined_the_exit_code_says_so(quick):
    path = quick / "micrograph.mrc"
    write_image(path, np.zeros_like(read_image(path)))
    assert main(["refine.yaml", "-q"]) == 4


def named(sound, config_name, case, folder):
    config = plant({**PLANTED, **OF_TWO_MICROGRAPHS}[case], sound, config_name, folder)
    return format_problems(check_conventions(load_inputs(config), read_and_prepare))


@pytest.mark.nightly
@pytest.mark.parametrize(
    ("name", "cases"),
    # A case takes seconds: all on one set, and a few on a second.
    [
        ("basic", [*PLANTED]),
        ("two_micrographs", [*OF_TWO_MICROGRAPHS, *list(PLANTED)[::5]]),
    ],
)
def test_each_confusion_is_named(name, cases, tmp_path):
    config_name = "refine.yaml"
    sound = reference_set(name, tmp_path)
    inputs = load_inputs(plant(SOUND, sound, config_name, tmp_path / "sound"))
    assert check_conventions(inputs, read_and_prepare).sound
    wrong = {}
    for case in cases:
        said = named(sound, config_name, case, tmp_path / case)
        if not said or {**PLANTED, **OF_TWO_MICROGRAPHS}[case].named not in said[0]:
            wrong[case] = said
    assert not wrong
