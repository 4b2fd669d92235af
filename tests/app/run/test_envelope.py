"""The template envelope in a run: configured, or estimated from particles."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import yaml

from jaxrefine.app.config import Config
from jaxrefine.app.run import envelope
from jaxrefine.app.run.checkpoint import Checkpoint
from jaxrefine.app.run.fingerprint import differences, fingerprint
from jaxrefine.app.run.inputs import load_inputs
from jaxrefine.data import InputError
from jaxrefine.refine.envelope_fit import EnvelopeFit
from jaxrefine.refine.polish import Polish
from tests.app.config.config_data import REQUIRED
from tests.app.run.test_polishing import refine
from tests.reference import reference_set


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return reference_set("basic", tmp_path_factory.mktemp("envelope"))


def inputs_of(folder):
    return load_inputs(Config.load(folder / "refine.yaml"), folder / "unwritten.csv")


def never(*arguments):
    raise AssertionError("nothing is to be estimated")


def test_what_the_key_may_hold():
    assert Config.from_dict(REQUIRED).template_envelope == "auto"
    exact = Config.from_dict({**REQUIRED, "reproduce": "leopard_em"})
    assert exact.template_envelope == "none"
    for value in (340, -20.5, "none", "auto", "halves/fall_off.CSV"):
        config = Config.from_dict({**REQUIRED, "template_envelope": value})
        assert config.template_envelope == value
    for value in ("always", 6000, float("nan"), None, True):
        with pytest.raises(InputError, match="template_envelope"):
            Config.from_dict({**REQUIRED, "template_envelope": value})
    with pytest.raises(InputError, match="contradicts reproduce: leopard_em"):
        Config.from_dict({**REQUIRED, "reproduce": "leopard_em", "template_envelope": 40})


@pytest.fixture(scope="module")
def added(folder):
    return refine(folder, "added.csv", template_envelope=80)


@pytest.fixture(scope="module")
def plain(folder):
    return refine(folder, "plain.csv", template_envelope="none")


@pytest.mark.slow
def test_a_b_is_added_to_the_table_s(folder, added, plain):
    """The same as with this B factor in the table."""
    table = pd.read_csv(folder / "match_results.csv", dtype=str)
    of_table = table.ctf_B_factor.astype(float)
    table.assign(ctf_B_factor=of_table + 80).to_csv(folder / "blurred.csv", index=False)
    config = yaml.safe_load((folder / "refine.yaml").read_text())
    stack = {**config["particle_stack"], "df_path": str(folder / "blurred.csv")}
    told = refine(folder, "told.csv", template_envelope="none", particle_stack=stack)
    pd.testing.assert_frame_equal(
        added.drop(columns=["ctf_B_factor", "template_envelope_b"]),
        told.drop(columns="ctf_B_factor"),
    )
    assert (added.template_envelope_b == 80).all()
    assert "template_envelope_b" not in plain
    np.testing.assert_array_equal(added.ctf_B_factor, of_table)  # the input's cells stay
    assert not np.allclose(added.refined_mip, plain.refined_mip)


@pytest.mark.slow
def test_a_curve_is_on_the_template(folder, added, plain):
    """A curve for a B factor, in small steps, equals this B factor."""
    k = np.linspace(0.0, 0.6, 301)
    curve = pd.DataFrame({"k": k, "factor": np.exp(-80 * k**2 / 4)})
    curve.to_csv(folder / "fall_off.csv", index=False)
    by_curve = refine(folder, "curve.csv", template_envelope="fall_off.csv")
    z, expected, before = (t.refined_scaled_mip for t in (by_curve, added, plain))
    # Slices are interpolated with their curve or before it: 0.02, and once, of a particle
    # of z = 5.7, 0.06.
    np.testing.assert_allclose(z, expected, rtol=0, atol=0.1)
    assert np.abs(z - before).max() > 0.2
    assert "template_envelope_b" not in by_curve
    config = Config.load(folder / "refine.yaml")
    named = dataclasses.replace(config, template_envelope="fall_off.csv")
    inputs = load_inputs(named, folder / "unwritten.csv")
    assert folder / "fall_off.csv" in inputs.inputs
    assert "the curve in fall_off.csv" in envelope.find_envelope(inputs, never).text
    first = fingerprint(inputs)
    (folder / "fall_off.csv").write_text("0,1\n0.5,0.1\n")
    again = fingerprint(load_inputs(named, folder / "unwritten.csv"))
    assert list(differences(first, again)) == ["the template's envelope has other content"]


@pytest.mark.slow
def test_few_particles_are_refined_as_the_table_says(folder, plain):
    inputs = inputs_of(folder)
    pd.testing.assert_frame_equal(refine(folder, "auto.csv"), plain)
    found = envelope.find_envelope(inputs, never)
    assert found.extra_b_angstrom2 == 0
    assert "7 particles are too few to estimate it" in found.text


def test_what_was_not_tested_is_said(folder):
    inputs = inputs_of(folder)
    for value in ("none", 80.0, "fall_off.csv"):
        config = dataclasses.replace(inputs.config, template_envelope=value)
        given = dataclasses.replace(
            inputs, config=config, template_envelope=value, polish=Polish()
        )
        assert "standard errors are too small" in envelope.find_envelope(given, never).text
        without = dataclasses.replace(given, polish=None)
        assert "too small" not in envelope.find_envelope(without, never).text


def test_the_best_are_taken(folder, monkeypatch):
    inputs = inputs_of(folder)
    monkeypatch.setattr(envelope, "_MOST", 2)
    z = inputs.table.numbers("scaled_mip")
    expected = np.sort(np.argsort(-z)[:2])
    np.testing.assert_array_equal(envelope._best_rows(inputs), expected)


def test_micrographs_take_turns(tmp_path, monkeypatch):
    inputs = inputs_of(reference_set("two_micrographs", tmp_path))
    monkeypatch.setattr(envelope, "_MOST", 2)
    z = inputs.table.numbers("scaled_mip")
    expected = np.sort([rows[np.argmax(z[rows])] for rows in inputs.groups.values()])
    np.testing.assert_array_equal(envelope._best_rows(inputs), expected)
    assert not np.array_equal(expected, np.sort(np.argsort(-z)[:2]))  # of one micrograph


RNG = np.random.default_rng(0)
SCORES = 8.0 + 0.5 * RNG.standard_normal(30)


@pytest.mark.parametrize(
    ("b", "gain", "used", "said"),
    [
        (
            341.4,
            0.4,
            341,
            "falls off faster than template and table predict, by B ≈ 341 ± 40 Å²",
        ),
        (-90.0, 0.4, -90, "more slowly than template and table predict, by B ≈ 90 ± 40 Å²"),
        (60.0, 0.4, 0, "no clear difference"),
        (341.0, 0.0, 0, "no clear gain"),
    ],
)
def test_an_estimate_is_used_where_it_is_sound_and_pays(b, gain, used, said):
    fit = EnvelopeFit(extra_b_angstrom2=b, sigma_angstrom2=40.0, strength=0.02)
    noise = 0.1 * RNG.standard_normal(30)
    found = envelope._decide(fit, SCORES + gain + noise - noise.mean(), SCORES)
    assert found.extra_b_angstrom2 == used
    assert said in found.text
    assert ("used for the refinement" in found.text) == (used != 0)


def test_without_signal_nothing_is_believed():
    fit = EnvelopeFit(extra_b_angstrom2=900.0, sigma_angstrom2=100.0, strength=0.001)
    noise = RNG.standard_normal(30)
    found = envelope._decide(fit, noise - noise.mean() + 0.1, noise)
    assert found.extra_b_angstrom2 == 0 and "no signal" in found.text


def test_an_interrupted_run_goes_on_with_what_it_found(folder):
    checkpoint = Checkpoint(inputs_of(folder))
    checkpoint.begin(fresh=True)
    try:
        assert checkpoint.once(lambda: {"b": 1}) == {"b": 1}
        # Without results there is nothing to continue: it is found anew.
        assert checkpoint.once(lambda: {"b": 2}) == {"b": 2}
        (checkpoint.folder / "000000.npz").write_bytes(b"")
        assert checkpoint.once(never) == {"b": 2}
        (checkpoint.folder / "before.json").write_text("{")
        assert checkpoint.once(lambda: {"b": 3}) == {"b": 3}
    finally:
        checkpoint.remove()
    assert not checkpoint.folder.exists()
