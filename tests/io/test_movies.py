"""Movies frame by frame, and files of motion."""

import mrcfile
import numpy as np
import pytest
import tifffile

from jaxrefine.data import InputError
from jaxrefine.io.motion import read_deformation_field, read_particle_shifts
from jaxrefine.io.movies import movie_frames, movie_shape, read_gain

MOVIE = np.arange(3 * 6 * 10, dtype=np.uint8).reshape(3, 6, 10)


def write_mrc(path):
    mrcfile.write(path, MOVIE.astype(np.int8))


def write_tiff(path):
    tifffile.imwrite(path, MOVIE, compression="lzw", photometric="minisblack")


@pytest.mark.parametrize(("name", "write"), [("a.mrcs", write_mrc), ("a.TIF", write_tiff)])
def test_frames_come_one_by_one(tmp_path, name, write):
    path = tmp_path / name
    write(path)
    assert movie_shape(path) == (3, 6, 10)
    frames = list(movie_frames(path, eer_grouping=2))  # of no effect here
    assert all(frame.dtype == np.float32 for frame in frames)
    wanted = MOVIE.astype(np.int8) if name == "a.mrcs" else MOVIE
    np.testing.assert_array_equal(frames, wanted)
    with pytest.raises(InputError, match="holds 3 images; a gain reference is one"):
        read_gain(path)


def eer_frame(hits):
    """A frame's bits, as the format's description has them (fei-company/EerReaderLib).

    For each electron 7 bits for the pixels skipped before it, and 4 for its place within
    the pixel; 127 skips as many pixels without an electron.
    """
    bits = []

    def put(value, count):
        bits.extend((value >> bit) & 1 for bit in range(count))

    def skip(pixels):
        for _ in range(pixels // 127):
            put(127, 7)
        put(pixels % 127, 7)

    places = np.flatnonzero(hits).tolist()
    for before, place in zip([-1, *places], places, strict=False):
        skip(place - before - 1)
        put(0b1001, 4)
    skip(hits.size - 1 - places[-1])
    put(0, -len(bits) % 16)  # whole words
    return np.packbits(bits, bitorder="little").tobytes()


@pytest.mark.parametrize("with_sum", [False, True])
def test_frames_of_an_eer_file_are_grouped(tmp_path, with_sum):
    """Newer files begin with the sum of all frames, which is no frame."""
    hits = np.random.default_rng(0).uniform(size=(7, 48, 64)) < 0.02
    metadata = b"<metadata></metadata>"
    more = {"extratags": [(65001, 7, len(metadata), metadata, True)]}
    path = tmp_path / "a.eer"
    with tifffile.TiffWriter(path, bigtiff=True) as file:
        if with_sum:
            total = hits.sum(axis=0).astype(np.uint8)
            file.write(total, photometric="minisblack", **more)
            more = {}
        for frame in hits:
            file.write(
                iter([eer_frame(frame)]),
                shape=frame.shape,
                dtype=np.uint8,
                compression="zlib",  # tifffile writes no EER, but what is encoded already
                photometric="minisblack",
                rowsperstrip=len(frame),
                **more,
            )
            more = {}
    with tifffile.TiffFile(path, mode="r+b") as file:
        for page in file.pages[int(with_sum) :]:
            page.tags["Compression"].overwrite(65001)
    assert movie_shape(path, eer_grouping=3) == (2, 48, 64)
    found = list(movie_frames(path, eer_grouping=3))
    expected = [hits[:3].sum(axis=0), hits[3:6].sum(axis=0)]
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("name", ["a.mrc", "a.tiff", "a.eer"])
def test_what_is_no_movie_is_refused(tmp_path, name):
    with pytest.raises(InputError, match="no such file"):
        movie_shape(tmp_path / name)
    (tmp_path / name).write_bytes(b"something else" * 100)
    with pytest.raises(InputError, match="is not a"):
        movie_shape(tmp_path / name)


def test_a_truncated_stack_is_refused(tmp_path):
    path = tmp_path / "a.mrc"
    write_mrc(path)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(InputError, match="is truncated"):
        next(movie_frames(path))


def test_shifts_are_read_by_the_names_of_columns(tmp_path):
    path = tmp_path / "shifts.csv"
    path.write_text("x_shift,frame,particle_index,y_shift\n1.5,0,7,-2\n2,1,7,3\n")
    number, frame, shift, lines = read_particle_shifts(path)
    assert number.tolist() == [7, 7] and frame.tolist() == [0, 1] and lines == (2, 3)
    np.testing.assert_array_equal(shift, [[-2, 1.5], [3, 2]])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("particle_index,frame,y,x_shift\n", "missing columns: y_shift; it should have"),
        ("particle_index,frame,y_shift,x_shift\n", "holds no shifts"),
        ("particle_index,frame,y_shift,x_shift\n1,0.5,0,0\n", "frame: '0.5': should be a"),
        ("particle_index,frame,y_shift,x_shift\n1,0,a,0\n", "line 2, column y_shift: 'a'"),
        ("particle_index,frame,y_shift,x_shift\n1,0,1\n", "line 2: has 3 cells"),
        (
            "particle_index,frame,y_shift,x_shift\n1,0,1,0\n1,0,1,0\n",
            "1 rows have the same",
        ),
    ],
)
def test_faulty_shifts_are_refused(tmp_path, text, said):
    path = tmp_path / "shifts.csv"
    path.write_text(text)
    with pytest.raises(InputError) as error:
        read_particle_shifts(path)
    assert said in str(error.value)


def test_a_field_is_sorted_and_whole(tmp_path):
    path = tmp_path / "field.csv"
    rows = [(t, h, w, t + 10 * h, w) for t in (0, 1) for h in (3, 1) for w in (0, 5)]
    lines = [",".join(map(str, row)) for row in rows]
    path.write_text("\n".join(["t,h,w,y_shift,x_shift", *lines]))
    field = read_deformation_field(path)
    assert field.shape == (2, 2, 2, 2)
    np.testing.assert_array_equal(field[0, 1], [[11, 11], [31, 31]])
    np.testing.assert_array_equal(field[1, 0], [[0, 5], [0, 5]])
    path.write_text("\n".join(["t,h,w,y_shift,x_shift", *lines[1:]]))
    with pytest.raises(InputError, match="has 7 rows; 2 values of t, 2 of h and 2 of w"):
        read_deformation_field(path)
