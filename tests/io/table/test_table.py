"""The particle table: reading, its errors, starting values, and the statistics."""

import numpy as np
import pandas as pd
import pytest

from jaxrefine.data import InputError
from jaxrefine.io.table import (
    decide_statistics,
    ignored_aberrations,
    read_particle_table,
    readers,
    write_table,
)
from jaxrefine.io.table.cells import Cells
from jaxrefine.io.table.csv_text import write_csv
from jaxrefine.io.table.schema import COLUMNS
from tests.reference import REFERENCE, SETS, reference_set
from tests.tables import ROW, read, save

BASIC = REFERENCE / "basic" / "match_results.csv"
REFINED = REFERENCE / "basic" / "refined.csv"


def errors(path) -> tuple[str, ...]:
    with pytest.raises(InputError) as caught:
        read_particle_table(path)
    assert all(str(path) in message for message in caught.value.errors)
    return caught.value.errors


# ------------------------------------------------------------------ reference sets


@pytest.mark.parametrize("name", SETS)
def test_reference_sets_are_complete(name, tmp_path):
    folder = reference_set(name, tmp_path)
    images = {"micrograph.mrc", "correlation_average.mrc", "correlation_variance.mrc"}
    tables = {"match_results.csv", "truth.csv"}
    own = {
        "basic": images | {"refine.yaml", "refined.csv"},
        "two_micrographs": {f"{i[:-4]}_{k}.mrc" for i in images for k in (0, 1)}
        | {"refine.yaml", "refined.csv"},
        "disabled": images
        | {f"refine_{what}_only.yaml" for what in ("defocus", "orientation")}
        | {f"refined_{what}_only.csv" for what in ("defocus", "orientation")},
        "rerefine": images | {"refine.yaml", "refined.csv", "basic_refined.csv"},
    }
    there = {path.name for path in folder.iterdir()}
    assert there == tables | {"template.mrc"} | own[name]
    for path in folder.glob("*.csv"):
        if path.name != "truth.csv":
            table = read_particle_table(path)
            assert decide_statistics(table) == "standard_deviation"
            for paths in (table.micrograph_paths, table.correlation_variance_paths):
                assert all((folder / text).is_file() for text in paths)


def test_unknown_reference_set(tmp_path):
    with pytest.raises(ValueError, match="two_micrographs"):
        reference_set("none", tmp_path)


# ------------------------------------------------------------------ reading


def test_reads_a_match_table():
    table = read_particle_table(BASIC)
    assert len(table) == 7
    assert table.path == BASIC
    assert [table.locate(row) for row in range(7)] == [f"line {n}" for n in range(2, 9)]
    assert table.raw.columns[0] == "particle_index"  # the unnamed index is gone
    assert table.raw["mip"].tolist()[0] == "17.462545"
    assert table.raw["even_zernikes"].tolist() == [""] * 7
    assert table.numbers("mip").dtype == np.float64
    assert table.numbers("mip")[0] == 17.462545
    assert table.micrograph_paths == ["micrograph.mrc"] * 7
    assert table.correlation_mean_paths == ["correlation_average.mrc"] * 7
    assert table.correlation_variance_paths == ["correlation_variance.mrc"] * 7


def test_numbers_of_absent_columns(tmp_path):
    table = read(tmp_path, {"mip": "1.5"}, {"mip": ""}, {"mip": "1_0"}, {"mip": "x"})
    np.testing.assert_array_equal(table.numbers("mip"), [1.5, np.nan, np.nan, np.nan])
    np.testing.assert_array_equal(table.numbers("refined_phi"), [np.nan] * 4)
    with pytest.raises(KeyError):
        table.numbers("refined_fi")


def test_only_what_is_read_is_required(tmp_path):
    assert sorted(column.name for column in COLUMNS if column.required) == sorted(ROW)
    assert len(read(tmp_path)) == 1


@pytest.mark.parametrize("index", ["", "Unnamed: 0", ",Unnamed: 0"])
def test_leading_index_columns_are_dropped(tmp_path, index):
    path = save(tmp_path / "plain.csv")
    header, row = path.read_text().splitlines()
    cells = "0," * (index.count(",") + 1)
    path.write_text(f"{index},{header}\n{cells}{row}\n")
    assert list(read_particle_table(path).raw.columns) == list(ROW)


