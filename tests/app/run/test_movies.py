"""Runs whose particles are summed from movie frames."""

import re
from pathlib import Path

import mrcfile
import numpy as np
import pandas as pd
import pytest
import yaml

from jaxrefine.app.cli import main
from jaxrefine.app.config import Config
from jaxrefine.app.run import motion_fit
from jaxrefine.app.run.fingerprint import fingerprint
from jaxrefine.app.run.inputs import load_inputs
from jaxrefine.app.run.particles import extract_rows, read_and_prepare
from jaxrefine.data import InputError
from jaxrefine.io.motion import read_particle_shifts
from jaxrefine.io.mrc import read_image
from tests.reference import reference_set

FRAMES = 3


def moved(image, y, x):
    ky, kx = np.fft.fftfreq(image.shape[0])[:, None], np.fft.rfftfreq(image.shape[1])
    turn = np.exp(-2j * np.pi * (ky * y + kx * x))
    return np.fft.irfft2(np.fft.rfft2(image) * turn, s=image.shape).astype(np.float32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two micrographs whose movies are they themselves, moved about."""
    folder = reference_set("two_micrographs", tmp_path_factory.mktemp("movies"))
    table = pd.read_csv(folder / "match_results.csv")
    shifts, names = [], []
    for number, (path, rows) in enumerate(table.groupby("micrograph_path").groups.items()):
        image = read_image(folder / Path(path).name)
        move = np.random.default_rng(number).uniform(-4, 4, (FRAMES, 2)).round(3)
        names += [f"movie_{number}.mrc"] * len(rows)
        frames = np.stack([moved(image, *-each) for each in move])
        mrcfile.write(folder / names[-1], frames, overwrite=True)
        shifts += [
            {
                "particle_index": row + 100,  # not where it is in the table
                "frame": frame,
                "y_shift": move[frame, 0],
                "x_shift": move[frame, 1],
            }
            for row in rows
            for frame in range(FRAMES)
        ]
        pd.DataFrame(
            [(t, 0, 0, *(-1.5 * each)) for t, each in enumerate(move)],
            columns=["t", "h", "w", "y_shift", "x_shift"],
        ).to_csv(folder / f"field_{number}.csv", index=False)
    table["particle_index"] = np.arange(len(table)) + 100
    table["movie_path"] = names
    table.to_csv(folder / "match_results.csv", index=False)
    pd.DataFrame(shifts).sample(frac=1, random_state=1).to_csv(
        folder / "shifts.csv", index=False
    )
    return folder


def inputs_of(folder, table=None, movies=True, filtering=True, **keys):
    data = yaml.safe_load((folder / "refine.yaml").read_text())
    data["apply_global_filtering"] = filtering
    given = {"particle_shifts_path": "shifts.csv", "fluence_per_frame": 0.0} | keys
    data["movie_config"] = {"enabled": movies, **given}
    if table is not None:
        table.to_csv(folder / "other.csv", index=False)
        data["particle_stack"]["df_path"] = "other.csv"
    return load_inputs(Config.from_dict(data, str(folder / "refine.yaml")))


def particles_of(inputs, known=True):
    """Those of the second micrograph."""
    files, rows = list(inputs.groups.items())[1]
    micrograph = read_and_prepare(inputs, files, rows if known else None)
    return extract_rows(inputs, micrograph, np.append(rows, rows[-1]))


@pytest.mark.slow
@pytest.mark.parametrize("filtering", [True, False])
def test_particles_are_those_of_the_micrograph(folder, filtering):
    """Frames that are moved copies of it, unweighted: whether filtered whole or by box."""
    plain = particles_of(inputs_of(folder, movies=False, filtering=filtering))
    summed = particles_of(inputs_of(folder, filtering=filtering))
    images = np.asarray(plain.image), np.asarray(summed.image)
    assert images[0].shape == images[1].shape
    # Beyond the micrograph's edge the moved copies wrap around, and it is mirrored.
    place = np.asarray(plain.alignment.position_px)
    inside = np.all((place > 30) & (place < 200), axis=1)
    assert inside.sum() == 3
    for one, other in zip(*(each[inside] for each in images), strict=True):
        inner = (slice(8, -8), slice(8, -8))
        # Pixels are 1 of noise. A cut that is moved or filtered by itself rings at its
        # edge, and only the micrograph is made periodic: 0.07 is seen; moved the other
        # way it is 1.4.
        assert np.std(one[inner] - other[inner]) < 0.1 * np.std(one[inner])
    for name in ("filter_image", "corr_mean"):
        a, b = getattr(plain, name), getattr(summed, name)
        np.testing.assert_allclose(a, b, atol=0.02 * np.abs(a).max())


@pytest.mark.slow
def test_a_field_moves_as_shifts_do_and_boxes_come_in_any_order(folder):
    table = pd.read_csv(folder / "match_results.csv")
    numbers = table.movie_path.str.extract(r"(\d)", expand=False)
    table["deformation_field_path"] = "field_" + numbers + ".csv"
    table["pixel_size"] = table["refined_pixel_size"] = 1.5
    by_field = inputs_of(folder, table, particle_shifts_path="")
    by_shifts = inputs_of(folder, table)
    images = [
        np.asarray(particles_of(inputs, known).image)
        for inputs, known in ((by_field, True), (by_shifts, False))
    ]
    np.testing.assert_allclose(*images, atol=2e-3)  # float32 shifts of some px


@pytest.mark.slow
def test_exposure_weights_frames(folder):
    plain = particles_of(inputs_of(folder)).filter_image
    weighted = particles_of(inputs_of(folder, fluence_per_frame=20.0)).filter_image
    # Frames that are equal lose no noise, but gain less where the late ones count less.
    assert np.abs(np.asarray(plain) - np.asarray(weighted)).max() > 0.05


def test_no_fluence_leaves_frames_unweighted(folder):
    """Whatever exposure there was before: as in a movie that was not damaged."""
    plain, exposed = (
        particles_of(inputs_of(folder, pre_exposure=dose)) for dose in (0.0, 50.0)
    )
    np.testing.assert_array_equal(plain.image, exposed.image)


@pytest.mark.slow
def test_frames_are_multiplied_by_the_gain_and_dead_pixels_filled(folder):
    """Halved columns come back by their gain; a hot block leaves no trace in boxes."""
    table = pd.read_csv(folder / "match_results.csv")
    frames = mrcfile.read(folder / "movie_1.mrc") + 50.0  # as counts, above 0
    gain = np.ones(frames.shape[1:], np.float32)
    gain[:, ::2] = 2.0
    mrcfile.write(folder / "gain.mrc", gain, overwrite=True)
    whole = []
    for name, hot in (("counts", 0.0), ("hot", 1e4)):
        raw = (frames / gain).astype(np.float32)
        raw[:, 100:103, 100:103] += hot
        mrcfile.write(folder / f"{name}.mrc", raw, overwrite=True)
        table.loc[table.movie_path != "movie_0.mrc", "movie_path"] = f"{name}.mrc"
        images = particles_of(inputs_of(folder, table, gain_path="gain.mrc")).image
        whole.append(np.asarray(images))
    plain = np.asarray(particles_of(inputs_of(folder)).image)
    np.testing.assert_allclose(whole[0], plain, atol=0.02 * plain.std())
    # Filled pixels are noise of their own in a few boxes; unfilled ones drown all others.
    assert np.std(whole[1] - plain) < 0.2 * plain.std()


def test_a_run_depends_on_the_content_of_its_movies(folder):
    one = fingerprint(inputs_of(folder))
    text = (folder / "shifts.csv").read_text()
    (folder / "copy.csv").write_text(text)
    assert fingerprint(inputs_of(folder, particle_shifts_path="copy.csv")) == one
    inputs = inputs_of(folder)
    files = next(iter(inputs.groups))
    assert inputs.sources(files)[-1].name == "movie_0.mrc"
    assert {path.name for path in inputs.inputs} >= {"movie_1.mrc", "shifts.csv"}


def errors_of(folder, table=None, **keys):
    with pytest.raises(InputError) as error:
        inputs_of(folder, table, **keys)
    return error.value.errors


def test_all_that_is_wrong_with_movies_is_said_at_once(folder):
    table = pd.read_csv(folder / "match_results.csv")
    mrcfile.write(folder / "small.mrc", np.zeros((2, 8, 8), np.float32), overwrite=True)
    table.loc[table.movie_path == "movie_0.mrc", "movie_path"] = "small.mrc"
    shifts = pd.read_csv(folder / "shifts.csv")
    last = table.particle_index[table.movie_path == "movie_1.mrc"].iloc[-1]
    gone = (shifts.particle_index == last) & (shifts.frame == 1)
    shifts[~gone].to_csv(folder / "fewer.csv", index=False)
    errors = errors_of(folder, table, particle_shifts_path="fewer.csv", gain_path="no.mrc")
    text = "\n".join(errors)
    assert "gain_path: no.mrc — no such file" in text
    assert "small.mrc: its frames have shape (8, 8), the micrograph" in text
    assert f"no shifts for 1 frames of 1 particles (particle_index {last})" in text


def test_what_names_no_movie_or_one_for_all_is_refused(folder):
    table = pd.read_csv(folder / "match_results.csv")
    bare = table.drop(columns="movie_path")
    assert "movie_config.movie_path: is empty" in errors_of(folder, bare)[0]
    (shared,) = errors_of(folder, bare, movie_path="movie_0.mrc")
    assert "is the movie of 2 micrographs" in shared
    still = errors_of(folder, particle_shifts_path="")
    assert "names neither particle_shifts_path nor" in still[0]


def test_frames_beyond_the_movie_are_refused(folder):
    text = (folder / "shifts.csv").read_text() + "100,7,0.0,0.0\n"
    (folder / "more.csv").write_text(text)
    (error,) = errors_of(folder, particle_shifts_path="more.csv")
    assert "frame 7 of particle 100, whose movie has 3 frames, 0 to 2" in error


@pytest.mark.slow
def test_motion_is_found_from_the_scores(folder, monkeypatch, capsys):
    """From shifts of 0, for a sum that is smeared over 8 px; by the command."""
    monkeypatch.chdir(folder)
    true = pd.read_csv("shifts.csv").sort_values(["particle_index", "frame"])
    still = true.assign(y_shift=0.0, x_shift=0.0)
    still.to_csv("still.csv", index=False)
    data = yaml.safe_load((folder / "refine.yaml").read_text())
    data["movie_config"] = {"enabled": True, "particle_shifts_path": "still.csv"}
    (folder / "movie.yaml").write_text(yaml.safe_dump(data))
    words = "movie.yaml match_results.csv --output found.csv --velocity 20 --reach 8"
    assert main(["motion", *words.split(), "--acceleration", "20"]) == 0
    before, after = re.findall(
        r"score of \d+ particles (\S+), .* shifts (\S+)", capsys.readouterr().out
    )[1]
    assert float(after) > float(before) + 2
    found = pd.read_csv("found.csv")
    assert list(found) == ["particle_index", "frame", "y_shift", "x_shift"]
    names = ["particle_index", "frame"]
    assert (found[names].to_numpy() == true[names].to_numpy()).all()
    apart = (found - true.reset_index(drop=True))[["y_shift", "x_shift"]].to_numpy()
    apart = apart.reshape(-1, FRAMES, 2)
    off = np.abs(apart - apart.mean(axis=1, keepdims=True)).max(axis=(1, 2))
    # Frames are copies, noise included. One particle is cut off by the edge.
    assert np.median(off) < 0.05 and (off < 0.3).all()
    assert read_particle_shifts(folder / "found.csv")[2].shape == (len(true), 2)
    monkeypatch.setattr(motion_fit, "_CORRELATION_BYTES", 1)
    assert main(["motion", *words.split()]) == 2
    data["movie_config"]["enabled"] = False
    (folder / "movie.yaml").write_text(yaml.safe_dump(data))
    assert main(["motion", *words.split()]) == 2
    errors = capsys.readouterr().err
    assert "expected at most" in errors and "movie_config.enabled: true" in errors


# Leopard-EM 1.2 on a movie of five frames that are the micrograph of `basic` itself, with
# shifts of 0 (`benchmarks/movie_parity.py`): with apply_global_filtering false as from the
# micrograph. With true it does not filter the boxes, and z is 3406, …
PEER_Z = (13.6125, 13.6287, 12.2265, 11.2323, 11.1093, 9.8696, 5.5533)


@pytest.mark.nightly
def test_a_movie_scores_as_its_micrograph_and_as_with_leopard_em(tmp_path, monkeypatch):
    folder = reference_set("basic", tmp_path)
    monkeypatch.chdir(folder)
    image = read_image(folder / "micrograph.mrc")
    mrcfile.write("movie.mrc", np.stack([image] * FRAMES))
    index = pd.read_csv("match_results.csv").particle_index
    pd.DataFrame(
        [(i, t, 0.0, 0.0) for i in index for t in range(FRAMES)],
        columns=["particle_index", "frame", "y_shift", "x_shift"],
    ).to_csv("shifts.csv", index=False)
    data = yaml.safe_load(Path("refine.yaml").read_text()) | {"reproduce": "leopard_em"}
    movie = {"enabled": True, "movie_path": "movie.mrc", "fluence_per_frame": 0.0}
    data["movie_config"] = movie | {"particle_shifts_path": "shifts.csv"}
    z = {}
    for filtering in (True, False):
        data["apply_global_filtering"] = filtering
        Path("movie.yaml").write_text(yaml.safe_dump(data))
        assert main(["movie.yaml", "--output", f"{filtering}.csv"]) == 0
        z[filtering] = pd.read_csv(f"{filtering}.csv").refined_scaled_mip
    np.testing.assert_allclose(z[False], PEER_Z, rtol=1e-4)
    # From the micrograph; the sum of a movie is not made periodic at its edges.
    whole = pd.read_csv("refined.csv").refined_scaled_mip
    np.testing.assert_allclose(z[True], whole, rtol=4e-3)
