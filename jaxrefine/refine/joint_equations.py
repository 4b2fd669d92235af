"""Information of each particle on its own coordinates and on the shared ones.

With u the unit feature, J its derivatives and x the image in white noise of variance 1, the
log likelihood of a particle at its best strength is z²/2, z = u·x. Its gradient is z Jᵀx,
and its information s² JᵀJ, with s the strength. (Changes of length are projected out of
J.)

Fitting each particle's own coordinates also fits noise, and the more so, the sharper the
image is assumed to be. This would make B factors too small, by several standard errors. The
B factor therefore maximises the likelihood minus half the logarithm of
det H, with H the observed information on the own coordinates: the adjusted profile
likelihood of Cox & Reid (J. R. Stat. Soc. B 49 (1987) 1). H is a product of the expected
and the observed image, of which B changes only the former, so its logarithm changes half as
much as that of s² JᵀJ. Other parameters hardly change det H.

Poses are not known exactly, which blurs the fine detail that the information at a single
pose counts in full. The curvature K of the likelihood with poses refitted is therefore less
than the Fisher information F, while the variance of its gradient is taken to be F. The
covariance of the shared values is then K⁻¹ F K⁻¹ (White, Econometrica 50 (1982) 1). K is
taken as a fraction of F, measured along one direction.

The coordinates of a particle are own + matrix @ shared[index]. Its own ones are eliminated
for each particle separately (Schur complement; Triggs et al., Bundle adjustment, LNCS 1883
(2000) 298), so that the cost is linear in the number of particles.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Float

from jaxrefine.data import Offsets, Particles, Template
from jaxrefine.data.batch import Batch
from jaxrefine.physics.fourier import radial_frequency
from jaxrefine.refine.design import Design
from jaxrefine.refine.differentiable import correlation_and_z, feature, spectrum
from jaxrefine.refine.information import unit_feature_and_slopes
from jaxrefine.refine.scoring import Score
from jaxrefine.refine.sharding import PARTICLES, filled_up
from jaxrefine.refine.shared import OWN_COUNT, LocalCoordinates

_Tree = TypeVar("_Tree")
# Å²: small enough for a linear change of information, large enough for float32.
_B_STEP = 5.0


class Equations(Batch):
    """Score and derivatives of each particle, in its local coordinates.

    Attributes:
        z: Score in units of the noise.
        slope: Jᵀx, the gradient of z.
        information: JᵀJ.
        blurring: Derivative of the information on the own coordinates with respect to the
            B factor; None if it is not fitted.
    """

    z: Float[Array | np.ndarray, "*n"]
    slope: Float[Array | np.ndarray, "*n p"]
    information: Float[Array | np.ndarray, "*n p p"]
    blurring: Float[Array | np.ndarray, "*n o o"] | None = None


@eqx.filter_jit
def equations(
    particles: Particles,
    coordinates: Float[Array, "n p"],
    template: Template,
    score: Score,
    local: LocalCoordinates,
    mesh: Mesh | None = None,
) -> Equations:
    """Score, gradient and information of a batch of particles.

    Args:
        particles: A batch of n.
        coordinates: Coordinates relative to each particle's alignment.
        template: Template with cubic slices, for continuous derivatives.
        score: The score.
        local: The meaning of the coordinates.
        mesh: From `device_mesh`.
    """

    def one(both: tuple[Particles, Float[Array, " p"]]) -> Equations:
        particle, at = both

        def offsets_at(coordinates: Float[Array, " p"]) -> Offsets:
            return local.offsets(coordinates, particle.alignment)

        rows, _ = unit_feature_and_slopes(at, offsets_at, particle, template, score)
        seen = spectrum(particle, score)
        image = jnp.stack([seen.real, seen.imag]).reshape(2, -1)
        high = jax.lax.Precision.HIGHEST
        along = jnp.einsum("ick,ck->i", rows, image, precision=high)
        product = jnp.einsum("ick,jck->ij", rows[1:], rows[1:], precision=high)
        z = (along[0] - particle.background_mean) / particle.noise_std
        slope, blurring = along[1:] / particle.noise_std, None
        if "b_factor" in local.optics:
            pixel_size = particle.alignment.pixel_size_angstrom
            blurring = _blurring(rows[: 1 + OWN_COUNT], pixel_size, score)
        return Equations(z, slope, product, blurring)

    return _mapped(one, particles, coordinates, mesh)


def _blurring(
    rows: Float[Array, "q 2 k"], pixel_size_angstrom: Float[Array, ""], score: Score
) -> Float[Array, "o o"]:
    """Derivative of JᵀJ by the B factor, which multiplies the image by exp(-B k²/4)."""
    k = jnp.asarray(radial_frequency(score.padded_box).ravel()) / pixel_size_angstrom

    def information(b: float) -> Float[Array, "o o"]:
        blurred = rows * jnp.exp(-b * k**2 / 4)
        values, slopes = blurred[0], blurred[1:]
        length2 = jnp.sum(values**2)
        lengthening = jnp.sum(slopes * values, axis=(1, 2)) / length2
        slopes = slopes - lengthening[:, None, None] * values
        high = jax.lax.Precision.HIGHEST
        return jnp.einsum("ick,jck->ij", slopes, slopes, precision=high) / length2

    return (information(_B_STEP) - information(-_B_STEP)) / (2 * _B_STEP)


@eqx.filter_jit
def scores(
    particles: Particles,
    coordinates: Float[Array, "n k p"],
    template: Template,
    score: Score,
    local: LocalCoordinates,
    mesh: Mesh | None = None,
) -> Float[Array, "n k"]:
    """z of a batch at k sets of coordinates each; arguments as for `equations`."""

    def one(both: tuple[Particles, Float[Array, "k p"]]) -> Float[Array, " k"]:
        particle, places = both
        seen = spectrum(particle, score)

        def at(coordinates: Float[Array, " p"]) -> Float[Array, ""]:
            offsets = local.offsets(coordinates, particle.alignment)
            values, _ = feature(offsets, particle, template, score)
            length = jnp.sqrt(jnp.sum(values.real**2 + values.imag**2))
            along = jnp.sum((jnp.conj(values) * seen).real) / length
            return (along - particle.background_mean) / particle.noise_std

        return jax.lax.map(at, places)

    return _mapped(one, particles, coordinates, mesh)


@eqx.filter_jit
def reported_scores(
    particles: Particles,
    coordinates: Float[Array, "n p"],
    template: Template,
    score: Score,
    local: LocalCoordinates,
    mesh: Mesh | None = None,
) -> Float[Array, "n 3"]:
    """Correlation, z-score and SNR as in a search; arguments as for `equations`."""

    def one(both: tuple[Particles, Float[Array, " p"]]) -> Float[Array, " 3"]:
        particle, at = both
        offsets = local.offsets(at, particle.alignment)
        correlation, z = correlation_and_z(offsets, particle, template, score)
        above = correlation - particle.background_mean
        return jnp.stack([correlation, z, above / particle.background_std])

    return _mapped(one, particles, coordinates, mesh)


def _mapped(
    one: Callable[[Any], _Tree], particles: Particles, coordinates: Array, mesh: Mesh | None
) -> _Tree:
    """Apply a function to one particle after the other, on each device to its share."""

    def shard(particles: Particles, coordinates: Array) -> _Tree:
        several = (particles, coordinates)
        shape = jax.eval_shape(one, jax.tree.map(lambda leaf: leaf[0], several))

        def of_padding(_) -> _Tree:
            return jax.tree.map(lambda leaf: jnp.full(leaf.shape, jnp.nan), shape)

        return jax.lax.map(lambda b: jax.lax.cond(b[0].valid, one, of_padding, b), several)

    count = len(particles)
    if mesh is None:
        return shard(particles, coordinates)
    both = filled_up((particles, coordinates), count, mesh)
    split = PartitionSpec(PARTICLES)
    sharded = jax.shard_map(
        shard, mesh=mesh, in_specs=(split, split), out_specs=split, check_vma=False
    )
    return jax.tree.map(lambda leaf: leaf[:count], sharded(*both))


@dataclass(frozen=True, eq=False)
class Eliminated:
    """Equations of the shared values, after eliminating each particle's own ones.

    Attributes:
        gradient: Gradient with respect to the shared values.
        information: Information on the shared values.
        own_step: Steps of the own coordinates with fixed shared values.
        own_response: Change of these steps with the local coordinates.
    """

    gradient: Float[np.ndarray, " s"]
    information: Float[np.ndarray, "s s"]
    own_step: Float[np.ndarray, "n o"]
    own_response: Float[np.ndarray, "n o p"]


def log_determinant(
    design: Design, found: Equations, strength2: Float[np.ndarray, " n"]
) -> Float[np.ndarray, " n"]:
    """Log determinant of each particle's information on its own coordinates."""
    matrix = np.nan_to_num(found.information[:, :OWN_COUNT, :OWN_COUNT])
    matrix = strength2[:, None, None] * matrix + np.diag(1 / design.own_sigma**2)
    return np.linalg.slogdet(matrix)[1]