def test_line_ends_mark_and_empty_lines(tmp_path):
    """A table from Excel: byte order mark, CRLF; lines are counted as the user sees."""
    path = save(tmp_path / "particles.csv", {"note": "a\nb"}, {"note": "c"})
    text = path.read_bytes().replace(b'b"\n', b'b"\n\n').replace(b"\n", b"\r\n")
    path.write_bytes(b"\xef\xbb\xbf" + text)
    table = read_particle_table(path)
    assert table.raw["note"].tolist() == ["a\r\nb", "c"]
    assert [table.locate(0), table.locate(1)] == ["line 3", "line 5"]


def test_duplicate_particle_index_is_allowed(tmp_path):
    table = read(tmp_path, {"particle_index": "3"}, {"particle_index": "3"})
    assert table.raw["particle_index"].tolist() == ["3", "3"]


# ------------------------------------------------------------------ errors


def test_missing_file(tmp_path):
    assert "no such file" in errors(tmp_path / "absent.csv")[0]


def test_folder(tmp_path):
    assert "is a folder" in errors(tmp_path)[0]


def test_path_through_a_file():
    assert "cannot be read" in errors(BASIC / "more.csv")[0]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"\n\n", "is empty"),
        (b"pos_x,\xff\xfe\n", "not UTF-8"),
        (b'pos_x\n"1\n', "line 2: is not valid CSV"),
    ],
)
def test_no_csv(tmp_path, content, words):
    path = tmp_path / "particles.csv"
    path.write_bytes(content)
    (message,) = errors(path)
    assert words in message


def test_header_only(tmp_path):
    path = save(tmp_path / "particles.csv")
    path.write_text(path.read_text().splitlines()[0] + "\n")
    (message,) = errors(path)
    assert "no particles" in message


def test_missing_columns_are_all_named(tmp_path):
    path = tmp_path / "particles.csv"
    row = {name: text for name, text in ROW.items() if name not in ("pos_x", "defocus_u")}
    write_table(pd.DataFrame([row | {"posx": "1", "colour": "red"}]), path)
    (message,) = errors(path)
    assert "missing columns: pos_x (did you mean 'posx'?), defocus_u" in message
    assert "defocus_v" not in message  # near, but a column of its own


def test_duplicate_columns(tmp_path):
    path = save(tmp_path / "particles.csv")
    header, row = path.read_text().splitlines()
    path.write_text(f"{header},phi,note,note\n{row},1,2,3\n")
    (message,) = errors(path)
    assert "duplicate columns: 'phi', 'note'" in message


def test_rows_of_another_width(tmp_path):
    path = save(tmp_path / "particles.csv", {}, {"phi": "x"}, {})
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], lines[1] + ",1", lines[2], "1,2"]))
    wide, text, narrow = errors(path)
    assert "line 2: has 19 cells; it should have 18" in wide
    assert "line 3, column phi: 'x'" in text
    assert "line 4: has 2 cells" in narrow


@pytest.mark.parametrize(
    ("column", "text", "right"),
    [
        ("phi", "many", "'many': should be a number"),
        ("phi", "", "an empty cell: should be a number"),
        ("psi", "nan", "'nan': should be a number"),
        ("pos_x", "inf", "'inf': should be a number"),
        ("pos_y", "1_000", "'1_000': should be a number"),
        ("pixel_size", "0.0", "'0.0': should be a number in 0.01 … 100 (Å)"),
        ("pixel_size", "-1", "'-1': should be a number in 0.01 … 100 (Å)"),
        ("voltage", "0", "'0': should be a number in 1 … 5000 (kV)"),
        ("voltage", "300000", "'300000': should be a number in 1 … 5000 (kV)"),
        ("defocus_u", "1e9", "'1e9': should be a number within ±1e6 (Å)"),
        ("spherical_aberration", "-0.1", "'-0.1': should be a number in 0 … 100 (mm)"),
        ("amplitude_contrast_ratio", "1.0", "'1.0': should be a number in [0, 1)"),
        ("amplitude_contrast_ratio", "-0.1", "'-0.1': should be a number in [0, 1)"),
        ("micrograph_path", " ", "an empty cell: should be a path"),
        ("correlation_average_path", "", "an empty cell: should be a path"),
        ("even_zernikes", '{"Z40": 0.1}', "of Z44c, Z44s, Z60, or empty"),
        ("even_zernikes", '{"rlnEvenZernike": [1, 0]}', "of Z44c, Z44s, Z60, or empty"),
        ("odd_zernikes", "broken", "of Z31c, Z31s, Z33c, Z33s, or empty"),
        ("odd_zernikes", '{"Z31c": NaN}', "of Z31c, Z31s, Z33c, Z33s, or empty"),
        ("odd_zernikes", "[1.0, 2.0]", "of Z31c, Z31s, Z33c, Z33s, or empty"),
        ("mag_matrix", "[1.0, 1.0]", "four numbers as [1.0, 0.0, 0.0, 1.0]"),
        ("mag_matrix", "[[1.0], [0.0, 1.0]]", "four numbers as [1.0, 0.0, 0.0, 1.0]"),
        ("mag_matrix", "[1.0, 0.0, 0.0, 0.0]", "four numbers as [1.0, 0.0, 0.0, 1.0]"),
        ("beam_tilt_x", "1000", "a number within ±50 (mrad), or empty"),
        ("beam_tilt_y", "steep", "a number within ±50 (mrad), or empty"),
    ],
)
def test_invalid_cell(tmp_path, column, text, right):
    path = save(tmp_path / "particles.csv", {column: ROW.get(column, "")}, {column: text})
    (message,) = errors(path)
    assert f"line 3, column {column}: " in message
    assert right in message


