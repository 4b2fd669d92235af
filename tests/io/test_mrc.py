"""MRC files: what is read, what is refused and how that is said."""

import bz2
import gzip
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
import pytest
from mrcfile.dtypes import HEADER_DTYPE

from jaxrefine.data import InputError
from jaxrefine.io.mrc import (
    image_shape,
    read_image,
    read_volume,
    volume_shape,
    write_image,
    write_volume,
)

READERS = (read_image, read_volume, image_shape, volume_shape)
IMAGE = np.arange(12, dtype=np.float32).reshape(3, 4)
VOLUME = np.arange(24, dtype=np.float32).reshape(2, 3, 4)


def edit_header(path: Path, **fields: Any) -> None:
    """Overwrites fields of a header on the disk; the data stay."""
    header = np.frombuffer(path.read_bytes()[:1024], HEADER_DTYPE).copy()
    for name, value in fields.items():
        header[name] = value
    with open(path, "r+b") as file:
        file.write(header.tobytes())


def message(reader, path: Path) -> str:
    with pytest.raises(InputError) as caught:
        reader(path)
    assert len(caught.value.errors) == 1
    assert str(path) in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("suffix", ["mrc", "mrc.gz", "mrc.bz2"])
def test_image_round_trip(tmp_path, suffix):
    path = tmp_path / f"image.{suffix}"
    write_image(path, IMAGE, 1.06)
    write_image(path, IMAGE, 1.06)  # over the first one
    image = read_image(path)
    np.testing.assert_array_equal(image, IMAGE)
    assert image.dtype == np.float32 and image.dtype.isnative and image.flags.writeable
    assert image_shape(path) == (3, 4)


@pytest.mark.parametrize("suffix", ["mrc", "mrc.gz", "mrc.bz2"])
def test_volume_round_trip(tmp_path, suffix):
    path = tmp_path / f"volume.{suffix}"
    write_volume(path, VOLUME, 1.06)
    volume, voxel_size = read_volume(path)
    np.testing.assert_array_equal(volume, VOLUME)
    assert volume.dtype == np.float32
    assert volume_shape(path) == VOLUME.shape
    assert voxel_size == 1.06  # not float32's 1.05999994


def test_paths_may_be_text(tmp_path):
    write_image(f"{tmp_path}/image.mrc", IMAGE)
    np.testing.assert_array_equal(read_image(f"{tmp_path}/image.mrc"), IMAGE)


@pytest.mark.parametrize("dtype", ["int8", "int16", "uint16", "float16", "float32"])
@pytest.mark.parametrize("order", ["<", ">"])
def test_every_real_mode_and_byte_order(tmp_path, dtype, order):
    path = tmp_path / "image.mrc"
    with mrcfile.new(path) as mrc:
        mrc.set_data(IMAGE.astype(np.dtype(dtype).newbyteorder(order)))
    image = read_image(path)
    np.testing.assert_array_equal(image, IMAGE)
    assert image.dtype == np.float32 and image.dtype.isnative


def test_extended_header_is_passed_over(tmp_path):
    path = tmp_path / "image.mrc"
    with mrcfile.new(path) as mrc:
        mrc.set_data(IMAGE)
        mrc.set_extended_header(np.zeros(160, "V1"))
    np.testing.assert_array_equal(read_image(path), IMAGE)


def test_stack_of_one_section_is_an_image(tmp_path):
    path = tmp_path / "stack.mrcs"
    write_volume(path, IMAGE[None])
    np.testing.assert_array_equal(read_image(path), IMAGE)
    assert image_shape(path) == IMAGE.shape


def test_bytes_after_the_data_do_no_harm(tmp_path):
    path = tmp_path / "image.mrc"
    write_image(path, IMAGE)
    path.write_bytes(path.read_bytes() + b"more")
    np.testing.assert_array_equal(read_image(path), IMAGE)


def test_nan_is_written_and_read(tmp_path):
    write_image(tmp_path / "image.mrc", np.full((2, 2), np.nan))
    assert np.isnan(read_image(tmp_path / "image.mrc")).all()


def test_stack_of_several_is_no_image(tmp_path):
    path = tmp_path / "stack.mrcs"
    write_volume(path, VOLUME)
    for reader in (read_image, image_shape):
        assert "2 x 3 x 4 values" in message(reader, path)
        assert "should be one image" in message(reader, path)


