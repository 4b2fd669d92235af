"""p-values of a local search: the probability that noise alone scores as high.

Null hypothesis: the box holds only noise, and was not selected by its score. Over the
search space (tilts, in-plane rotation, position, defocus, pixel size) the z-score is then a
smooth Gaussian field of mean 0 and variance 1. Its metric, the covariance of its gradient,
follows from the unit feature f of the score: Λ = JᵀJ with J = ∂f/∂(pose). The expected
Euler characteristic of the region where it exceeds u,

    E(u) = Σ_j L_j ρ_j(u),  ρ_0 = Q(u),  ρ_j = (2π)^(-(j+1)/2) He_{j-1}(u) exp(-u²/2),

is the expected number of noise peaks above u (Adler & Taylor, Random Fields and Geometry
(2007), theorem 12.4.1; Worsley et al., Human Brain Mapping 4 (1996) 58). L_j are the
intrinsic volumes of the search space in units of Λ, with the space approximated by a
product of axes and a disk of tilts. Since a grid samples the field only at points, each
length is multiplied by the fraction of upcrossings that its steps detect, from the
bivariate normal distribution. Pixels may be further apart than the correlation length: y
and x multiply E by 1 + (n - 1) κ, with κ the probability that the next pixel is below u if
one is above; distant pixels thus become independent trials (as voxels do in Worsley,
NeuroImage 28 (2005) 1056). E(u) / Q(u) is the number N of independent trials, and
p = 1 - (1 - Q)^N.
"""

import math
from dataclasses import dataclass

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxrefine.data import Particles, SearchGrid, Template
from jaxrefine.refine.coordinates import parameter_slices
from jaxrefine.refine.information import pose_information
from jaxrefine.refine.scoring import Score

PARAMETERS = ("orientation", "shift", "defocus", "pixel_size")
_AT = parameter_slices(PARAMETERS)
# Below this z the number of trials is kept constant: the Euler characteristic of regions
# above a low threshold counts holes.
_LOWEST_Z = 2.5
# Indices in `SearchSpace.lengths`: axes that are searched finely, and whole pixels.
_FINE, _PIXELS = (0, 3, 4), (1, 2)
# Quadrature over the tail of the normal distribution.
_NODES, _WEIGHTS = np.polynomial.laguerre.laggauss(40)


@eqx.filter_jit
def score_metric(
    particles: Particles, template: Template, score: Score
) -> Float[Array, "n 7 7"]:
    """Metric Λ of the score at each particle's own pose.

    The correlation coefficient of the scores of two poses that differ by δ is about
    exp(-δᵀΛδ/2). The coordinates are tilts about x and y and the in-plane angle (deg),
    position (y, x, px), defocus and pixel size (Å).
    """

    def one(particle: Particles) -> Float[Array, "7 7"]:
        return pose_information(jnp.zeros(7), particle, template, score, PARAMETERS)

    return jax.lax.map(one, particles)


@dataclass(frozen=True, eq=False)
class SearchSpace:
    """Extent and steps of a search.

    Attributes:
        tilt_deg: Rotation vectors (x, y) of the tilts of the grid.
        tilt_step_deg: Step between tilts.
        lengths: Ranges of in-plane rotation (deg), y, x (px), defocus and pixel size (Å).
        steps: Steps of each of these.
    """

    tilt_deg: Float[np.ndarray, "t 2"]
    tilt_step_deg: float
    lengths: Float[np.ndarray, " 5"]
    steps: Float[np.ndarray, " 5"]

    @classmethod
    def of(cls, grid: SearchGrid, score: Score) -> "SearchSpace":
        """The search space of a search of this grid with this score."""
        rotation = np.asarray(grid.rotation, np.float64)
        towards, group = np.unique(rotation[:, :, 2].round(5), axis=0, return_inverse=True)
        angle = np.rad2deg(np.arctan2(np.hypot(*towards[:, :2].T), towards[:, 2]))
        direction = np.arctan2(towards[:, 1], towards[:, 0])
        tilt = angle[:, None] * np.stack([-np.sin(direction), np.cos(direction)], -1)
        spin = np.arctan2(
            rotation[:, 1, 0] - rotation[:, 0, 1], rotation[:, 0, 0] + rotation[:, 1, 1]
        )
        fullest = group.ravel() == np.bincount(group.ravel()).argmax()
        offsets = [np.asarray(grid.defocus_angstrom), np.asarray(grid.pixel_size_angstrom)]
        axes = [np.rad2deg(spin[fullest]), *map(np.arange, score.positions), *offsets]
        ends = [np.ptp(np.asarray(axis, np.float64)) for axis in axes]
        counts = [max(len(np.unique(axis)) - 1, 1) for axis in axes]
        tilted = angle[angle > 0.02]
        return cls(
            tilt_deg=tilt,
            tilt_step_deg=float(tilted.min()) if len(tilted) else 0.0,
            lengths=np.array(ends, np.float64),
            steps=np.array(ends, np.float64) / counts,
        )


