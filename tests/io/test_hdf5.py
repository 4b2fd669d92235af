"""HDF5 as Leopard-EM 1.3 writes it: maps and particle stacks, as its sources say."""

import json
import sys

import h5py
import numpy as np
import pytest

from jaxrefine.data import InputError
from jaxrefine.io.maps import map_shape, read_map
from jaxrefine.io.mrc import image_shape, write_image
from jaxrefine.io.table import read_particle_table
from jaxrefine.io.table.hdf5 import hdf5_attributes, write_hdf5
from jaxrefine.io.table.readers import write_table
from tests.tables import ROW, read

NUMBERS = {n: float(v) for n, v in ROW.items() if not n.endswith("_path")}


def stack(path, columns, **attributes):
    """As `ParticleStackHDF5.to_hdf5`: numbers as float64, all else as JSON or text."""
    with h5py.File(path, "w") as file:
        file.attrs.update(attributes)
        group = file.create_group("particles")
        group.attrs["columns"] = list(columns)
        for name, values in columns.items():
            if all(isinstance(value, float | int) for value in values):
                group.create_dataset(name, data=np.asarray(values, np.float64))
            else:
                texts = [v if isinstance(v, str) else json.dumps(v) for v in values]
                group.create_dataset(name, data=texts, dtype=h5py.string_dtype())
    return path


def columns(n=2):
    text = {name: [value] * n for name, value in ROW.items() if name.endswith("_path")}
    numbers = {name: [value] * n for name, value in NUMBERS.items()}
    ids = [f"a b_{i:05d}" for i in range(n)]
    odd = {"even_zernikes": [""] * n, "mag_matrix": [[1.0, 0.0, 0.0, 1.0]] * n}
    return {"particle_id": ids, "mip": [17.462545, np.nan], **numbers, **odd, **text}


def test_a_stack_is_the_table_that_its_columns_are(tmp_path):
    found = read_particle_table(stack(tmp_path / "x.h5", columns()))
    of_csv = read(tmp_path, {}, {})
    for name in ROW:
        if name.endswith("_path"):
            assert found.paths(name) == of_csv.paths(name)
        else:
            np.testing.assert_array_equal(found.numbers(name), of_csv.numbers(name))
    assert found.raw["pos_x"].tolist() == ["20", "20"]  # and not 20.0
    assert found.raw["mip"].tolist() == ["17.462545", ""]
    assert found.locate(1) == "particle 2"


def test_a_stack_is_written_as_it_is_read(tmp_path):
    first = stack(tmp_path / "x.h5", columns(), leopard_em_version="1.3.0")
    table = read_particle_table(first)
    raw = table.raw.assign(refined_status="converged", refined_snr=["19.5", ""])
    write_hdf5(raw, tmp_path / "y.h5", hdf5_attributes(first))
    again = read_particle_table(tmp_path / "y.h5")
    assert again.raw[raw.columns].values.tolist() == raw.values.tolist()
    attributes = hdf5_attributes(tmp_path / "y.h5")
    assert attributes["leopard_em_version"] == "1.3.0"
    assert not attributes["image_stack_stored"] and not attributes["local_stats_stored"]
    with h5py.File(tmp_path / "y.h5") as file:
        group = file["particles"]
        assert group["pos_x"].dtype == group["refined_snr"].dtype == np.float64
        assert np.isnan(group["mip"][1])
        assert group.attrs["columns"][0] == "particle_id"


def test_a_csv_table_as_a_stack_gets_names_of_particles(tmp_path):
    table = read(tmp_path, {}, {"micrograph_path": "c.mrc"}, {})
    write_table(table.raw, tmp_path / "x.hdf5")
    ids = read_particle_table(tmp_path / "x.hdf5").raw["particle_id"].tolist()
    assert ids == ["a b_00000", "c_00000", "a b_00001"]


def test_errors_name_the_particle(tmp_path):
    spoilt = columns()
    spoilt["phi"] = [1.0, np.nan]
    with pytest.raises(InputError, match=r"x\.h5, particle 2, column phi: an empty cell"):
        read_particle_table(stack(tmp_path / "x.h5", spoilt))


@pytest.mark.parametrize("name", ["correlation_average", "correlation_variance"])
def test_maps_of_a_match(tmp_path, name):
    path, values = tmp_path / "results.h5", np.random.default_rng(1).normal(size=(5, 7))
    with h5py.File(path, "w") as file:
        group = file.create_group("tensors")
        group.create_dataset(name, data=values.astype(np.float32), compression="gzip")
        group["mip"] = np.zeros(3)
    assert map_shape(path, name) == (5, 7)
    np.testing.assert_array_equal(read_map(path, name), values.astype(np.float32))
    write_image(tmp_path / "map.mrc", values)
    np.testing.assert_array_equal(
        read_map(tmp_path / "map.mrc", name), read_map(path, name)
    )
    with pytest.raises(InputError, match=r"holds no map tensors/other.*it holds"):
        read_map(path, "other")
    with pytest.raises(InputError, match=r"should be an image of real numbers"):
        map_shape(path, "mip")


def test_files_that_are_none(tmp_path, monkeypatch):
    stack(tmp_path / "x.h5", columns())
    with pytest.raises(InputError, match="is an HDF5 file; it should be an MRC file"):
        image_shape(tmp_path / "x.h5")
    with pytest.raises(InputError, match="holds no map"):
        read_map(tmp_path / "x.h5", "mip")
    whole = (tmp_path / "x.h5").read_bytes()
    (tmp_path / "cut.h5").write_bytes(whole[:200])
    with pytest.raises(InputError, match="HDF5 file is damaged"):
        read_particle_table(tmp_path / "cut.h5")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["a"] = 1.0
    with pytest.raises(
        InputError, match="holds no particles; it should be a particle stack"
    ):
        read_particle_table(tmp_path / "other.h5")
    (tmp_path / "text.h5").write_text("pos_x,pos_y\n1,2\n")
    with pytest.raises(InputError, match=r"text\.h5"):
        read_particle_table(tmp_path / "text.h5")
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(InputError, match="-m pip install h5py"):
        read_particle_table(tmp_path / "x.h5")
