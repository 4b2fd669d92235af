"""Reconstruct a volume from particles at given poses, by least squares.

The expected image of a particle, A v, is linear in the volume v. In white noise, the volume
of maximum likelihood solves Σ AᵀA v = Σ Aᵀ x, summed over the particles. Conjugate
gradients (Hestenes & Stiefel, J. Res. Natl. Bur. Stand. 49 (1952) 409) solve it. A few
steps recover the components that the images determine well and leave out those that noise
would dominate. The template enters only through the poses.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Complex, Float

from jaxrefine.data import Alignment, Offsets, Particles, Template
from jaxrefine.physics.slices import make_template
from jaxrefine.refine.differentiable import feature, spectrum
from jaxrefine.refine.scoring import Score

_STEPS = 8
# Of the omitted density, voxels above this share of its highest count (Lucas et al.).
_SHARE_OF_HIGHEST, _HIGHEST = 0.1, 100


class Placed(NamedTuple):
    """A batch of particles with their poses.

    Attributes:
        particles: The batch; particles that are not valid are ignored.
        alignment: One pose for each particle, with sub-pixel positions.
    """

    particles: Particles
    alignment: Alignment


def reconstruct(
    batches: Sequence[Placed], side: int, score: Score, *, steps: int = _STEPS
) -> Float[np.ndarray, "n n n"]:
    """Return the volume that explains the particles best.

    Args:
        batches: Batches of equal length share one compilation.
        side: Side of the volume in px: that of the score's template.
        score: The score whose filters and CTF were applied to the images.
        steps: Number of conjugate-gradient steps.

    Returns:
        The volume, up to an unknown scale.

    Raises:
        ValueError: There are no batches.
    """
    seen = _sum(_back_projected(b, side, score) for b in batches)
    volume = jnp.zeros_like(seen)
    residual = direction = seen
    length2 = jnp.vdot(residual, residual)
    for _ in range(steps):
        along = _sum(_projected_and_back(direction, b, score) for b in batches)
        curvature = jnp.vdot(direction, along)
        if not curvature > 0:
            break
        step = length2 / curvature
        volume, residual = volume + step * direction, residual - step * along
        previous, length2 = length2, jnp.vdot(residual, residual)
        direction = residual + length2 / previous * direction
    return np.asarray(volume)


def _sum(parts) -> Array:
    total = None
    for part in parts:
        total = part if total is None else total + part
    if total is None:
        raise ValueError("there are no particles to reconstruct from")
    return total


def _images(template: Template, placed: Placed, score: Score) -> Complex[Array, "n Qh Qr"]:
    """The expected image of each particle, linear in the template."""

    def one(both: Placed) -> Complex[Array, "Qh Qr"]:
        particle, there = both
        start = particle.alignment
        offsets = replace(Offsets.zeros(), shift_px=there.position_px - start.position_px)
        at = replace(there, position_px=start.position_px)
        turned = eqx.tree_at(lambda p: p.alignment, particle, at)
        return feature(offsets, turned, template, score)[0] * particle.valid

    return jax.lax.map(one, placed)


@eqx.filter_jit
def _back_projected(placed: Placed, side: int, score: Score) -> Float[Array, "n n n"]:
    """Σ Aᵀ x."""
    images = jax.vmap(lambda p: spectrum(p, score))(placed.particles)

    def agreement(volume: Float[Array, "n n n"]) -> Float[Array, ""]:
        expected = _images(make_template(volume, "cubic"), placed, score)
        return jnp.sum((jnp.conj(expected) * images).real)

    return jax.grad(agreement)(jnp.zeros((side, side, side)))


@eqx.filter_jit
def _projected_and_back(
    volume: Float[Array, "n n n"], placed: Placed, score: Score
) -> Float[Array, "n n n"]:
    """Σ AᵀA v: the gradient of Σ |A v|² / 2."""

    def energy(volume: Float[Array, "n n n"]) -> Float[Array, ""]:
        expected = _images(make_template(volume, "cubic"), placed, score)
        return jnp.sum(expected.real**2 + expected.imag**2) / 2

    return jax.grad(energy)(volume)


def omitted_voxels(
    full: Float[np.ndarray, "n n n"], omit: Float[np.ndarray, "n n n"]
) -> Bool[np.ndarray, "n n n"]:
    """Select the voxels whose density the second template omits.

    The threshold is a tenth of the mean of the 100 largest differences (Lucas, Himes &
    Grigorieff, eLife 12 (2023) RP90486).
    """
    difference = np.asarray(full, np.float64) - omit
    highest = np.sort(difference, axis=None)[-_HIGHEST:].mean()
    return difference > _SHARE_OF_HIGHEST * highest


def template_bias(
    from_full: Float[np.ndarray, "n n n"],
    from_omit: Float[np.ndarray, "n n n"],
    omitted: Bool[np.ndarray, "n n n"],
) -> float:
    """Return the template bias Ω (Lucas, Himes & Grigorieff, eLife 12 (2023) RP90486).

    Ω = (Σ ρ_full - Σ ρ_omit) / Σ ρ_full over the omitted voxels of two reconstructions
    from the same images: ρ_full at the poses of the full template, ρ_omit at those of the
    template that omits a part. It is 0 where the images contain the part and 1 where the
    density comes from the template alone.

    Returns:
        Ω; NaN where the reconstruction from the full template has no density.
    """
    full, omit = (float(volume[omitted].sum()) for volume in (from_full, from_omit))
    return (full - omit) / full if full > 0 else float("nan")
