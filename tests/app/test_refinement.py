"""A run step by step gives the same results as the program."""

import dataclasses
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
import yaml

import jaxrefine as jr
from jaxrefine.app.cli import main
from jaxrefine.app.config import Config
from jaxrefine.app.refinement import Refinement, to_pandas
from jaxrefine.io.mrc import read_image, write_image
from tests.app.run.test_polishing import GRID
from tests.reference import reference_set
from tests.worlds import single


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return reference_set("two_micrographs", tmp_path_factory.mktemp("steps"))


def config_file(folder, **changes):
    path = folder / "steps.yaml"
    config = yaml.safe_load((folder / "refine.yaml").read_text())
    path.write_text(
        yaml.safe_dump({**config, **GRID, "polish": {"enabled": True}, **changes})
    )
    return path


@pytest.mark.nightly
def test_it_gives_what_the_program_gives(folder):
    path = config_file(folder)
    assert main([str(path), "-q", "--output", str(folder / "program.csv")]) == 0
    run = Refinement.load(path, output=folder / "steps.csv")
    seen = []
    for rows, particles in run.particles(at_once=4):
        at_once = len(rows)
        assert at_once <= 4 and particles.valid.shape == (at_once,)
        # Four devices; where there are fewer particles left, the batch is filled up.
        refined = jr.refine_particles(
            particles, run.template, run.grid, run.score, mesh=run.mesh
        )
        polished = jr.polish_particles(
            particles,
            refined,
            run.smooth_template,
            run.grid,
            run.score,
            run.polish,
            mesh=run.mesh,
        )
        assert refined.z_score.shape == polished.evaluations.shape == (at_once,)
        run.store(rows, refined, polished)
        seen += rows.tolist()
    assert sorted(seen) == list(range(len(run)))
    assert run.write() == folder / "steps.csv"
    ours, theirs = (pd.read_csv(folder / name) for name in ("steps.csv", "program.csv"))
    pd.testing.assert_frame_equal(run.to_pandas(), ours)
    # A batch of another size is another program, which rounds in its own way.
    pd.testing.assert_frame_equal(ours, theirs, rtol=1e-6, atol=1e-6)


def some_result(alignment):
    """As a search and a polish give it, where only its place in a table matters."""
    numbers = single(9 + np.arange(len(alignment.rotation)))
    ones = jnp.ones(len(numbers))
    refined = jr.Refined(
        alignment,
        *(numbers, numbers, numbers),
        jnp.zeros((len(numbers), 5), jnp.int32),
        jnp.full(len(numbers), jr.Status.CONVERGED, jnp.int32),
        numbers,
    )
    vectors = [ones[:, None] * single(values) for values in ([1, 2, 3], [6, 7], [8, 9])]
    turn, astigmatism, shift = vectors
    errors = jr.PoseErrors(turn, 4 * ones, 5 * ones, astigmatism, shift, 10 * ones)
    flags = ones > 0
    covariance, one = jnp.ones((len(numbers), 6, 6)), jnp.int32(ones)
    return refined, jr.Polished(refined, errors, one, flags, flags, ones, covariance, one)


def test_rows_that_were_not_stored_are_empty(folder):
    run = Refinement.load(config_file(folder, polish={"enabled": False}))
    rows, particles = next(run.particles())
    refined, polished = some_result(particles.alignment)
    run.store(rows, refined)
    z = run.to_pandas().refined_scaled_mip.to_numpy()
    np.testing.assert_allclose(z[rows], refined.z_score, rtol=1e-6)
    assert len(rows) < len(z) and np.isnan(np.delete(z, rows)).all()
    shown = run._repr_html_()
    assert f"{len(rows)} of {len(z)}" in shown and "2 micrographs" in shown
    with pytest.raises(jr.InputError, match=r"steps.yaml: polish.enabled: false"):
        run.store(rows, refined, polished)


def test_the_caller_s_device_stays_the_caller_s(folder):
    run = Refinement.load(config_file(folder))
    before = jax.config.jax_default_device
    particles = run.particles(at_once=1)
    next(particles)
    assert jax.config.jax_default_device is before
    particles.close()
    assert jax.config.jax_default_device is before


