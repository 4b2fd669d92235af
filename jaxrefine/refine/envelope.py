"""How the particles' signal falls off against the template's, estimated without bias.

A pose that was fitted at a frequency correlates with the noise there, so that what is
measured at it confirms the envelope that it was fitted with. Therefore the frequencies are
dealt out in turn into folds of narrow rings: for each fold the pose is fitted to all other
rings, and the signal is measured in those that were left out, whose noise knows nothing of
the pose. What is left is that such a pose is not quite right, and that the expected image
at it falls short of the true one, most where the image turns fastest. How much is seen in
simulated particles, and divided out (`envelope_fit`).

The same sums are a cross-validated score: what z the fitted poses have in data to which
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
from jaxrefine.refine.coordinates import count, offsets_from
from jaxrefine.refine.differentiable import feature, image_of, spectrum
from jaxrefine.refine.polish import Polish, polish_particles, recentred
from jaxrefine.refine.rings import Rings
from jaxrefine.refine.scoring import Score


class RingSums(eqx.Module):
    """What each ring says of a particle, at a pose that the other rings have given.

    With F the expected image (template, filter, CTF, the table's B; no further envelope)
    and Y the image, whose noise has variance 1.

    Attributes:
        seen: Σ Re(conj(F) Y).
        power: Σ |F|²: the variance of `seen`, and its mean where strength and envelope
            are 1.
        information: JᵀJ, J the derivative of F in the coordinates of the pose.
        frequency: Middle of each ring in 1/Å.
    """

    seen: Float[Array, "*n b"]
    power: Float[Array, "*n b"]
    information: Float[Array, "*n b p p"]
    frequency: Float[Array, "*n b"]


def with_extra_b(particles: Particles, extra_b_angstrom2: ScalarLike) -> Particles:
    """Particles whose signal is taken to fall off by so much more than the table says."""
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
    """Fit each particle's pose to all rings but some, and measure in these; for all.

    Args:
        particles: A batch, as it was searched.
        refined: Where the fits start.
        template: For the polish, with cubic slices.
        grid: The grid that was searched.
        score: The same score.
        extra_b_angstrom2: Envelope that poses are fitted with, beside the table's.
        rings: Which rings; None takes the defaults.
        polish: As for `polish_particles`.
        measured: The images to measure in, where they are not those that poses are fitted
            to: the same without noise, say.
        mesh: From `device_mesh`.
    """
    measured = particles if measured is None else measured
    rings = rings or Rings()
    polish = replace(polish or Polish(), errors=False, prior="none")
    # What the fit has to exceed is a score of all rings: any of some rings will do.
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
    """The expected images of particles at their poses, in new noise and without any.

    Args:
        particles: A batch.
        refined: Their poses.
        template: With cubic slices.
        score: The same score.
        strength: Of all.
        extra_b_angstrom2: The envelope beside the table's.
        seed: Of the noise.
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
    """At a strength of 1, where the particles' cuts are."""

    def one(both: tuple[Particles, Refined]) -> Float[Array, "Qh Qw"]:
        particle, found = both
        move = found.alignment.position_px - particle.alignment.position_px
        there = recentred(particle, found, score)
        offsets = eqx.tree_at(lambda o: o.shift_px, Offsets.zeros(), move - jnp.round(move))
        values, _ = feature(offsets, there, template, score)
        image = image_of(values, score)
        # Back to where the cut was.
        return jnp.roll(image, jnp.round(move).astype(jnp.int32), axis=(0, 1))

    return jax.lax.map(one, (particles, refined))


def _without(particles: Particles, rings: Rings, fold: int, score: Score) -> Particles:
    """Particles to which the rings of a fold say nothing."""
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
    """Sums over every ring, at the poses of one fit."""
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
        # One more coefficient, of 0, fills rings up to one size.
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
