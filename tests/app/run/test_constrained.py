"""Constrained searches: Leopard-EM's frozen output, the truth, and invalid input."""

import csv
import json
import shutil
from dataclasses import replace

import equinox as eqx
import numpy as np
import pandas as pd
import pytest
import yaml

import jaxrefine as jr
from jaxrefine import simulate as sim
from jaxrefine.app.cli import main
from jaxrefine.app.config import Config
from jaxrefine.app.run import inputs as inputs_module
from jaxrefine.app.run.build import build_grid
from jaxrefine.app.run.constrained import Constraint, build_constraint, predicted_table
from jaxrefine.app.run.particles import extract_rows, read_and_prepare
from jaxrefine.io.mrc import read_volume, write_volume
from jaxrefine.io.table import read_particle_table
from jaxrefine.physics.rotations import angle_between_deg, euler_to_matrix
from tests import partners
from tests.app.run.test_invalid_input import DOCUMENT, is_said
from tests.reference import ROOT

PEER = ROOT / "tests" / "data" / "peer" / "constrained"
TRUTH = pd.DataFrame(json.loads((PEER / "truth.json").read_text()))
SEED = 7  # of tests/oracles/freeze_constrained.py
SIDE, VECTOR = partners.SIDE, np.array(partners.CENTER_VECTOR)
THERE = TRUTH.partner.to_numpy() == 1


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory):
    """The frozen data set as for a user, and the shipped configuration."""
    folder = tmp_path_factory.mktemp("constrained")
    partners.unpack(PEER, folder)
    for path in (*PEER.glob("micrograph*.csv"), *PEER.glob("*.yaml")):
        shutil.copy(path, folder)
    for kind in ("references", "partners"):
        shutil.copy(PEER / f"micrograph_{kind}.csv", folder / f"{kind}.csv")
    shutil.copy(ROOT / "configs" / "constrained.yaml", folder)
    return folder


@pytest.fixture
def folder(unpacked, tmp_path, monkeypatch):
    copy = tmp_path / "set"
    shutil.copytree(unpacked, copy)
    monkeypatch.chdir(copy)
    return copy


def peer(case):
    return pd.read_csv(PEER / f"{case}_peer.csv", index_col=0)


def predicted(path="constrained.yaml", **changes):
    config = Config.load(path)
    constraint = replace(config.constraint, **changes)
    tables = (read_particle_table(f"{name}.csv") for name in ("references", "partners"))
    return predicted_table(config, constraint, *tables)


def constraint_of(path, folder):
    config = Config.load(folder / path)
    table = read_particle_table(folder / "partners.csv")
    made = build_constraint(config, table, build_grid(config))
    assert isinstance(made, Constraint)
    return made


# --- Where the partner is searched --------------------------------------------------


def heights(table):
    """Height of the partners above the references along z, from the simulator."""
    names = [f"refined_{name}" for name in ("phi", "theta", "psi")]
    rows = table[names].to_numpy()
    return np.array([(sim.matrix_from_euler(*row).T @ VECTOR)[2] for row in rows])


@pytest.mark.parametrize("hand", [1, -1])
def test_what_is_higher_has_less_defocus(folder, hand):
    references = pd.read_csv("references.csv")
    start = predicted(defocus_hand=hand).start()
    expected = references.refined_relative_defocus - hand * heights(references)
    np.testing.assert_allclose(start.relative_defocus_angstrom, expected, atol=1e-9)
    euler = references[["refined_phi", "refined_theta", "refined_psi"]]
    np.testing.assert_array_equal(start.euler_deg, euler)
    np.testing.assert_array_equal(start.position_px[:, 1], references.refined_pos_x)


def test_leopard_em_s_defocus_is_reproduced(folder):
    """z of R·v, with degrees taken as radians; Leopard-EM's matrices are float32."""
    text = (folder / "uniform.yaml").read_text()
    (folder / "uniform.yaml").write_text(f"reproduce: leopard_em\n{text}")
    start = predicted("uniform.yaml").start()
    theirs = peer("uniform").refined_relative_defocus
    np.testing.assert_allclose(start.relative_defocus_angstrom, theirs, atol=0.01)
    ours = predicted().start().relative_defocus_angstrom
    assert np.abs(ours - theirs).max() > 30


def test_in_its_own_frame_the_partner_s_place_is_predicted(folder):
    config = Config.load("constrained.yaml")
    stack = replace(
        config.constraint.particle_stack_constrained,
        extracted_box_size=(40, 40),
        original_template_size=(32, 32),
    )
    changes = {"template_frame": "partner", "particle_stack_constrained": stack}
    position = predicted(**changes).start().position_px
    for row, (y, x) in zip(TRUTH.itertuples(), position, strict=True):
        rotation = sim.matrix_from_euler(row.phi, row.theta, row.psi)
        offset = rotation.T @ VECTOR / partners.PIXEL_SIZE_ANGSTROM
        # The references' positions are whole, and their angles off by up to 0.4°: 0.2 px.
        assert abs(y + 16 - row.centre_y - offset[1]) < 1.25
        assert abs(x + 16 - row.centre_x - offset[0]) < 1.25