@pytest.mark.parametrize("column", ["spherical_aberration", "amplitude_contrast_ratio"])
def test_zero_is_allowed(tmp_path, column):
    read(tmp_path, {column: "0"})


@pytest.mark.parametrize("text", ["", " ", "{}", "[]", "null", "None", "NaN"])
@pytest.mark.parametrize("column", ["even_zernikes", "odd_zernikes", "mag_matrix"])
def test_empty_aberrations(tmp_path, column, text):
    read(tmp_path, {column: text})


def test_neutral_aberrations(tmp_path):
    zero = '{"Z31c": 0.0, "Z33s": 0}'
    read(
        tmp_path,
        {"odd_zernikes": zero, "even_zernikes": "{}", "mag_matrix": "[1.0, 0.0, 0.0, 1.0]"},
        {"odd_zernikes": "", "even_zernikes": zero, "mag_matrix": "[[1, 0], [0, 1]]"},
    )


def test_aberrations_become_optics(tmp_path):
    """In the order of `Optics`; rows without any have none."""
    odd = '{"Z33s": 4.0, "Z31c": 1.0}'
    matrix = "[1.01, 0.002, -0.003, 0.99]"
    columns = ("beam_tilt_x", "beam_tilt_y", "odd_zernikes", "mag_matrix")
    empty = dict.fromkeys(columns, "")
    table = read(
        tmp_path,
        dict(zip(columns, ("0.5", "-0.25", "", matrix), strict=True)),
        dict(zip(columns, ("0.5", "-0.25", odd, ""), strict=True)),
        empty,
    )
    optics = table.start().optics
    assert optics.even_zernikes is None
    # The Zernike term of x replaces the tilt along x, as in torch-ctf.
    assert optics.beam_tilt_mrad.tolist() == [[0.5, -0.25], [0.0, -0.25], [0.0, 0.0]]
    assert optics.odd_zernikes.tolist() == [[0] * 4, [1, 0, 0, 4], [0] * 4]
    identity = [[1, 0], [0, 1]]
    assert optics.mag_matrix.tolist() == [[[1.01, 0.002], [-0.003, 0.99]], *[identity] * 2]


def test_without_any_effect_there_are_no_aberrations(tmp_path):
    zero = {"odd_zernikes": '{"Z31c": 0.0}', "mag_matrix": "[1, 0, 0, 1]"}
    optics = read(tmp_path, zero | {"beam_tilt_x": "0"}).start().optics
    assert optics.odd_zernikes is optics.mag_matrix is optics.beam_tilt_mrad is None


def test_ignored_aberrations(tmp_path):
    path = save(tmp_path / "particles.csv", {"beam_tilt_x": "0.5", "odd_zernikes": "any"})
    table = read_particle_table(path, ignore_aberrations=True)
    assert table.start().optics.beam_tilt_mrad is None
    assert ignored_aberrations(table) == {"beam_tilt_x": 1, "odd_zernikes": 1}