def test_image_is_no_volume(tmp_path):
    path = tmp_path / "image.mrc"
    write_image(path, IMAGE)
    assert "should be a volume" in message(read_volume, path)


def test_stack_of_volumes_is_no_volume(tmp_path):
    path = tmp_path / "volumes.mrc"
    with mrcfile.new(path) as mrc:
        mrc.set_data(np.zeros((2, 4, 4, 4), np.float32))
    assert "several volumes" in message(read_volume, path)


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        ((4.0, 3.0, 2.0), 1.0),
        ((4.0, 3.001, 2.0), 1.0),  # a cell length that some program rounded
        ((0.0, 0.0, 0.0), None),
        ((4.0, 6.0, 2.0), None),  # differs between the axes
        ((-4.0, -3.0, -2.0), None),
        ((np.nan, 3.0, 2.0), None),
    ],
)
def test_voxel_size(tmp_path, cell, expected):
    path = tmp_path / "volume.mrc"
    write_volume(path, VOLUME)
    edit_header(path, cella=cell)
    assert read_volume(path)[1] == expected


def test_no_samples_means_no_voxel_size(tmp_path):
    path = tmp_path / "volume.mrc"
    write_volume(path, VOLUME, 1.5)
    edit_header(path, mx=0)
    assert read_volume(path)[1] is None


@pytest.mark.parametrize("reader", READERS)
def test_missing_file(tmp_path, reader):
    assert "no such file" in message(reader, tmp_path / "absent.mrc")


@pytest.mark.parametrize("reader", READERS)
def test_folder(tmp_path, reader):
    assert "is a folder" in message(reader, tmp_path)


@pytest.mark.parametrize("reader", READERS)
def test_path_through_a_file(tmp_path, reader):
    (tmp_path / "file").write_bytes(b"x")
    assert "cannot be read" in message(reader, tmp_path / "file" / "image.mrc")


@pytest.mark.parametrize("reader", READERS)
def test_empty_file(tmp_path, reader):
    path = tmp_path / "empty.mrc"
    path.touch()
    assert "is empty" in message(reader, path)


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("content", [b"particle_index,mip\n", bytes(4096)])
def test_not_mrc(tmp_path, reader, content):
    path = tmp_path / "other.mrc"
    path.write_bytes(content)
    assert "not an MRC file" in message(reader, path)


@pytest.mark.parametrize("reader", READERS)
def test_unknown_machine_stamp(tmp_path, reader):
    path = tmp_path / "image.mrc"
    write_image(path, IMAGE)
    edit_header(path, machst=(1, 2, 3, 4), ny=0)
    assert "machine stamp is 01 02 03 04" in message(reader, path)


@pytest.mark.parametrize("reader", READERS)
def test_truncated(tmp_path, reader):
    """Told by the header and the file's length, for the shape alone as well."""
    path = tmp_path / "image.mrc"
    write_volume(path, VOLUME[:1] if reader in (read_image, image_shape) else VOLUME)
    size = path.stat().st_size
    path.write_bytes(path.read_bytes()[:-5])
    assert f"asks for {size} bytes, it holds {size - 5}" in message(reader, path)


@pytest.mark.parametrize("suffix", ["gz", "bz2"])
def test_truncated_inside_the_compression(tmp_path, suffix):
    path = tmp_path / f"image.mrc.{suffix}"
    write_image(path, IMAGE)
    codec = gzip if suffix == "gz" else bz2
    path.write_bytes(codec.compress(codec.decompress(path.read_bytes())[:-5]))
    assert "truncated" in message(read_image, path)


@pytest.mark.parametrize("suffix", ["gz", "bz2"])
@pytest.mark.parametrize("keep", [15, -9])
def test_damaged_compression(tmp_path, suffix, keep):
    path = tmp_path / f"image.mrc.{suffix}"
    write_image(path, np.random.default_rng(0).normal(size=(64, 64)))
    path.write_bytes(path.read_bytes()[:keep] + b"#")
    message(read_image, path)


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("suffix", ["mrc", "mrc.gz"])
def test_header_that_asks_for_too_much(tmp_path, reader, suffix):
    """4 EB are neither allocated nor believed."""
    plain = tmp_path / "plain.mrc"
    write_image(plain, IMAGE)
    nz = 2**20 if reader in (read_volume, volume_shape) else 1
    edit_header(plain, nx=2**30, ny=2**30, nz=nz)
    path = tmp_path / f"image.{suffix}"
    content = plain.read_bytes()
    path.write_bytes(gzip.compress(content) if suffix.endswith("gz") else content)
    assert ("truncated" if suffix == "mrc" else "too many for a compressed") in message(
        reader, path
    )


