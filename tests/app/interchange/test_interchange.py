"""Hand-over: what RELION and cisTEM would make of the files that are written.

Their conventions are written down here anew, from their documentation and sources, and know
nothing of the package's: a projection in real space, a shift, a CTF.
"""

import os
import sys

import mrcfile
import numpy as np
import pandas as pd
import pytest
import scipy.ndimage
import scipy.spatial
import starfile

from jaxrefine import simulate as sim
from jaxrefine.app.cli import main
from jaxrefine.app.interchange.boxes import extract_boxes, normalised
from jaxrefine.app.interchange.export_star import export
from jaxrefine.data import InputError
from jaxrefine.io.mrc import read_image, write_image
from jaxrefine.io.mrc_stack import new_stack
from jaxrefine.io.star.reader import read_star
from jaxrefine.io.table import read_particle_table, write_table
from tests.reference import REFERENCE
from tests.tables import ROW

SIDE, BOX, PIXEL = 40, 64, 3.0
DEFOCUS, ANGLE = (9000.0, 6000.0), 25.0
MICROSCOPE = sim.Microscope(phase_shift_deg=20.0)
OFFSETS = (130.0, -90.0, 40.0)  # of the particles' defocus
CENTRES = ((48.3, 61.75), (90.6, 118.2), (140.45, 60.1))  # y, x


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A micrograph with little noise, its refined table, and the volume."""
    folder = tmp_path_factory.mktemp("hand_over")
    rng = np.random.default_rng(5)
    atoms = sim.random_globule(300, 0.42 * SIDE * PIXEL, rng).blurred(150.0)
    simulated = [
        sim.SimulatedParticle(
            rotation=rotation,
            centre_px=centre,
            defocus_angstrom=(DEFOCUS[0] + offset, DEFOCUS[1] + offset),
            astigmatism_deg=ANGLE,
            snr_ideal=500.0,
        )
        for rotation, centre, offset in zip(
            sim.random_rotations(3, rng), CENTRES, OFFSETS, strict=True
        )
    ]
    noise = sim.NoiseSpectrum(low=0.0)
    made = sim.simulate_micrograph(
        atoms, simulated, (192, 176), PIXEL, MICROSCOPE, rng, noise=noise, margin_px=32
    )
    write_image(folder / "image.mrc", made.image)
    rows = [refined_row(particle, number) for number, particle in enumerate(simulated)]
    failed = {name: "" for name in rows[0] if name.startswith("refined_")}
    rows.insert(1, rows[0] | failed | {"refined_status": "box_outside"})
    write_table(pd.DataFrame(rows), folder / "refined.csv")
    return folder, sim.potential_volume(atoms, SIDE, PIXEL)


def refined_row(particle, number):
    """The exact values of a particle, with different ones from the match."""
    y, x = particle.centre_px
    whole = {"x": round(x), "y": round(y)}
    phi, theta, psi = sim.euler_from_matrix(particle.rotation)
    row = ROW | {
        "particle_index": str(number),
        "micrograph_path": "image.mrc",
        "phi": "1.0",
        "theta": "2.0",
        "psi": "3.0",
        "refined_phi": f"{phi:.4f}",
        "refined_theta": f"{theta:.4f}",
        "refined_psi": f"{psi:.4f}",
        "relative_defocus": "0.0",
        "refined_relative_defocus": str(OFFSETS[number]),
        "defocus_u": str(DEFOCUS[0]),
        "defocus_v": str(DEFOCUS[1]),
        "astigmatism_angle": str(ANGLE),
        "pixel_size": str(PIXEL),
        "phase_shift": str(MICROSCOPE.phase_shift_deg),
        "refined_scaled_mip": f"{10.0 + number}",
        "refined_status": "converged",
    }
    for axis, exact in (("x", x), ("y", y)):
        row[f"refined_pos_{axis}"] = str(whole[axis] - SIDE // 2)
        row[f"refined_pos_{axis}_img"] = str(whole[axis])
        row[f"refined_pos_{axis}_img_angstrom"] = f"{exact * PIXEL:.4f}"
    return row


@pytest.fixture(scope="module")
def written(world):
    """The STAR file of each program, with boxes."""
    folder, _ = world
    files = {}
    for program in ("relion", "cistem"):
        files[program] = folder / f"{program}.star"
        words = ["--to", program, "--output", str(files[program]), "--box-size", str(BOX)]
        assert main(["export", str(folder / "refined.csv"), *words, "-q"]) == 0
    return files


# --- the programs' own conventions ------------------------------------------------


def projected(volume, to_volume):
    """Σ over z of volume(M·(x, y, z)), about the centre n // 2, in a box."""
    n = np.arange(BOX) - BOX // 2
    z, y, x = np.meshgrid(n, n, n, indexing="ij")
    at = np.einsum("ij,jzyx->izyx", to_volume, np.stack([x, y, z]))
    density = scipy.ndimage.map_coordinates(volume, at[::-1] + SIDE // 2, order=1)
    return density.sum(axis=0)


def relion_matrix(rot, tilt, psi):
    """RELION's Euler_angles2matrix: maps the reference frame to the image frame."""
    a, b, g = np.deg2rad([rot, tilt, psi])
    ca, cb, cg, sa, sb, sg = *np.cos([a, b, g]), *np.sin([a, b, g])
    return np.array(
        [
            [cg * cb * ca - sg * sa, cg * cb * sa + sg * ca, -cg * sb],
            [-sg * cb * ca - cg * sa, -sg * cb * sa + cg * ca, sg * sb],
            [sb * ca, sb * sa, cb],
        ]
    )


def frequencies():
    ky, kx = np.fft.fftfreq(BOX)[:, None], np.fft.rfftfreq(BOX)
    return kx, ky, np.hypot(kx, ky) / PIXEL, np.arctan2(ky + 0 * kx, kx + 0 * ky)


def wavelength(kv):
    return 12.2643247 / np.sqrt(kv * 1e3 + 0.978466e-6 * (kv * 1e3) ** 2)


def relion_ctf(u, v, angle, phase, optics):
    """-sin(K1 Δf k² + K2 k⁴ - phase - atan(Q0/√(1-Q0²))), Δf counted negative."""
    _, _, k, azimuth = frequencies()
    lam, q0 = wavelength(optics["rlnVoltage"]), optics["rlnAmplitudeContrast"]
    twice = 2 * (azimuth - np.deg2rad(angle))
    defocus = -(u + v) / 2 - (u - v) / 2 * np.cos(twice)
    cs = optics["rlnSphericalAberration"] * 1e7
    gamma = np.pi * lam * defocus * k**2 + np.pi / 2 * cs * lam**3 * k**4
    return -np.sin(gamma - np.deg2rad(phase) - np.arctan(q0 / np.sqrt(1 - q0**2)))


def cistem_ctf(row):
    """-sin(πλk²(Δf - λ²k²Cs/2) + phase + atan(A/√(1-A²)))."""
    _, _, k, azimuth = frequencies()
    lam = wavelength(row["cisTEMMicroscopeVoltagekV"])
    a, cs = row["cisTEMAmplitudeContrast"], row["cisTEMMicroscopeCsMM"] * 1e7
    u, v = row["cisTEMDefocus1"], row["cisTEMDefocus2"]
    twice = 2 * (azimuth - np.deg2rad(row["cisTEMDefocusAngle"]))
    defocus = (u + v + (u - v) * np.cos(twice)) / 2
    chi = np.pi * lam * k**2 * (defocus - lam**2 * k**2 * cs / 2)
    extra = np.deg2rad(row["cisTEMPhaseShift"]) + np.arctan(a / np.sqrt(1 - a**2))
    return -np.sin(chi + extra)


def seen(projection, ctf, move_px):
    """A projection with CTF, shifted by (x, y)."""
    kx, ky, _, _ = frequencies()
    move = np.exp(-2j * np.pi * (kx * move_px[0] + ky * move_px[1]))
    return np.fft.irfft2(np.fft.rfft2(projection) * ctf * move, s=projection.shape)


def distance(side):
    n = np.arange(side) - side // 2
    return np.hypot(n[:, None], n)


def correlation(one, other):
    near = distance(BOX) < 0.45 * BOX  # neighbours lie further away
    return np.corrcoef(one[near], other[near])[0, 1]


# --- the proof --------------------------------------------------------------------


def relion_image(volume, row, optics, **changed):
    """The box that RELION expects: origins move the image to the centre."""
    value = row | changed
    a = value.get("matrix")
    if a is None:
        angles = [value[f"rlnAngle{name}"] for name in ("Rot", "Tilt", "Psi")]
        a = relion_matrix(*angles)
    names = ("rlnDefocusU", "rlnDefocusV", "rlnDefocusAngle", "rlnPhaseShift")
    ctf = relion_ctf(*(value[name] for name in names), optics)
    origin = np.array([value["rlnOriginXAngst"], value["rlnOriginYAngst"]])
    return seen(projected(volume, a.T), ctf, -origin / optics["rlnImagePixelSize"])


def test_relion_sees_the_particles_and_sees_no_other_convention(world, written):
    _, volume = world
    blocks = starfile.read(written["relion"])
    optics = blocks["optics"].iloc[0].to_dict()
    mirror = np.diag([1.0, 1.0, -1.0])
    for _, series in blocks["particles"].iterrows():
        row = series.to_dict()
        number, _, name = row["rlnImageName"].partition("@")
        with mrcfile.mmap(name) as file:
            box = np.array(file.data[int(number) - 1])
        right = correlation(relion_image(volume, row, optics), box)
        assert right > 0.95
        a = relion_matrix(row["rlnAngleRot"], row["rlnAngleTilt"], row["rlnAnglePsi"])
        wrong = {
            "inverse": {"matrix": a.T},
            "other hand": {"matrix": a @ mirror},
            "psi turns the other way": {"rlnAnglePsi": -row["rlnAnglePsi"]},
            "rot and psi swapped": {
                "rlnAngleRot": row["rlnAnglePsi"],
                "rlnAnglePsi": row["rlnAngleRot"],
            },
            "astigmatism mirrored": {"rlnDefocusAngle": -row["rlnDefocusAngle"]},
            "u and v swapped": {
                "rlnDefocusU": row["rlnDefocusV"],
                "rlnDefocusV": row["rlnDefocusU"],
            },
            "no phase shift": {"rlnPhaseShift": 0.0},
            "origin the other way": {
                "rlnOriginXAngst": -row["rlnOriginXAngst"],
                "rlnOriginYAngst": -row["rlnOriginYAngst"],
            },
        }
        for what, changed in wrong.items():
            other = correlation(relion_image(volume, row, optics, **changed), box)
            assert other < right - 0.05, (what, other, right)
        transposed = correlation(relion_image(volume, row, optics).T, box)
        assert transposed < right - 0.1


def cistem_image(volume, row, sign=1.0, transposed=False):
    """Particles are dark; the shift is from the box's centre to the particle."""
    z = scipy.spatial.transform.Rotation.from_euler
    angles = [row[f"cisTEMAngle{name}"] for name in ("Phi", "Theta", "Psi")]
    matrix = z("ZYZ", angles, degrees=True).as_matrix()
    shift = np.array([row["cisTEMXShift"], row["cisTEMYShift"]]) / row["cisTEMPixelSize"]
    to_volume = matrix.T if transposed else matrix
    return seen(projected(volume, to_volume), cistem_ctf(row), sign * shift)


def test_cistem_sees_the_particles(world, written):
    folder, volume = world
    table = starfile.read(written["cistem"])
    stack = read_stack(folder / "cistem.mrcs")
    for _, series in table.iterrows():
        row = series.to_dict()
        box = stack[row["cisTEMPositionInStack"] - 1]
        right = correlation(cistem_image(volume, row), box)
        assert right > 0.95
        assert correlation(cistem_image(volume, row, sign=-1.0), box) < right - 0.05
        assert correlation(cistem_image(volume, row, transposed=True), box) < right - 0.1


def read_stack(path):
    with mrcfile.mmap(path) as file:
        assert file.is_image_stack()
        assert file.voxel_size.x == pytest.approx(PIXEL)
        return np.array(file.data)


# --- what is in the files ---------------------------------------------------------


def test_boxes_are_the_micrograph_s_pixels(world, written):
    folder, _ = world
    image = read_image(folder / "image.mrc")
    particles = starfile.read(written["relion"])["particles"]
    bright, dark = (read_stack(folder / f"{name}.mrcs") for name in ("relion", "cistem"))
    np.testing.assert_allclose(bright, -dark, atol=1e-5)
    x, y = (int(particles[f"rlnCoordinate{axis}"][0]) for axis in "XY")
    half = BOX // 2
    cut = image[y - half : y + half, x - half : x + half]
    slope, _ = np.polyfit(cut.ravel(), dark[0].ravel(), 1)
    np.testing.assert_allclose(
        dark[0] - slope * cut, np.mean(dark[0] - slope * cut), 0, 1e-3
    )
    assert len(bright) == len(particles) == 3  # the failed one is left out


@pytest.mark.parametrize("program", ["relion", "cistem"])
def test_round_trip_holds_all_that_the_format_holds(world, written, program, capsys):
    folder, _ = world
    back = folder / f"back_{program}.csv"
    words = ["--output", str(back), "--template-size", str(SIDE)]
    assert main(["import", str(written[program]), *words]) == 0
    assert "written" in (out := capsys.readouterr().out) and "--maps-from" in out
    table = pd.read_csv(folder / "refined.csv").iloc[[0, 2, 3]].reset_index(drop=True)
    found = pd.read_csv(back)
    same = {
        "pos_x": "refined_pos_x",
        "pos_y": "refined_pos_y",
        "pos_x_img": "refined_pos_x_img",
        "pos_x_img_angstrom": "refined_pos_x_img_angstrom",
        "pos_y_img_angstrom": "refined_pos_y_img_angstrom",
        "phi": "refined_phi",
        "theta": "refined_theta",
        "psi": "refined_psi",
        "scaled_mip": "refined_scaled_mip",
        **{name: name for name in ("astigmatism_angle", "pixel_size", "voltage")},
        "spherical_aberration": "spherical_aberration",
        "amplitude_contrast_ratio": "amplitude_contrast_ratio",
        "phase_shift": "phase_shift",
    }
    if program == "relion":  # cisTEM's file has no B factor
        same["ctf_B_factor"] = "ctf_B_factor"
    for mine, theirs in same.items():
        np.testing.assert_allclose(found[mine], table[theirs], rtol=0, atol=1e-4)
    for axis in "uv":
        absolute = table[f"defocus_{axis}"] + table["refined_relative_defocus"]
        np.testing.assert_array_equal(found[f"defocus_{axis}"], absolute)
    assert (found["relative_defocus"] == 0).all()
    assert found["micrograph_path"].tolist() == ["image.mrc"] * 3


def test_imported_particles_can_be_refined(world, written, tmp_path):
    """With the maps of a table of the same micrographs, the reader accepts them."""
    folder, _ = world
    for name in ("mean", "variance"):
        write_image(folder / f"{name}.mrc", np.ones((2, 2)))
    output = tmp_path / "particles.csv"
    words = ["--template-size", str(SIDE), "--maps-from", str(folder / "refined.csv")]
    assert main(["import", str(written["relion"]), "--output", str(output), *words]) == 0
    table = read_particle_table(output)
    assert len(table) == 3
    assert table.correlation_mean_paths == [str(folder / "mean.mrc")] * 3
    assert table.micrograph_paths == [str(folder / "image.mrc")] * 3


def test_an_import_says_what_the_maps_hold(tmp_path, capsys):
    """The new table lacks the match's z-scores, which would determine it."""
    table = REFERENCE.parent / "peer" / "refined_by_jaxrefine.csv"
    export(table, "relion", tmp_path / "x.star")
    words = ["import", str(tmp_path / "x.star"), "--output", str(tmp_path / "x.csv")]
    words += ["--template-size", "64", "--maps-from", str(table)]
    assert main(words) == 0
    assert "set `statistics: standard_deviation`" in capsys.readouterr().out
    # An existing file is replaced only with --overwrite.
    before = (tmp_path / "x.csv").read_bytes()
    assert main(words) == 2
    assert "x.csv: exists already" in capsys.readouterr().err
    assert (tmp_path / "x.csv").read_bytes() == before
    assert main([*words, "--overwrite"]) == 0


def test_optics_groups_and_one_pixel_size_for_each(world, tmp_path, caplog):
    folder, _ = world
    table = pd.read_csv(folder / "refined.csv").iloc[[0, 2, 3]]
    table["voltage"] = [300.0, 200.0, 300.0]
    table["refined_pixel_size"] = [3.01, 3.0, 3.03]
    table.to_csv(tmp_path / "refined.csv", index=False)
    for program in ("relion", "cistem"):
        export(tmp_path / "refined.csv", program, tmp_path / f"{program}.star")
    blocks = starfile.read(tmp_path / "relion.star", always_dict=True)
    assert blocks["optics"]["rlnVoltage"].tolist() == [300.0, 200.0]
    assert blocks["optics"]["rlnImagePixelSize"].tolist() == [3.01, 3.01]
    assert blocks["particles"]["rlnOpticsGroup"].tolist() == [1, 2, 1]
    assert "rlnImageName" not in blocks["particles"]
    cistem = starfile.read(tmp_path / "cistem.star")
    assert cistem["cisTEMPixelSize"].tolist() == [3.01, 3.0, 3.03]
    read = read_star(tmp_path / "relion.star")
    centre = (read.box_centre_px + read.shift_px)[:, ::-1]
    np.testing.assert_allclose(centre, CENTRES, atol=1e-4)


def test_left_out_particles_are_said_and_paths_are_found(world, tmp_path, capsys):
    folder, _ = world
    star = tmp_path / "x.star"
    words = ["--to", "cryosparc", "--output", str(star), "--boxes"]
    assert main(["export", str(folder / "refined.csv"), *words]) == 0
    out = capsys.readouterr().out
    assert "left out: 1 of 4 particles" in out and f"{star}: 3 particles" in out
    particles = starfile.read(star)["particles"]
    assert particles["rlnMicrographName"][0] == str(folder / "image.mrc")
    assert particles["rlnImageName"][2] == f"000003@{tmp_path / 'x.mrcs'}"
    assert read_stack(tmp_path / "x.mrcs").shape == (3, 60, 60)  # 1.5 times the template


# --- errors -----------------------------------------------------------------------


def invalid(world, tmp_path, **changed):
    """The world's table, one row, with a cell changed."""
    folder, _ = world
    rows = pd.read_csv(folder / "refined.csv", dtype=str, keep_default_na=False)
    row = rows.iloc[0].to_dict() | {"micrograph_path": str(folder / "image.mrc")}
    write_table(pd.DataFrame([row | changed]), tmp_path / "one.csv")
    return tmp_path / "one.csv"


@pytest.mark.parametrize(
    "changed, message",
    [
        ({"refined_scaled_mip": ""}, "holds no refined particle"),
        ({"micrograph_path": "a b.mrc"}, r"'a b.mrc'.*white space"),
        ({"micrograph_path": "gone.mrc"}, "gone.mrc: no such file"),
        ({"refined_pos_x_img_angstrom": "999"}, "line 2: .*the same position"),
        (
            {"refined_pos_x_img": "5000", "refined_pos_x_img_angstrom": "15000"},
            "image.mrc: .*x, y = 5000, .* lies outside",
        ),
    ],
)
def test_errors_of_a_table(world, tmp_path, changed, message):
    table = invalid(world, tmp_path, **changed)
    with pytest.raises(InputError, match=message):
        export(table, "relion", tmp_path / "x.star", boxes=True, box_px=BOX)
    assert not (tmp_path / "x.star").exists()
    assert not list(tmp_path.glob(".*"))  # nothing half-written


def test_a_table_that_was_not_refined_is_refused(world, tmp_path):
    write_table(pd.DataFrame([ROW]), tmp_path / "match.csv")
    with pytest.raises(InputError, match="name a refined table"):
        export(tmp_path / "match.csv", "relion", tmp_path / "x.star")


def test_inputs_are_not_overwritten(world, tmp_path):
    table = invalid(world, tmp_path)
    with pytest.raises(InputError, match="is an input"):
        export(table, "relion", table)
    with pytest.raises(InputError, match="should end in"):
        export(table, "relion", tmp_path / "x.mrcs", boxes=True)


@pytest.mark.parametrize(
    "text, message",
    [
        (
            "no star\n",
            r"x.star, line 1, column 1: is not a valid STAR file: expected block",
        ),
        ("data_particles\n\nloop_\n_rlnMicrographName #1\na.mrc\n", "holds no particles"),
        ("data_\n\nloop_\n_cisTEMAnglePsi #1\n1.0\n", "without orientations"),
        ("data_\n\nloop_\n_x #1\n1.0\n", "neither of RELION .* nor of cisTEM"),
        (
            "data_optics\n\nloop_\n_a #1\n_b #2\n1 2 # 3\n4\n",
            "is not a valid STAR file: Wrong number of values in loop",
        ),
    ],
)
def test_files_of_no_program(tmp_path, text, message):
    (tmp_path / "x.star").write_text(text)
    with pytest.raises(InputError, match=message):
        read_star(tmp_path / "x.star")


def test_a_cell_that_is_no_number(written, tmp_path):
    text = written["relion"].read_text()
    (tmp_path / "x.star").write_text(text.replace("9130.000000", "many"))
    with pytest.raises(InputError, match=r"_rlnDefocusU, row 1: 'many'"):
        read_star(tmp_path / "x.star")
    with pytest.raises(InputError, match="no such file"):
        read_star(tmp_path / "gone.star")


def test_the_missing_package_is_named(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "starfile", None)
    assert main(["export", "x.csv", "--to", "relion", "--output", "x.star"]) == 2
    assert "-m pip install starfile " in capsys.readouterr().err


@pytest.mark.parametrize("program", ["relion", "cistem"])
def test_names_may_begin_as_blocks_do(world, tmp_path, program):
    """They would be read as blocks, and the particles would be lost."""
    star = tmp_path / "x.star"
    export(invalid(world, tmp_path, micrograph_path="data_1.mrc"), program, star)
    assert read_star(star).micrograph == ["./data_1.mrc"]
    blocks = starfile.read(star, always_dict=True)
    assert [len(block) for block in blocks.values()] == [1] * len(blocks)


@pytest.mark.parametrize("odd", ["pipe", "circle", "broken"])
def test_an_export_replaces_nothing_but_a_file(world, tmp_path, capsys, odd):
    folder, _ = world
    output = tmp_path / "out.star"
    if odd == "pipe":
        os.mkfifo(output)
    else:
        output.symlink_to(output if odd == "circle" else tmp_path / "gone")

    def identity():  # reading a link changes its time of access
        now = output.lstat()
        return now.st_ino, now.st_mode, now.st_mtime_ns

    before = identity()
    words = ["export", str(folder / "refined.csv"), "--to", "relion", "--overwrite"]
    assert main([*words, "--output", str(output)]) == 2
    assert f"{output}: is a folder, a device, a pipe" in capsys.readouterr().err
    assert identity() == before


def test_images_are_not_overwritten(world, written, tmp_path, capsys):
    """Files that a table or a STAR file names, with any option."""
    folder, _ = world
    image = folder / "image.mrc"
    before = image.read_bytes()
    words = ["--output", str(image), "--overwrite"]
    assert main(["export", str(folder / "refined.csv"), "--to", "relion", *words]) == 2
    assert main(["import", str(written["relion"]), "--template-size", "40", *words]) == 2
    assert capsys.readouterr().err.count("image.mrc: is an input") == 2
    assert image.read_bytes() == before


def imported(star, output, *words):
    """Exit code of an import."""
    words = ["--output", str(output), "--template-size", "40", *words]
    return main(["import", str(star), *words])


@pytest.mark.parametrize("odd", ["folder", "pipe", "link", "input"])
def test_an_import_replaces_nothing_but_a_table(written, tmp_path, capsys, odd):
    output = tmp_path / "out.csv"
    if odd == "folder":
        output.mkdir()
    elif odd == "pipe":
        os.mkfifo(output)
    elif odd == "link":
        output.symlink_to(output)
    star = output if odd == "input" else written["relion"]
    if odd == "input":
        output.write_bytes(written["relion"].read_bytes())
    before = output.lstat()
    assert imported(star, output) == 2
    word = "is an input" if odd == "input" else "is a folder, a device, a pipe"
    assert f"error: {output}: {word}" in capsys.readouterr().err
    after = output.lstat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert list(tmp_path.iterdir()) == [output]


def test_what_an_import_cannot_find(world, written, tmp_path, capsys):
    """Exit code 2, one line, and nothing is written."""
    star = tmp_path / "x.star"
    text = written["relion"].read_text()
    (tmp_path / "loop.star").symlink_to(tmp_path / "loop.star")
    (tmp_path / "sub").mkdir()
    other = invalid(world, tmp_path, micrograph_path="other.mrc")
    maps = ["--maps-from", str(other)]
    for name, words, message in (
        ("image.mrc", maps, f"{other}: names no maps of image.mrc; add them, or omit"),
        ("image.mrc", ["--template-size", "1000000"], "should be in 1 … 500000 px"),
    ):
        star.write_text(text.replace("image.mrc", name))
        assert imported(star, tmp_path / "sub" / "out.csv", *words) == 2
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1
    assert imported(tmp_path / "loop.star", tmp_path / "sub" / "out.csv") == 2
    assert "cannot be read: Too many levels" in capsys.readouterr().err
    assert not list((tmp_path / "sub").iterdir())


# --- boxes ------------------------------------------------------------------------


def test_boxes_at_the_edge_are_reflected():
    image = np.arange(48.0).reshape(6, 8)
    image[3, 3] = np.nan
    (box,) = extract_boxes(image, np.array([[0, 5]]), 4)
    assert box.shape == (4, 4)
    assert box[2, 2] == image[5, 0]  # the centre
    assert box[2, 1] == image[5, 1] and box[3, 2] == image[4, 0]
    (other,) = extract_boxes(image, np.array([[3, 3]]), 2)
    assert np.isfinite(other).all()


def test_normalised_background():
    rng = np.random.default_rng(0)
    box = rng.normal(7.0, 3.0, (32, 32))
    flat = normalised(box, matter_is_bright=False)
    outside = distance(32) > 12
    assert abs(flat[outside].mean()) < 1e-12
    assert flat[outside].std() == pytest.approx(1.0)
    np.testing.assert_array_equal(normalised(box, matter_is_bright=True), -flat)
    assert not normalised(np.ones((8, 8)), matter_is_bright=True).any()


def test_a_stack_is_there_whole_or_not_at_all(tmp_path):
    path = tmp_path / "x.mrcs"
    with pytest.raises(RuntimeError), new_stack(path, 2, 4, 1.0):
        raise RuntimeError
    assert not list(tmp_path.iterdir())
    with new_stack(path, 2, 4, 1.0) as array:
        array[:] = np.arange(2)[:, None, None]
    assert mrcfile.read(path)[1].tolist() == [[1.0] * 4] * 4
    with (
        pytest.raises(InputError, match="cannot be written"),
        new_stack(tmp_path / "gone" / "x.mrcs", 1, 4, 1.0),
    ):
        pass
