"""The command that makes a template from an atomic model."""

import gzip

import numpy as np
import pytest

import jaxrefine as jr
from jaxrefine.app.cli import main
from jaxrefine.io.mrc import read_volume

ROWS = [("C", 1.0, 2.0, 3.0, 20.0), ("N", 4.0, 2.5, 1.0, 30.0), ("O", -3.0, 0.0, 2.0, 25.0)]
WATER = ("O", 9.0, 9.0, 9.0, 50.0)


def pdb_line(number, row, residue="ALA"):
    element, x, y, z, b = row
    name = "HETATM" if residue == "HOH" else "ATOM  "
    return (
        f"{name}{number:5d}  {element:<3s} {residue} A{number:4d}    "
        f"{x:8.3f}{y:8.3f}{z:8.3f}{1:6.2f}{b:6.2f}          {element:>2s}\n"
    )


CIF = """data_x
loop_
_atom_site.group_PDB
_atom_site.id
_atom_site.type_symbol
_atom_site.label_atom_id
_atom_site.label_alt_id
_atom_site.label_comp_id
_atom_site.label_asym_id
_atom_site.label_seq_id
_atom_site.Cartn_x
_atom_site.Cartn_y
_atom_site.Cartn_z
_atom_site.occupancy
_atom_site.B_iso_or_equiv
_atom_site.auth_asym_id
_atom_site.auth_seq_id
"""


@pytest.fixture
def folder(tmp_path):
    """The same atoms in three files."""
    lines = [pdb_line(i + 1, row) for i, row in enumerate(ROWS)]
    text = "".join([*lines, pdb_line(9, WATER, "HOH"), "END\n"])
    (tmp_path / "model.pdb").write_text(text)
    (tmp_path / "model.pdb.gz").write_bytes(gzip.compress(text.encode()))
    rows = [
        f"ATOM {i} {e} {e} . ALA A {i} {x} {y} {z} 1.0 {b} A {i}\n"
        for i, (e, x, y, z, b) in enumerate(ROWS, 1)
    ]
    (tmp_path / "model.cif").write_text(CIF + "".join(rows))
    return tmp_path


def make(folder, name, *more):
    output = folder / "template.mrc"
    arguments = ["template", folder / name, "--pixel-size", 1.5, "--output", output, *more]
    return main([str(each) for each in arguments]), output


@pytest.mark.parametrize("name", ["model.pdb", "model.pdb.gz", "model.cif"])
def test_it_is_the_librarys_volume(folder, name, capsys):
    code, output = make(folder, name, "--side", 16, "--b-factor-scale", 2)
    assert code == 0
    printed = capsys.readouterr().out
    assert "16 px at 1.5 Å, of 3 atoms" in printed
    assert ("1 atoms of water left out" in printed) == ("pdb" in name)
    volume, voxel_size = read_volume(output)
    assert voxel_size == pytest.approx(1.5)
    expected = jr.template_from_atoms(
        np.array([row[1:4] for row in ROWS], np.float32),
        [row[0] for row in ROWS],
        np.array([2 * row[4] for row in ROWS], np.float32),
        1.5,
        16,
    )
    np.testing.assert_allclose(volume, expected, atol=1e-4 * volume.max())


@pytest.mark.parametrize(
    ("name", "more", "words"),
    [
        ("nothing.cif", (), "nothing.cif: no such file"),
        ("template.mrc", (), "expected an atomic model"),
        ("broken.cif", (), "cannot be read as an atomic model"),
        ("empty.pdb", (), "holds no atoms"),
        ("model.pdb", ("--side", 4), "model.pdb: the furthest atom is 2 px"),
        ("model.pdb", ("--b-factor-add", -30), "model.pdb: 2 B factors are negative"),
    ],
)
def test_what_is_refused(folder, name, more, words, capfd):
    (folder / "broken.cif").write_text("data_x\nloop_\n_a.b\n'")
    (folder / "empty.pdb").write_text("END\n")
    if name == "template.mrc":
        (folder / name).write_bytes(b"x")
        more = ("--overwrite",)
        name = "other.mrc"
        (folder / name).write_bytes(b"x")
    code, output = make(folder, name, *more)
    assert code == 2
    assert words in capfd.readouterr().err
    assert not output.exists() or output.read_bytes() == b"x"


def test_an_older_file_stays(folder, capfd):
    (folder / "template.mrc").write_bytes(b"older")
    assert make(folder, "model.pdb")[0] == 2
    assert "--overwrite" in capfd.readouterr().err
    assert make(folder, "model.pdb", "--overwrite")[0] == 0
