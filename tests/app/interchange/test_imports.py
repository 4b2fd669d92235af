"""Files of other programs, each compared with one known particle."""

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.spatial
import starfile

from jaxrefine.app.cli import main
from jaxrefine.app.interchange.micrograph_names import matched_names, plain_name
from jaxrefine.data import InputError
from jaxrefine.io.mrc import write_image
from jaxrefine.io.star.particles import ReadOptions
from jaxrefine.io.star.reader import read_star
from jaxrefine.io.table import read_particle_table
from tests.tables import ROW, save

# One particle: its centre in px of a micrograph of 1.5 Å, everything else as below.
PIXEL, SHAPE = 1.5, (288, 320)  # y, x
CENTRE = (229.0, 148.0)  # x, y
EULER = (31.8, 76.9, 78.4)
TEMPLATE = 64
OPTICS = {"rlnVoltage": 300.0, "rlnSphericalAberration": 2.7, "rlnAmplitudeContrast": 0.07}
PARTICLE = {
    "rlnMicrographName": "image.mrc",
    "rlnCoordinateX": 232.0,
    "rlnCoordinateY": 143.0,
    "rlnAngleRot": EULER[0],
    "rlnAngleTilt": EULER[1],
    "rlnAnglePsi": EULER[2],
    "rlnDefocusU": 5200.0,
    "rlnDefocusV": 4950.0,
    "rlnDefocusAngle": 25.0,
}
ANGST = {"rlnOriginXAngst": 4.5, "rlnOriginYAngst": -7.5}  # the way back, times PIXEL
ORIGINAL, IMAGE = "rlnMicrographOriginalPixelSize", "rlnImagePixelSize"
OWN = "rlnMicrographPixelSize"
CISTEM = {
    "cisTEMAnglePhi": EULER[0],
    "cisTEMAngleTheta": EULER[1],
    "cisTEMAnglePsi": EULER[2],
    "cisTEMDefocus1": 5200.0,
    "cisTEMDefocus2": 4950.0,
    "cisTEMDefocusAngle": 25.0,
    "cisTEMScore": 8.5,
    "cisTEMPixelSize": PIXEL,
    "cisTEMMicroscopeVoltagekV": 300.0,
    "cisTEMMicroscopeCsMM": 2.7,
    "cisTEMAmplitudeContrast": 0.07,
    "cisTEMOriginalImageFilename": "'image.mrc'",
    "cisTEMOriginalXPosition": CENTRE[0] * PIXEL,
    "cisTEMOriginalYPosition": CENTRE[1] * PIXEL,
}


def loop(block, values):
    """A block with one row."""
    names = "".join(f"_{name} #{i}\n" for i, name in enumerate(values, 1))
    return f"\ndata_{block}\n\nloop_\n{names}{' '.join(map(str, values.values()))}\n"


def relion(optics=None, particle=None, block="particles"):
    """A file of RELION 3.1 and later."""
    group = {"rlnOpticsGroup": 1}
    optics = loop("optics", group | OPTICS | (optics or {}))
    return optics + loop(
        block, PARTICLE | group | (ANGST if particle is None else particle)
    )


def cistem(**changes):
    return "# some words\n" + loop("", CISTEM | changes)


