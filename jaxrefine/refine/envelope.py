"""Unbiased estimate of the particles' envelope relative to the template's.

A pose that was fitted at some frequency correlates with the noise there, so that a
measurement at this frequency confirms the envelope that was assumed in the fit. Therefore
frequencies are divided into narrow rings, and the rings in turn into folds. For each fold
the pose is fitted to all other rings, and the signal is measured in the rings left out,
whose noise is independent of the pose. One bias remains: a fitted pose is not exact, so the
expected image at this pose is weaker than the true one, most at the frequencies at which
the image changes fastest with the pose. The size of this effect is measured on simulated
particles and divided out (`envelope_fit`).

The same sums give a cross-validated score: the z-score of the fitted poses in data to which
they were not fitted.
"""

from dataclasses import replace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, ScalarLike

from jaxrefine.data import Offsets, Particles, Refined, SearchGrid, Template
from jaxrefine.refine.at_best import recentred
from jaxrefine.refine.coordinates import count, offsets_from
from jaxrefine.refine.differentiable import feature, image_of, spectrum
from jaxrefine.refine.polish import Polish, polish_particles
from jaxrefine.refine.rings import Rings
from jaxrefine.refine.scoring import Score


class RingSums(eqx.Module):
    """Sums over each ring for a particle, at a pose fitted to other rings.

    F is the expected image (template, filter, CTF and the table's B factor; no further
    envelope), Y the image, whose noise has variance 1.

    Attributes:
        seen: Σ Re(conj(F) Y).
        power: Σ |F|²: the variance of `seen`, and its mean if strength and envelope are 1.
        information: JᵀJ, with J the derivative of F with respect to the pose coordinates.
        frequency: Centre of each ring in 1/Å.
    """

    seen: Float[Array, "*n b"]
    power: Float[Array, "*n b"]
    information: Float[Array, "*n b p p"]
    frequency: Float[Array, "*n b"]


def with_extra_b(particles: Particles, extra_b_angstrom2: ScalarLike) -> Particles:
    """Add `extra_b_angstrom2` to the B factors of the particles."""
    b = particles.optics.b_factor_angstrom2
    return eqx.tree_at(
        lambda p: p.optics.b_factor_angstrom2,
        particles,
        b + jnp.asarray(extra_b_angstrom2, jnp.float32),
    )


def cross_validated_sums(
    particles: Particles,
    refined: Refined,
    template: Template,
    grid: SearchGrid,
    score: Score,
    extra_b_angstrom2: float = 0.0,
    rings: Rings | None = None,
    polish: Polish | None = None,
    *,
    measured: Particles | None = None,
    mesh: Mesh | None = None,
) -> RingSums:
    """For each fold, fit poses to all other rings and measure in the rings left out.

    Args:
        particles: A batch, as it was searched.
        refined: Starting values of the fits.
        template: Template with cubic slices, for the polish.
        grid: The grid that was searched.
        score: The score of the search.
        extra_b_angstrom2: B factor, in addition to the table's, assumed in the fits.
        rings: The rings; None takes the defaults.
        polish: As for `polish_particles`.
        measured: The images to measure in, if they differ from those that the poses are
            fitted to: for example the same images without noise.
        mesh: From `device_mesh`.
    """
    measured = particles if measured is None else measured
    rings = rings or Rings()
    polish = replace(polish or Polish(), errors=False, prior="none")
    # The score in `refined` is over all rings, and a fit to fewer rings need not exceed it.
    start = eqx.tree_at(
        lambda r: r.z_score,
        refined,
        jnp.where(jnp.isfinite(refined.z_score), -1e9, jnp.nan),
    )
    blurred = with_extra_b(particles, extra_b_angstrom2)
    each = []
    for fold in range(rings.folds):
        some = _without(blurred, rings, fold, score)
        found = polish_particles(some, start, template, grid, score, polish, mesh=mesh)
        sums = _sums(measured, found.refined, template, score, rings, polish.parameters)
        each.append(sums)
    fold_of = np.arange(rings.number) % rings.folds

    def pick(*of_folds: Array) -> Array:
        return jnp.stack(of_folds)[fold_of, :, np.arange(rings.number)].swapaxes(0, 1)

    return jax.tree.map(pick, *each)


