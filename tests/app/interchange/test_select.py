"""Selection of particles: conditions, presets, counts, and unchanged cells."""

import csv

import pytest

from jaxrefine.app.cli import main
from jaxrefine.app.interchange.expression import rows_that_fulfil
from jaxrefine.app.interchange.select import Criteria, select
from jaxrefine.data import InputError
from jaxrefine.io.table import read_particle_table
from tests.tables import ROW, read, save

REFINED = {
    "particle_index": "4",
    "refined_pos_x": "21",
    "refined_pos_y": "10",
    "refined_scaled_mip": "9.5",
    "refined_status": "converged",
    "refined_at_edge": "",
    "refined_false_positives": "0.001",
    "mine": "1.50",
}


@pytest.fixture
def table(tmp_path):
    """Five particles: good, at the edge, moved, duplicate, and not refined."""
    return read(
        tmp_path,
        REFINED,
        REFINED
        | {
            "particle_index": "5",
            "pos_x": "500",
            "refined_pos_x": "501",
            "refined_status": "edge_of_grid",
            "refined_at_edge": "defocus",
            "mine": "+2,5e0",
        },
        REFINED | {"particle_index": "6", "pos_x": "900", "refined_pos_x": "910"},
        REFINED
        | {
            "particle_index": "7",
            "refined_scaled_mip": "7.0",
            "refined_false_positives": "0.2",
        },
        REFINED
        | {
            "particle_index": "8",
            "pos_x": "1500",
            **{name: "" for name in REFINED if name.startswith("refined_")},
            "refined_status": "not_finite",
        },
    )


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ("refined_scaled_mip > 8 and refined_status == 'converged'", "10100"),
        ("7 <= refined_scaled_mip < 9.5", "00010"),
        ("refined_status in ('converged', 'edge_of_grid')", "11110"),
        ("refined_status not in ['converged']", "01001"),
        ("empty(refined_scaled_mip) or refined_at_edge == 'defocus'", "01001"),
        ("abs(refined_pos_x - pos_x) * pixel_size > 5", "00100"),
        ("not (refined_scaled_mip > 8)", "00011"),
        ("refined_scaled_mip != 7", "11100"),  # no comparison with an empty cell holds
        ("refined_scaled_mip / 0 > 1 or pos_x == -900 * -1", "00100"),
        ("mine == '1.50' ", "10111"),  # a column of one's own that is not of numbers alone
    ],
)
def test_conditions(table, condition, expected):
    held = rows_that_fulfil(table, condition)
    assert "".join("01"[int(h)] for h in held) == expected


@pytest.mark.parametrize(
    ("condition", "said"),
    [
        ("refined_status.upper() == 'A'", "not allowed"),
        ("__import__('os').system('touch x') == 0", "not allowed"),
        ("().__class__.__bases__ == pos_x", "not allowed"),
        ("[x for x in (1, 2)] == pos_x", "not allowed"),
        ("open('x') == pos_x", "not allowed"),
        ("@pd.compat.os == pos_x", "cannot be read"),
        ("f'{pos_x}' == 'a'", "not allowed"),
        ("pos_x ** 9 > 1", "not allowed"),
        ("'a' * 1000000000 == refined_status", "is not a number"),
        ("'a' in refined_status", "wants a list"),
        ("abs(pos_x, 2) > 1", "not allowed"),
        ("pos_x = 3", "equality is written =="),
        ("pos_x > 3; pos_y > 3", "cannot be read"),
        ("refined_scaled > 3", "is refined_scaled_mip meant?"),
        ("refined_status == converged", "text is written in quotes"),
        ("refined_status > 3", "a number and text cannot be compared"),
        ("refined_scaled_mip", "is a value"),
        ("pos_x > 3 and pos_y", "is a value"),
        ("not pos_x", "not a condition"),
        ("1 < 2", "names no column"),
        ("", "cannot be read"),
        ("not " * 2000 + "pos_x == 1", "too deeply"),
        ("pos_x > 1 or " * 2000 + "pos_x == 1", "longer than"),
    ],
)
def test_what_is_no_condition_is_refused(table, condition, said):
    with pytest.raises(InputError, match=said.replace("?", r"\?")):
        rows_that_fulfil(table, condition)


def kept(path):
    return read_particle_table(path).raw["particle_index"].tolist()