def expected_peaks(
    z_score: Float[np.ndarray, " n"],
    metric: Float[np.ndarray, "n 7 7"],
    space: SearchSpace,
) -> Float[np.ndarray, " n"]:
    """Expected number of peaks above z in a search of noise: E of the module docstring.

    For z below 2.5 it is the value at 2.5, since regions above so low a z are not peaks.

    Args:
        z_score: z-score of each particle.
        metric: From `score_metric`.
        space: The search space.
    """
    u = np.maximum(np.asarray(z_score, np.float64), _LOWEST_Z)
    metric = np.asarray(metric, np.float64)
    half_perimeter, area = _tilts(u, metric[:, :2, :2], space)
    volumes, axes = [np.ones_like(u), half_perimeter, area], 2 * bool(space.tilt_step_deg)
    seen, lengths = [], []
    for i, place in enumerate(range(2, 7)):
        root = np.sqrt(np.maximum(metric[:, place, place], 0))
        seen.append(_seen(space.steps[i] * root, u))
        lengths.append(space.lengths[i] * root * seen[i])
    for i in _FINE:
        longer = [*volumes, np.zeros_like(u)]
        more = (v + w * lengths[i] for v, w in zip(longer[1:], volumes, strict=True))
        volumes = [longer[0], *more]
        axes += bool(space.lengths[i])
    peaks = sum(v * _density(j, u) for j, v in enumerate(volumes))
    for i in _PIXELS:
        # Steps far beyond the correlation length are independent trials. An axis with fine
        # steps contributes as it does to the highest term of the Euler characteristic.
        together = 1.0
        if axes:
            smooth = _density(axes + 1, u) / _density(axes, u) * _tail(u) / _density(1, u)
            together = 1 - seen[i] * (1 - np.clip(smooth, 0, 1))
        peaks = peaks * (1 + lengths[i] * _density(1, u) / _tail(u) * together)
        axes += bool(space.lengths[i])
    return np.maximum(peaks, _tail(u))


def _tilts(
    u: Float[np.ndarray, " n"], metric: Float[np.ndarray, "n 2 2"], space: SearchSpace
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """Half perimeter and area of the disk of tilts."""
    if len(space.tilt_deg) < 2:
        return np.zeros_like(u), np.zeros_like(u)
    # Semi-axes of an ellipse with the second moments of the tilts, in units of the metric,
    # minus half a step, by which the cells of the outermost tilts extend beyond them.
    product = np.linalg.eigvals(metric @ np.cov(space.tilt_deg.T, bias=True)).real
    axes = np.sort(2 * np.sqrt(np.maximum(product, 0)), axis=-1).T
    unit = np.sqrt(np.maximum(np.linalg.eigvalsh(metric), 0)).T * space.tilt_step_deg
    b, a = (
        np.maximum(axis - step / 2, 0) * _seen(step, u)
        for axis, step in zip(axes, unit, strict=True)
    )
    # Ramanujan's approximation.
    half_perimeter = np.pi / 2 * (3 * (a + b) - np.sqrt((3 * a + b) * (a + 3 * b)))
    return half_perimeter, np.pi * a * b


def _tail(u: Float[np.ndarray, "*n"]) -> Float[np.ndarray, "*n"]:
    """Q(u) of the module docstring."""
    from scipy.special import ndtr  # 0.1 s, in the start of every run

    return ndtr(-u)


def _density(order: int, u: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """ρ_j of the module docstring, with j = `order`."""
    if order == 0:
        return _tail(u)
    hermite = np.polynomial.hermite_e.hermeval(u, [0.0] * (order - 1) + [1.0])
    return (2 * np.pi) ** (-(order + 1) / 2) * hermite * np.exp(-(u**2) / 2)


def _seen(
    step: Float[np.ndarray, " n"], u: Float[np.ndarray, " n"]
) -> Float[np.ndarray, " n"]:
    """Fraction of the upcrossings of u that steps, in units of the metric, detect."""
    step = np.maximum(step, 1e-3)
    correlation = np.exp(-(step**2) / 2)
    # P(z > u, z' < u), z = u + t / u with the tail's weight exp(-t).
    scale = np.maximum(u, 1.0)[:, None]
    t = _NODES / scale
    inner = _tail(
        (correlation[:, None] * (u[:, None] + t) - u[:, None])
        / np.sqrt(-np.expm1(-(step**2)))[:, None]
    )
    tail = np.exp(_NODES - u[:, None] * t - t**2 / 2) / scale * inner
    crossings = tail @ _WEIGHTS / math.sqrt(2 * np.pi)  # less exp(-u²/2)
    return np.minimum(crossings / (step / (2 * np.pi)), 1.0)


def p_values(
    z_score: Float[np.ndarray, " n"],
    metric: Float[np.ndarray, "n 7 7"],
    space: SearchSpace,
) -> Float[np.ndarray, " n"]:
    """Probability that a search of noise scores as high; see the module docstring."""
    u = np.asarray(z_score, np.float64)
    trials = expected_peaks(u, metric, space) / _tail(np.maximum(u, _LOWEST_Z))
    return -np.expm1(trials * np.log1p(-_tail(u)))
