"""Fit of an envelope to the ring sums: strength and extra B of all particles together.

In float64 with numpy, since there are only a few numbers per particle.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from jaxrefine.refine.coordinates import parameter_slices
from jaxrefine.refine.envelope import Rings, RingSums

# Values of extra B that are tried, in Å²; a parabola interpolates between them.
_B_ANGSTROM2 = np.arange(-200.0, 2001.0, 10.0)
_GROUPS = 20  # groups of particles for the jackknife
_ROUNDS = 8
_INFLATIONS = np.linspace(0.5, 6.0, 111)
# Standard deviation of a pose after match and search, even if the image itself holds no
# information (degrees, px, Å, Å, Å, and units of `Optics`).
_WIDEST = {
    "orientation": 6.0,
    "shift": 2.0,
    "defocus": 300.0,
    "astigmatism": 300.0,
    "pixel_size": 0.05,
    "beam_tilt": 2.0,
    "trefoil": 100.0,
    "even_zernikes": 300.0,
    "magnification": 0.02,
}


@dataclass(frozen=True)
class Fitting:
    """Conditions under which the poses of some ring sums were fitted.

    Attributes:
        rings: The rings.
        parameters: The free parameters.
        extra_b_angstrom2: The extra B that was assumed.
    """

    rings: Rings
    parameters: tuple[str, ...]
    extra_b_angstrom2: float


@dataclass(frozen=True)
class EnvelopeFit:
    """Decay of the signal, strength · exp(-B k²/4), in addition to the table's B factor.

    Attributes:
        extra_b_angstrom2: B, in addition to the table's.
        sigma_angstrom2: Its standard error, by the jackknife over particles.
        strength: Mean amplitude of the particles relative to the template.
    """

    extra_b_angstrom2: float
    sigma_angstrom2: float
    strength: float


def fit_envelope(sums: RingSums, fitting: Fitting, inflation: float = 1.0) -> EnvelopeFit:
    """Fit strength · envelope · attenuation · `power` to `seen` by weighted least squares.

    Particles are weighted by their power only, not by their score: false positives lower
    the strength but do not change the shape.

    Args:
        sums: Sums of all particles, as numpy arrays.
        fitting: How their poses were fitted.
        inflation: As for `attenuation`, from `fit_inflation`.
    """
    count = len(sums.seen)
    group = np.arange(count) % min(_GROUPS, count)
    member = (group == np.arange(group.max() + 1)[:, None]).astype(float)
    factor = np.exp(-_B_ANGSTROM2[:, None, None] * sums.frequency**2 / 4)
    # The attenuation depends on the strength. It starts at the value without attenuation.
    b = fitting.extra_b_angstrom2
    strength = float(sums.seen.sum() / sums.power.sum())
    for _ in range(_ROUNDS):
        left = attenuation(sums, fitting, b, max(strength, 0.0), inflation)
        along = member @ np.einsum("Bnb,nb->nB", factor, left * sums.seen)
        own = member @ np.einsum("Bnb,nb->nB", factor**2, left**2 * sums.power)
        b, strength = _best(along.sum(0), own.sum(0))
    without_one = np.array(
        [
            _best(along.sum(0) - a, own.sum(0) - o)[0]
            for a, o in zip(along, own, strict=True)
        ]
    )
    groups = len(without_one)
    spread = np.sum((without_one - np.mean(without_one)) ** 2)
    return EnvelopeFit(b, float(np.sqrt((groups - 1) / groups * spread)), strength)


def _best(
    along: Float[np.ndarray, " B"], own: Float[np.ndarray, " B"]
) -> tuple[float, float]:
    """The B that maximises along²/own, and the strength there."""
    gain = np.maximum(along, 0) ** 2 / own
    at = int(np.clip(np.argmax(gain), 1, len(gain) - 2))
    before, here, after = gain[at - 1 : at + 2]
    bent = before - 2 * here + after
    between = np.clip((before - after) / (2 * bent), -1, 1) if bent < 0 else 0.0
    step = _B_ANGSTROM2[1] - _B_ANGSTROM2[0]
    return float(_B_ANGSTROM2[at] + between * step), float(along[at] / own[at])


def attenuation(
    sums: RingSums,
    fitting: Fitting,
    true_b_angstrom2: float,
    strength: float,
    inflation: float = 1.0,
) -> Float[np.ndarray, "n b"]:
    """Factor on a ring's signal due to pose errors: exp(-tr(C JᵀJ) / (2 power)).

    C is the covariance of the pose fitted to all other rings. These were weighted with an
    envelope that differs from that of the signal, so that C = H⁻¹ G H⁻¹ (White,
    Econometrica 50 (1982) 1), with H the curvature of the signal and G the variance of the
    gradient due to noise.

    Args:
        sums: Sums of all particles.
        fitting: How their poses were fitted.
        true_b_angstrom2: The extra B of the signal.
        strength: The strength of the signal.
        inflation: Factor on C. At low signal, pose errors exceed those that the curvature
            predicts.
    """
    rings, at = fitting.rings, parameter_slices(fitting.parameters)
    fitted, true = (
        np.exp(-b * sums.frequency**2 / 4)
        for b in (fitting.extra_b_angstrom2, true_b_angstrom2)
    )
    widest = np.concatenate(
        [np.full(at[n].stop - at[n].start, _WIDEST[n]) for n in fitting.parameters]
    )
    known = np.diag(1 / widest**2)
    fold_of = np.arange(rings.number) % rings.folds
    exponent = np.zeros_like(sums.power)
    for fold in range(rings.folds):
        seen = strength**2 * fitted * (fold_of != fold)
        signal, noise = (
            np.einsum("nb,nbpq->npq", seen * envelope, sums.information) + known
            for envelope in (true, fitted)
        )
        inverse = np.linalg.inv(signal)
        covariance = inverse @ noise @ inverse
        out = fold_of == fold
        moved = np.einsum("npq,nbqp->nb", covariance, sums.information[:, out])
        exponent[:, out] = moved / np.maximum(2 * sums.power[:, out], 1e-12)
    return np.exp(-inflation * exponent)


def fit_inflation(sums: RingSums, fitting: Fitting, truth: EnvelopeFit) -> float:
    """Fit the `inflation` of `attenuation` to simulated particles.

    Args:
        sums: Sums of simulated particles, with `seen` from their images without noise.
        fitting: How their poses were fitted.
        truth: Their true envelope and strength.
    """
    b, strength = truth.extra_b_angstrom2, truth.strength
    whole = strength * np.exp(-b * sums.frequency**2 / 4) * sums.power
    rule = attenuation(sums, fitting, b, strength)
    expected = np.sum(rule ** _INFLATIONS[:, None, None] * whole, axis=1)
    # Rings are weighted as in `fit_envelope`.
    variance = np.maximum(sums.power.sum(0), 1e-12)
    misfit = np.sum((expected - sums.seen.sum(0)) ** 2 / variance, axis=1)
    return float(_INFLATIONS[np.argmin(misfit)])


def expected_errors(
    sums: RingSums, fitting: Fitting, found: EnvelopeFit
) -> Float[np.ndarray, " p"]:
    """Median standard error of each coordinate, expected from the signal in all rings.

    From the Fisher information of particles of the mean strength, without the loss due to
    each particle's own unknown strength.
    """
    signal = found.strength * np.exp(-found.extra_b_angstrom2 * sums.frequency**2 / 4)
    information = np.einsum("nb,nbpq->npq", signal**2, sums.information)
    scale = 1 / np.sqrt(np.einsum("npp->np", information))
    inverse = np.linalg.inv(information * scale[:, :, None] * scale[:, None, :])
    return np.median(scale * np.sqrt(np.einsum("npp->np", inverse)), axis=0)


def cross_validated_z(sums: RingSums, extra_b_angstrom2: float) -> Float[np.ndarray, " n"]:
    """z-score of each particle in data to which its pose was not fitted."""
    factor = np.exp(-extra_b_angstrom2 * sums.frequency**2 / 4)
    power = np.sum(factor**2 * sums.power, axis=1)
    return np.sum(factor * sums.seen, axis=1) / np.sqrt(power)