def test_all_errors_in_one_error(tmp_path):
    path = tmp_path / "particles.csv"
    row = {name: text for name, text in ROW.items() if name != "psi"}
    rows = [row | {"phi": "x", "voltage": "0"}, row, row | {"theta": "y" * 100}]
    write_table(pd.DataFrame(rows), path)
    found = errors(path)
    assert len(found) == 4
    assert "missing columns: psi" in found[0]
    places = [("line 2", "phi"), ("line 2", "voltage"), ("line 4", "theta")]
    for message, (line, column) in zip(found[1:], places, strict=True):
        assert f"{line}, column {column}" in message
        assert len(message) < len(str(path)) + 120  # a long cell is cut


def test_number_of_row_errors_is_capped(tmp_path):
    """Each column has its share, so that none hides another."""
    rows = [*[{"phi": "x"}] * 13, *[{"psi": "y"}] * 12, {"voltage": "0"}]
    path = save(tmp_path / "particles.csv", *rows)
    found = errors(path)
    assert [message.count("column phi: 'x'") for message in found] == [1] * 6 + [0] * 9
    assert [message.count("column psi: 'y'") for message in found] == [0] * 6 + [1] * 6 + [
        0
    ] * 3
    assert "line 27, column voltage: '0'" in found[12]
    assert found[13].endswith("column phi: … and 7 more lines")
    assert found[14].endswith("column psi: … and 6 more lines")


# ------------------------------------------------------------------ starting values


def test_start_from_unrefined(tmp_path):
    start = read(tmp_path, {}, {"defocus_u": "6000"}).start()
    np.testing.assert_array_equal(start.euler_deg, [[10, 20, 30]] * 2)
    np.testing.assert_array_equal(start.position_px, [[10, 20]] * 2)
    np.testing.assert_array_equal(start.defocus_angstrom, [[5300, 5050], [6100, 5050]])
    np.testing.assert_array_equal(start.relative_defocus_angstrom, [100, 100])
    np.testing.assert_array_equal(start.astigmatism_deg, [25, 25])
    np.testing.assert_array_equal(start.pixel_size_angstrom, [1.5, 1.5])
    np.testing.assert_array_equal(start.nominal_pixel_size_angstrom, [1.5, 1.5])
    np.testing.assert_array_equal(start.optics.voltage_kv, [300, 300])
    np.testing.assert_array_equal(start.optics.spherical_aberration_mm, [2.7, 2.7])
    np.testing.assert_array_equal(start.optics.amplitude_contrast, [0.07, 0.07])
    np.testing.assert_array_equal(start.optics.phase_shift_deg, [0, 0])
    np.testing.assert_array_equal(start.optics.b_factor_angstrom2, [60, 60])
    assert not start.from_refined.any()
    assert start.n_rounded_positions == 0
    for array in vars(start).values():
        assert not isinstance(array, np.ndarray) or len(array) == 2


def test_start_from_refined_per_particle_and_quantity(tmp_path):
    refined = {
        "refined_phi": "11",
        "refined_theta": "21",
        "refined_psi": "31",
        "refined_pos_x": "22",
        "refined_pos_y": "12",
        "refined_relative_defocus": "140",
        "refined_pixel_size": "1.49",
    }
    table = read(
        tmp_path,
        refined,
        refined | {"refined_psi": ""},
        refined | {"refined_pos_x": "nan"},
        refined | {"refined_relative_defocus": "inf", "refined_pixel_size": "0"},
        dict.fromkeys(refined, "failed"),
    )
    start = table.start()
    np.testing.assert_array_equal(start.euler_deg[:, 0], [11, 10, 11, 11, 10])
    np.testing.assert_array_equal(start.euler_deg[1], [10, 20, 30])
    np.testing.assert_array_equal(start.position_px[:, 0], [12, 12, 10, 12, 10])
    np.testing.assert_array_equal(start.position_px[2], [10, 20])
    relative = start.relative_defocus_angstrom
    np.testing.assert_array_equal(relative, [140, 140, 140, 100, 100])
    np.testing.assert_array_equal(start.defocus_angstrom[:, 0], 5200 + relative)
    np.testing.assert_array_equal(start.pixel_size_angstrom, [1.49, 1.49, 1.49, 1.5, 1.5])
    np.testing.assert_array_equal(start.nominal_pixel_size_angstrom, [1.5] * 5)
    np.testing.assert_array_equal(start.from_refined, [True, True, True, True, False])


