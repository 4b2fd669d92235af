"""Files of a template's envelope."""

import numpy as np
import pytest

from jaxrefine.data import InputError
from jaxrefine.io.envelope import read_envelope


def write(folder, text):
    path = folder / "fall_off.csv"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("first", ["", "frequency,factor\n", "\ufeff# from halves\n\n"])
def test_header_comments_and_empty_lines_are_left_out(tmp_path, first):
    path = write(tmp_path, first + "0, 1\n0.1,0.5\n\n# end\n0.25, 1e-3\n")
    frequency, factor = read_envelope(path)
    np.testing.assert_array_equal(frequency, [0, 0.1, 0.25])
    np.testing.assert_array_equal(factor, [1, 0.5, 1e-3])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "has 0 points"),
        ("frequency,factor\n0.1,1\n", "has 1 points"),
        ("0,0\n0.1,0\n", "every amplitude factor is 0"),
        ("0,1\n0.1\n", "line 2: 0.1 — must be two numbers"),
        ("0,1,2\n0.1,1\n", "line 1: 0,1,2 — must be two numbers"),
        ("0,1\n0.1,nan\n", "line 2: 0.1,nan — must be two numbers"),
        ("0,1\n0.1,-1\n", "below 0"),
        ("0,1\n0.1,1\n0.1,1\n", "line 3: 0.1,1 — frequencies must increase"),
        ("0,1\n" * 501, "501 lines"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, text, said):
    with pytest.raises(InputError) as error:
        read_envelope(write(tmp_path, text))
    assert said in str(error.value) and "fall_off.csv" in str(error.value)


def test_no_text(tmp_path):
    path = tmp_path / "fall_off.csv"
    path.write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(InputError, match="is no text"):
        read_envelope(path)