def test_each_micrograph_has_its_own_maps(folder):
    """By its path, or by its name if the folder differs."""
    tables = {name: pd.read_csv(f"{name}.csv") for name in ("references", "partners")}
    half = np.arange(len(TRUTH)) < 5
    for name, table in tables.items():
        table.loc[half, "micrograph_path"] = f"elsewhere_{name}/other.mrc"
    tables["partners"].loc[half, "correlation_average_path"] = "other_mean.mrc"
    for name, table in tables.items():
        table.to_csv(f"{name}.csv", index=False)
    found = predicted().raw
    expected = np.where(half, "other_mean.mrc", "micrograph_correlation_average.mrc")
    assert found.correlation_average_path.tolist() == expected.tolist()
    assert set(found.correlation_variance_path) == {"micrograph_correlation_variance.mrc"}


@pytest.mark.slow
def test_references_are_projected_out_at_their_own_poses(folder):
    """At their sub-pixel positions and their defocus, in every image."""
    pair = partners.make_pair(np.random.default_rng(SEED))
    volume = sim.potential_volume(pair.reference, SIDE, partners.PIXEL_SIZE_ANGSTROM)
    write_volume("reference.mrc", volume, partners.PIXEL_SIZE_ANGSTROM)
    references = pd.read_csv("references.csv")
    references.assign(refined_shift_x=0.3, refined_shift_y=-0.2).to_csv(
        "references.csv", index=False
    )
    text = (folder / C).read_text()
    named = "reference_template_volume_path: reference.mrc"
    (folder / C).write_text(text.replace("reference_template_volume_path: null", named))
    inputs = inputs_module.load_inputs(Config.load(C))
    removed = inputs.reference
    assert removed is not None
    defocus = inputs.start.relative_defocus_angstrom + removed.defocus_angstrom
    np.testing.assert_allclose(defocus, references.refined_relative_defocus, atol=1e-9)
    np.testing.assert_allclose(removed.shift_px, [[-0.2, 0.3]] * len(references))
    ((files, rows),) = inputs.groups.items()
    rows = rows[:4]
    height = removed.defocus_angstrom.astype(np.float32)
    micrograph = read_and_prepare(inputs, files)
    z_scores = []
    for one in (replace(inputs, reference=None), inputs):
        particles = extract_rows(one, micrograph, rows)
        start = particles.alignment.defocus_angstrom
        at_reference = replace(
            particles.alignment,
            defocus_angstrom=start + height[rows, None],
        )
        particles = eqx.tree_at(lambda p: p.alignment, particles, at_reference)
        z, _ = jr.score_particles(particles, removed.template, removed.score)
        z_scores.append(np.asarray(z))
    # SNRs of 25 lose up to a half by errors of the poses, and some in these small boxes.
    before, after = z_scores
    assert before.min() > 10 and np.abs(after).max() < 1.5


# --- Found or not -------------------------------------------------------------------


@pytest.mark.parametrize("case", ["uniform", "roll", "roll_search", "defocus"])
def test_leopard_em_s_threshold(unpacked, tmp_path, case):
    (tmp_path / "c.yaml").write_text(
        f"reproduce: leopard_em\n{(PEER / f'{case}.yaml').read_text()}"
    )
    shutil.copy(unpacked / "partners.csv", tmp_path)
    ours = constraint_of("c.yaml", tmp_path).parameters()
    theirs = pd.read_csv(PEER / f"{case}_peer_parameters.csv", index_col=0).iloc[0]
    assert theirs.to_dict() == pytest.approx(ours, rel=1e-12)


def test_p_values_are_those_of_a_maximum(unpacked, rng):
    """For independent normal numbers: uniform, and `false_positives` at the threshold."""
    small = replace(
        constraint_of("constrained.yaml", unpacked), projections=4, positions=25
    )
    p = small.p_value(rng.standard_normal((4000, 100)).max(axis=1))
    for share in (0.01, 0.1, 0.5):
        # Three standard errors of a share of 4000.
        assert abs((p < share).mean() - share) < 3 * np.sqrt(share * (1 - share) / 4000)
    assert small.p_value(np.array([small.threshold])) == pytest.approx(0.005, rel=0.01)
    high = small.p_value(np.array([8.0, 20.0, -50.0]))
    assert 0 < high[1] < high[0] < 1e-12 and high[2] == 1


