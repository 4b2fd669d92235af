"""The refined table: its columns, digits and order, and how it is written."""

import os
from dataclasses import fields
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jaxrefine.data import STATUS_MEANING, InputError, Optics, Refined
from jaxrefine.io.table import (
    read_particle_table,
    write_table,
)
from jaxrefine.io.table.aberrations import MATRIX, ZERNIKES
from jaxrefine.io.table.refined import RefinedColumns, refined_table
from jaxrefine.io.table.schema import COLUMNS, COMPARED, OPTICS_FIELDS, REFINED_FIELDS
from tests.reference import REFERENCE, ROOT
from tests.tables import ROW, read

BASIC = REFERENCE / "basic" / "match_results.csv"
REFINED = REFERENCE / "basic" / "refined.csv"
DOCUMENT = ROOT / "docs" / "data_formats.md"
ANGLES = ("refined_phi", "refined_theta", "refined_psi")


def results(n: int, **changes: Any) -> RefinedColumns:
    """Results of n particles; `changes` by the names of the columns, less "refined_"."""
    found = RefinedColumns.empty(n, 64, polished=False)
    plain = {
        "mip": 17.922709,
        "scaled_mip": 14.527165,
        "pos_y": 111.0,
        "pos_x": 200.0,
        "phi": 32.00239,
        "theta": 75.891655,
        "psi": 77.65074,
        "relative_defocus": 60.0,
        "pixel_size": 1.5,
        "snr": 16.1,
        "status": "converged",
    }
    for name, values in (plain | changes).items():
        found.store(slice(None), {f"refined_{name}": values})
    return found


def angles(euler: Any) -> dict[str, Any]:
    return dict(zip(("phi", "theta", "psi"), np.asarray(euler).T, strict=True))


def test_refined_table_as_leopard_em_writes_it():
    """The same results give the same cells, in the same order, but for the digits."""
    expected = read_particle_table(REFINED)
    numbers = expected.numbers
    frame = refined_table(
        read_particle_table(BASIC),
        results(
            7,
            mip=numbers("refined_mip"),
            scaled_mip=numbers("refined_scaled_mip"),
            pos_x=numbers("refined_pos_x"),
            pos_y=numbers("refined_pos_y"),
            **angles(np.stack([numbers(name) for name in ANGLES], -1)),
            relative_defocus=numbers("refined_relative_defocus"),
            pixel_size=numbers("refined_pixel_size"),
        ),
    )
    ours = ["refined_snr", "refined_status", "refined_at_edge"]
    assert list(frame.columns) == [*expected.raw.columns, *ours]
    for name in expected.raw.columns:
        if name in ANGLES:
            rounded = [repr(round(x, 4)) for x in numbers(name).tolist()]
            assert frame[name].tolist() == rounded
        else:
            assert frame[name].tolist() == expected.raw[name].tolist(), name


def test_order_of_columns(tmp_path):
    """Known, unknown, ours; what was there is overwritten in its place."""
    extra = {"zebra": "z", "refined_status": "old", "mip": "1", "refined_snr": "2"}
    table = read(tmp_path, extra | {"refined_mip": "3", "particle_index": "7", "ant": "a"})
    frame = refined_table(table, results(1))
    order = [column.name for column in COLUMNS if column.name in frame.columns]
    assert list(frame.columns) == [*order[:-3], "zebra", "ant", *order[-3:]]
    assert order[-3:] == ["refined_snr", "refined_status", "refined_at_edge"]
    assert "total_correlations" not in frame.columns
    assert frame["refined_status"].tolist() == ["converged"]
    assert frame["refined_mip"].tolist() == ["17.922709"]
    assert table.raw["refined_mip"].tolist() == ["3"]  # the input is left alone


def test_cells_of_failed_particles_are_empty(tmp_path):
    table = read(tmp_path, {}, {})
    nan = np.array([np.nan, 1.0])
    failed = results(
        2,
        mip=nan,
        scaled_mip=nan,
        pos_x=nan,
        pos_y=nan,
        **angles(np.stack([nan] * 3, -1)),
        relative_defocus=nan,
        pixel_size=nan,
        snr=nan,
        status=["not_finite", "converged"],
    )
    frame = refined_table(table, failed)
    written = [name for name in frame if str(name).startswith("refined_")]
    assert len(written) == 16
    assert set(frame.loc[0, written]) == {"", "not_finite"}
    write_table(frame, table.path)
    start = read_particle_table(table.path).start()
    np.testing.assert_array_equal(start.from_refined, [False, True])
    np.testing.assert_array_equal(start.position_px, [[10, 20], [1, 1]])