@pytest.mark.parametrize(
    ("options", "expected", "said"),
    [
        (["--drop-at-edge"], "4678", "--drop-at-edge: removed 1"),
        (["--drop-moved"], "4578", "--drop-moved 5: removed 1"),
        (["--drop-moved", "20"], "45678", "--drop-moved 20: removed 0"),
        # Index 7 is the worse of two in one place; 4 and 5 are 720 Å apart, 4 and 6 1333.
        (["--drop-duplicates", "30A"], "4568", "--drop-duplicates 30: removed 1"),
        (["--drop-duplicates", "1000Å"], "46", "--drop-duplicates 1000: removed 3"),
        (["--false-positives", "0.01"], "456", "--false-positives 0.01: removed 2"),
        (
            ["--where", "pos_x < 1000", "--where", "pos_x > 100", "--drop-at-edge"],
            "6",
            "--where 'pos_x > 100': removed 2",
        ),
    ],
)
def test_presets(table, capsys, options, expected, said):
    output = table.path.with_name("kept.csv")
    assert main(["select", str(table.path), *options, "--output", str(output)]) == 0
    assert "".join(kept(output)) == expected
    printed = capsys.readouterr().out
    assert said in printed
    assert f"written: {output}: {len(expected)} of 5 particles" in printed


def test_cells_are_kept_to_the_byte(table):
    output = table.path.with_name("kept.csv")
    select(table.path, output, Criteria(where=("pos_x > 100",)))
    with open(table.path) as before, open(output) as after:
        rows, left = list(csv.reader(before)), list(csv.reader(after))
    assert left == [rows[0], rows[2], rows[3], rows[5]]
    assert left[1][rows[0].index("mine")] == "+2,5e0"


@pytest.mark.parametrize("header", ["particle_index", "row"])
def test_the_particles_of_a_list(table, header):
    listed, output = table.path.with_name("list.csv"), table.path.with_name("kept.csv")
    numbers = {"particle_index": ("8", "5"), "row": ("4", "1")}[header]
    listed.write_text("\n".join([header, *numbers, ""]))
    select(table.path, output, Criteria(indices=listed))
    assert kept(output) == ["5", "8"]  # in the table's order

    listed.write_text(f"{header}\n99\n")
    with pytest.raises(InputError, match=r"1 particles are not in .*such as"):
        select(table.path, output, Criteria(indices=listed), overwrite=True)


def test_a_list_that_names_no_particles_is_refused(table):
    listed, output = table.path.with_name("list.csv"), table.path.with_name("kept.csv")
    listed.write_text("number\n8\n")
    with pytest.raises(
        InputError, match=r"list.csv: has no column particle_index \(or row"
    ):
        select(table.path, output, Criteria(indices=listed))
    listed.write_text("particle_index\n8\n")
    bare = table.path.with_name("bare.csv")
    header, rest = table.path.read_text().split("\n", 1)
    bare.write_text(f"{header.replace('particle_index', 'number')}\n{rest}")
    with pytest.raises(InputError, match=r"bare.csv has no column particle_index; name a"):
        select(bare, output, Criteria(indices=listed))
    assert not output.exists()


def test_hdf5_in_and_out(table, tmp_path):
    stack, back = tmp_path / "kept.h5", tmp_path / "back.csv"
    select(table.path, stack, Criteria(drop_at_edge=True))
    assert kept(stack) == ["4", "6", "7", "8"]
    select(stack, back, Criteria(where=("refined_scaled_mip > 8",)))
    assert kept(back) == ["4", "6"]


def test_all_that_is_wrong_is_said_at_once(tmp_path):
    path = save(tmp_path / "plain.csv", ROW)
    criteria = Criteria(
        where=("nothing > 3",),
        drop_at_edge=True,
        drop_moved_angstrom=5.0,
        false_positives=1.0,
    )
    with pytest.raises(InputError) as refused:
        select(path, tmp_path / "kept.csv", criteria)
    assert len(refused.value.errors) == 4
    with pytest.raises(InputError, match="nothing to select by"):
        select(path, tmp_path / "kept.csv", Criteria())
    with pytest.raises(InputError, match=r"no particle is left of 1: --where .* removes 1"):
        select(path, tmp_path / "kept.csv", Criteria(where=("pos_x < 0",)))
    with pytest.raises(InputError, match="is an input"):
        select(path, path, Criteria(where=("pos_x > 0",)), overwrite=True)
    assert not (tmp_path / "kept.csv").exists()