def test_extended_header_longer_than_the_file(tmp_path):
    path = tmp_path / "image.mrc"
    write_image(path, IMAGE)
    edit_header(path, nsymbt=2**31 - 1)
    assert "truncated" in message(image_shape, path)
    edit_header(path, nsymbt=-1)
    assert "extended header" in message(image_shape, path)


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize(
    ("mode", "what"), [(4, "complex"), (3, "complex"), (101, "unknown"), (-7, "unknown")]
)
def test_wrong_mode(tmp_path, reader, mode, what):
    path = tmp_path / "image.mrc"
    write_image(path, IMAGE)
    edit_header(path, mode=mode)
    text = message(reader, path)
    assert f"mode {mode} is " in text and what in text and "2 (float32)" in text


@pytest.mark.parametrize("reader", READERS)
def test_sides_below_one(tmp_path, reader):
    path = tmp_path / "image.mrc"
    write_image(path, IMAGE)
    edit_header(path, ny=0)
    assert "1 x 0 x 4 (z, y, x)" in message(reader, path)


@pytest.mark.parametrize("reader", [read_image, image_shape])
def test_an_image_that_is_none_along_its_axes(tmp_path, reader):
    path = tmp_path / "image.mrc"
    write_image(path, IMAGE)
    edit_header(path, mapc=3, mapr=2, maps=1)  # a column of pixels along z
    assert "4 x 3 x 1" in message(reader, path)


@pytest.mark.parametrize(("write", "array"), [(write_image, IMAGE), (write_volume, VOLUME)])
def test_write_errors(tmp_path, write, array):
    with pytest.raises(InputError, match=r"absent.*No such file"):
        write(tmp_path / "absent" / "a.mrc", array)
    with pytest.raises(InputError, match="cannot be written"):
        write(tmp_path, array)
    for wrong in (np.zeros(4), array.astype(complex), array[..., :0]):
        with pytest.raises(ValueError, match="real array"):
            write(tmp_path / "a.mrc", wrong)


@pytest.mark.parametrize("axes", [(3, 2, 1), (2, 1, 3), (2, 3, 1), (3, 1, 2), (1, 3, 2)])
def test_axes_in_any_order(tmp_path, axes):
    """Columns, rows and sections lie along `axes`, 1 to 3 for x to z."""
    volume = np.arange(2 * 3 * 4, dtype=np.float32).reshape(2, 3, 4)  # z, y, x
    stored = volume.transpose([3 - axis for axis in axes[::-1]])
    mrcfile.write(tmp_path / "a.mrc", np.ascontiguousarray(stored))
    with mrcfile.open(tmp_path / "a.mrc", "r+") as file:
        file.header.mapc, file.header.mapr, file.header.maps = axes
        file.header.ispg, file.header.mz = 1, 2
    assert volume_shape(tmp_path / "a.mrc") == (2, 3, 4)
    np.testing.assert_array_equal(read_volume(tmp_path / "a.mrc")[0], volume)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("mark", [b"MAP ", b"MAP\0", bytes(4)])
@pytest.mark.parametrize(
    "stamp", ["00000000", "44000000", "44110000", "44202020", "11110000"]
)
def test_odd_marks(tmp_path, order, mark, stamp):
    image = np.arange(12, dtype=np.float32).reshape(3, 4)
    write_image(tmp_path / "a.mrc", image)
    raw = (tmp_path / "a.mrc").read_bytes()
    words = np.frombuffer(raw, "<u4").astype(f"{order}u4")  # header and values alike
    odd = bytearray(words.tobytes())
    odd[208:216] = mark + bytes.fromhex(stamp)
    (tmp_path / "a.mrc").write_bytes(odd)
    np.testing.assert_array_equal(read_image(tmp_path / "a.mrc"), image)