# Kind -> text of the file. All describe the same particle.
KINDS = {
    "one pixel size, as csparc2star writes": relion({IMAGE: PIXEL}),
    "binned, all sizes there": relion({ORIGINAL: 0.75, IMAGE: 6.0, OWN: PIXEL}),
    "binned, super-resolution": relion({ORIGINAL: PIXEL, IMAGE: 6.0}),
    "micrograph only": relion({ORIGINAL: 0.75, OWN: PIXEL}),
    "not binned, RELION 4": relion({ORIGINAL: PIXEL, IMAGE: PIXEL}),
    "a block called images": relion({IMAGE: PIXEL}, block="images"),
    "a block called micrographs": relion({IMAGE: PIXEL}, block="micrographs"),
    "origins in px": relion({IMAGE: PIXEL}, {"rlnOriginX": 3.0, "rlnOriginY": -5.0}),
    "origins in px, binned": relion(
        {IMAGE: 6.0, OWN: PIXEL}, {"rlnOriginX": 0.75, "rlnOriginY": -1.25}
    ),
    "RELION 3.0": loop(
        "",
        PARTICLE
        | OPTICS
        | {"rlnOriginX": 3.0, "rlnOriginY": -5.0}
        | {"rlnMagnification": 10000.0, "rlnDetectorPixelSize": PIXEL},
    ),
    "cisTEM's 2DTM results, without shifts": cistem(),
    "cisTEM with shifts": cistem(
        cisTEMOriginalXPosition=232.0 * PIXEL,
        cisTEMOriginalYPosition=143.0 * PIXEL,
        cisTEMXShift=-4.5,
        cisTEMYShift=7.5,
    ),
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A micrograph with maps, and a table that names them, in the current directory."""
    monkeypatch.chdir(tmp_path)
    write_image("image.mrc", np.zeros(SHAPE))
    valid = [side - TEMPLATE + 1 for side in SHAPE]
    for name in ("mean.mrc", "variance.mrc"):
        write_image(name, np.ones(valid))
    save(tmp_path / "match.csv", ROW | {"micrograph_path": "image.mrc"})
    return tmp_path


def imported(folder, name, *words):
    """The converted file as text; with maps, it is a table that can be refined."""
    words = ["--output", "out.csv", "--template-size", str(TEMPLATE), *words]
    assert main(["import", name, *words, "--overwrite"]) == 0
    if "--maps-from" in words:
        read_particle_table(folder / "out.csv", ignore_aberrations=True)
    return pd.read_csv(folder / "out.csv", dtype=str, keep_default_na=False)


def check_particle(table):
    """Up to the rounding of the formats, which lack the defocus of the micrograph."""
    numbers = {
        "pos_x": CENTRE[0] - TEMPLATE // 2,
        "pos_y": CENTRE[1] - TEMPLATE // 2,
        "pos_x_img_angstrom": CENTRE[0] * PIXEL,
        "pos_y_img_angstrom": CENTRE[1] * PIXEL,
        **dict(zip(("phi", "theta", "psi"), EULER, strict=True)),
        **{"defocus_u": 5200.0, "defocus_v": 4950.0, "astigmatism_angle": 25.0},
        **{"pixel_size": PIXEL, "voltage": 300.0, "spherical_aberration": 2.7},
        **{"amplitude_contrast_ratio": 0.07, "phase_shift": 0.0},
    }
    for name, right in numbers.items():
        assert float(table[name][0]) == pytest.approx(right, abs=1e-3), name


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_says_the_same(folder, kind):
    (folder / "x.star").write_text(KINDS[kind])
    check_particle(imported(folder, "x.star", "--maps-from", "match.csv"))


@pytest.mark.parametrize(
    "name",
    [
        "00012345678901234567_image.mrc",
        "J12/motioncorrected/image_patch_aligned_doseweighted.mrc",
        "S1/motioncorrected/009876543210987654321_image_rigid_aligned.mrc",
        "MotionCorr/job002/Movies/image.mrc",
    ],
)
def test_names_as_cryosparc_writes_them(folder, capsys, name):
    text = relion({IMAGE: PIXEL}).replace("image.mrc", name)
    (folder / "x.star").write_text(text)
    table = imported(folder, "x.star", "--maps-from", "match.csv")
    assert table["micrograph_path"].tolist() == [str(folder / "image.mrc")]
    assert table["correlation_average_path"].tolist() == [str(folder / "mean.mrc")]
    out = capsys.readouterr().out
    assert (f"{name} is assumed to be" in out) == (not name.endswith("/image.mrc"))


def test_names_are_matched_whole_before_in_part():
    known = dict.fromkeys(["a.mrc", "a_aligned.mrc", "b_aligned.mrc", "b_DW.mrc"])
    found = matched_names(["x/a.mrc", "a_aligned.mrc"], known, Path("t.csv"))
    assert found == {"x/a.mrc": "a.mrc", "a_aligned.mrc": "a_aligned.mrc"}
    with pytest.raises(InputError, match=r"b\.mrc could be b_DW\.mrc or b_aligned\.mrc"):
        matched_names(["b.mrc"], known, Path("t.csv"))
    assert plain_name("12345_a.mrc") == "12345_a"  # no number of cryoSPARC's


# --- the pixel size -----------------------------------------------------------------


@pytest.mark.parametrize(
    "optics, words, message",
    [
        # Binned particles, without information on the pixel size of micrograph or movie.
        ({ORIGINAL: 0.75, IMAGE: 6.0}, [], r"which pixel size .*0.75 Å .*--pixel-size"),
        (
            {ORIGINAL: 0.75, IMAGE: 6.0},
            ["--maps-from", "match.csv"],
            r"--pixel-size \(probably 1.5",
        ),
        ({IMAGE: 6.0}, ["--maps-from", "match.csv"], r"is 6 Å, .* maps 1.5 Å: give"),
        ({OWN: 6.0}, ["--maps-from", "match.csv"], r"_rlnMicrographPixelSize is 6 Å"),
        ({}, [], "holds no pixel size"),
    ],
)
def test_a_pixel_size_that_is_not_the_micrographs(folder, capsys, optics, words, message):
    (folder / "x.star").write_text(relion(optics))
    line = ["import", "x.star", "--output", "o.csv", "--template-size", "64", *words]
    assert main(line) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert re.search(message, error), error
    # Asked for, and given.
    check_particle(imported(folder, "x.star", *words, "--pixel-size", "1.5"))


def test_a_micrograph_s_header_chooses(folder):
    write_image("image.mrc", np.zeros(SHAPE), 0.75)
    (folder / "x.star").write_text(relion({ORIGINAL: 0.75, IMAGE: 6.0}))
    assert imported(folder, "x.star")["pixel_size"].tolist() == ["0.75"]


def test_what_is_taken_on_trust_is_said(folder, capsys):
    (folder / "x.star").write_text(relion({IMAGE: PIXEL}, ANGST | {"rlnClassNumber": 3}))
    imported(folder, "x.star")
    out = capsys.readouterr().out
    assert "if they are binned, give the micrographs' own with --pixel-size" in out
    assert "left out of the table: _rlnClassNumber" in out
    text = relion({OWN: PIXEL}).replace("232.0", "932.0")
    (folder / "x.star").write_text(text)
    imported(folder, "x.star")
    assert "1 of 1 particles lie outside their micrographs" in capsys.readouterr().out


# --- picks, phase shifts --------------------------------------------------------------


@pytest.mark.parametrize("text", [relion({IMAGE: PIXEL}), cistem()])
def test_picks_without_angles(folder, capsys, text):
    text = text.replace("rlnAngleRot", "rlnOther").replace("cisTEMAnglePhi", "cisTEMOther")
    (folder / "x.star").write_text(text)
    line = ["import", "x.star", "--output", "o.csv", "--template-size", "64"]
    assert main(line) == 2
    error = capsys.readouterr().err
    assert "particles without orientations" in error and "2DTM" in error


@pytest.mark.parametrize(
    "first_line, value, words, right",
    [
        ("# Written by cisTEM Version 2.0.0", 1.57, [], np.rad2deg(1.57)),
        ("# some words", 1.57, [], np.rad2deg(1.57)),
        ("# some words", 90.0, [], 90.0),
        ("# jaxrefine: phase shifts in degrees", 1.57, [], 1.57),
        ("# some words", 1.57, ["--phase-shift-unit", "degrees"], 1.57),
        ("# some words", 0.0, [], 0.0),
    ],
)
def test_phase_shifts_of_cistem(folder, capsys, first_line, value, words, right):
    text = cistem(cisTEMPhaseShift=value).replace("# some words", first_line)
    (folder / "x.star").write_text(text)
    table = imported(folder, "x.star", *words)
    assert float(table["phase_shift"][0]) == pytest.approx(right, abs=1e-4)
    assert ("taken as radians" in capsys.readouterr().out) == (right > 89 and value < 2)


def test_phase_shifts_that_contradict_their_origin(folder, capsys):
    text = cistem(cisTEMPhaseShift=90.0)
    (folder / "x.star").write_text(text.replace("# some words", "# Written by cisTEM 2"))
    line = ["import", "x.star", "--output", "o.csv", "--template-size", "64"]
    assert main(line) == 2
    assert "--phase-shift-unit" in capsys.readouterr().err


# --- cryoSPARC ----------------------------------------------------------------------


def records(mirrored=False, **more):
    """A particle in a `.cs` file, with a box binned to 6 Å."""
    rotation = scipy.spatial.transform.Rotation.from_euler("ZYZ", EULER, degrees=True)
    y, shift_y, angle = 143.0, -7.5, 25.0
    if mirrored:  # an image turned top to bottom shows the volume turned about x
        y, shift_y, angle = SHAPE[0] - 1 - y, -shift_y, -angle
        turn = scipy.spatial.transform.Rotation.from_rotvec([np.pi, 0, 0])
        rotation = rotation * turn
    fields = {
        "uid": np.uint64(77),
        "location/micrograph_path": b">J1/motioncorrected/0000123456789012345_image.mrc",
        "location/micrograph_shape": np.uint32(SHAPE),
        "location/micrograph_psize_A": np.float32(PIXEL),
        "location/center_x_frac": np.float32(232.0 / SHAPE[1]),
        "location/center_y_frac": np.float32(y / SHAPE[0]),
        "blob/psize_A": np.float32(6.0),
        "alignments3D/pose": np.float32(rotation.as_rotvec()),
        "alignments3D/shift": np.float32([4.5 / 6.0, shift_y / 6.0]),
        "alignments3D/psize_A": np.float32(6.0),
        "ctf/accel_kv": np.float32(300.0),
        "ctf/cs_mm": np.float32(2.7),
        "ctf/amp_contrast": np.float32(0.07),
        "ctf/df1_A": np.float32(5200.0),
        "ctf/df2_A": np.float32(4950.0),
        "ctf/df_angle_rad": np.float32(np.deg2rad(angle)),
        "ctf/phase_shift_rad": np.float32(0.0),
        **more,
    }
    return fields


def save_cs(path, fields):
    arrays = {name: np.asarray(value)[None] for name, value in fields.items()}
    kinds = [(name, a.dtype, a.shape[1:]) for name, a in arrays.items()]
    found = np.zeros(1, kinds)
    for name, array in arrays.items():
        found[name] = array
    with open(path, "wb") as file:  # np.save would append .npy
        np.save(file, found)


def test_cryosparc(folder, capsys):
    tilt = 2.7e7 * np.sin(0.3e-3)  # of 0.3 mrad
    more = {"ctf/tilt_A": np.float32([tilt, 0]), "ctf/tetra_A": np.float32([0, 3, 0, 0])}
    save_cs("x.cs", records(**more, **{"ctf/anisomag": np.zeros(4, np.float32)}))
    table = imported(folder, "x.cs", "--maps-from", "match.csv")
    check_particle(table)
    assert float(table["beam_tilt_x"][0]) == pytest.approx(-0.3, abs=1e-6)
    assert json.loads(table["even_zernikes"][0]) == {"ctf/tetra_A": [0, 3, 0, 0]}
    assert "mag_matrix" not in table  # it is none
    save_cs("x.cs", records(mirrored=True))
    check_particle(imported(folder, "x.cs", "--maps-from", "match.csv", "--mirrored"))


def test_cryosparc_in_two_files(folder, capsys):
    fields = records()
    first = {n: v for n, v in fields.items() if not n.startswith("location")}
    second = {n: v for n, v in fields.items() if n.startswith("location") or n == "uid"}
    save_cs("x.cs", first)
    save_cs("passthrough.cs", second)
    line = ["import", "x.cs", "--output", "o.csv", "--template-size", "64"]
    assert main(line) == 2
    assert "location/center_x_frac" in (error := capsys.readouterr().err)
    assert "--passthrough" in error
    words = ["--maps-from", "match.csv", "--passthrough", "passthrough.cs"]
    check_particle(imported(folder, "x.cs", *words))
    save_cs("passthrough.cs", second | {"uid": np.uint64(78)})
    assert main([*line, "--passthrough", "passthrough.cs"]) == 2
    assert "lacks 1 of the particles" in capsys.readouterr().err


def test_cryosparc_files_that_are_none(folder, capsys):
    with open("x.cs", "wb") as file:
        np.save(file, np.array([{"a": 1}], object), allow_pickle=True)
    with pytest.raises(InputError, match=r"not a valid \.cs file"):  # nothing is unpickled
        read_star(folder / "x.cs")
    np.save("x.npy", np.zeros(3))
    with pytest.raises(InputError, match="array without fields"):
        read_star(folder / "x.npy")
    picks = {name: v for name, v in records().items() if "alignments3D" not in name}
    save_cs("x.cs", picks)
    with pytest.raises(InputError, match="particles without orientations"):
        read_star(folder / "x.cs")
    save_cs("x.cs", records(**{"ctf/df1_A": np.float32(np.nan)}))
    with pytest.raises(InputError, match="field ctf/df1_A, particle 1: nan"):
        read_star(folder / "x.cs", ReadOptions())


# --- aberrations and optics groups, there and back -----------------------------------

ABERRATIONS = {
    "rlnBeamTiltX": 0.12,
    "rlnBeamTiltY": -0.3,
    "rlnOddZernike": "[0.1,0,0,0,0.25,0]",
    "rlnEvenZernike": "[0,0,0,0,0,0,1.5,0,0]",
    **{"rlnMagMat00": 1.01, "rlnMagMat01": 0.002, "rlnMagMat10": 0.002},
    "rlnMagMat11": 0.99,
    "rlnOpticsGroupName": "grid_7",
    ORIGINAL: 0.75,
}


def refined(table, path):
    """The table, as if refinement had not changed the starting values."""
    raw = table.copy()
    for name in ("pos_x", "pos_y", "phi", "theta", "psi", "relative_defocus"):
        raw[f"refined_{name}"] = raw[name]
    for axis in "xy":
        for unit in ("", "_angstrom"):
            name = f"pos_{axis}_img{unit}"
            raw[f"refined_{name}"] = raw[name]
    raw["refined_scaled_mip"] = "9.5"
    raw.to_csv(path, index=False)


def test_aberrations_are_kept_there_and_back(folder, capsys):
    (folder / "x.star").write_text(relion({OWN: PIXEL, IMAGE: PIXEL} | ABERRATIONS))
    table = imported(folder, "x.star", "--maps-from", "match.csv")
    # RELION's phases have the other sign.
    assert table["beam_tilt_x"][0] == "-0.12" and table["beam_tilt_y"][0] == "0.3"
    odd = json.loads(table["odd_zernikes"][0])
    assert odd == {"rlnOddZernike": [0.1, 0, 0, 0, 0.25, 0]}
    # RELION sees the object at M (kx, ky), we at A⁻ᵀ (ky, kx).
    ours = np.array(json.loads(table["mag_matrix"][0])).reshape(2, 2)
    theirs = np.array([[1.01, 0.002], [0.002, 0.99]])
    k = np.array([0.3, -0.1])
    np.testing.assert_allclose(np.linalg.inv(ours).T @ k[::-1], (theirs @ k)[::-1], 1e-7)
    refined(table, folder / "refined.csv")
    assert main(["export", "refined.csv", "--to", "relion", "--output", "y.star"]) == 0
    optics = starfile.read("y.star", always_dict=True)["optics"].iloc[0]
    for name, right in ABERRATIONS.items():
        if "Zernike" in name:
            assert json.loads(optics[name]) == json.loads(right)
        elif isinstance(right, str):
            assert optics[name] == right
        else:
            assert optics[name] == pytest.approx(right, abs=1e-6)  # six decimals
    assert optics["rlnImageSize"] == 96  # 1.5 times the template's
    again = imported(folder, "y.star", "--maps-from", "match.csv")
    names = ["odd_zernikes", "even_zernikes", "mag_matrix"]
    names += ["rlnOpticsGroupName", "pos_x_img_angstrom"]
    assert again[names].equals(table[names])
    for name in ("beam_tilt_x", "beam_tilt_y", ORIGINAL):  # starfile writes six decimals
        assert float(again[name][0]) == float(table[name][0])
    # cisTEM stores only the tilt; a message says so.
    assert main(["export", "refined.csv", "--to", "cistem", "--output", "z.star"]) == 0
    row = starfile.read("z.star").iloc[0]
    assert (row["cisTEMBeamTiltX"], row["cisTEMBeamTiltY"]) == (-0.12, 0.3)
    assert "mag_matrix is not in the file" in capsys.readouterr().err


def test_coefficients_of_another_convention_are_not_ignored_in_silence(folder):
    (folder / "x.star").write_text(relion({OWN: PIXEL} | ABERRATIONS))
    imported(folder, "x.star", "--maps-from", "match.csv")
    with pytest.raises(InputError) as caught:
        read_particle_table(folder / "out.csv")
    assert len(caught.value.errors) == 2
    for error, name in zip(caught.value.errors, ("even", "odd"), strict=True):
        assert f"column {name}_zernikes" in error and "ignore_aberrations: true" in error


def test_optics_groups_get_the_micrographs_names(folder, capsys):
    (folder / "x.star").write_text(relion({OWN: PIXEL}))
    table = imported(folder, "x.star", "--maps-from", "match.csv")
    refined(table, folder / "refined.csv")
    names = {"rlnOpticsGroup": 4, "rlnOpticsGroupName": "shot_4"}
    images = {"rlnMicrographName": "MotionCorr/job2/image.mrc", "rlnOpticsGroup": 4}
    text = loop("optics", names | OPTICS) + loop("micrographs", images)
    (folder / "micrographs.star").write_text(text)
    words = ["export", "refined.csv", "--to", "relion", "--output", "y.star", "--overwrite"]
    assert main(words) == 0
    optics = starfile.read("y.star", always_dict=True)["optics"]
    assert optics["rlnOpticsGroupName"].tolist() == ["opticsGroup1"]
    assert main([*words, "--optics-from", "micrographs.star"]) == 0
    optics = starfile.read("y.star", always_dict=True)["optics"]
    assert optics["rlnOpticsGroupName"].tolist() == ["shot_4"]
    assert optics["rlnOpticsGroup"].tolist() == [1]
    (folder / "micrographs.star").write_text(text.replace("image.mrc", "other.mrc"))
    assert main([*words, "--optics-from", "micrographs.star"]) == 2
    assert "has no optics group of image.mrc" in capsys.readouterr().err


def test_one_name_of_differing_optics_is_warned_of(folder, caplog):
    (folder / "x.star").write_text(relion({OWN: PIXEL, "rlnOpticsGroupName": "one"}))
    refined(imported(folder, "x.star", "--maps-from", "match.csv"), folder / "refined.csv")
    table = pd.read_csv("refined.csv", dtype=str)
    table = pd.concat([table, table.assign(voltage="200")])
    table.to_csv("refined.csv", index=False)
    assert main(["export", "refined.csv", "--to", "relion", "--output", "y.star"]) == 0
    optics = starfile.read("y.star", always_dict=True)["optics"]
    assert optics["rlnOpticsGroupName"].tolist() == ["one", "one_2"]