def test_a_damaged_micrograph_is_left_out(folder, tmp_path, caplog):
    folder = reference_set("two_micrographs", tmp_path)
    image = read_image(folder / "micrograph_0.mrc")
    run = Refinement.load(config_file(folder))
    (folder / "micrograph_0.mrc").write_bytes(b"")  # after the checks
    rows = np.concatenate([rows for rows, _ in run.particles()])
    status = run.to_pandas().refined_status
    assert len(rows) and set(status.drop(rows)) == {"unreadable"}
    assert "are not refined" in caplog.text
    write_image(folder / "micrograph_0.mrc", image)


def test_an_image_that_has_changed_its_shape_is_left_out(tmp_path, caplog):
    """It was replaced by another one after the check."""
    folder = reference_set("two_micrographs", tmp_path)
    run = Refinement.load(config_file(folder))
    shutil.copy(folder / "correlation_average_0.mrc", folder / "micrograph_0.mrc")
    rows = np.concatenate([rows for rows, _ in run.particles()])
    assert set(run.to_pandas().refined_status.drop(rows)) == {"unreadable"}
    assert "another shape than when checked" in caplog.text


def test_no_input_is_overwritten(folder):
    run = Refinement.load(config_file(folder))
    for name in ("match_results.csv", "template.mrc", "micrograph_1.mrc"):
        before = (folder / name).read_bytes()
        with pytest.raises(jr.InputError, match=f"{name} — is an input"):
            run.write(folder / name)
        assert (folder / name).read_bytes() == before


def test_errors_are_told_together(folder, tmp_path):
    text = yaml.safe_load(config_file(folder).read_text())
    text |= {
        "template_volume_path": "gone.mrc",
        "particle_stack": dict(text["particle_stack"], df_path="gone.csv"),
    }
    with pytest.raises(jr.InputError) as error:
        Refinement(Config.from_dict(text))
    assert [word in str(error.value) for word in ("gone.mrc", "gone.csv")] == [True, True]


def test_results_as_a_frame():
    """Angles, positions and errors in the columns with their names."""
    alignment = jr.Alignment(
        rotation=single(jr.euler_to_matrix(np.array([[10.0, 20.0, 30.0]] * 2))),
        position_px=single([[1.5, 2.0], [3.0, 4.0]]),
        defocus_angstrom=single([[5200, 5000], [5300, 5100]]),
        astigmatism_deg=single([7, 8]),
        pixel_size_angstrom=single([1.1, 1.2]),
    )
    refined, polished = some_result(alignment)
    status = jnp.int32([jr.Status.CONVERGED, jr.Status.NOT_FINITE])
    refined = dataclasses.replace(refined, status=status)
    frame = to_pandas(refined)
    assert frame.status.tolist() == ["converged", "not_finite"]
    angles = frame[["phi_deg", "theta_deg", "psi_deg"]]
    np.testing.assert_allclose(angles, [[10, 20, 30]] * 2, atol=1e-4)  # float32
    assert frame.position_y_px.tolist() == [1.5, 3] and frame.position_x_px[1] == 4
    assert frame.defocus_v_angstrom.tolist() == [5000, 5100]
    assert not [name for name in frame if "sigma" in name]

    polished = to_pandas(dataclasses.replace(polished, refined=refined))
    pd.testing.assert_frame_equal(polished[frame.columns], frame)
    sigma = polished.filter(like="sigma").iloc[0].to_dict()
    assert sigma == {
        "tilt_x_sigma_deg": 1,
        "tilt_y_sigma_deg": 2,
        "in_plane_sigma_deg": 3,
        "orientation_sigma_deg": 4,
        "defocus_sigma_angstrom": 5,
        "astigmatism_along_sigma_angstrom": 6,
        "astigmatism_across_sigma_angstrom": 7,
        "position_y_sigma_px": 8,
        "position_x_sigma_px": 9,
        "pixel_size_sigma_angstrom": 10,
    }
