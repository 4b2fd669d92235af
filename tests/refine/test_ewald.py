"""Curved slices, compared with particles that are made of slabs at different defocus."""

import functools
from dataclasses import replace

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrefine import simulate as sim
from jaxrefine.data import Offsets
from jaxrefine.physics.slices import make_template
from jaxrefine.refine.differentiable import feature, z_score
from jaxrefine.refine.grids import local_grid, uniform_orientations
from jaxrefine.refine.polish import Polish, polish_particles
from jaxrefine.refine.refine import refine_particles
from jaxrefine.refine.template_ctf import TemplateCTF
from tests.oracles import rotations
from tests.worlds import (
    Imaging,
    ball,
    batch_of,
    one_particle,
    signal_in_padded_box,
)

SIDE, BOX = 32, (40, 40)
# Slow electrons, for which 12 Å of height change the phase by 0.9 rad at 2 Å.
PLAIN = Imaging(
    defocus=(400.0, 350.0), angle=20.0, pixel_size=1.0, kv=15.0, cs=0.002, b=0.0
)
SCORES = {"image": PLAIN.image_ctf(BOX, SIDE), "template": TemplateCTF((64, 64), SIDE)}
START = rotations.euler_matrix(30.0, 70.0, 110.0)
ATOMS = ball(SIDE, PLAIN.pixel_size, b=12.0)
z_at = eqx.filter_jit(z_score)


@functools.cache
def template(sampling="padded"):
    return make_template(sim.potential_volume(ATOMS, SIDE, PLAIN.pixel_size), sampling)


@pytest.mark.slow
@pytest.mark.parametrize("true_sign", [1, -1])
def test_curved_slices_find_the_signal_whole(true_sign):
    """The matched filter's SNR is 1; flat slices lose part of it, the wrong sign more."""
    score, found = SCORES["image"], {}
    for sign_of_image in (0, true_sign):
        imaging = replace(PLAIN, ewald_sign=sign_of_image)
        image = signal_in_padded_box(score, ATOMS, imaging, START, 256)
        particle = one_particle(score, image, PLAIN, rotation=START)
        for sign in (-1, 0, 1):
            signed = replace(score, ewald_sign=sign)
            z = z_at(Offsets.zeros(), particle, template(), signed)
            found[sign_of_image, sign] = float(z)
    # What interpolation and the cut lose of a thin particle with flat slices, 0.014.
    assert found[0, 0] == pytest.approx(0.986, abs=0.003)
    assert found[true_sign, true_sign] > found[0, 0] - 0.003
    assert found[true_sign, 0] < found[0, 0] - 0.02
    assert found[true_sign, -true_sign] < found[0, 0] - 0.08


@pytest.mark.parametrize("kind", SCORES)
def test_noise_has_a_variance_of_one(kind):
    """For a particle off its box's centre, whose two images resemble each other."""
    score = replace(SCORES[kind], ewald_sign=1)
    aside = replace(ATOMS, positions_angstrom=0.5 * ATOMS.positions_angstrom + [0, 0, 7.0])
    volume = sim.potential_volume(aside, SIDE, PLAIN.pixel_size)
    particle = one_particle(score, np.zeros(score.padded_box), PLAIN)

    @eqx.filter_jit
    def length_and_norm(particle, template):
        values, norm = feature(Offsets.zeros(), particle, template, score)
        return jnp.linalg.norm(values), norm

    length, norm = length_and_norm(particle, make_template(volume))
    # The tail beyond the padded box; the peer's norm is off by the mean's square.
    assert length / norm == pytest.approx(1, abs=4e-3)


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind", ["image", pytest.param("template", marks=pytest.mark.nightly)]
)
def test_search_and_polish_use_the_curvature(kind):
    """The same pose as in the simulation, at a higher z than that of flat slices."""
    flat = SCORES[kind]
    curved = replace(flat, ewald_sign=1)
    orientations = uniform_orientations(
        psi_coarse=4.0, psi_fine=2.0, theta_coarse=4.0, theta_fine=2.0
    )
    grid = local_grid(orientations, np.array([-60.0, 0.0, 60.0]))
    true_k = 17
    start = START @ np.swapaxes(np.asarray(grid.rotation)[true_k], 0, 1)
    thick = replace(PLAIN, ewald_sign=1)
    signal = signal_in_padded_box(flat, ATOMS, thick, START, 256, (1.0, -2.0))
    particle = one_particle(flat, 20 * signal, PLAIN, rotation=start)
    batch = batch_of([particle])
    found = refine_particles(batch, template(), grid, curved)
    y, x = flat.margin
    assert found.grid_index[0].tolist() == [0, 1, true_k, y + 1, x - 2]
    without = refine_particles(batch, template(), grid, flat)
    # How much matrix products are off is not larger than for flat slices.
    assert found.approximation_error[0] < 1.3 * without.approximation_error[0]
    polished = polish_particles(
        batch, found, template("cubic"), grid, curved, Polish(other_optima=False)
    )
    assert polished.refined.z_score[0] >= found.z_score[0]
    errors = polished.errors
    assert 0.05 < float(errors.largest_rotation_deg[0]) < 1.0
    assert 1.0 < float(errors.defocus_angstrom[0]) < 30.0
