"""Remove a known structure from the images of particles before another is searched.

A neighbour whose pose is known, such as the complex beside which a partner is searched,
correlates with the partner's template wherever their densities resemble each other. The
image is x = a·f(θ) + partner + noise, with f the neighbour's feature at its pose θ.
Projecting f out of the image removes its contribution, whatever its strength a. The
correlation with the rest is that of the part of the partner's feature that is orthogonal to
f: the matched filter for a signal in interference of known shape and unknown strength
(S. M. Kay, *Fundamentals of Statistical Signal Processing II*, 1998, section 7.7). The
derivatives of f with respect to the pose are projected out as well, so that errors of the
pose do not matter to first order.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxrefine.data import Alignment, Particles, Template
from jaxrefine.refine.arguments import check_score, check_template
from jaxrefine.refine.ascent import gauss_newton
from jaxrefine.refine.coordinates import offsets_from
from jaxrefine.refine.differentiable import feature, image_of, spectrum
from jaxrefine.refine.information import unit_feature_and_slopes
from jaxrefine.refine.scoring import Score

_PARAMETERS = ("orientation", "shift", "defocus")
# How far the given pose may be wrong: degrees about x, y and z, px, and Å.
_LIMITS = (2.0, 2.0, 2.0, 2.0, 2.0, 200.0)
_MOST_EVALUATIONS = 8
# Directions in which the image hardly changes are not projected out.
_LEAST_SINGULAR_VALUE = 1e-3


@eqx.filter_jit
def project_out(
    particles: Particles, at: Alignment, template: Template, score: Score
) -> Particles:
    """Project a structure near a known pose out of the images of particles.

    The pose is first optimised, within 2°, 2 px and 200 Å of defocus. Then the best linear
    fit of the structure's feature and of its derivatives (three rotations, two shifts,
    defocus) is subtracted from each image. White noise of variance 1 loses these seven of
    its dimensions.

    Args:
        particles: A batch, from `cut_particles`.
        at: Pose of the structure beside each particle; positions, in px of the micrograph,
            need not be whole.
        template: The structure, from `make_template` with cubic slices.
        score: The score with the side of this template. Its padded box and the grid of its
            filter are those of the score with which the particles were cut.

    Returns:
        The particles, with other images.

    Raises:
        InputError: The template does not match the score.
    """
    check_score(score)
    check_template(template, score)

    def one(both: tuple[Particles, Alignment]) -> Float[Array, "Qh Qw"]:
        return _rest(*both, template, score)

    return eqx.tree_at(lambda p: p.image, particles, jax.lax.map(one, (particles, at)))


def _rest(
    particle: Particles, at: Alignment, template: Template, score: Score
) -> Float[Array, "Qh Qw"]:
    """The image of one particle without the structure."""
    move = at.position_px - particle.alignment.position_px
    there = eqx.tree_at(lambda p: p.alignment, particle, at)
    seen = spectrum(particle, score)
    seen = jnp.stack([seen.real, seen.imag]).reshape(2, -1)

    def offsets_at(coordinates: Float[Array, " p"]):
        offsets = offsets_from(coordinates, _PARAMETERS, at)
        return eqx.tree_at(lambda o: o.shift_px, offsets, offsets.shift_px + move)

    def rows_at(coordinates: Float[Array, " p"]) -> Float[Array, "q 2 k"]:
        fixed = (there, template, score)
        return unit_feature_and_slopes(coordinates, offsets_at, *fixed)[0]

    def correlation(coordinates: Float[Array, " p"]) -> Float[Array, ""]:
        values, _ = feature(offsets_at(coordinates), there, template, score)
        parts = jnp.stack([values.real, values.imag]).reshape(2, -1)
        return jnp.sum(parts * seen) / jnp.sqrt(jnp.sum(parts**2))

    high = jax.lax.Precision.HIGHEST
    limits = jnp.asarray(_LIMITS)
    rows = rows_at(jnp.zeros_like(limits))[1:]
    information = jnp.einsum("ick,jck->ij", rows, rows, precision=high)
    best = gauss_newton(
        jax.value_and_grad(correlation), information, limits, _MOST_EVALUATIONS
    )
    rows = rows_at(best.coordinates).reshape(1 + len(_LIMITS), -1)
    rows = rows / jnp.linalg.norm(rows, axis=1, keepdims=True)
    metric = jnp.einsum("ik,jk->ij", rows, rows, precision=high)
    share = jnp.matmul(rows, seen.ravel(), precision=high)
    inverse = jnp.linalg.pinv(metric, rtol=_LEAST_SINGULAR_VALUE, hermitian=True)
    fitted = jnp.matmul(jnp.matmul(inverse, share, precision=high), rows, precision=high)
    shape = (score.padded_box[0], score.padded_box[1] // 2 + 1)
    real, imaginary = fitted.reshape(2, *shape)
    rest = particle.image - image_of(jax.lax.complex(real, imaginary), score)
    # Without a finite pose or image there is nothing to subtract.
    return jnp.where(jnp.all(jnp.isfinite(rest)), rest, particle.image)
