"""Where files are that tables and configurations name."""

import errno
import os
import sys

import pytest

from jaxrefine.data import InputError
from jaxrefine.io import atomic
from jaxrefine.io.paths import no_such_file, resolve_path, resolve_paths


def test_home_and_variables(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("DATA", str(tmp_path))
    (tmp_path / "a.mrc").touch()
    beside = tmp_path / "elsewhere"
    for text in ("~/a.mrc", "$DATA/a.mrc", "${DATA}/a.mrc"):
        assert resolve_path(text, beside=beside) == tmp_path / "a.mrc"
    monkeypatch.chdir(tmp_path)
    (tmp_path / "$DATA").mkdir()
    (tmp_path / "$DATA" / "a.mrc").touch()  # a file of that very name counts
    assert str(resolve_path("$DATA/a.mrc", beside=beside)) == "$DATA/a.mrc"


def test_a_folder_that_has_moved(tmp_path):
    (tmp_path / "new" / "r").mkdir(parents=True)
    (tmp_path / "new" / "r" / "a.mrc").touch()
    new = str(tmp_path / "new")
    for old, text in (
        ("/old/set", "/old/set/r/a.mrc"),
        ("/old/set/", "/old/set/r/a.mrc"),
        ("C:\\data", "C:\\data\\r\\a.mrc"),
        ("relative", "relative/r/a.mrc"),
    ):
        found = resolve_path(text, beside=tmp_path, path_map=((old, new),))
        assert found == tmp_path / "new" / "r" / "a.mrc"
    # Whole names of folders alone.
    found = resolve_path(
        "/old/settled/a.mrc", beside=tmp_path, path_map=(("/old/set", new),)
    )
    assert str(found) == "/old/settled/a.mrc"


def test_a_look_beside_the_table(tmp_path):
    (tmp_path / "r1").mkdir()
    for name in ("a.mrc", "b.mrc", "r1/a.mrc"):
        (tmp_path / name).touch()
    texts = ["/x/r1/a.mrc", "/x/y/b.mrc", "/x/gone.mrc"]
    found = resolve_paths(texts, beside=tmp_path)
    assert found["/x/r1/a.mrc"] == tmp_path / "r1" / "a.mrc"
    assert found["/x/y/b.mrc"] == tmp_path / "b.mrc"
    assert str(found["/x/gone.mrc"]) == "/x/gone.mrc"


def test_one_file_is_never_taken_for_two(tmp_path):
    (tmp_path / "a.mrc").touch()
    texts = ["/x/r1/a.mrc", "/x/r2/a.mrc"]
    assert list(map(str, resolve_paths(texts, beside=tmp_path).values())) == texts
    texts = ["a.mrc", "/x/r2/a.mrc"]  # nor where it is named itself
    assert str(resolve_paths(texts, beside=tmp_path)["/x/r2/a.mrc"]) == "/x/r2/a.mrc"


def test_spaces_are_seen(tmp_path):
    (tmp_path / "a.mrc").touch()
    assert "remove the spaces" in str(no_such_file(tmp_path / "a.mrc "))
    assert (
        str(no_such_file("b.mrc\u00a0")) == "'b.mrc\\xa0': no such file; check the spaces"
    )
    assert str(no_such_file("b.mrc")) == "b.mrc: no such file"


def test_a_name_that_the_locale_lacks(tmp_path, monkeypatch):
    def ascii_only(text):
        return text.encode("ascii")

    monkeypatch.setattr(os, "fsencode", ascii_only)
    with pytest.raises(InputError, match="PYTHONUTF8=1"):
        resolve_path("größe.mrc", beside=tmp_path)


@pytest.mark.skipif(sys.platform == "win32", reason="has no such errors")
def test_a_file_system_without_sync(tmp_path, monkeypatch):
    def lacking(_):
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(atomic.os, "fsync", lacking)
    with atomic.atomic_open(tmp_path / "a", encoding="utf-8") as file:
        file.write("all")
    assert (tmp_path / "a").read_text() == "all"

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(atomic.os, "fsync", full)
    with (
        pytest.raises(InputError, match="No space"),
        atomic.atomic_open(tmp_path / "b", encoding="utf-8") as file,
    ):
        file.write("all")
