"""Posterior of a pose from the scores of a grid: mean, spread and modes.

The filtered image x is white noise of variance 1 plus A times the unit feature f of the
pose. With the strength A unknown, the likelihood of a pose is that at its best A, which is
the correlation s = f·x if it is positive:

    log L(pose) = max(s, 0)² / 2,

up to a constant: the generalised likelihood ratio of a matched filter (Kay, Fundamentals of
Statistical Signal Processing II: Detection Theory (1998), chapter 6). Each pose is
represented by its best position, and the prior is uniform over the grid.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from jaxrefine.data import InputError, SearchGrid
from jaxrefine.physics.rotations import matrix_to_rotation_vector
from jaxrefine.refine.score_grid import GridScores

COORDINATES = ("tilt_x_deg", "tilt_y_deg", "in_plane_deg", "defocus", "pixel_size")
# Poses below the best by more than this log likelihood are ignored: e^-14 = 1e-6.
_DEEPEST = 14.0
# Largest number of poses, the most likely ones, among which modes are searched.
_MOST_POSES = 4000
# Smallest height of a mode, in log likelihood, above the saddle to a higher mode. Steps of
# the grid and noise cause smaller maxima.
_LEAST_RISE = 2.0
# Smallest share of the posterior of a mode.
_LEAST_SHARE = 0.05
# Poses are neighbours up to this many steps of the grid, so that diagonals are included.
_REACH = 1.6


@dataclass(frozen=True, eq=False)
class GridPosterior:
    """The posterior of one particle's pose over a grid.

    Coordinates are offsets from the particle's start: the rotation vector in degrees (tilts
    about x and y, in-plane angle), defocus in Å, pixel size in Å.

    Attributes:
        probability: Probability of each pose of the grid; the sum is 1.
        mean: Mean of the coordinates.
        covariance: Covariance of the coordinates over all modes. Its resolution within one
            mode is limited by the steps of the grid.
        entropy: In nats. exp(entropy) is the effective number of likely poses.
        modes: Grid index (pixel size, defocus, orientation) of the maximum of each mode, in
            order of decreasing share. A mode is a local maximum of the log likelihood, at
            least 2 above the saddle to a higher one, with at least 5 % of the posterior.
        shares: Share of each mode in the posterior.
    """

    probability: Float[np.ndarray, "m l k"]
    mean: Float[np.ndarray, " 5"]
    covariance: Float[np.ndarray, "5 5"]
    entropy: float
    modes: Int[np.ndarray, "c 3"]
    shares: Float[np.ndarray, " c"]


def grid_posterior(scores: GridScores, grid: SearchGrid) -> GridPosterior | None:
    """Compute the posterior of one particle over the grid.

    Computed on the host, in float64.

    Args:
        scores: From `score_grid`, for one particle: `scores[3]`.
        grid: The grid that was scored.

    Returns:
        The posterior; None for a particle without any finite score.

    Raises:
        InputError: Scores of a batch, or of another grid.
    """
    if np.shape(scores.strength) != grid.shape:
        raise InputError(
            f"scores of shape {np.shape(scores.strength)}; expected {grid.shape}, those of "
            "one particle on this grid: scores[i]"
        )
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
    """Local maxima that are high enough above the saddles between them, highest first."""
    flat = log_likelihood.ravel()
    order = np.argsort(-flat, kind="stable")[:_MOST_POSES]
    order = order[flat[order] > flat[order[0]] - _DEEPEST]
    m, l, k = np.unravel_index(order, log_likelihood.shape)
    turned, reach = rotation[k].reshape(-1, 9), _reach(rotation)
    hill = np.empty(len(order), int)  # for each pose, the index in `order` of its maximum
    for i in range(len(order)):
        higher = hill[:i]
        near = (abs(m[:i] - m[i]) <= 1) & (abs(l[:i] - l[i]) <= 1)
        near &= np.linalg.norm(turned[:i] - turned[i], axis=-1) <= reach
        summits = np.unique(higher[near])  # highest first
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
    """Largest Frobenius norm of the difference of two neighbouring rotations.

    It is chosen such that all tilts and in-plane rotations of the grid are connected; the
    coarser of the two steps is used for both.
    """
    direction, group = np.unique(rotation[:, :, 2].round(5), axis=0, return_inverse=True)
    angle = np.rad2deg(
        np.atan2(
            rotation[:, 1, 0] - rotation[:, 0, 1], rotation[:, 0, 0] + rotation[:, 1, 1]
        )
    )
    fullest = group.ravel() == np.bincount(group.ravel()).argmax()
    gaps = np.diff(np.sort(angle[fullest]))
    # The longest edge of the minimum spanning tree of the directions (Prim's algorithm).
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
