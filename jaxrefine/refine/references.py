"""Fits of several references to the same particles, each at its own best pose.

The scores of similar references differ by less than the effect of grid steps or of a missed
optimum. Each reference is therefore polished both from its own best pose and from the pose
of the reference that fits best, and the better result is used. `reference_likelihood`
explains how to interpret the scores.
"""

import functools
from collections.abc import Sequence
from dataclasses import replace

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Array, Complex, Float

from jaxrefine.data import (
    Alignment,
    InputError,
    Offsets,
    Particles,
    Refined,
    SearchGrid,
    Status,
    Template,
)
from jaxrefine.refine.coordinates import count
from jaxrefine.refine.differentiable import correlation_and_z, feature
from jaxrefine.refine.information import pose_information
from jaxrefine.refine.polish import Polish, polish_particles
from jaxrefine.refine.scoring import Score


class Reference(eqx.Module):
    """One of several structures to compare particles with.

    Attributes:
        template: From `make_template` with cubic slices.
        pixel_size_angstrom: Voxel size of the template, per particle.
        alignment: Alignment refined against this reference, per particle: the start of the
            comparison. NaN in an angle marks particles that were not refined.
    """

    template: Template
    pixel_size_angstrom: Float[Array, " n"]
    alignment: Alignment


class ReferenceFits(eqx.Module):
    """Fits of r references to n particles.

    Attributes:
        alignment: Alignment at the optimum of each.
        z_score: z-score there; NaN if a reference was not refined.
        correlation: Correlation there.
        snr: 2DTM SNR, as in `Refined`.
        signal: Correlation above the background in standard deviations of the noise.
        log_determinant: Log determinant of the information that an image of unit strength
            holds on the pose: the larger, the fewer poses fit.
        overlap: Correlation coefficients between the expected images of the references,
            each at its optimum.
    """

    alignment: Alignment
    z_score: Float[Array, "n r"]
    correlation: Float[Array, "n r"]
    snr: Float[Array, "n r"]
    signal: Float[Array, "n r"]
    log_determinant: Float[Array, "n r"]
    overlap: Float[Array, "n r r"]


def fit_references(
    particles: Particles,
    references: Sequence[Reference],
    grid: SearchGrid,
    score: Score,
    polish: Polish | None = None,
    *,
    mesh: Mesh | None = None,
) -> ReferenceFits:
    """Fit all references to each particle with equal effort.

    Args:
        particles: The batch as it was searched; the pixel size of its template is ignored.
        references: At least two references.
        grid: The grid that was searched.
        score: The score of all references.
        polish: Settings of the polish, of which `prior` and `errors` are ignored. None
            takes the defaults.
        mesh: From `device_mesh`, as for the search.

    Raises:
        InputError: Fewer than two references; otherwise as `polish_particles`.
    """
    if len(references) < 2:
        raise InputError(f"{len(references)} references: expected at least two")
    polish = replace(polish or Polish(errors=False), prior="none")

    def climb(reference: Reference, starts: Alignment) -> Refined:
        there = _scored_with(particles, reference)
        # Where the template is, so that results of a polish, which are distributed, do not
        # need a program of their own.
        starts = jax.device_put(starts, jax.tree.leaves(reference.template)[0].sharding)
        start = _start(there, starts, reference.template, score)
        found = polish_particles(
            there, start, reference.template, grid, score, polish, mesh=mesh
        )
        return found.refined

    own = [climb(reference, reference.alignment) for reference in references]
    best = functools.reduce(_higher, own)
    found = [
        _higher(one, climb(reference, best.alignment))
        for one, reference in zip(own, references, strict=True)
    ]
    # Particles that were not refined, for example with a box outside, stay unrefined.
    found = [
        replace(one, z_score=jnp.where(jnp.isfinite(first.z_score), one.z_score, jnp.nan))
        for one, first in zip(found, own, strict=True)
    ]
    at_best = [
        _expected(_scored_with(particles, of), one.alignment, of.template, score, polish)
        for one, of in zip(found, references, strict=True)
    ]
    features = jnp.stack([expected for expected, _ in at_best], axis=1)

    def stacked(values: Sequence[Array]) -> Array:
        return jnp.stack(values, axis=1)

    correlation = stacked([one.correlation for one in found])
    above = correlation - particles.background_mean[:, None]
    z_score = stacked([one.z_score for one in found])
    signal = above / particles.noise_std[:, None]
    return ReferenceFits(
        alignment=jax.tree.map(lambda *each: stacked(each), *[f.alignment for f in found]),
        z_score=z_score,
        correlation=correlation,
        snr=stacked([one.snr for one in found]),
        signal=jnp.where(jnp.isfinite(z_score), signal, jnp.nan),
        log_determinant=stacked([determinant for _, determinant in at_best]),
        overlap=_overlap(features),
    )


