"""The run as a whole: batches, devices, compilations, several micrographs."""

from dataclasses import replace

import jax
import numpy as np
import pandas as pd
import pytest
import yaml

from jaxrefine.app.config import Config
from jaxrefine.app.run import accuracy as monitor
from jaxrefine.app.run.inputs import load_inputs
from jaxrefine.app.run.pipeline import filled_batches, run
from jaxrefine.io.mrc import read_image, write_image
from jaxrefine.physics.rotations import euler_to_matrix
from jaxrefine.refine import prepare
from jaxrefine.refine import refine as refining
from jaxrefine.refine.refine import search_batch
from tests.reference import reference_set

pytestmark = pytest.mark.usefixtures("compiled_to_run_fast")

QUICK = {
    "orientation_refinement_config": {
        "psi_step_coarse": 1.0,
        "psi_step_fine": 0.5,
        "theta_step_coarse": 1.0,
        "theta_step_fine": 0.5,
    },
    "defocus_refinement_config": {"defocus_step": 100.0},
}


@pytest.fixture
def folder(tmp_path):
    return reference_set("two_micrographs", tmp_path)


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """The table of the unchanged set."""
    return refine(reference_set("two_micrographs", tmp_path_factory.mktemp("straight")))


def refine(folder, table=None, **changes):
    """Run the set with a quick search; its refined table."""
    if table is not None:
        table.to_csv(folder / "match_results.csv", index=False)
    data = yaml.safe_load((folder / "refine.yaml").read_text())
    config = Config.from_dict({**data, **QUICK, **changes}, str(folder / "refine.yaml"))
    run(config, output=folder / "out.csv", quiet=True)
    return pd.read_csv(folder / "out.csv")


@pytest.mark.slow
def test_batches_are_as_large_as_the_layout_says(folder):
    """Several particles on each device, padded to one size."""
    inputs = load_inputs(Config.load(folder / "refine.yaml"))
    layout = replace(inputs.layout, particles=3)
    inputs = replace(inputs, layout=layout)
    rows = np.arange(len(inputs.table))
    at_once = 3 * inputs.mesh.shape["particles"]
    seen = []
    for batch, particles in filled_batches(inputs, rows):
        assert particles.valid.shape == (at_once,)
        assert particles.valid.sum() == len(batch)
        seen += list(batch)
    assert sorted(seen) == list(rows)


@pytest.mark.slow
def test_one_compilation_whatever_the_numbers_of_particles(folder):
    """Micrographs with 1, 7 and 9 particles on four devices: batches of one shape."""
    table = pd.read_csv(folder / "match_results.csv", index_col=0)
    first = table[table.micrograph_path == "micrograph_0.mrc"].iloc[:1]
    second = table[table.micrograph_path == "micrograph_1.mrc"].iloc[:1]
    # Another file by its path.
    third = first.assign(micrograph_path=str(folder / "micrograph_0.mrc"))
    table = pd.concat([first, *[second] * 7, *[third] * 9])
    before = search_batch._cached._cache_size(), prepare._cut._cached._cache_size()
    assert len(refine(folder, table)) == 17
    assert search_batch._cached._cache_size() == before[0] + 1
    # By the thread that reads. (Or by a test before.)
    assert prepare._cut._cached._cache_size() <= before[1] + 1


@pytest.mark.slow
def test_a_device_without_memory_for_the_plan(folder, straight, monkeypatch, caplog):
    """Halved once with one message, kept for the rest of the run; and the same table."""
    asked = []

    def search(particles, template, grid, score, mesh, layout):
        asked.append(layout.orientations)
        if layout.orientations > 10:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory.")
        return search_batch(particles, template, grid, score, mesh, layout)

    monkeypatch.setattr(refining, "search_batch", search)
    with caplog.at_level("WARNING", "jaxrefine"):
        halved = refine(folder, computational_config={"batch_size": 20})
    assert asked[:2] == [20, 10] and set(asked[1:]) == {10} and len(asked) > 3
    assert [
        r.getMessage() for r in caplog.records if "out of memory" in r.getMessage()
    ] == ["a device ran out of memory: 10 orientations at once from here on, of 20"]
    pd.testing.assert_frame_equal(halved, straight)


@pytest.mark.slow
@pytest.mark.parametrize(
    "computing", [{"batch_size": 10}, {"batch_size": 1, "precision": "bfloat16"}]
)
def test_the_batch_size_and_the_precision_make_no_difference(folder, straight, computing):
    pd.testing.assert_frame_equal(refine(folder, computational_config=computing), straight)


@pytest.mark.slow
def test_products_that_are_off_are_said_once(folder, monkeypatch, caplog):
    with caplog.at_level("WARNING", "jaxrefine"):
        refine(folder)
        assert caplog.records == []
        monkeypatch.setattr(monitor, "MAX_APPROXIMATION_ERROR", 0.0)
        refine(folder)
    (record,) = caplog.records
    assert "approximate scores differ" in record.getMessage()