def simulated_like(
    particles: Particles,
    refined: Refined,
    template: Template,
    score: Score,
    strength: float,
    extra_b_angstrom2: float,
    seed: int,
) -> tuple[Particles, Particles]:
    """Simulate particles at given poses, with new noise and without noise.

    Args:
        particles: A batch.
        refined: Their poses.
        template: Template with cubic slices.
        score: The score of the search.
        strength: Strength of all particles.
        extra_b_angstrom2: B factor in addition to the table's.
        seed: Seed of the noise.

    Returns:
        The particles with noise, and the same without noise.
    """
    blurred = with_extra_b(particles, extra_b_angstrom2)
    image = strength * _expected_images(blurred, refined, template, score)
    noise = jax.random.normal(jax.random.key(seed), image.shape)
    noisy, clean = (
        eqx.tree_at(lambda p: p.image, particles, made) for made in (image + noise, image)
    )
    return noisy, clean


@eqx.filter_jit
def _expected_images(
    particles: Particles, refined: Refined, template: Template, score: Score
) -> Float[Array, "n Qh Qw"]:
    """Expected images at a strength of 1, in the padded boxes of the particles."""

    def one(both: tuple[Particles, Refined]) -> Float[Array, "Qh Qw"]:
        particle, found = both
        move = found.alignment.position_px - particle.alignment.position_px
        there = recentred(particle, found, score)
        offsets = eqx.tree_at(lambda o: o.shift_px, Offsets.zeros(), move - jnp.round(move))
        values, _ = feature(offsets, there, template, score)
        image = image_of(values, score)
        # Back to the original place of the padded box.
        return jnp.roll(image, jnp.round(move).astype(jnp.int32), axis=(0, 1))

    return jax.lax.map(one, (particles, refined))


def _without(particles: Particles, rings: Rings, fold: int, score: Score) -> Particles:
    """The particles without the signal in the rings of one fold."""
    return eqx.tree_at(
        lambda p: (p.filter_image, p.filter_template),
        particles,
        (
            particles.filter_image * rings.kept(score.padded_box, fold),
            particles.filter_template * rings.kept(score.filter_grid, fold),
        ),
    )


@eqx.filter_jit
def _sums(
    particles: Particles,
    refined: Refined,
    template: Template,
    score: Score,
    rings: Rings,
    parameters: tuple[str, ...],
) -> RingSums:
    """Sums over every ring at the poses of one fit."""
    members = rings.members(score.padded_box)

    def one(both: tuple[Particles, Refined]) -> RingSums:
        particle, found = both
        move = found.alignment.position_px - particle.alignment.position_px
        particle = recentred(particle, found, score)

        def expected(coordinates: Float[Array, " p"]) -> Float[Array, "2 k"]:
            offsets = offsets_from(coordinates, parameters, particle.alignment)
            shift = offsets.shift_px + move - jnp.round(move)
            offsets = eqx.tree_at(lambda o: o.shift_px, offsets, shift)
            values, _ = feature(offsets, particle, template, score)
            return jnp.stack([values.real.ravel(), values.imag.ravel()])

        values, along = jax.linearize(expected, jnp.zeros(count(parameters)))
        slopes = jax.lax.map(along, jnp.eye(count(parameters)))
        image = spectrum(particle, score)
        image = jnp.stack([image.real.ravel(), image.imag.ravel()])
        rows = jnp.concatenate([image[None], values[None], slopes])
        # An additional coefficient of 0 pads all rings to the same length.
        rows = jnp.pad(rows, ((0, 0), (0, 0), (0, 1)))[:, :, members]
        high = jax.lax.Precision.HIGHEST
        product = jnp.einsum("icbk,jcbk->bij", rows, rows, precision=high)
        return RingSums(
            seen=product[:, 0, 1],
            power=product[:, 1, 1],
            information=product[:, 2:, 2:],
            frequency=jnp.asarray(rings.middle, jnp.float32)
            / particle.alignment.pixel_size_angstrom,
        )

    return jax.lax.map(one, (particles, refined))
