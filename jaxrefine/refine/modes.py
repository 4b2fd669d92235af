"""Other optima of a particle's score, beside the one that a polish has climbed to.

A structure that looks nearly the same from two sides, or an image that says little, has
several poses that are nearly as good, and the curvature at one of them knows nothing of
the others. The search has scored every orientation. Of those that are too far away for the
first optimum to account for them, the best is climbed from as well, by the same program;
and where its optimum holds a share of the posterior, the covariance is that of the mixture
around the pose that is reported.

Optima that differ in position or defocus alone are not looked for: a search keeps the
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

# A start further off than this is not the first optimum's: of its own posterior e^(-9/2).
_FAR_SIGMAS = 3.0
# Optima closer than this are one: its covariance holds both.
_APART_SIGMAS = 2.0
# What others must hold of the posterior to be told, and to count one by one.
_LEAST_SHARE = 0.05
# By how much more of the posterior's logarithm another optimum is reported, not the first:
# what is better by less is no nearer to the truth (docs/decisions.md).
_CLEARLY = 2.0
# z² that a start may lack of the grid's best. At equal starts a loss of 6 is a share of
# 0.05; the grid's steps are unkind to one more than to the other.
_MOST_LOST = 8.0
# Climbs of one particle, the first included.
_MOST_CLIMBS = 3

Climb = Callable[[Refined], Polished]
_Tree = TypeVar("_Tree")
# A particle's start, and mean and deviation of the noise.
_Own = tuple[Alignment, float, float]


@dataclass(frozen=True, eq=False)
class Searched:
    """A batch that was searched, and is being polished.

    Attributes:
        particles: The batch.
        refined: What the search found of it, with `orientation_z`.
        template: For the polish.
        grid: What was searched.
        score: How it was scored.
        parameters: What is free, orientation included.
        precision: Of the prior around the start, from `cell_precision`; None: none.
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
        """Where a covariance has the rotation."""
        return parameter_slices(self.parameters)["orientation"]


def with_other_optima(first: Polished, climb: Climb, searched: Searched) -> Polished:
    """What a polish has found, other optima taken into account; not inside `jit`.

    Args:
        first: From each particle's grid best.
        climb: Polishes the batch from other starts, but where z is NaN.
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
    """Where to climb from next; z is NaN where nowhere, None where no particle has one."""
    particles, refined, grid = searched.particles, searched.refined, searched.grid
    z_of_each = np.maximum(np.asarray(refined.orientation_z), 0)
    lost = z_of_each.max(axis=1, keepdims=True) ** 2 - z_of_each**2
    offsets = np.asarray(grid.rotation, float)
    rotation = np.array(particles.alignment.rotation, float)
    wanted = np.zeros(len(rotation), bool)
    at = searched.orientation
    # Where the last climb came to nothing new there is none after it.
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
    """The best orientation of a particle that no optimum or start so far accounts for.

    It is the highest around: what is higher close by has a summit of its own.

    Args:
        z: Of orientations that are good enough to begin with.
        poses: These.
        known: Orientation and covariance of each optimum and start; the first's first.
    """
    far = [_sigmas_apart(there, poses, c) > _FAR_SIGMAS for there, c in known]
    open_ = np.flatnonzero(np.all(far, axis=0))
    for at in open_[np.argsort(-z[open_], kind="stable")]:
        higher = poses[z > z[at]]
        if not np.any(_sigmas_apart(poses[at], higher, known[0][1]) < _APART_SIGMAS):
            return poses[at]
    return None


@eqx.filter_jit
def _best_place(
    particles: Particles, template: Template, score: Score
) -> tuple[Float[Array, " n"], Int[Array, "n 2"]]:
    """`best_in_box`, placed as the search places particles."""
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
    """How many standard errors lie between an orientation and others."""
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
    """One particle's optimum, its covariance that of all of them around it.

    The first, unless another is clearly better.

    An optimum's share of the posterior is by Laplace's approximation: its likelihood,
    times the volume of its covariance.
    """
    height = [_log_posterior(one, own, searched) for one in optima]
    first, best = optima[0], optima[int(np.argmax(height))]
    clearly = max(height) > height[0] + _CLEARLY
    # By the maps' statistics, which differ between places, it may be lower all the same.
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
    """Where another alignment lies in the coordinates around an optimum."""
    there, here = jax.tree.map(jnp.asarray, (other, one.refined.alignment))
    return np.asarray(offset_of(there, here, searched.parameters), float)


def _log_posterior(one: Polished, own: _Own, searched: Searched) -> float:
    """At an optimum: z²/2 in units of the noise, and what the prior takes off."""
    start, background, noise = own
    above = (one.refined.correlation - background) / noise
    likelihood = max(float(above), 0.0) ** 2 / 2
    if searched.precision is None:
        return likelihood
    off = _between(one, start, searched)
    return likelihood - float(np.sum(off**2 * np.asarray(searched.precision))) / 2


def _log_volume(one: Polished, unit: Polished) -> float:
    """Half the logarithm of a covariance's determinant, in units of another's errors."""
    sigma = np.sqrt(np.diagonal(unit.covariance).astype(float))
    return np.linalg.slogdet(one.covariance / sigma[:, None] / sigma)[1] / 2


def _apart(one: Polished, other: Polished, searched: Searched) -> bool:
    """Whether neither's covariance holds the other's orientation."""
    at = searched.orientation
    turn, there = _rotation(one), _rotation(other)
    return all(
        _sigmas_apart(turn, there, _covariance(each)[at, at]) > _APART_SIGMAS
        for each in (one, other)
    )
