"""Other optima of a particle's score, in addition to the one that the polish has found.

A structure that looks almost the same from two directions, or an image with little signal,
has several poses that fit almost equally well. The curvature at one of them contains no
information on the others. The search has scored every orientation. The best of those that
are too far from the first optimum to belong to it is polished as well, by the same program.
If its optimum holds a share of the posterior, the reported covariance is that of the
mixture, around the reported pose.

Optima that differ only in position or defocus are not considered: the search keeps only the
best of these for each orientation.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jaxrefine.data import Alignment, Particles, Polished, Refined, SearchGrid, Template
from jaxrefine.physics.rotations import matrix_to_rotation_vector
from jaxrefine.refine.coordinates import parameter_slices
from jaxrefine.refine.pose_errors import errors_of_covariance
from jaxrefine.refine.prior import offset_of
from jaxrefine.refine.refine import best_in_box
from jaxrefine.refine.scoring import Score
from jaxrefine.refine.search import ranked_by_background

# A start further away does not belong to an optimum, whose posterior is e^(-9/2) there.
_FAR_SIGMAS = 3.0
# Optima closer than this count as one, whose covariance includes both.
_APART_SIGMAS = 2.0
# Number of nearest orientations that are looked at first, and the fraction of the distance
# above within which they surely count, although it is only nearly known.
_NEIGHBOURS, _SURELY = 8, 0.8
# Smallest share of the posterior for an optimum to be counted separately.
_LEAST_SHARE = 0.05
# Gain in log posterior from which another optimum is reported instead of the first. At
# smaller gains the other is not closer to the truth (docs/decisions.md).
_CLEARLY = 2.0
# Largest loss of z² of a start relative to the best grid point. Without a grid, a loss of 6
# would be a share of 0.05; the steps of the grid lower some optima more than others.
_MOST_LOST = 8.0
# Largest number of polishes of one particle, including the first.
_MOST_CLIMBS = 3

Climb = Callable[[Refined], Polished]
_Tree = TypeVar("_Tree")
# Starting alignment of a particle, and mean and standard deviation of its noise.
_Own = tuple[Alignment, float, float]


@dataclass(frozen=True, eq=False)
class Searched:
    """A batch that was searched and is being polished.

    Attributes:
        particles: The batch.
        refined: Results of the search, with `orientation_z`.
        template: Template for the polish.
        grid: The grid that was searched.
        score: The score of the search.
        parameters: The free parameters, including the orientation.
        precision: Precision of the prior around the starting values, from
            `cell_precision`; None for no prior.
    """

    particles: Particles
    refined: Refined
    template: Template
    grid: SearchGrid
    score: Score
    parameters: tuple[str, ...]
    precision: Float[Array, " p"] | None = None

    @property
    def orientation(self) -> slice:
        """Rows and columns of the orientation in a covariance matrix."""
        return parameter_slices(self.parameters)["orientation"]


def with_other_optima(first: Polished, climb: Climb, searched: Searched) -> Polished:
    """Extend the result of a polish by other optima. Not for use inside `jit`.

    Args:
        first: Result of the polish from each particle's best grid point.
        climb: Polishes the batch from other starting values, except where z is NaN.
        searched: The batch.
    """
    if searched.refined.orientation_z is None or "orientation" not in searched.parameters:
        return first
    found, tried = [_on_host(first)], []
    while len(found) < _MOST_CLIMBS:
        start = _next_start(found, tried, searched)
        if start is None:
            break
        tried.append(np.asarray(start.alignment.rotation, float))
        found.append(_on_host(climb(start)))
    return first if len(found) == 1 else _joined(found, searched)


def _on_host(tree: _Tree) -> _Tree:
    return jax.tree.map(np.asarray, tree)


def _next_start(
    found: Sequence[Polished], tried: Sequence[np.ndarray], searched: Searched
) -> Refined | None:
    """Starting values of the next polish; z is NaN for particles without any."""
    particles, refined, grid = searched.particles, searched.refined, searched.grid
    z_of_each = np.maximum(np.asarray(refined.orientation_z), 0)
    lost = z_of_each.max(axis=1, keepdims=True) ** 2 - z_of_each**2
    offsets = np.asarray(grid.rotation, float)
    rotation = np.array(particles.alignment.rotation, float)
    wanted = np.zeros(len(rotation), bool)
    at = searched.orientation
    # Particles whose last polish found nothing new are not polished again.
    for i in np.flatnonzero(_climbed(found[-1])).tolist():
        near, start = lost[i] < _MOST_LOST, rotation[i]
        if len(found) > 1 and not _apart(_of(found[0], i), _of(found[-1], i), searched):
            continue
        turned = (start, offsets[near]) if grid.frame == "image" else (offsets[near], start)
        optima = [(_rotation(one)[i], _covariance(one)[i][at, at]) for one in found]
        starts = [(turn[i], optima[0][1]) for turn in tried]
        chosen = _far_from_all(z_of_each[i][near], np.matmul(*turned), optima + starts)
        if chosen is not None:
            rotation[i], wanted[i] = chosen, True
    if not wanted.any():
        return None
    there = replace(
        jax.tree.map(jnp.asarray, found[0].refined.alignment),
        rotation=jnp.asarray(rotation, jnp.float32),
        position_px=particles.alignment.position_px,
    )
    turned = replace(particles, alignment=there, valid=particles.valid & wanted)
    z, place = _best_place(turned, searched.template, searched.score)
    at_best = jnp.where(particles.mean_peaks, refined.snr, refined.z_score)
    good = jnp.asarray(wanted) & (z > 0) & (at_best**2 - z**2 < _MOST_LOST)
    if not np.any(good):
        return None
    position = there.position_px + place - jnp.asarray(searched.score.margin)
    return replace(
        refined,
        orientation_z=None,
        alignment=replace(there, position_px=position),
        z_score=jnp.where(good, z, jnp.nan),
    )


def _far_from_all(
    z: Float[np.ndarray, " k"],
    poses: Float[np.ndarray, "k 3 3"],
    known: Sequence[tuple[Float[np.ndarray, "3 3"], Float[np.ndarray, "3 3"]]],
) -> Float[np.ndarray, "3 3"] | None:
    """The best orientation of a particle that belongs to no known optimum or start.

    It is a local maximum: no orientation near it has a higher z-score.

    Args:
        z: z-scores of the orientations that are good enough as a start.
        poses: These orientations.
        known: Orientation and covariance of each optimum and start; first that of the
            first optimum.
    """
    far = [_sigmas_apart(there, poses, c) > _FAR_SIGMAS for there, c in known]
    open_ = np.flatnonzero(np.all(far, axis=0))
    if len(open_) and len(poses) > 1:
        open_ = open_[~_has_higher_neighbour(open_, z, poses, known[0][1])]
    for at in open_[np.argsort(-z[open_], kind="stable")]:
        higher = poses[z > z[at]]
        if not np.any(_sigmas_apart(poses[at], higher, known[0][1]) < _APART_SIGMAS):
            return poses[at]
    return None


def _has_higher_neighbour(
    some: Int[np.ndarray, " s"],
    z: Float[np.ndarray, " k"],
    poses: Float[np.ndarray, "k 3 3"],
    covariance: Float[np.ndarray, "3 3"],
) -> Bool[np.ndarray, " s"]:
    """Whether one of the nearest orientations has a higher z-score.

    That excludes most orientations in a small part of the time of a comparison with all.
    Differences of rotation vectors are the distances here, which errs by a few per cent.
    """
    from scipy.spatial import KDTree  # 0.2 s, in the start of every run

    vectors = matrix_to_rotation_vector(poses[0].T @ poses)
    scaled = vectors @ np.linalg.cholesky(np.linalg.inv(covariance.astype(float)))
    count = min(_NEIGHBOURS, len(poses))
    distance, neighbour = KDTree(scaled).query(scaled[some], k=count)
    near = distance < _SURELY * _APART_SIGMAS
    return np.any(near & (z[neighbour] > z[some][:, None]), axis=1)


@eqx.filter_jit
def _best_place(
    particles: Particles, template: Template, score: Score
) -> tuple[Float[Array, " n"], Int[Array, "n 2"]]:
    """`best_in_box`, with the statistics by which the search chooses positions."""
    return best_in_box(jax.vmap(ranked_by_background)(particles), template, score)


def _of(tree: _Tree, i: int) -> _Tree:
    return jax.tree.map(lambda leaf: leaf[i], tree)


def _covariance(polished: Polished) -> Float[np.ndarray, "*n p p"]:
    return np.asarray(polished.covariance, float)


def _climbed(polished: Polished) -> Bool[np.ndarray, " n"]:
    return np.all(np.isfinite(_covariance(polished)), axis=(1, 2))


def _rotation(polished: Polished) -> Float[np.ndarray, "*n 3 3"]:
    return np.asarray(polished.refined.alignment.rotation, float)


def _sigmas_apart(
    one: Float[np.ndarray, "3 3"],
    others: Float[np.ndarray, "*k 3 3"],
    covariance: Float[np.ndarray, "3 3"],
) -> Float[np.ndarray, "*k"]:
    """Distances between one orientation and others, in standard errors."""
    turn = matrix_to_rotation_vector(one.T @ others)
    inverse = np.linalg.inv(covariance.astype(float))
    return np.asarray(np.sqrt(np.einsum("...i,ij,...j->...", turn, inverse, turn)))


def _joined(found: Sequence[Polished], searched: Searched) -> Polished:
    """The best optimum of each particle, with the errors of all of them."""
    result = jax.tree.map(np.array, found[0])
    several = np.any([_climbed(one) for one in found[1:]], axis=0)
    own = searched.particles
    starts = _on_host(own.alignment)
    for i in np.flatnonzero(several).tolist():
        optima = [_of(one, i) for one in found if _climbed(one)[i]]
        noise = float(own.background_mean[i]), float(own.noise_std[i])
        of_one = _mixture(optima, (_of(starts, i), *noise), searched)
        evaluations = sum(one.evaluations for one in optima)
        of_one = eqx.tree_at(lambda p: p.evaluations, of_one, evaluations)
        for leaf, new in zip(jax.tree.leaves(result), jax.tree.leaves(of_one), strict=True):
            leaf[i] = new
    return jax.tree.map(jnp.asarray, result)


def _mixture(optima: Sequence[Polished], own: _Own, searched: Searched) -> Polished:
    """The optimum to report for one particle, with the covariance of the mixture around it.

    It is the first optimum, unless another is clearly better. The share of an optimum in
    the posterior is computed by Laplace's approximation: its likelihood times the volume of
    its covariance.
    """
    height = [_log_posterior(one, own, searched) for one in optima]
    first, best = optima[0], optima[int(np.argmax(height))]
    clearly = max(height) > height[0] + _CLEARLY
    # The statistic maps vary with position, so its z-score may nevertheless be lower.
    lower = searched.precision is None and best.refined.z_score < first.refined.z_score
    if lower or not clearly:
        best = first
    volume = [_log_volume(one, best) for one in optima]
    share = np.exp(np.add(height, volume) - np.max(np.add(height, volume)))
    apart = [one is not best and _apart(best, one, searched) for one in optima]
    held = np.array([one is best or far for one, far in zip(optima, apart, strict=True)])
    share = np.where(held, share, 0.0) / np.sum(share[held])
    if share[apart].sum() < _LEAST_SHARE:
        return best
    covariance = np.zeros_like(best.covariance, dtype=float)
    for one, weight in zip(optima, share, strict=True):
        away = _between(best, one.refined.alignment, searched)
        covariance += weight * (one.covariance + np.outer(away, away))
    errors = errors_of_covariance(jnp.asarray(covariance, jnp.float32), searched.parameters)
    return eqx.tree_at(
        lambda p: (p.errors, p.covariance, p.optima),
        best,
        (_on_host(errors), covariance, 1 + np.sum(share[apart] > _LEAST_SHARE)),
    )


def _between(
    one: Polished, other: Alignment, searched: Searched
) -> Float[np.ndarray, " p"]:
    """Coordinates of another alignment relative to an optimum."""
    there, here = jax.tree.map(jnp.asarray, (other, one.refined.alignment))
    return np.asarray(offset_of(there, here, searched.parameters), float)


def _log_posterior(one: Polished, own: _Own, searched: Searched) -> float:
    """Log posterior at an optimum: z²/2, in units of the noise, plus the log prior."""
    start, background, noise = own
    above = (one.refined.correlation - background) / noise
    likelihood = max(float(above), 0.0) ** 2 / 2
    if searched.precision is None:
        return likelihood
    off = _between(one, start, searched)
    return likelihood - float(np.sum(off**2 * np.asarray(searched.precision))) / 2


def _log_volume(one: Polished, unit: Polished) -> float:
    """Half the log determinant of a covariance, in units of another's standard errors."""
    sigma = np.sqrt(np.diagonal(unit.covariance).astype(float))
    return np.linalg.slogdet(one.covariance / sigma[:, None] / sigma)[1] / 2


def _apart(one: Polished, other: Polished, searched: Searched) -> bool:
    """Whether each orientation is outside the covariance of the other."""
    at = searched.orientation
    turn, there = _rotation(one), _rotation(other)
    return all(
        _sigmas_apart(turn, there, _covariance(each)[at, at]) > _APART_SIGMAS
        for each in (one, other)
    )
