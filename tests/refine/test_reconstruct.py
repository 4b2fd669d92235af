"""Reconstructions, and how much of one the template has made."""

import functools
from dataclasses import replace

import jax
import numpy as np
import pytest

import jaxrefine as jr
from jaxrefine import simulate as sim
from jaxrefine.refine.reconstruct import (
    Placed,
    omitted_voxels,
    reconstruct,
    template_bias,
)
from tests import worlds
from tests.worlds import Imaging, batch_of, one_particle

SIDE, COUNT = 16, 40
IMAGING = Imaging(defocus=(4000.0, 3800.0), pixel_size=2.5, b=0.0)
SCORE = IMAGING.image_ctf((20, 20), SIDE)
ATOMS = worlds.ball(SIDE, IMAGING.pixel_size, fill=0.6, b=150.0)
LEFT_OUT = ATOMS.positions_angstrom[:, 0] > 5.0
ROTATION = sim.random_rotations(COUNT, np.random.default_rng(5))
GRID = jr.local_grid(
    jr.uniform_orientations(
        psi_coarse=40.0, psi_fine=10.0, theta_coarse=40.0, theta_fine=10.0
    )
)


@functools.cache
def volume(name):
    weights = np.where(LEFT_OUT, 0.0, ATOMS.weights) if name == "omit" else ATOMS.weights
    atoms = replace(ATOMS, weights=weights)
    return sim.potential_volume(atoms, SIDE, IMAGING.pixel_size)


@functools.cache
def clean(index):
    return worlds.signal_in_padded_box(SCORE, ATOMS, IMAGING, ROTATION[index], 160)


def particles(snr):
    rng = np.random.default_rng(2)
    return batch_of(
        [
            one_particle(
                SCORE,
                snr * clean(i) + rng.standard_normal(SCORE.padded_box),
                IMAGING,
                rotation=ROTATION[i],
            )
            for i in range(COUNT)
        ]
    )


def omitted():
    return omitted_voxels(volume("full"), volume("omit"))


@functools.cache
def reconstructions(snr):
    """From poses that were searched widely around the truth, with either template."""
    batch = particles(snr)
    found = []
    for name in ("full", "omit"):
        template = jr.make_template(volume(name))
        refined = jr.refine_particles(batch, template, GRID, SCORE)
        found.append(reconstruct([Placed(batch, refined.alignment)], SIDE, SCORE))
    return found


def correlation(a, b):
    return np.corrcoef(a.ravel(), b.ravel())[0, 1]


@pytest.mark.slow
def test_at_true_poses_the_structure_comes_back():
    batch = particles(100.0)
    halves = [
        jax.tree.map(lambda x, part=part: x[part], Placed(batch, batch.alignment))
        for part in (slice(0, COUNT // 2), slice(COUNT // 2, COUNT))
    ]
    found = reconstruct(halves, SIDE, SCORE)
    assert correlation(found, volume("full")) > 0.9
    # In two batches as in one.
    one = reconstruct([Placed(batch, batch.alignment)], SIDE, SCORE)
    np.testing.assert_allclose(found, one, atol=1e-3 * np.abs(one).max())


@pytest.mark.slow
def test_what_the_images_hold_comes_back_and_what_they_do_not_does_not():
    """Ω near 0 for particles, near 1 for noise; the weaker the signal, the larger."""
    omega = [template_bias(*reconstructions(snr), omitted()) for snr in (20.0, 5.0, 0.0)]
    assert abs(omega[0]) < 0.1
    assert omega[0] < omega[1] < omega[2]
    assert omega[2] > 0.7


@pytest.mark.slow
def test_the_part_comes_back_from_poses_that_do_not_know_it():
    """Against a background below 0, as images hold no zero frequency."""
    from_omit = reconstructions(20.0)[1]
    outside = from_omit[volume("full") < 0.02 * volume("full").max()]
    assert from_omit[omitted()].mean() > outside.mean() + 2 * outside.std()
    assert correlation(from_omit, volume("full")) > 0.6  # 0.77; poses are 10 deg apart


def test_only_what_was_left_out_counts():
    inside = omitted()
    assert 0 < inside.sum() < inside.size / 4
    x = np.arange(SIDE) - SIDE // 2
    assert np.all(x[np.flatnonzero(inside.any(axis=(0, 1)))] >= 0)
    full = np.where(inside, 2.0, 100.0)
    assert template_bias(full, np.where(inside, 0.5, -100.0), inside) == pytest.approx(0.75)
    assert np.isnan(template_bias(-full, full, inside))