def test_refined_pixel_size_of_a_match_table_is_no_refinement():
    start = read_particle_table(BASIC).start()
    assert not start.from_refined.any()
    assert read_particle_table(REFINED).start().from_refined.all()


def test_positions_are_rounded_and_counted(tmp_path):
    rows = [{"pos_x": x, "pos_y": y} for x, y in [("1.0", "2"), ("1.2", "2"), ("1", "2.6")]]
    start = read(tmp_path, *rows, {"pos_x": "-3.7"}).start()
    np.testing.assert_array_equal(start.position_px, [[2, 1], [2, 1], [3, 1], [10, -4]])
    assert start.n_rounded_positions == 3


# ------------------------------------------------------------------ statistics


def statistics(mip: float, mean: float, v: float, z: float) -> dict[str, str]:
    return {
        "mip": str(np.float32(mip)),
        "scaled_mip": str(np.float32(z)),
        "correlation_mean": str(np.float32(mean)),
        "correlation_variance": str(np.float32(v)),
    }


@pytest.mark.parametrize(
    ("power", "kind"), [(1.0, "standard_deviation"), (0.5, "variance")]
)
def test_statistics_are_told_apart(tmp_path, power, kind):
    rng = np.random.default_rng(1)
    rows = [
        statistics(mip, mean, v, (mip - mean) / v**power)
        for mip, mean, v in rng.uniform([8, -1, 0.5], [20, 1, 2], (9, 3))
    ]
    odd = [statistics(10, 0, v, z) for v, z in ((0, 9), (-1, 9), (np.nan, 9), (2, 0))]
    wrong = [statistics(10, 0, 2, 1.0)] * 3  # fits neither; the others outvote it
    assert decide_statistics(read(tmp_path, *wrong, *rows, *odd)) == kind


def test_statistics_of_a_variance_of_one(tmp_path):
    assert decide_statistics(read(tmp_path, statistics(9, 1, 1, 8))) == "standard_deviation"
    rows = [statistics(9, 1, 1, 8)] * 5 + [statistics(9, 1, 4, 4)]
    assert decide_statistics(read(tmp_path, *rows)) == "variance"


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([{}], "without the columns mip, scaled_mip, correlation_mean, correlation_var"),
        ([statistics(9, 1, 0, 8)], "no row has finite statistics"),
        (
            [statistics(9, 1, 4, 4), *[statistics(9, 1, 4, 3)] * 2],
            "neither agrees with the z-scores. On line 3 the correlation 9, mean 1 and "
            "variance 4 give a z-score of 2 (read as a standard deviation) or 4 (as a "
            "variance); "
            "the table says 3",
        ),
        (
            [*[statistics(9, 1, 4, 2)] * 5, statistics(9, 1, 4, 4)],
            "some rows agree with one, some with the other. On line 7",
        ),
    ],
)
def test_statistics_that_cannot_be_told(tmp_path, rows, words):
    table = read(tmp_path, *rows)
    with pytest.raises(InputError) as caught:
        decide_statistics(table)
    (message,) = caught.value.errors
    assert str(table.path) in message
    assert words in message
    assert "`statistics: variance` or `statistics: standard_deviation`" in message


# ------------------------------------------------------------------ other formats


def test_a_format_without_lines(tmp_path, monkeypatch):
    """A further kind of file is a reader; messages count what it counts."""
    rows = [ROW, ROW | {"phi": "north"}]

    def read_toy(path):
        cells = [list(row.values()) for row in rows]
        return Cells(list(ROW), cells, [0, 1], odd_rows=[], n_dropped=0, row_word="row")

    monkeypatch.setitem(readers._FORMATS, ".toy", readers.TableFormat(read_toy, write_csv))
    with pytest.raises(InputError, match=r"particles\.TOY, row 1, column phi: 'north'"):
        read_particle_table(tmp_path / "particles.TOY")
    rows.pop()
    assert read_particle_table(tmp_path / "particles.TOY").locate(0) == "row 0"


def test_blank_and_comment_lines(tmp_path):
    text = BASIC.read_text()
    head, *rows = text.splitlines()
    odd = ["# made by me, today", head, "", *rows, "  ", "," * head.count(","), "# end"]
    (tmp_path / "odd.csv").write_text("\n".join(odd))
    table = read_particle_table(tmp_path / "odd.csv")
    assert table.raw.equals(read_particle_table(BASIC).raw)
    assert table.locate(0) == "line 4"
