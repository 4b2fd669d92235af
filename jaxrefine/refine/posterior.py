"""What the scores of a grid say of a pose: mean, spread and modes of its posterior.

The filtered image x is white noise of variance 1 and A times the pose's feature f of unit
length. With the strength A unknown the likelihood of a pose is that at its best A, which is
the correlation s = f·x where that is positive:

    log L(pose) = max(s, 0)² / 2,

less a constant; the generalised likelihood ratio of a matched filter (Kay, Fundamentals of
Statistical Signal Processing II: Detection Theory (1998), chapter 6). Positions count by
their best, and all poses of the grid are equally likely beforehand.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from jaxrefine.data import SearchGrid
from jaxrefine.physics.rotations import matrix_to_rotation_vector
from jaxrefine.refine.score_grid import GridScores

COORDINATES = ("tilt_x_deg", "tilt_y_deg", "in_plane_deg", "defocus", "pixel_size")
# Poses that are less likely than the best by more than this say nothing: e^-14 = 1e-6.
_DEEPEST = 14.0
# Modes are searched for among the likeliest, at most so many.
_MOST_POSES = 4000
# A hill counts as one of its own where its summit is this far above the pass that leads to
# a higher one, in log likelihood. The grid's steps and noise make lower ones.
_LEAST_RISE = 2.0
# And where it holds so much of the posterior.
_LEAST_SHARE = 0.05
# Poses are neighbours up to this many of the grid's steps, diagonals included.
_REACH = 1.6


@dataclass(frozen=True, eq=False)
class GridPosterior:
    """The posterior of one particle's pose over a grid.

    Coordinates are offsets from the particle's start: the rotation vector in degrees (tilts
    about x and y, in-plane angle), defocus in Å, pixel size in Å.

    Attributes:
        probability: Of each pose of the grid; they sum to 1.
        mean: Mean of the coordinates.
        covariance: Their covariance, the other modes included. Within one mode it is no
            finer than the grid's steps.
        entropy: In nats. exp(entropy) is the number of poses that are about as likely.
        modes: Grid index (pixel size, defocus, orientation) of each mode's best, the one
            that holds most first. A mode is a hill of log likelihood at least 2 above the
            pass to a higher one, which holds at least 5 % of the posterior.
        shares: What each of them holds of the posterior.
    """

    probability: Float[np.ndarray, "m l k"]
    mean: Float[np.ndarray, " 5"]
    covariance: Float[np.ndarray, "5 5"]
    entropy: float
    modes: Int[np.ndarray, "c 3"]
    shares: Float[np.ndarray, " c"]


def grid_posterior(scores: GridScores, grid: SearchGrid) -> GridPosterior | None:
    """The posterior over the grid of one particle.

    Computed on the host, in float64.

    Args:
        scores: From `score_grid`, of one particle: without a leading axis.
        grid: The grid that was scored.

    Returns:
        The posterior; None for a particle without any finite score.
    """
    strength = np.asarray(scores.strength, np.float64)
    finite = np.isfinite(np.asarray(scores.z_score)) & np.isfinite(strength)
    if not finite.any():
        return None
    log_likelihood = np.where(finite, np.maximum(strength, 0) ** 2 / 2, -np.inf)
    weight = np.exp(log_likelihood - log_likelihood.max())
    probability = weight / weight.sum()

    rotation = np.asarray(grid.rotation, np.float64)
    vector = matrix_to_rotation_vector(rotation)
    at = [np.asarray(grid.pixel_size_angstrom, np.float64)[:, None, None]]
    at += [np.asarray(grid.defocus_angstrom, np.float64)[:, None]]
    axes = [*vector.T, at[1], at[0]]
    coordinates = np.stack([np.broadcast_to(a, strength.shape) for a in axes], -1)
    mean = np.einsum("mlk,mlkc->c", probability, coordinates)
    apart = coordinates - mean
    there = probability[probability > 0]
    modes, shares = _modes(log_likelihood, probability, rotation)
    return GridPosterior(
        probability=probability,
        mean=mean,
        covariance=np.einsum("mlk,mlkc,mlkd->cd", probability, apart, apart),
        entropy=float(-np.sum(there * np.log(there))),
        modes=modes,
        shares=shares,
    )


def _modes(
    log_likelihood: Float[np.ndarray, "m l k"],
    probability: Float[np.ndarray, "m l k"],
    rotation: Float[np.ndarray, "k 3 3"],
) -> tuple[Int[np.ndarray, "c 3"], Float[np.ndarray, " c"]]:
    """Hills that are high enough above the passes between them, from the highest down."""
    flat = log_likelihood.ravel()
    order = np.argsort(-flat, kind="stable")[:_MOST_POSES]
    order = order[flat[order] > flat[order[0]] - _DEEPEST]
    m, l, k = np.unravel_index(order, log_likelihood.shape)
    turned, reach = rotation[k].reshape(-1, 9), _reach(rotation)
    hill = np.empty(len(order), int)  # of each pose, the place in `order` of its summit
    for i in range(len(order)):
        higher = hill[:i]
        near = (abs(m[:i] - m[i]) <= 1) & (abs(l[:i] - l[i]) <= 1)
        near &= np.linalg.norm(turned[:i] - turned[i], axis=-1) <= reach
        summits = np.unique(higher[near])  # the highest first
        if not len(summits):
            hill[i] = i
            continue
        hill[i] = summits[0]
        for lower in summits[1:]:
            if flat[order[lower]] - flat[order[i]] < _LEAST_RISE:
                higher[higher == lower] = summits[0]
    summits, which = np.unique(hill, return_inverse=True)
    shares = np.bincount(which, probability.ravel()[order])
    by_share = np.argsort(-shares, kind="stable")
    by_share = by_share[(shares[by_share] >= _LEAST_SHARE) | (np.arange(len(shares)) == 0)]
    found = summits[by_share]
    return np.stack([m[found], l[found], k[found]], axis=-1), shares[by_share]


def _reach(rotation: Float[np.ndarray, "k 3 3"]) -> float:
    """Frobenius norm of the difference up to which two rotations are neighbours.

    Such that every tilt and every in-plane rotation of the grid can be reached, step by
    step: the coarser of the two steps counts for both.
    """
    direction, group = np.unique(rotation[:, :, 2].round(5), axis=0, return_inverse=True)
    angle = np.rad2deg(
        np.atan2(
            rotation[:, 1, 0] - rotation[:, 0, 1], rotation[:, 0, 0] + rotation[:, 1, 1]
        )
    )
    fullest = group.ravel() == np.bincount(group.ravel()).argmax()
    gaps = np.diff(np.sort(angle[fullest]))
    # Prim's spanning tree of the directions: its longest edge.
    longest, left = 0.0, np.linalg.norm(direction - direction[0], axis=-1)
    left[0] = np.inf
    for _ in range(len(direction) - 1):
        nearest = int(np.argmin(left))
        longest = max(longest, float(left[nearest]))
        closer = np.linalg.norm(direction - direction[nearest], axis=-1)
        left = np.where(np.isinf(left), np.inf, np.minimum(left, closer))
        left[nearest] = np.inf
    step = max(2 * np.arcsin(min(longest / 2, 1.0)), np.deg2rad(gaps.max(initial=0.0)))
    return float(np.sqrt(8) * np.sin(min(_REACH * step, np.pi) / 2)) + 1e-5
