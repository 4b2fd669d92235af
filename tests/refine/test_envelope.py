"""The envelope: the true one is found, unbiased by the noise in fitted poses."""

import functools
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrefine as jr
from jaxrefine import simulate as sim
from jaxrefine.data import Refined
from jaxrefine.refine import envelope
from jaxrefine.refine.envelope_fit import (
    EnvelopeFit,
    Fitting,
    attenuation,
    cross_validated_z,
    fit_envelope,
    fit_inflation,
)
from jaxrefine.refine.envelope_study import EnvelopeStudy
from tests import worlds
from tests.worlds import Imaging, batch_of, one_particle

SIDE, BOX, COUNT = 32, (36, 36), 24
TABLE_B, EXTRA_B = 20.0, 150.0
IMAGING = Imaging(defocus=(5200.0, 4800.0), pixel_size=2.0, b=TABLE_B)
SCORE = IMAGING.image_ctf(BOX, SIDE, defocus=200.0)
ATOMS = worlds.ball(SIDE, 2.0, b=40.0)
RNG = np.random.default_rng(4)
ROTATION = sim.random_rotations(COUNT, RNG)
GRID = jr.local_grid(
    jr.uniform_orientations(psi_coarse=3.0, psi_fine=3.0, theta_coarse=3.0, theta_fine=3.0),
    np.array([-200.0, 0.0, 200.0]),
)
POLISH = jr.Polish()


@functools.cache
def template():
    return jr.make_template(sim.potential_volume(ATOMS, SIDE, 2.0), "cubic")


@functools.cache
def particles(snr=16.0, seed=0):
    """Their signal decays faster than in the table."""
    rng = np.random.default_rng(seed)
    blurred = replace(IMAGING, b=TABLE_B + EXTRA_B)
    each = []
    for turn in ROTATION:
        clean = worlds.signal_in_padded_box(SCORE, ATOMS, blurred, turn, 200)
        cut = snr * clean + rng.standard_normal(SCORE.padded_box)
        start = turn @ sim.perturbed_rotation(np.eye(3), rng, 1.0, 1.0)
        each.append(one_particle(SCORE, cut, IMAGING, rotation=start))
    return batch_of(each)


def start_of(batch):
    z, correlation = jr.score_particles(batch, template(), SCORE)
    index, status = jnp.zeros((len(z), 5), jnp.int32), jnp.zeros(len(z), jnp.int32)
    return Refined(
        batch.alignment, z, correlation, correlation, index, status, jnp.zeros(len(z))
    )


def doubles(sums):
    return jax.tree.map(lambda x: np.asarray(x, np.float64), sums)


@functools.cache
def sums(extra_b=EXTRA_B):
    return doubles(
        envelope.cross_validated_sums(
            particles(), start_of(particles()), template(), GRID, SCORE, extra_b
        )
    )


def fitting(extra_b=EXTRA_B):
    return Fitting(envelope.Rings(), POLISH.parameters, extra_b)


def test_every_coefficient_below_nyquist_is_in_one_ring_and_left_out_once():
    rings = envelope.Rings(number=7, folds=3)
    for shape in ((20, 24), (21, 21)):
        kept = np.stack([rings.kept(shape, fold) for fold in range(3)])
        ring = rings.of(shape)
        np.testing.assert_array_equal(np.sum(kept == 0, axis=0), ring >= 0)
        assert ring.max() == 6 and np.all(kept[:, ring < 0] == 1)
        members = rings.members(shape)
        for number, at in enumerate(members):
            inside = at[at < ring.size]
            np.testing.assert_array_equal(inside, np.flatnonzero(ring == number))


@pytest.mark.slow
def test_the_sums_of_all_rings_are_the_score():
    """At one pose, with every frequency below Nyquist in some ring."""
    batch = particles()
    z, _ = jr.score_particles(batch, template(), SCORE)
    rings = envelope.Rings()
    found = doubles(
        envelope._sums(batch, start_of(batch), template(), SCORE, rings, POLISH.parameters)
    )
    ours = found.seen.sum(1) / np.sqrt(found.power.sum(1))
    # The corners of the Fourier plane, beyond Nyquist, are left out, and the norm's
    # signal beyond the cut: 1 or 2 % of a score of 16.
    np.testing.assert_allclose(ours, z, atol=0.6)


