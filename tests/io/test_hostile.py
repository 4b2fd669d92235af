"""Files made to do harm: nothing of them is run, and none takes time or memory at will.

What the fuzzer (benchmarks/fuzz.py) found is kept here, a case each.
"""

import bz2
import gzip
import json
import logging
import os
import stat
from pathlib import Path

import jax
import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mrcfile.dtypes import HEADER_DTYPE

from jaxrefine.app.config import Config
from jaxrefine.app.report.page import ReportOptions, write_report
from jaxrefine.app.report.table_data import load_report_data
from jaxrefine.app.run.checkpoint import Checkpoint
from jaxrefine.app.run.inputs import load_inputs
from jaxrefine.app.run.results import Results
from jaxrefine.data import InputError
from jaxrefine.io import mrc
from jaxrefine.io.star import reader
from jaxrefine.io.star import text as star_text
from jaxrefine.io.star.reader import imported_table, read_star
from jaxrefine.io.table import read_particle_table, write_table
from tests.app.config.config_data import REQUIRED
from tests.reference import REFERENCE
from tests.tables import ROW, save


def refusal(read, path) -> str:
    """The one error of a file."""
    with pytest.raises(InputError) as caught:
        read(path)
    (message,) = caught.value.errors
    assert str(path) in message
    return message


# --- YAML -------------------------------------------------------------------------


def test_merged_keys_do_not_double_without_end(tmp_path):
    """Forty lines that would be 2^40 keys."""
    path = tmp_path / "c.yaml"
    lines = ["a0: &a0 {x: 1}"]
    lines += [f"a{i}: &a{i} {{<<: [*a{i - 1}, *a{i - 1}]}}" for i in range(1, 40)]
    path.write_text("\n".join(lines))
    # At 10,000 keys; or, since PyYAML 6.0.4, which keeps one of each, as unknown ones.
    with pytest.raises(InputError):
        Config.load(path)


def test_keys_are_counted_each_time_they_are_merged(tmp_path):
    path = tmp_path / "c.yaml"
    lines = ["a: &a"] + [f"  k{i}: 1" for i in range(100)]
    lines += [f"b{i}: {{<<: *a}}" for i in range(110)]
    path.write_text("\n".join(lines))
    assert "more than 10000 keys" in refusal(Config.load, path)


def test_a_pipe_is_no_config(tmp_path):
    os.mkfifo(tmp_path / "c.yaml")
    assert "is a device or a pipe" in refusal(Config.load, tmp_path / "c.yaml")