@pytest.mark.slow
def test_order_of_rows_makes_no_difference(folder, straight):
    table = pd.read_csv(folder / "match_results.csv", index_col=0)
    order = np.random.default_rng(0).permutation(len(table))
    shuffled = refine(folder, table.iloc[order])
    pd.testing.assert_frame_equal(
        shuffled.reset_index(drop=True), straight.iloc[order].reset_index(drop=True)
    )


@pytest.mark.slow
def test_reading_ahead_makes_no_difference(folder):
    one = refine(folder, computational_config={"gpu_ids": "cpu", "num_cpus": 1})
    three = refine(folder, computational_config={"gpu_ids": "cpu", "num_cpus": 3})
    pd.testing.assert_frame_equal(one, three)


@pytest.mark.slow
def test_each_particle_has_its_own_optics_and_pixel_size(folder, straight):
    """With other optics, a micrograph gets other scores; the other one's are unchanged."""
    table = pd.read_csv(folder / "match_results.csv", index_col=0)
    other = table.micrograph_path == "micrograph_1.mrc"
    table.loc[other, "voltage"] = 200.0
    table.loc[other, "amplitude_contrast_ratio"] = 0.1
    changed = refine(folder, table)
    same = ~other.to_numpy()
    # The lower voltage asks for a wider cut. The filter's hard edge at Nyquist rings
    # through all of a cut, so that another width moves scores by up to half a percent.
    np.testing.assert_allclose(
        changed.refined_scaled_mip[same], straight.refined_scaled_mip[same], rtol=1e-2
    )
    assert (changed.refined_scaled_mip < straight.refined_scaled_mip)[~same].mean() > 0.5


@pytest.mark.slow
@pytest.mark.parametrize(
    "scoring", ["image_ctf", pytest.param("template_ctf", marks=pytest.mark.slow)]
)
def test_local_filtering(folder, scoring):
    """Filters measured in each box give nearly the scores of global filtering."""
    whole = refine(folder, scoring=scoring)
    boxes = refine(folder, scoring=scoring, apply_global_filtering=False)
    true = whole.refined_snr > 8
    assert true.sum() >= 8
    # A 58 px box measures the noise spectrum, and the particle with it, less well.
    ratio = boxes.refined_mip[true] / whole.refined_mip[true]
    assert 0.75 < ratio.mean() < 1.05


@pytest.mark.nightly
def test_random_phases_lower_the_score(folder, straight):
    randomized = refine(
        folder,
        preprocessing_filters={
            "phase_randomization_filter": {"enabled": True, "cuton": 0.1}
        },
    )
    true = straight.refined_snr > 8
    assert (randomized.refined_mip[true] < 0.8 * straight.refined_mip[true]).all()


@pytest.mark.slow
def test_pixel_size_search(folder):
    """The truth is the nominal pixel size, which is recovered from a table 2 % off."""
    table = pd.read_csv(folder / "match_results.csv", index_col=0)
    table["refined_pixel_size"] = 2.04
    search = {
        "enabled": True,
        "pixel_size_min": -0.06,
        "pixel_size_max": 0.06,
        "pixel_size_step": 0.02,
    }
    found = refine(folder, table, pixel_size_refinement_config=search)
    true = found.refined_snr > 8
    assert found.refined_pixel_size[true].mean() == pytest.approx(2.0, abs=0.02)


@pytest.mark.slow
def test_bright_micrograph_in_other_units(folder, straight):
    """Gain and offset of the micrograph change nothing."""
    for number in (0, 1):
        path = folder / f"micrograph_{number}.mrc"
        write_image(path, 250.0 * read_image(path) - 3000.0, 2.0)
    other = refine(folder)
    np.testing.assert_allclose(
        other.refined_scaled_mip, straight.refined_scaled_mip, atol=2e-3
    )
    a, b = (
        euler_to_matrix(t[["refined_phi", "refined_theta", "refined_psi"]].to_numpy())
        for t in (straight, other)
    )
    np.testing.assert_allclose(a, b, atol=1e-6)


@pytest.mark.slow
def test_the_table_names_what_is_at_an_edge(straight):
    """Of the defocus, it is the largest change; a status goes with it."""
    changed = (straight.refined_relative_defocus - straight.relative_defocus).abs()
    outermost = changed > changed.max() - 1
    assert 0 < outermost.sum() < len(straight)
    at_edge = straight.refined_at_edge.fillna("")
    np.testing.assert_array_equal(at_edge.str.contains("defocus"), outermost)
    known = {"edge_of_grid", "moved_to_edge"}
    np.testing.assert_array_equal(at_edge != "", straight.refined_status.isin(known))