def _scored_with(particles: Particles, reference: Reference) -> Particles:
    return replace(particles, template_pixel_size_angstrom=reference.pixel_size_angstrom)


def _higher(a: Refined, b: Refined) -> Refined:
    """For each particle, the result with the higher z-score."""
    better = (b.z_score > a.z_score) | ~jnp.isfinite(a.z_score)

    def chosen(new: Array, old: Array) -> Array:
        return jnp.where(better.reshape(-1, *[1] * (new.ndim - 1)), new, old)

    return jax.tree.map(chosen, b, a)


@eqx.filter_jit
def _start(
    particles: Particles, starts: Alignment, template: Template, score: Score
) -> Refined:
    """Starting values of a polish, at whole pixels, with the score there."""

    def one(both: tuple[Particles, Alignment]) -> Refined:
        particle, start = both
        there = replace(start, position_px=jnp.round(start.position_px))
        correlation, z = _score_at(particle, there, template, score)
        index = jnp.zeros(5, jnp.int32)
        finite = jnp.isfinite(z)
        return Refined(
            alignment=there,
            z_score=jnp.where(finite, z, jnp.nan),
            correlation=jnp.where(finite, correlation, jnp.nan),
            snr=(correlation - particle.background_mean) / particle.background_std,
            grid_index=index,
            status=jnp.where(finite, Status.CONVERGED, Status.NOT_FINITE).astype(jnp.int32),
            approximation_error=jnp.float32(0),
        )

    return jax.lax.map(one, (particles, starts))


def _placed(particle: Particles, there: Alignment) -> tuple[Particles, Offsets]:
    """The particle at an alignment, with the position as an offset from the padded box."""
    start = particle.alignment
    shift = there.position_px - start.position_px
    at = replace(there, position_px=start.position_px)
    offsets = replace(Offsets.zeros(), shift_px=shift)
    return eqx.tree_at(lambda p: p.alignment, particle, at), offsets


def _score_at(
    particle: Particles, there: Alignment, template: Template, score: Score
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """(correlation, z-score) at an alignment, with the statistics at its position."""
    placed, offsets = _placed(particle, there)
    correlation, _ = correlation_and_z(offsets, placed, template, score)
    limits = jnp.asarray(score.positions) - 1
    place = jnp.round(offsets.shift_px).astype(jnp.int32) + jnp.asarray(score.margin)
    y, x = jnp.clip(place, 0, limits)
    return correlation, (correlation - particle.corr_mean[y, x]) / particle.corr_std[y, x]


@eqx.filter_jit
def _expected(
    particles: Particles,
    alignment: Alignment,
    template: Template,
    score: Score,
    polish: Polish,
) -> tuple[Complex[Array, "n Qh Qr"], Float[Array, " n"]]:
    """The unit feature, and the log determinant of the information on its pose."""

    def one(both: tuple[Particles, Alignment]) -> tuple[Array, Array]:
        placed, offsets = _placed(*both)
        values, _ = feature(offsets, placed, template, score)
        length = jnp.sqrt(jnp.sum(values.real**2 + values.imag**2))
        here = jnp.zeros(count(polish.parameters))
        information = pose_information(here, placed, template, score, polish.parameters)
        return values / length, jnp.linalg.slogdet(information)[1]

    return jax.lax.map(one, (particles, alignment))


@jax.jit
def _overlap(features: Complex[Array, "n r Qh Qr"]) -> Float[Array, "n r r"]:
    parts = jnp.stack([features.real, features.imag], axis=2)
    parts = parts.reshape(*parts.shape[:2], -1)
    high = jax.lax.Precision.HIGHEST
    return jnp.einsum("nak,nbk->nab", parts, parts, precision=high)
