"""Particles with aberrations: all forms of a score agree, and find the true poses."""

import functools
from dataclasses import replace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrefine import simulate as sim
from jaxrefine.data import Offsets
from jaxrefine.physics.slices import central_slice, make_template
from jaxrefine.refine.at_best import at_best
from jaxrefine.refine.differentiable import z_score
from jaxrefine.refine.grids import local_grid, uniform_orientations
from jaxrefine.refine.polish import Polish, polish_particles
from jaxrefine.refine.refine import refine_particles
from jaxrefine.refine.score_grid import score_grid
from jaxrefine.refine.scoring import slice_rotation
from jaxrefine.refine.template_ctf import TemplateCTF
from tests.oracles import rotations
from tests.worlds import (
    Imaging,
    ball,
    batch_of,
    one_particle,
    signal_in_padded_box,
    single,
)

SIDE, BOX = 24, (30, 32)
PLAIN = Imaging(defocus=(3000.0, 2800.0), angle=20.0, pixel_size=2.0, b=0.0)
# Phases of 3, 1.5 and 0.8 rad at Nyquist, and 2 % of magnification.
ABERRATIONS = {
    "beam_tilt_mrad": (3.0, -2.0),
    "odd_zernikes": (0.0, 0.0, 100.0, 0.0),
    "even_zernikes": (0.0, 200.0, 0.0),
    "mag_matrix": ((1.02, 0.01), (-0.015, 0.98)),
}
ABERRATED = replace(PLAIN, aberrations=ABERRATIONS)
SCORES = {
    "image": PLAIN.image_ctf(BOX, SIDE, defocus=600.0),
    "template": TemplateCTF(BOX, SIDE),
}
z_at = eqx.filter_jit(z_score)
START = rotations.euler_matrix(30.0, 70.0, 110.0)
ATOMS = ball(SIDE, PLAIN.pixel_size, b=60.0)


@functools.cache
def template():
    return make_template(sim.potential_volume(ATOMS, SIDE, PLAIN.pixel_size), "padded")


def noise(score):
    return np.random.default_rng(0).standard_normal(score.padded_box)


@pytest.mark.slow
@pytest.mark.parametrize("kind", SCORES)
def test_all_forms_of_a_score_agree(kind):
    """By transforms, as a product with the slice, and as a product with the image."""
    score = SCORES[kind]
    particle = one_particle(
        score, noise(score), ABERRATED, rotation=START, curve=lambda k: 0.4 + 1.2 * k
    )
    grid = local_grid(None, np.array([0.0]), np.array([0.0]))
    corners = jnp.stack(jnp.indices(score.positions), axis=-1).reshape(-1, 2)

    @eqx.filter_jit
    def forms(particle, template):
        pose = slice_rotation(particle, particle.alignment.rotation)
        prepared = score.prepare(particle, grid)
        exact = score.correlate(prepared, template, pose)[0, 0]
        central = central_slice(template, pose, score.scale(particle, grid)[0])
        columns = score.columns(particle, PLAIN.pixel_size, 0.0, corners)
        pairs = central.real * columns.real + central.imag * columns.imag
        product = jnp.sum(pairs, axis=(1, 2)).reshape(score.positions)
        norm = score.norms(prepared, template, pose)[0, 0]
        return exact, product / norm, z_score(Offsets.zeros(), particle, template, score)

    exact, by_slice, by_image = forms(particle, template())
    assert np.std(exact) > 0.3
    # Sums of a thousand float32 products, in other orders; correlations of up to 3.
    np.testing.assert_allclose(by_slice, exact, rtol=0, atol=5e-5)
    y, x = score.margin
    np.testing.assert_allclose(by_image, exact[y, x], rtol=0, atol=5e-5)


@pytest.mark.parametrize("missing", [*ABERRATIONS, None])
def test_the_signal_is_found_whole(missing):
    """An exact projection, aberrated by the simulator: z is the matched filter's."""
    score = SCORES["image"]
    image = signal_in_padded_box(score, ATOMS, ABERRATED, START, 160)
    imaging = ABERRATED
    if missing is not None:
        rest = {name: ABERRATIONS[name] for name in ABERRATIONS if name != missing}
        imaging = replace(PLAIN, aberrations=rest)
    particle = one_particle(score, image, imaging, rotation=START)
    found = float(z_at(Offsets.zeros(), particle, template(), score))
    if missing is None:
        assert found > 0.99  # the slice's interpolation, and the cut
    else:
        assert found < 0.98, missing