# --- Whole runs ---------------------------------------------------------------------


@pytest.mark.slow
def test_found_and_not_found(folder):
    """The shipped configuration and the truth: all partners are found, and no others."""
    assert main(["constrained", "constrained.yaml", "-q", "--false-positives", "0.01"]) == 0
    table = pd.read_csv("references_constrained.csv")
    np.testing.assert_array_equal(table.partner_found == 1, THERE)
    assert (table.partner_p_value[THERE] < 1e-4).all()
    assert (table.partner_p_value[~THERE] > 0.01).all()
    kept = pd.read_csv("references_constrained_above_threshold.csv")
    pd.testing.assert_frame_equal(kept, table[THERE].reset_index(drop=True))
    parameters = pd.read_csv("references_constrained_parameters.csv").iloc[0]
    assert parameters.num_correlations == 45 * 81 and parameters.false_positives == 0.01
    # Leopard-EM's columns, in its order, and ours last.
    theirs = list(peer("uniform").columns)
    assert list(table.columns)[: len(theirs)] == theirs
    for row, true in zip(table[THERE].itertuples(), TRUTH[THERE].itertuples(), strict=True):
        rotation = sim.matrix_from_euler(true.phi, true.theta, true.psi)
        rotation = partners.partner_offset(true.offset_theta, true.offset_psi) @ rotation
        y, x = (rotation.T @ VECTOR / partners.PIXEL_SIZE_ANGSTROM)[[1, 0]]
        # A pixel of the search and half of one of the reference's, and 8° of a partner
        # of 20 Å turned about itself, which the position makes up for.
        assert abs(row.partner_pos_y_img - true.centre_y - y) < 2.5
        assert abs(row.partner_pos_x_img - true.centre_x - x) < 2.5
    # What was found can be searched, or refined, again.
    assert len(read_particle_table("references_constrained.csv")) == len(TRUTH)


@pytest.mark.slow
def test_leopard_em_s_numbers_are_reproduced(folder):
    """Float32 sums in another order: 2e-5 of z seen, its Euler angles 1e-4 degrees."""
    text = (folder / "defocus.yaml").read_text()
    (folder / "defocus.yaml").write_text(f"reproduce: leopard_em\n{text}")
    assert main(["defocus.yaml", "-q", "--output", "out.csv"]) == 0
    ours, theirs = pd.read_csv("out.csv"), peer("defocus")
    for name, tolerance in (
        ("refined_scaled_mip", 1e-3),
        ("refined_relative_defocus", 0.01),
        *((f"original_offset_{angle}", 1e-3) for angle in ("phi", "theta", "psi")),
    ):
        np.testing.assert_allclose(ours[name], theirs[name], atol=tolerance, err_msg=name)
    angles = ["refined_phi", "refined_theta", "refined_psi"]
    between = angle_between_deg(
        *(euler_to_matrix(table[angles].to_numpy()) for table in (ours, theirs))
    )
    assert between.max() < 1e-3
    # It cuts boxes at refined_pos_*, and adds what it finds to pos_*.
    references = pd.read_csv("references.csv")
    for axis in "xy":
        slip = references[f"refined_pos_{axis}"] - references[f"pos_{axis}"]
        expected = theirs[f"refined_pos_{axis}"] + slip
        assert ours[f"refined_pos_{axis}"].tolist() == expected.tolist()
    found = pd.read_csv(PEER / "defocus_peer_above_threshold.csv").particle_index
    kept = pd.read_csv("out_above_threshold.csv").particle_index
    assert kept.tolist() == found.tolist()


# --- What can go wrong --------------------------------------------------------------


def change(old, new, times=-1):
    def spoil(folder):
        text = (folder / C).read_text()
        assert old in text
        (folder / C).write_text(text.replace(old, new, times))

    return spoil


def both(*spoils):
    def spoil(folder):
        for one in spoils:
            one(folder)

    return spoil


def rewrite(name, keep):
    def spoil(folder):
        with open(folder / name, newline="") as file:
            rows = keep(list(csv.DictReader(file)))
        pd.DataFrame(rows).to_csv(folder / name, index=False)

    return spoil


def other_maps(rows):
    return [
        row | {"correlation_average_path": f"{number}.mrc"}
        for number, row in enumerate(rows)
    ]