def own_defocus(
    design: Design,
    found: Equations,
    own: Float[np.ndarray, "n o"],
    strength2: Float[np.ndarray, " n"],
) -> Float[np.ndarray, "n 2"]:
    """Each particle's own defocus without its prior, and the standard error, in Å.

    A step of Gauss and Newton from `own`, with orientation and shift eliminated. Arguments
    as for `eliminate`.
    """
    last = OWN_COUNT - 1
    gradient = np.nan_to_num(found.z)[:, None] * found.slope[:, :OWN_COUNT]
    gradient[:, :last] -= own[:, :last] / design.own_sigma[:last] ** 2
    matrix = strength2[:, None, None] * found.information[:, :OWN_COUNT, :OWN_COUNT]
    block = matrix[:, :last, :last] + np.diag(1 / design.own_sigma[:last] ** 2)
    cross = np.linalg.solve(block, matrix[:, :last, last:])[:, :, 0]
    uphill = gradient[:, last] - np.sum(cross * gradient[:, :last], axis=1)
    information = matrix[:, last, last] - np.sum(cross * matrix[:, :last, last], axis=1)
    information = np.maximum(information, 1e-12)
    return np.stack([own[:, last] + uphill / information, information**-0.5], axis=1)


def eliminate(
    design: Design,
    found: Equations,
    own: Float[np.ndarray, "n o"],
    weight: Float[np.ndarray, " n"],
    strength2: Float[np.ndarray, " n"],
    damping: Float[np.ndarray, " n"],
) -> Eliminated:
    """Sum the equations of the shared values over all particles.

    Args:
        design: Design of all particles.
        found: Equations as numpy arrays; particles that were not read have z = NaN and do
            not contribute.
        own: Their own coordinates, for the prior.
        weight: Weight of each particle.
        strength2: Square of the strength, by which `information` is multiplied.
        damping: Marquardt's damping, relative to the curvature of each own coordinate.
    """
    known = np.isfinite(found.z)
    z = np.where(known, found.z, 0.0)[:, None]
    slope = np.where(known[:, None], found.slope, 0.0)
    matrix = np.where(known[:, None, None], found.information, 0.0)
    matrix = np.where(known, strength2, 0.0)[:, None, None] * matrix
    precision = 1 / design.own_sigma**2
    gradient = z * slope
    own_gradient = gradient[:, :OWN_COUNT] - precision * own
    of_own = matrix[:, :OWN_COUNT, :OWN_COUNT] + np.diag(precision)
    diagonal = np.einsum("noo->no", of_own)
    damped = of_own + np.eye(OWN_COUNT) * (damping[:, None] * diagonal)[:, None]
    if found.blurring is not None:
        blurring = strength2[:, None, None] * np.nan_to_num(found.blurring)
        less = np.einsum("noo->n", np.linalg.solve(of_own, blurring)) / 4
        gradient[:, design.local.slices["b_factor"]] -= less[:, None]
    # In units in which the diagonal is 1, because degrees, pixels and Å differ in scale.
    scale = 1 / np.sqrt(np.einsum("noo->no", damped))
    cross = matrix[:, :OWN_COUNT]
    right = np.concatenate([own_gradient[:, :, None], cross], axis=2)
    solved = scale[:, :, None] * np.linalg.solve(
        damped * scale[:, :, None] * scale[:, None], scale[:, :, None] * right
    )
    own_step, response = solved[:, :, 0], -solved[:, :, 1:]
    left = matrix + np.einsum("nop,noq->npq", cross, response)
    rest = gradient - np.einsum("nop,no->np", cross, own_step)
    of_each = np.einsum("npg,np->ng", design.matrix, rest * weight[:, None])
    block_of_each = np.einsum(
        "npg,npq,nqh->ngh",
        design.matrix,
        left * weight[:, None, None],
        design.matrix,
        optimize=True,
    )
    count = len(design.shared_sigma)
    total, block = np.zeros(count), np.zeros((count, count))
    places = design.index
    np.add.at(total, places, of_each)
    np.add.at(block, (places[:, :, None], places[:, None, :]), block_of_each)
    return Eliminated(total, block, own_step, response)
