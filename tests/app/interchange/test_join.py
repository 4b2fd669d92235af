"""Joining of tables, and changes by a second refinement of the same particles."""

import numpy as np
import pytest

from jaxrefine.app.cli import main
from jaxrefine.app.interchange.join import join
from jaxrefine.data import InputError
from jaxrefine.io.table import read_particle_table
from tests.tables import save

ONE = {
    "particle_index": "0",
    "pos_x": "20",
    "refined_pos_x": "21",
    "refined_pos_y": "10",
    "refined_scaled_mip": "9.0",
    "refined_status": "edge_of_grid",
}
TWO = ONE | {"particle_index": "1", "pos_x": "300", "refined_pos_x": "300"}
# The first one again: 3 px of 1.5 Å further, and better.
AGAIN = ONE | {
    "refined_pos_x": "24",
    "refined_scaled_mip": "10.0",
    "refined_status": "converged",
}
OTHER = ONE | {"micrograph_path": "other.mrc", "refined_scaled_mip": "7.25", "mine": "x"}


def joined(path, column):
    return read_particle_table(path).raw[column].tolist()


def test_micrographs_of_several_runs(tmp_path, capsys):
    paths = [save(tmp_path / "a.csv", ONE, TWO), save(tmp_path / "b.csv", OTHER)]
    output = tmp_path / "all.csv"
    assert main(["join", *map(str, paths), "--output", str(output)]) == 0
    printed = capsys.readouterr().out
    assert f"written: {output}: 3 particles (2 of {paths[0]}, 1 of {paths[1]})" in printed
    assert "particle_index: 1 were already in use" in printed
    assert "columns that some tables lack, empty there: mine" in printed
    assert joined(output, "particle_index") == ["0", "1", "2"]
    assert joined(output, "micrograph_path") == ["a b.mrc", "a b.mrc", "other.mrc"]
    assert joined(output, "refined_scaled_mip") == ["9.0", "9.0", "7.25"]
    assert joined(output, "mine") == ["", "", "x"]


@pytest.mark.parametrize(
    ("keep", "expected"),
    [("last", ["9.0", "10.0"]), ("first", ["9.0", "9.0"]), ("best", ["9.0", "10.0"])],
)
def test_the_same_particles_refined_twice(tmp_path, capsys, keep, expected):
    paths = [save(tmp_path / "a.csv", ONE, TWO), save(tmp_path / "b.csv", AGAIN)]
    output = tmp_path / "all.h5"
    command = ["join", *map(str, paths), "--output", str(output), "--keep", keep]
    assert main(command) == 0
    assert sorted(joined(output, "refined_scaled_mip")) == sorted(expected)
    printed = capsys.readouterr().out
    assert f"1 particles are in both {paths[0]} and {paths[1]}" in printed
    assert "moved by 4.50 Å (median), 4.50 Å at most; 0 by more than 5 Å" in printed
    assert "z-score 9.00 -> 10.00 (mean); higher for 1 of 1" in printed
    assert "status: 0 unchanged, 1 edge_of_grid -> converged" in printed


def test_the_best_may_be_the_first(tmp_path):
    paths = [save(tmp_path / "a.csv", AGAIN), save(tmp_path / "b.csv", ONE)]
    done = join(paths, tmp_path / "all.csv", keep="best")
    assert done.of_each == (1, 0)
    np.testing.assert_allclose(done.changes[0].moved_angstrom, 4.5)


def test_paths_are_found_from_the_new_folder(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a b.mrc").touch()
    paths = [save(tmp_path / name / "t.csv", ONE) for name in ("a", "b")]
    done = join(paths, tmp_path / "all.csv")
    assert done.rows == 2 and not done.changes  # two micrographs of one name
    found = [str(tmp_path / name / "a b.mrc") for name in ("a", "b")]
    assert joined(done.output, "micrograph_path") == found


def test_columns_that_clash_are_named(tmp_path):
    match = {"mip": "12.0", "correlation_mean": "2.0", "correlation_variance": "4.0"}
    paths = [
        save(tmp_path / "a.csv", ONE | match | {"scaled_mip": "2.5", "mine": "3"}),
        save(tmp_path / "b.csv", OTHER | match | {"scaled_mip": "5.0"}),
    ]
    with pytest.raises(InputError) as refused:
        join(paths, tmp_path / "all.csv")
    of_mine, of_maps = refused.value.errors
    assert of_mine == (
        f"column mine: holds numbers in {paths[0]} and text in {paths[1]}; rename it in "
        "one of them"
    )
    assert "standard deviations in" in of_maps and "variances in" in of_maps
    with pytest.raises(InputError, match="name two tables or more"):
        join(paths[:1], tmp_path / "all.csv")
    assert not (tmp_path / "all.csv").exists()