def test_infinite_results_are_not_written(tmp_path):
    frame = refined_table(read(tmp_path), results(1, scaled_mip=np.array([-np.inf])))
    assert frame["refined_scaled_mip"].tolist() == [""]


@pytest.mark.parametrize(
    ("euler", "texts"),
    [
        ((370.0, 20.0, -10.0), ["10.0", "20.0", "350.0"]),
        ((10.0, -20.0, 30.0), ["190.0", "20.0", "210.0"]),
        ((10.0, 200.0, 350.0), ["190.0", "160.0", "170.0"]),
        ((10.0, 180.0, 30.0), ["10.0", "180.0", "30.0"]),
        ((10.0, 180.00001, 30.0), ["190.0", "180.0", "210.0"]),
        ((359.99999, -0.0, -1e-9), ["0.0", "0.0", "0.0"]),
        ((1 / 3, 2 / 3, 100 / 3), ["0.3333", "0.6667", "33.3333"]),
    ],
)
def test_angles(tmp_path, euler, texts):
    frame = refined_table(read(tmp_path), results(1, **angles([euler])))
    assert [frame[name].tolist()[0] for name in ANGLES] == texts


def rotation(phi: float, theta: float, psi: float) -> np.ndarray:
    """Intrinsic ZYZ, in float64."""

    def about(axis: str, degrees: float) -> np.ndarray:
        c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
        if axis == "z":
            return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
        return np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])

    return about("z", phi) @ about("y", theta) @ about("z", psi)


@settings(
    max_examples=50,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(euler=st.tuples(*[st.floats(-1000, 1000)] * 3))
def test_angles_stay_the_same_rotation(euler, tmp_path):
    frame = refined_table(read(tmp_path), results(1, **angles([euler])))
    phi, theta, psi = (float(frame[name].tolist()[0]) for name in ANGLES)
    assert 0 <= phi < 360 and 0 <= theta <= 180 and 0 <= psi < 360
    np.testing.assert_allclose(rotation(phi, theta, psi), rotation(*euler), atol=1e-5)


def test_nothing_stays_of_an_earlier_polish_but_where_this_one_began(tmp_path):
    """Its shift and standard errors would be taken for those of the new values."""
    earlier = {
        "refined_shift_x": "0.4",
        "refined_pos_x_sigma": "0.1",
        "refined_polish": "converged",
        "grid_phi": "1.0",
    }
    imaging = {"refined_defocus_u": "5000.0", "refined_astigmatism_angle": "20.0"}
    frame = refined_table(read(tmp_path, earlier | imaging), results(1))
    assert not set(earlier) & set(frame.columns)
    assert set(imaging) <= set(frame.columns)


def test_digits(tmp_path):
    """No noise of float32 arithmetic is written."""
    table = read(tmp_path, {"pixel_size": "1.0638"})
    frame = refined_table(
        table,
        results(
            1,
            mip=np.array([12.1], np.float32).astype(np.float64),
            pos_y=-3.0,
            pos_x=200.0,
            relative_defocus=np.array([5260.0005], np.float32) - 5200.0,
            pixel_size=np.array([1.0638], np.float32) + np.float32(0.001),
            snr=np.array([1e-7]),
        ),
    )
    row = frame.iloc[0]
    assert row["refined_mip"] == "12.1"
    assert row["refined_pos_y"] == "-3"
    assert row["refined_pos_y_img"] == "29"
    assert row["refined_pos_x_img"] == "232"
    assert row["refined_pos_x_img_angstrom"] == "246.8016"
    assert row["refined_relative_defocus"] == "60.0"
    assert row["refined_pixel_size"] == "1.0648"
    assert row["refined_snr"] == "1e-07"
    zero = refined_table(table, results(1, relative_defocus=-0.0001))
    assert zero["refined_relative_defocus"].tolist() == ["0.0"]


# ------------------------------------------------------------------ writing


def test_written_table_reads_as_it_was(tmp_path):
    table = read_particle_table(REFINED)
    write_table(table.raw, tmp_path / "copy.csv")
    assert read_particle_table(tmp_path / "copy.csv").raw.equals(table.raw)
    original = REFINED.read_text().splitlines()
    copy = (tmp_path / "copy.csv").read_text().splitlines()
    assert copy == [line.partition(",")[2] for line in original]  # less the index


def test_pandas_reads_it_without_an_index(tmp_path):
    write_table(refined_table(read(tmp_path), results(1)), tmp_path / "out.csv")
    frame = pd.read_csv(tmp_path / "out.csv")
    assert frame.columns[0] == "refined_mip"
    assert frame["refined_pos_x"].dtype == np.int64


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
any_angle = st.floats(-1e6, 1e6).map(repr)


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    rows=st.lists(st.fixed_dictionaries({"note": texts, "phi": any_angle}), min_size=1),
    name=texts.filter(lambda text: text not in ROW and text != "note"),
)
def test_round_trip(rows, name, tmp_path):
    rows = [ROW | row | {name: row["note"][::-1]} for row in rows]
    frame = pd.DataFrame(rows, dtype=object)
    path = tmp_path / "particles.csv"
    write_table(frame, path)
    table = read_particle_table(path)
    assert list(table.raw.columns) == list(frame.columns)
    assert table.raw.to_numpy().tolist() == frame.to_numpy().tolist()
    np.testing.assert_array_equal(table.numbers("phi"), [float(row["phi"]) for row in rows])