C, REFERENCE = "constrained.yaml", "reference_template_volume_path"
REFUSED = {
    change("df_path: references.csv", "df_path: gone.csv"): (
        f"{C}: particle_stack_reference.df_path: gone.csv — no such file in the current "
        "folder or beside the configuration"
    ),
    change("df_path: partners.csv", "df_path: gone.csv"): (
        f"{C}: particle_stack_constrained.df_path: gone.csv — no such file in the current "
        "folder or beside the configuration"
    ),
    change("particle_stack_constrained:", "particle_stack_constraned:"): (
        f"{C}: particle_stack_constraned: {{…}} — unknown key; the nearest valid one is "
        "particle_stack_constrained"
    ),
    rewrite(
        "partners.csv", lambda rows: [r | {"micrograph_path": "x.mrc"} for r in rows]
    ): (
        "partners.csv: no row is of micrograph.mrc (named on line 2 of references.csv), "
        "so that the statistic maps of the partner's match are not known there"
    ),
    rewrite("partners.csv", other_maps): (
        "partners.csv, line 3: names other maps of micrograph.mrc than a line "
        "before; a constrained search needs those of one match"
    ),
    change("size: [64, 64]", "size: [66, 66]"): (
        f"{C}: template_volume_path: partner.mrc — has side 64 px, but "
        "particle_stack_reference.original_template_size says 66; the two must be equal "
        "(and even)"
    ),
    change(
        "partners.csv\n  extracted_box_size: [72, 72]\n  original_template_size: [64, 64]",
        "partners.csv\n  extracted_box_size: [72, 72]\n  original_template_size: [60, 60]",
    ): (
        f"{C}: particle_stack_constrained.original_template_size: [60, 60] — must be the "
        "reference's, as the partner's volume lies in the reference's frame; if the "
        "partner is in its middle, set template_frame: partner"
    ),
    change("reference_template_volume_path: null", f"{REFERENCE}: gone.mrc"): (
        f"{C}: reference_template_volume_path: gone.mrc — no such file in the current "
        "folder or beside the configuration"
    ),
    both(
        change("reference_template_volume_path: null", f"{REFERENCE}: partner.mrc"),
        change("scoring: image_ctf", "scoring: template_ctf"),
    ): (
        f"{C}: reference_template_volume_path: 'partner.mrc' — needs template_frame: "
        "reference and scoring: image_ctf"
    ),
    change("psi_min: -8.0", "psi_min: 9.0"): (
        f"{C}: orientation_refinement_config.psi_min: 9.0 — must not be larger than psi_max"
    ),
    change("output_path: null", "output_path: partners.csv"): (
        f"{C}: output_path: partners.csv — is an input of the run; name another file"
    ),
}


@pytest.mark.parametrize("spoil", REFUSED, ids=lambda spoil: REFUSED[spoil][:60])
def test_refused(folder, monkeypatch, capsys, spoil):
    """With messages, before long work; docs/errors.md lists all of them."""

    def too_late(*arguments):
        raise AssertionError("the template is transformed after all checks")

    monkeypatch.setattr(inputs_module, "make_template", too_late)
    spoil(folder)
    assert main(["constrained", C]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert all(line.startswith("error: ") for line in lines)
    assert is_said(REFUSED[spoil], lines), lines
    row = f"`{REFUSED[spoil]}` | `tests/app/run/test_constrained.py::test_refused`"
    assert row in DOCUMENT


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["check", C], "configures a constrained search"),
        (["refine", C, "--report"], "--report: there is no report of a constrained search"),
        (["constrained", C, "--false-positives", "2"], "--false_positives: 2.0 — must be"),
        (["constrained", "refine.yaml"], "configures no constrained search"),
    ],
)
def test_what_is_not_of_a_constrained_search(folder, capsys, arguments, said):
    refinement = yaml.safe_load((ROOT / "configs" / "full.yaml").read_text())
    (folder / "refine.yaml").write_text(yaml.safe_dump(refinement))
    assert main(arguments) == 2
    assert said in capsys.readouterr().err


def test_a_template_in_the_other_frame_is_warned_of(folder, monkeypatch, capsys):
    def enough(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr("jaxrefine.app.run.pipeline.Checkpoint", enough)
    assert main(["constrained", C, "-q"]) == 130
    assert "warning" not in capsys.readouterr().err
    volume, step = read_volume("partner.mrc")
    shift = np.rint(VECTOR / partners.PIXEL_SIZE_ANGSTROM).astype(int)
    write_volume("partner.mrc", np.roll(volume, -shift[::-1], axis=(0, 1, 2)), step)
    assert main(["constrained", C, "-q"]) == 130
    assert "as for template_frame: partner (in its middle)" in capsys.readouterr().err


def test_a_plan_scores_nothing_at_the_reference_s_poses(folder, capsys):
    assert main(["plan", C, "--no-timing"]) == 0
    said = capsys.readouterr().out
    assert "a partner of each of 12 particles in 1 micrograph" in said
    assert "45 projections x 81 positions = 3,645 correlations" in said
    assert "references_constrained.csv" in said