@pytest.mark.slow
def test_the_extra_b_is_found_whatever_it_began_with():
    found = [fit_envelope(sums(b), fitting(b)) for b in (EXTRA_B, 0.0)]
    for fit in found:
        # 24 particles of z = 16 know it to 15 Å² or so; the rule for the poses' errors,
        # without simulation, is good to a tenth here.
        assert 4.0 < fit.sigma_angstrom2 < 40.0
        assert abs(fit.extra_b_angstrom2 - EXTRA_B) < 3 * fit.sigma_angstrom2 + 15.0
    right, wrong = (cross_validated_z(sums(b), b).mean() for b in (EXTRA_B, 0.0))
    assert right > wrong + 0.5  # and it pays


@pytest.mark.nightly
def test_without_folds_the_fit_confirms_what_it_began_with():
    """The reason for folds: a pose that was fitted to a ring has fitted its noise."""
    rings = envelope.Rings()
    batch = particles(snr=8.0, seed=1)
    start = start_of(batch)
    naive = jr.polish_particles(batch, start, template(), GRID, SCORE, POLISH)
    fitted = doubles(
        envelope._sums(batch, naive.refined, template(), SCORE, rings, POLISH.parameters)
    )
    apart = doubles(
        envelope.cross_validated_sums(batch, start, template(), GRID, SCORE, 0.0)
    )
    by_itself, by_others = (fit_envelope(s, fitting(0.0)) for s in (fitted, apart))
    assert by_itself.extra_b_angstrom2 < by_others.extra_b_angstrom2 - 20.0
    assert cross_validated_z(fitted, 0.0).mean() > cross_validated_z(apart, 0.0).mean() + 1


@pytest.mark.nightly
def test_a_study_finds_it_from_afar():
    """From poses that were fitted with twice the B, and from simulated ones."""
    start = start_of(particles())
    study = EnvelopeStudy([(particles(), start)], template(), GRID, SCORE)
    assert study.count == COUNT
    found, z, errors = study.fit()
    assert abs(found.extra_b_angstrom2 - EXTRA_B) < 3 * found.sigma_angstrom2
    assert z.mean() > study.scores(0.0).mean()
    # As the polish says of them, whose observed information differs by a third at times.
    said = jr.polish_particles(particles(), start, template(), GRID, SCORE).errors
    theirs = np.median([*np.asarray(said.rotation_deg).T], axis=1)
    np.testing.assert_allclose(errors[:3], theirs, rtol=0.6)


@pytest.mark.slow
def test_noise_alone_has_no_strength():
    rng = np.random.default_rng(2)
    batch = particles()
    noise = jnp.asarray(rng.standard_normal(batch.image.shape), jnp.float32)
    batch = replace(batch, image=noise)
    found = doubles(
        envelope.cross_validated_sums(batch, start_of(batch), template(), GRID, SCORE, 0.0)
    )
    z = cross_validated_z(found, 0.0)
    # Poses were fitted, and yet the score in what was left out is that of noise: mean 0,
    # deviation 1, each known to 0.2 and 0.15 with 24.
    assert abs(z.mean()) < 0.7 and z.std() == pytest.approx(1.0, abs=0.5)


@pytest.mark.slow
def test_simulated_particles_are_what_they_are_said_to_be():
    """Without noise, and at the true poses, the full strength is measured."""
    batch = particles()
    start = start_of(batch)
    noisy, clean = envelope.simulated_like(
        batch, start, template(), SCORE, 0.7, EXTRA_B, seed=3
    )
    noise = np.asarray(noisy.image - clean.image)
    assert noise.std() == pytest.approx(1.0, abs=0.01) and abs(noise.mean()) < 0.01
    found = doubles(
        envelope._sums(clean, start, template(), SCORE, envelope.Rings(), POLISH.parameters)
    )
    expected = 0.7 * np.exp(-EXTRA_B * found.frequency**2 / 4) * found.power
    # In a wide ring the envelope is not that of its middle.
    np.testing.assert_allclose(found.seen.sum(0), expected.sum(0), rtol=0.05)
    # Where poses are exact nothing is lost: the least inflation explains it best.
    assert fit_inflation(found, fitting(), EnvelopeFit(EXTRA_B, 1.0, 0.7)) == 0.5


@pytest.mark.slow
def test_attenuation_falls_with_the_error_of_the_pose():
    weak, strong = (attenuation(sums(), fitting(), EXTRA_B, s) for s in (0.05, 5.0))
    assert np.all((weak > 0) & (weak <= strong) & (strong <= 1))
    assert strong.min() > 0.99 > weak.min()
    np.testing.assert_allclose(
        attenuation(sums(), fitting(), EXTRA_B, 0.05, inflation=2.0), weak**2
    )