@pytest.mark.parametrize("text", ["a\rb", "a\nb", "\r\n", '"', ",", "\0", "µ", "\ufeff"])
def test_unusual_text_comes_back(tmp_path, text):
    frame = pd.DataFrame([ROW | {"note": text, f"{text}#": "x"}])
    write_table(frame, tmp_path / "a.csv")
    table = read_particle_table(tmp_path / "a.csv")
    assert table.raw.iloc[0].to_dict() == frame.iloc[0].to_dict()


def test_missing_values_are_empty_cells(tmp_path):
    write_table(pd.DataFrame({"a": [1.5, np.nan], "b": ["x", None]}), tmp_path / "a.csv")
    assert (tmp_path / "a.csv").read_text() == "a,b\n1.5,x\n,\n"


def test_folder_that_is_missing(tmp_path):
    with pytest.raises(InputError, match=r"no folder .*absent"):
        write_table(pd.DataFrame({"a": [1]}), tmp_path / "absent" / "a.csv")


def test_name_of_a_folder(tmp_path):
    (tmp_path / "a.csv").mkdir()
    with pytest.raises(InputError, match=r"is a folder"):
        write_table(pd.DataFrame({"a": [1]}), tmp_path / "a.csv")
    assert os.listdir(tmp_path) == ["a.csv"]


def test_folder_that_cannot_be_written(tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:  # the superuser may write anywhere
        patch.setattr("builtins.open", refuse)
        with pytest.raises(InputError, match="Permission denied"):
            write_table(pd.DataFrame({"a": [1]}), tmp_path / "a.csv")


@pytest.mark.parametrize("error", [OSError(28, "No space left"), KeyboardInterrupt()])
def test_interrupted_writing_leaves_the_older_file(tmp_path, monkeypatch, error):
    path = tmp_path / "a.csv"
    path.write_text("older")

    def interrupt(*args):
        raise error

    monkeypatch.setattr(os, "fsync", interrupt)
    expected = InputError if isinstance(error, OSError) else KeyboardInterrupt
    with pytest.raises(expected):
        write_table(pd.DataFrame({"a": [1]}), path)
    assert path.read_text() == "older"
    assert os.listdir(tmp_path) == ["a.csv"]


# ------------------------------------------------------------------ the schema


def test_the_schema_knows_the_fields_of_optics_and_refined():
    """What reads and writes goes by these names alone."""
    aberrations = {"beam_tilt_mrad", *ZERNIKES, MATRIX}  # of several columns, or of JSON
    assert set(OPTICS_FIELDS) | aberrations == {field.name for field in fields(Optics)}
    assert set(REFINED_FIELDS) <= {field.name for field in fields(Refined)}
    assert all(column.written for column in REFINED_FIELDS.values())


def test_a_column_is_written_where_its_use_says_so():
    for column in COLUMNS:
        assert bool(column.written) == (
            column.use in ("start", "output", "polished", "envelope", "marked", "partner")
        )


# ------------------------------------------------------------------ the document


def test_every_column_is_documented():
    document = DOCUMENT.read_text(encoding="utf-8")
    for column in (*COLUMNS, *COMPARED):
        cells = (f"`{column.name}`", column.unit, column.kind, column.use, column.meaning)
        assert f"| {' | '.join(cells)} |" in document, column.name


def test_every_status_is_documented():
    document = DOCUMENT.read_text(encoding="utf-8")
    for status, meaning in STATUS_MEANING.items():
        assert f"| `{status.name.lower()}` | {meaning} |" in document