def test_a_large_file_is_no_config(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text(yaml.safe_dump(REQUIRED) + "#" * (1 << 20))
    assert "at most 1048576; is it one?" in refusal(Config.load, path)


@pytest.mark.parametrize("tag", ["python/object/apply:os.system", "python/name:os.system"])
def test_no_object_is_made_of_yaml(tmp_path, tag):
    path = tmp_path / "c.yaml"
    path.write_text(f"a: !!{tag} [touch {tmp_path}/run]\n")
    assert "could not determine a constructor" in refusal(Config.load, path)
    assert not (tmp_path / "run").exists()


# --- MRC and CSV ------------------------------------------------------------------


@pytest.mark.parametrize("codec", [gzip, bz2])
def test_a_small_file_that_unpacks_to_much_is_refused(tmp_path, monkeypatch, codec):
    """By its header, before anything is unpacked; and by what comes after the values."""
    monkeypatch.setattr(mrc, "_UNPACKED_BYTES", 1 << 18)
    monkeypatch.setattr(mrc, "_MOST_BYTES_AFTER_DATA", 1 << 18)
    monkeypatch.setattr(mrc, "_CHUNK_BYTES", 1 << 16)
    plain, path = tmp_path / "plain.mrc", tmp_path / "bomb.mrc"
    mrc.write_image(plain, np.zeros((1024, 1024)))
    path.write_bytes(codec.compress(plain.read_bytes()))
    for read in (mrc.read_image, mrc.image_shape):
        assert "if it is right, decompress it" in refusal(read, path)
    mrc.write_image(plain, np.zeros((4, 4)))
    path.write_bytes(codec.compress(plain.read_bytes() + bytes(1 << 20)))
    assert "has more than 262144 bytes" in refusal(mrc.read_image, path)


@pytest.mark.parametrize("read", [mrc.read_image, read_particle_table, read_star])
def test_what_never_ends_is_not_read(tmp_path, read):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    for path in (pipe, Path("/dev/zero")):
        assert "is a device or a pipe" in refusal(read, path)


def reads_or_refuses(read, path):
    """Nothing but an InputError, whose errors are short and name the file."""
    try:
        return read(path)
    except InputError as error:
        for message in error.errors:
            assert str(path) in message and "\n" not in message and len(message) < 2000
        return None


ANY_FILE = settings(
    deadline=None,
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
INT32 = st.integers(-(2**31), 2**31 - 1) | st.integers(-2, 5)
FLOAT32 = st.floats(width=32)
HEADER = {
    **dict.fromkeys(
        ["nx", "ny", "nz", "mode", "mx", "my", "mz", "mapc", "mapr", "maps"], INT32
    ),
    **dict.fromkeys(["nsymbt", "ispg"], INT32),
    "machst": st.tuples(*[st.sampled_from([0x44, 0x41, 0x11, 0, 255])] * 4),
    "cella": st.tuples(FLOAT32, FLOAT32, FLOAT32),
}


@ANY_FILE
@given(st.fixed_dictionaries({}, optional=HEADER), st.sampled_from([bytes, gzip.compress]))
def test_any_header_is_read_or_refused(tmp_path, fields, pack):
    path = tmp_path / "any.mrc"
    mrc.write_image(path, np.zeros((3, 4)))
    content = path.read_bytes()
    header = np.frombuffer(content[:1024], HEADER_DTYPE).copy()
    for name, value in fields.items():
        header[name] = value
    path.write_bytes(pack(header.tobytes() + content[1024:]))
    for read in (mrc.read_image, mrc.read_volume, mrc.image_shape):
        reads_or_refuses(read, path)


@ANY_FILE
@given(
    st.binary(max_size=60)
    | st.lists(st.lists(st.text(max_size=6), max_size=5), max_size=4).map(
        lambda rows: "\n".join(map(",".join, rows)).encode(errors="replace")
    )
)
def test_any_table_is_read_or_refused(tmp_path, content):
    path = tmp_path / "any.csv"
    path.write_bytes(content)
    reads_or_refuses(read_particle_table, path)


@ANY_FILE
@given(
    st.dictionaries(
        st.sampled_from(sorted(ROW)),
        st.text(max_size=12) | st.floats().map(str) | st.integers().map(str),
        max_size=4,
    )
)
def test_any_cell_is_read_or_refused(tmp_path, cells):
    """What is accepted is fit to compute with."""
    path = save(tmp_path / "any.csv", {}, {name: cells[name] for name in cells})
    table = reads_or_refuses(read_particle_table, path)
    if table is not None:
        for values in jax.tree.leaves(vars(table.start())):
            assert np.isfinite(values).all()


# --- STAR -------------------------------------------------------------------------


OPTICS = {
    "rlnOpticsGroup": "1",
    "rlnVoltage": "300",
    "rlnSphericalAberration": "2.7",
    "rlnAmplitudeContrast": "0.07",
    "rlnImagePixelSize": "1.5",
}
RELION = {
    "rlnCoordinateX": "40",
    "rlnCoordinateY": "50",
    "rlnMicrographName": "a.mrc",
    "rlnOpticsGroup": "1",
    **dict.fromkeys(("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"), "10"),
    **dict.fromkeys(("rlnDefocusU", "rlnDefocusV", "rlnDefocusAngle"), "5000"),
    "rlnOriginXAngst": "0.25",
    "rlnOriginYAngst": "-0.25",
}
CISTEM = {
    "cisTEMXShift": "0.25",
    "cisTEMYShift": "-0.25",
    **dict.fromkeys(("cisTEMAnglePhi", "cisTEMAngleTheta", "cisTEMAnglePsi"), "10"),
    **dict.fromkeys(("cisTEMDefocus1", "cisTEMDefocus2", "cisTEMDefocusAngle"), "5000"),
    "cisTEMPixelSize": "1.5",
    "cisTEMMicroscopeVoltagekV": "300",
    "cisTEMMicroscopeCsMM": "2.7",
    "cisTEMAmplitudeContrast": "0.07",
    "cisTEMOriginalImageFilename": "'a.mrc'",
    "cisTEMOriginalXPosition": "60",
    "cisTEMOriginalYPosition": "75",
}


def block(name, *rows):
    """A block of a STAR file; the first row's keys are its columns."""
    lines = [f"data_{name}", "", "loop_", *(f"_{column} # 0" for column in rows[0])]
    return "\n".join([*lines, *(" ".join(row.values()) for row in rows), "", ""])


def relion(**changed):
    """A RELION file of one particle, with cells changed."""
    rows = [{k: changed.get(k, row[k]) for k in row} for row in (OPTICS, RELION)]
    return block("optics", rows[0]) + block("particles", rows[1])


def less(row, name):
    return {key: value for key, value in row.items() if key != name}


ODD_STAR = {
    "": "holds columns neither of RELION",
    "pos_x,pos_y\n1,2\n": "line 1, column 1: is not a valid STAR file: expected block",
    block("", RELION): "missing columns: _rlnVoltage",
    block("particles", RELION): "missing columns: _rlnVoltage",
    "data_particles\n": "holds columns neither of RELION",
    block("optics", OPTICS) + "data_particles": "holds no particles: no block has",
    relion().replace("40 50", "#40 50"): "particles: holds no rows",
    relion().replace("40 50", "40"): "Wrong number of values in loop _rln",
    relion().replace("40 50", "40 50 #"): "Wrong number of values in loop _rln",
    relion().replace(
        "data_optics", "data_optics\nword"
    ): "line 2, column 1: is not a valid",
    block("optics", less(OPTICS, "rlnVoltage")) + block("particles", RELION): "_rlnVoltage",
    relion().replace(
        "_rlnCoordinateY", "_rlnCoordinateX"
    ): "line 13: is not a valid STAR file: duplicate tag",
    relion() + block("particles", RELION): "duplicate block name: particles",
    block("optics", OPTICS, OPTICS)
    + block("particles", RELION): "duplicate optics groups: 1",
    relion(rlnOpticsGroup="one"): "_rlnOpticsGroup, row 1: 'one': should be a number",
    block("optics", OPTICS) + block("particles", RELION | {"rlnOpticsGroup": "7"}): (
        "refer to missing optics groups: 7"
    ),
    relion(rlnMicrographName='""'): "row 1: an empty cell: should be a path",
    **{
        relion(rlnCoordinateX=text): f"_rlnCoordinateX, row 1: '{text}': should be a number"
        for text in ("many", "nan", "inf", "1e400", "1_0", "True", "<NA>")
    },
    relion(rlnImagePixelSize="0"): "'0': should be a number in 0.01 … 100 (Å)",
    relion(rlnVoltage="9" * 400): f"'{'9' * 60}': should be a number in 1 … 5000 (kV)",
    relion(rlnAmplitudeContrast="0.9999999"): "should be a number in [0, 1)",
    relion(rlnCoordinateX="500001"): "row 1: lies at x, y = 500001, 50.",
    block("", CISTEM | {"cisTEMPixelSize": "0"}): "'0': should be a number in 0.01 … 100",
    block(
        "", less(CISTEM, "cisTEMAmplitudeContrast")
    ): "missing columns: _cisTEMAmplitudeC",
    block("", less(CISTEM, "cisTEMAnglePsi")): "without orientations (_cisTEMAnglePsi",
    block("", CISTEM) + block("b", CISTEM): "holds two tables of cisTEM",
    block("", CISTEM | {"cisTEMOriginalXPosition": "1e9"}): "lies at x, y = 6.66667e+08",
}


@pytest.mark.parametrize("text", ODD_STAR)
def test_odd_star_files_are_refused(tmp_path, text):
    path = tmp_path / "x.star"
    path.write_text(text)
    assert ODD_STAR[text] in refusal(read_star, path)


@pytest.mark.parametrize("content", [b"\x1f\x8b\x08", b"a\n" * 100_000 + b"\xff"])
def test_a_file_that_is_no_text_is_read_once(tmp_path, content):
    """The package starfile read 200 kB of this for minutes, anew for each line."""
    path = tmp_path / "x.star"
    path.write_bytes(content)
    assert "is not UTF-8 text" in refusal(read_star, path)
    assert "is a folder" in refusal(read_star, tmp_path)


def test_a_mended_star_file_is_read_anew(tmp_path):
    """starfile kept the lines of a file that it could not read."""
    path = tmp_path / "x.star"
    path.write_text(relion().replace("40 50", "40"))
    refusal(read_star, path)
    path.write_text(relion())
    assert read_star(path).box_centre_px.tolist() == [[40.0, 50.0]]


def test_a_large_file_is_no_star_file(tmp_path, monkeypatch):
    path = tmp_path / "x.star"
    path.write_text(relion())
    monkeypatch.setattr(star_text, "_MOST_BYTES", 100)
    assert "but a STAR file has at most 100; is it one?" in refusal(read_star, path)


@pytest.mark.parametrize("name", ["particles", "general"])
def test_columns_without_end_are_no_burden(tmp_path, name):
    """starfile's time went with the square of their number."""
    path = tmp_path / "x.star"
    wide = {f"rln{i}": "1" for i in range(30_000)}
    path.write_text(block(name, wide) + block("optics", OPTICS))
    refusal(read_star, path)


def test_blocks_of_single_values_and_others_are_no_error(tmp_path):
    path = tmp_path / "x.star"
    single = "".join(f"_{name} {value} # x\n" for name, value in OPTICS.items())
    other = "data_job\n\n_rlnJob 'a b'\n_rlnWords\n;of\nours\n;\n"
    named = block("particles", RELION | {"rlnMicrographName": "'data_1 a.mrc'"})
    path.write_text(f"\ufeff# version 30001\n{other}data_optics # x\n{single}\n{named}")
    assert read_star(path).micrograph == ["data_1 a.mrc"]


@ANY_FILE
@given(
    st.dictionaries(
        st.sampled_from(sorted({*OPTICS, *RELION, *CISTEM})),
        st.text(max_size=12)
        | st.floats().map(str)
        | st.floats(-6e5, 6e5).map(str)
        | st.sampled_from(["'", '"', "#", "data_", "loop_", "_a"]),
        min_size=1,
        max_size=3,
    ),
    st.sampled_from([2, 512, reader.MOST_TEMPLATE_PX]),
)
def test_any_star_file_is_refused_or_makes_a_sound_table(tmp_path, cells, side):
    path, made = tmp_path / "x.star", tmp_path / "made.csv"
    cistem = block("", {name: cells.get(name, CISTEM[name]) for name in CISTEM})
    for text in (relion(**cells), cistem):
        path.write_text(text)
        particles = reads_or_refuses(read_star, path)
        if particles is not None:
            maps = [("mean.mrc", "variance.mrc")] * len(particles)
            write_table(imported_table(particles, side, maps), made)
            assert len(read_particle_table(made)) == len(particles)


# --- The report -------------------------------------------------------------------

REFINED = ROW | {
    **{f"refined_{name}": ROW[name] for name in ("phi", "theta", "psi")},
    **{f"refined_{name}": ROW[name] for name in ("pos_x", "pos_y", "relative_defocus")},
    "pos_x_img": "52",
    "scaled_mip": "9",
    "refined_scaled_mip": "10",
    "refined_shift_x": "0.25",
    "refined_relative_defocus_sigma": "20",
    "particle_index": "3",
}


@pytest.mark.parametrize("name", ["scaled_mip", "refined_scaled_mip", "refined_shift_x"])
def test_numbers_that_cannot_be_drawn_are_refused(tmp_path, name):
    path = save(tmp_path / "t.csv", REFINED, REFINED | {name: "-1e300"}, {name: "1e7"})
    message = refusal(load_report_data, path)
    assert f"line 3, column {name}: '-1e300': should be empty or" in message
    assert "(and 1 more lines)" in message


def test_a_start_out_of_range_is_refused_by_the_table(tmp_path):
    huge = {"refined_phi": "-1e300"}
    path = save(tmp_path / "t.csv", REFINED, REFINED | huge, {"refined_phi": "1e7"})
    with pytest.raises(InputError) as caught:
        load_report_data(path)
    found = [message.removeprefix(f"{path}, ") for message in caught.value.errors]
    right = "should be a number within ±1e6, or empty"
    assert found == [
        f"line 3, column refined_phi: '-1e300': {right}",
        f"line 4, column refined_phi: '1e7': {right}",
    ]


@pytest.mark.slow
def test_what_says_nothing_is_left_out_of_the_report(tmp_path):
    """A negative error ended it with a traceback; an infinite rest became 1.8e308."""
    odd = {
        "refined_relative_defocus_sigma": "-5",
        "refined_shift_x": "inf",
        "refined_phi": "inf",
        "particle_index": "\x1b[31m\n" + 99 * "x",
    }
    path = save(tmp_path / "t.csv", REFINED, *(REFINED | {k: odd[k]} for k in odd))
    numbers = load_report_data(path)
    assert numbers.refined.tolist() == [True, True, True, False, True]
    assert np.isnan(numbers.sigma["defocus"]).tolist() == [False, True, *[False] * 3]
    assert np.isfinite(numbers.centre_px).all()
    assert numbers.labels[4] == r"\x1b[31m " + 31 * "x"
    assert write_report(path, tmp_path / "shown", ReportOptions()).is_file()


# --- Results of an interrupted run ------------------------------------------------


@pytest.fixture(autouse=True)
def warnings_are_seen(monkeypatch):
    """Another test's run, in the same process, has turned the logger away from caplog."""
    monkeypatch.setattr(logging.getLogger("jaxrefine"), "propagate", True)


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """The folder of a run that was interrupted after three particles."""
    output = tmp_path_factory.mktemp("hostile") / "out.csv"
    inputs = load_inputs(Config.load(REFERENCE / "basic" / "refine.yaml"), output)
    parts = Checkpoint(inputs)
    parts.begin(fresh=True)
    parts.save(0, np.arange(3), Results(inputs).columns)
    yield inputs, parts
    parts.remove()


def _no_stamp(arrays):
    made = json.loads(str(arrays["_made_from"])) | {"images": None}
    return {"_made_from": np.asarray(json.dumps(made))}


DAMAGE = {
    "text for a number": lambda a: {"refined_mip": np.array(["", "1", "x"])},
    "number for a text": lambda a: {"refined_status": np.zeros(3)},
    "rows no numbers": lambda a: {"_rows": np.array([0.0, 1.0, 2.0])},
    "rows true or false": lambda a: {"_rows": np.array([False, True])},
    "rows in a table": lambda a: {"_rows": np.arange(3)[None]},
    "one row for all": lambda a: {"_rows": np.array(1)},
    "no stamp": _no_stamp,
    "no object": lambda a: {"_made_from": np.asarray("[1]")},
    "nested without end": lambda a: {"_made_from": np.asarray("[" * 100_000)},
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_an_odd_part_counts_as_damaged(parts, caplog, damage):
    inputs, folder = parts
    path = folder.folder / "000000.npz"
    sound = path.read_bytes()
    with np.load(path) as file:
        arrays = dict(file)
    try:
        np.savez(path, **{**arrays, **DAMAGE[damage](arrays)})
        results = Results(inputs)
        assert not results.load(folder, [0])
        assert not results.done.any()
        assert "damaged" in caplog.text
    finally:
        path.write_bytes(sound)
    assert Results(inputs).load(folder, [0]) is False
    assert folder.load(Results(inputs).columns, [0]).sum() == 3


def test_a_part_is_not_unpacked(parts, caplog):
    """The program writes them uncompressed; 8 MB in 8 kB are not its own."""
    inputs, folder = parts
    path = folder.folder / "000000.npz"
    sound = path.read_bytes()
    try:
        np.savez_compressed(path, refined_mip=np.zeros(1_000_000))
        assert not folder.load(Results(inputs).columns, [0]).any()
        assert "compressed, which no part is" in caplog.text
    finally:
        path.write_bytes(sound)


def test_a_nested_description_is_damaged(parts, caplog):
    _, folder = parts
    folder.close(shared=True)
    (folder.folder / "run.json").write_text("[" * 100_000)
    folder.begin(fresh=False)
    assert "run.json: damaged" in caplog.text
