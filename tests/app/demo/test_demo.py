"""The demo's files, and the comparison with its truth."""

import csv

import mrcfile
import numpy as np
import pytest
import yaml

from jaxrefine import simulate as sim
from jaxrefine.app.config import Config
from jaxrefine.app.demo import dataset as demo
from jaxrefine.app.demo import matching as demo_match
from jaxrefine.io.table import decide_statistics, read_particle_table

# --- the whole folder, made once ---------------------------------------------------------


def read_csv(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_demo_holds_what_its_readme_says(demo_folder):
    readme = (demo_folder / "README.md").read_text()
    assert "python -m jaxrefine config.yaml" in readme
    for path in set(demo_folder.iterdir()) - {demo_folder / "README.md"}:
        kind = path.name.replace("_0.mrc", "").replace("_1.mrc", "").split("_")[0]
        assert kind in readme, path.name
    template = mrcfile.read(demo_folder / "template.mrc")
    assert template.shape == (96, 96, 96) and template.dtype == np.float32
    for number in (0, 1):
        assert mrcfile.read(demo_folder / f"micrograph_{number}.mrc").shape == (512, 480)
        for name in ("correlation_average", "correlation_variance", "mip", "scaled_mip"):
            with mrcfile.open(demo_folder / f"{name}_{number}.mrc") as file:
                assert file.data.shape == (512 - 95, 480 - 95)
                assert file.voxel_size.x == pytest.approx(2.0)


@pytest.mark.slow
def test_demo_config_names_its_files(demo_folder):
    config = yaml.safe_load((demo_folder / "config.yaml").read_text())
    assert (demo_folder / config["template_volume_path"]).exists()
    stack = config["particle_stack"]
    assert (demo_folder / stack["df_path"]).exists()
    assert stack["original_template_size"] == [96, 96]
    assert stack["extracted_box_size"] == [108, 108]
    for row in read_csv(demo_folder / stack["df_path"]):
        paths = [value for name, value in row.items() if name.endswith("_path")]
        assert len(paths) == 10 and all((demo_folder / path).is_file() for path in paths)


@pytest.mark.slow
def test_the_program_accepts_the_demo(demo_folder):
    config = Config.load(demo_folder / "config.yaml")
    assert config.particle_stack.extracted_box_size == (108, 108)
    table = read_particle_table(demo_folder / "match_results.csv")
    assert len(table) == 11
    assert decide_statistics(table) == "standard_deviation"


@pytest.mark.slow
def test_demo_columns_are_those_of_a_match(demo_folder):
    rows = read_csv(demo_folder / "match_results.csv")
    wanted = (
        "particle_index mip scaled_mip correlation_mean correlation_variance "
        "total_correlations pos_x pos_y pos_x_img pos_y_img pos_x_img_angstrom "
        "pos_y_img_angstrom phi theta psi relative_defocus defocus_u defocus_v "
        "astigmatism_angle pixel_size refined_pixel_size voltage spherical_aberration "
        "amplitude_contrast_ratio phase_shift ctf_B_factor even_zernikes odd_zernikes "
        "mag_matrix micrograph_path template_path mip_path scaled_mip_path psi_path "
        "theta_path phi_path defocus_path correlation_average_path "
        "correlation_variance_path"
    )
    assert list(rows[0]) == wanted.split()
    assert [int(row["particle_index"]) for row in rows] == list(range(len(rows)))


@pytest.mark.slow
def test_demo_finds_the_planted_particles(demo_folder):
    found = demo.compare_with_truth(demo_folder, demo_folder / "match_results.csv")
    assert len(found.particles) == 11 and found.n_missed == 0 and found.n_false == 0
    for particle in found.particles:
        assert particle.position_px[0] < 1.5
        assert particle.angle_deg[0] < 3.0
        assert particle.defocus_angstrom[0] <= 150.0
    # Room for a refinement to show something, and near enough for it to work.
    assert 0.8 < found.mean("angle_deg")[0] < 2.2
    assert found.mean("defocus_angstrom")[0] > 30.0


@pytest.mark.slow
def test_demo_table_agrees_with_its_maps(demo_folder):
    for row in read_csv(demo_folder / "match_results.csv"):
        value = {name: float(row[name]) for name in list(row)[:29] if row[name]}
        z = (value["mip"] - value["correlation_mean"]) / value["correlation_variance"]
        assert z == pytest.approx(value["scaled_mip"], rel=1e-5)
        at = (int(row["pos_y"]), int(row["pos_x"]))
        for name, column in [
            ("mip_path", "mip"),
            ("correlation_average_path", "correlation_mean"),
            ("correlation_variance_path", "correlation_variance"),
            ("psi_path", "psi"),
        ]:
            on_map = mrcfile.read(demo_folder / row[name])[at]
            assert on_map == pytest.approx(value[column], rel=1e-6)
        assert int(row["pos_x_img"]) == at[1] + 48


@pytest.mark.slow
def test_demo_correlations_have_unit_noise(demo_folder):
    # Away from the particles, over positions and orientations.
    for number in (0, 1):
        deviation = mrcfile.read(demo_folder / f"correlation_variance_{number}.mrc")
        assert np.median(deviation) == pytest.approx(1.0, abs=0.08)
        mean = mrcfile.read(demo_folder / f"correlation_average_{number}.mrc")
        assert abs(np.median(mean)) < 0.1


# --- its parts, on small data ------------------------------------------------------------


def test_match_finds_a_planted_particle_in_units_of_noise():
    rng = np.random.default_rng(3)
    atoms = sim.random_globule(150, 20.0, rng).blurred(30.0)
    rotations = sim.random_rotations(12, rng)
    microscope = sim.Microscope()
    simulated = sim.SimulatedParticle(
        rotations[7], (70.0, 61.0), (4000.0, 4000.0), snr_ideal=20.0
    )
    made = sim.simulate_micrograph(atoms, [simulated], (144, 128), 2.0, microscope, rng)
    projections = demo_match.projections_rfft(atoms, rotations, 32, 2.0)
    ctf = sim.ctf_rfft((32, 32), 2.0, (4000.0, 4000.0), 0.0, microscope)
    maps = demo_match.match(made.image, projections, rotations, ctf, 7)
    mip = maps["mip"]
    assert mip.shape == (113, 97) and mip.dtype == np.float32
    assert np.unravel_index(np.argmax(mip), mip.shape) == (70 - 16, 61 - 16)
    assert 16.0 < mip.max() < 22.0
    names = ("orientation_phi", "orientation_theta", "orientation_psi")
    found = sim.matrix_from_euler(*(float(maps[name][54, 45]) for name in names))
    assert sim.angle_between_deg(found, rotations[7]) < 1e-3


def test_opposite_views():
    rng = np.random.default_rng(3)
    atoms = sim.random_globule(50, 12.0, rng).blurred(60.0)
    one = sim.random_rotations(3, rng)
    projections = demo_match.projections_rfft(atoms, one, 16, 2.0)
    both, rotations = demo_match.with_opposite_views(projections, one)
    np.testing.assert_allclose(np.linalg.det(rotations), 1.0)
    wanted = demo_match.projections_rfft(atoms, rotations, 16, 2.0)
    inside = [*range(8), *range(9, 16)]  # the Nyquist row has no opposite
    np.testing.assert_allclose(both[:, inside, :8], wanted[:, inside, :8], atol=1e-4)


def test_peaks_come_best_first_and_keep_their_distance():
    z = np.zeros((60, 50), dtype=np.float32)
    z[10, 10], z[12, 11], z[40, 30], z[55, 5] = 9.0, 8.5, 12.0, 3.0
    assert list(demo_match.peaks(z, 100, 8.0)) == [(40, 30), (10, 10)]


def test_places_do_not_overlap():
    places = np.array(demo._places(8, np.random.default_rng(0)))
    apart = np.linalg.norm(places[:, None] - places[None], axis=2) + 1e3 * np.eye(8)
    assert apart.min() > 84.0
    assert places.min() >= 60 and np.all(places.max(axis=0) <= np.array(demo.SHAPE) - 60)


# --- the comparison ----------------------------------------------------------------------


def write_rows(path, rows):
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


PLANTED = {
    "particle_index": 0,
    "micrograph_path": "m.mrc",
    "pos_x": 100.25,
    "pos_y": 50.5,
    "phi": 30.0,
    "theta": 60.0,
    "psi": 90.0,
    "relative_defocus": 80.0,
}


def test_comparison_before_and_after(tmp_path):
    write_rows(
        tmp_path / "truth.csv", [PLANTED, PLANTED | {"particle_index": 1, "pos_y": 90}]
    )
    row = PLANTED | {
        "micrograph_path": "elsewhere/m.mrc",
        "pos_x": 101,
        "pos_y": 50,
        "psi": 92.0,
        "relative_defocus": 0.0,
        "scaled_mip": 8.0,
        "refined_pos_x": 100,
        "refined_pos_y": 50,
        "refined_phi": 30.0,
        "refined_theta": 60.0,
        "refined_psi": 90.5,
        "refined_relative_defocus": 90.0,
        "refined_scaled_mip": 10.0,
    }
    false = row | {"pos_x": 300}
    write_rows(tmp_path / "refined.csv", [false, row])
    got = demo.compare_with_truth(tmp_path, tmp_path / "refined.csv")
    assert (len(got.particles), got.n_missed, got.n_false) == (1, 1, 1)
    (one,) = got.particles
    assert one.particle_index == "0"
    assert one.angle_deg == pytest.approx((2.0, 0.5))
    assert one.position_px == pytest.approx((np.hypot(0.75, 0.5), np.hypot(0.25, 0.5)))
    assert one.defocus_angstrom == (80.0, 10.0)
    assert one.z_score == (8.0, 10.0)
    assert got.mean("z_score") == (8.0, 10.0)
    text = str(got)
    assert "2.00 -> 0.50" in text and "1 simulated particles have no row" in text


def test_comparison_counts_the_sub_pixel_shift(tmp_path):
    write_rows(tmp_path / "truth.csv", [PLANTED])
    refined = {"refined_pos_x": 100, "refined_pos_y": 51, "scaled_mip": 8.0}
    shift = {"refined_shift_x": 0.25, "refined_shift_y": -0.4}
    write_rows(tmp_path / "refined.csv", [PLANTED | refined | shift])
    (one,) = demo.compare_with_truth(tmp_path, tmp_path / "refined.csv").particles
    assert one.position_px == pytest.approx((0.0, 0.1))


def test_comparison_of_an_unrefined_table(tmp_path):
    write_rows(tmp_path / "truth.csv", [PLANTED])
    write_rows(tmp_path / "table.csv", [PLANTED | {"scaled_mip": 7.0, "refined_phi": ""}])
    got = demo.compare_with_truth(tmp_path, tmp_path / "table.csv")
    assert got.particles[0].angle_deg == pytest.approx((0.0, 0.0), abs=1e-6)
    assert got.particles[0].z_score == (7.0, 7.0)