def test_offsets_add_to_aberrations_that_are_there_and_that_are_not():
    score = SCORES["image"]
    image = signal_in_padded_box(score, ATOMS, ABERRATED, START, 160)
    aberrated = one_particle(score, image, ABERRATED, rotation=START)
    right = float(z_at(Offsets.zeros(), aberrated, template(), score))
    more = {
        name: single(value) - (jnp.eye(2) if name == "mag_matrix" else 0.0)
        for name, value in ABERRATIONS.items()
    }
    plain = one_particle(score, image, PLAIN, rotation=START)
    moved = z_at(replace(Offsets.zeros(), **more), plain, template(), score)
    assert float(moved) == pytest.approx(right, abs=1e-5)
    half = {name: value / 2 for name, value in more.items()}
    imaging = replace(
        PLAIN,
        aberrations={
            name: value + (np.eye(2) if name == "mag_matrix" else 0.0)
            for name, value in half.items()
        },
    )
    between = one_particle(score, image, imaging, rotation=START)
    moved = z_at(replace(Offsets.zeros(), **half), between, template(), score)
    assert float(moved) == pytest.approx(right, abs=1e-5)


@pytest.mark.slow
def test_the_search_finds_aberrated_particles():
    """The right one of all orientations, defocus values and positions."""
    score = SCORES["image"]
    orientations = uniform_orientations(
        psi_coarse=6.0, psi_fine=3.0, theta_coarse=6.0, theta_fine=3.0
    )
    grid = local_grid(orientations, np.array([-600.0, 0.0, 600.0]))
    true_k = 17
    start = START @ np.swapaxes(np.asarray(grid.rotation)[true_k], 0, 1)
    signal = signal_in_padded_box(score, ATOMS, ABERRATED, START, 160, (1.0, -2.0))
    image = 15 * signal + noise(score)
    particle = one_particle(score, image, ABERRATED, rotation=start)
    found = refine_particles(batch_of([particle]), template(), grid, score)
    y, x = score.margin
    assert found.grid_index[0].tolist() == [0, 1, true_k, y + 1, x - 2]
    assert found.z_score[0] > 13.0
    every = score_grid(batch_of([particle]), template(), grid, score)
    # Transforms of other batches of images are rounded otherwise.
    assert float(every.z_score.max()) == pytest.approx(float(found.z_score[0]), rel=1e-5)
    # The pose that is reported is a rotation, whatever the magnification.
    pose = np.asarray(found.alignment.rotation[0])
    np.testing.assert_allclose(pose, START, atol=1e-5)


@pytest.mark.nightly
@pytest.mark.parametrize(
    "true",
    [
        {name: ABERRATIONS[name] for name in ABERRATIONS if name != "mag_matrix"},
        {"mag_matrix": ((1.02, -0.01), (-0.01, 0.98))},
    ],
    ids=["aberrations", "magnification"],
)
def test_the_polish_finds_aberrations_of_one_particle(true):
    """From optics without any, within its standard errors; z is the aberrated one's."""
    score = SCORES["image"]
    imaging = replace(PLAIN, aberrations=true)
    image = 60 * signal_in_padded_box(score, ATOMS, imaging, START, 160) + noise(score)
    batch = batch_of([one_particle(score, image, PLAIN, rotation=START)])
    grid = local_grid()
    found = refine_particles(batch, template(), grid, score)
    values = {"magnification": (0.02, -0.01)}
    if "mag_matrix" not in true:
        values = {
            "beam_tilt_mrad": true["beam_tilt_mrad"],
            "trefoil": true["odd_zernikes"][2:],
            "even_zernikes": true["even_zernikes"],
        }
    names = (name.removesuffix("_mrad") for name in values)
    free = ("orientation", "shift", "defocus", *names)
    smooth = make_template(sim.potential_volume(ATOMS, SIDE, PLAIN.pixel_size), "cubic")
    settings = Polish(parameters=free, max_evaluations=30, other_optima=False)
    polished = polish_particles(batch, found, smooth, grid, score, settings)
    right = batch_of([one_particle(score, image, imaging, rotation=START)])
    at_truth = polish_particles(
        right,
        refine_particles(right, template(), grid, score),
        smooth,
        grid,
        score,
        Polish(other_optima=False),
    )
    # Up to seven more parameters fit noise of 7/2 in z²/2.
    z, expected = (float(p.refined.z_score[0]) for p in (polished, at_truth))
    assert expected - 0.01 < z < expected + 0.3 and found.z_score[0] < 0.98 * expected
    for field, value in values.items():
        sigma = np.asarray(getattr(polished.errors, field)[0])
        pull = (np.asarray(getattr(polished, field)[0]) - value) / sigma
        assert np.all(np.abs(pull) < 3.5), field
    one, result = (jax.tree.map(lambda x: x[0], each) for each in (batch, polished))
    there, offsets = at_best(one, result, score)
    again = float(z_at(offsets, there, smooth, score))
    assert again == pytest.approx(z, rel=1e-5)
