"""The joint fit of shared parameters for particles that are in memory."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Bool, Float, Int

from jaxrefine.data import InputError, Offsets, Particles, Template
from jaxrefine.refine.arguments import check_batch, check_mesh, check_template
from jaxrefine.refine.defocus_spread import DefocusSpread
from jaxrefine.refine.design import Design, SharedValue
from jaxrefine.refine.joint import fit_jointly
from jaxrefine.refine.joint_model import JointFit, Model, State
from jaxrefine.refine.joint_scan import Ranges, coarse_scan
from jaxrefine.refine.scoring import Score
from jaxrefine.refine.shared import SHARED

_AT_ONCE = 8


@dataclass(frozen=True, eq=False)
class SharedFit:
    """What particles share, fitted to all of them together with their poses.

    Attributes:
        values: Parameter, label and group of each shared value.
        change: Change of each from the particles' optics and alignments, in the units of
            [calibrate](calibrate.md).
        standard_error: Its standard error; NaN if the particles do not determine it, and it
            was held.
        covariance: Covariance of the changes; 0 for those that were held.
        determined: Mask of the values that the particles determine.
        offsets: Offsets of each particle to its fitted pose and optics.
        z: Score of each particle there, in units of the noise.
        probability: Probability that each is a particle.
        spread: How far the particles lie around their common defocus.
        converged: Whether the fit has converged.
    """

    values: tuple[SharedValue, ...]
    change: Float[np.ndarray, " s"]
    standard_error: Float[np.ndarray, " s"]
    covariance: Float[np.ndarray, "s s"]
    determined: Bool[np.ndarray, " s"]
    offsets: Offsets
    z: Float[np.ndarray, " n"]
    probability: Float[np.ndarray, " n"]
    spread: DefocusSpread
    converged: bool

    def of(self, label: str, group: int = 0) -> tuple[float, float]:
        """Change and standard error of a value, such as "beam_tilt_x".

        Raises:
            KeyError: It was not fitted.
        """
        for number, value in enumerate(self.values):
            if (value.label, value.group) == (label, group):
                return float(self.change[number]), float(self.standard_error[number])
        raise KeyError((label, group))


def fit_shared(
    particles: Particles,
    template: Template,
    score: Score,
    parameters: Sequence[str],
    *,
    groups: Mapping[str, Int[np.ndarray, " n"]] | None = None,
    place_angstrom: Float[np.ndarray, "n 2"] | None = None,
    defocus_sigma_angstrom: float = 100.0,
    pixel_size_range: float = 0.0,
    defocus_range_angstrom: float = 0.0,
    beam_tilt_range_mrad: float = 0.0,
    robust: bool = True,
    most_passes: int = 25,
    mesh: Mesh | None = None,
) -> SharedFit:
    """Fit parameters that particles share, by damped Gauss-Newton over all of them.

    Poses are fitted, too, and eliminated particle by particle, so that the time is
    proportional to the number of particles. The command `calibrate` does the same from
    files, for particles that need not fit into memory.

    Args:
        particles: A batch, near its right poses.
        template: From `make_template(volume, "cubic")`.
        score: The score.
        parameters: What to fit: names as in `calibrate.parameters`.
        groups: The number of each particle's group, from 0, for some of the parameters; the
            others are shared by all particles.
        place_angstrom: (y, x) of each particle from the centre of its micrograph, for a
            `defocus_plane`.
        defocus_sigma_angstrom: Standard deviation of a particle's own defocus around the
            common one.
        pixel_size_range: Range of a coarse scan before the fit, to either side, as a share
            of the pixel size; 0: none.
        defocus_range_angstrom: The same of the defocus.
        beam_tilt_range_mrad: The same of x and y of the beam tilt.
        robust: Weight picks by the probability that they are particles.
        most_passes: Largest number of passes over all particles.
        mesh: Devices, from `device_mesh`.

    Raises:
        InputError: The arguments do not fit together.
    """
    check_batch(particles, score)
    check_template(template, score)
    check_mesh(mesh)
    count = len(particles)
    of_rows = _groups(parameters, groups or {}, count)
    if place_angstrom is None and "defocus_plane" in parameters:
        raise InputError(
            "place_angstrom: None — a defocus_plane needs the particles' places"
        )
    place = np.zeros((count, 2)) if place_angstrom is None else np.asarray(place_angstrom)
    design = Design.of(tuple(parameters), of_rows, place, defocus_sigma_angstrom)

    def source() -> Iterator[tuple[Int[np.ndarray, " b"], Particles]]:
        for first in range(0, count, _AT_ONCE):
            some = particles[first : first + _AT_ONCE]
            yield np.arange(first, first + len(some)), some.padded(_AT_ONCE)

    model = Model(source, design, template, score, mesh)
    start = State.start(design)
    ranges = Ranges(pixel_size_range, defocus_range_angstrom, beam_tilt_range_mrad)
    if any((pixel_size_range, defocus_range_angstrom, beam_tilt_range_mrad)):
        nothing = np.zeros(len(design.values), bool)
        start = fit_jointly(model, start, nothing, robust=robust).state
        pixel_size = float(np.mean(particles.alignment.pixel_size_angstrom))
        start = coarse_scan(model, start, ranges, pixel_size)
    every = np.ones(len(design.values), bool)
    fit = fit_jointly(model, start, every, robust=robust, most_passes=most_passes)
    return _shared_fit(fit, design, particles)


def _shared_fit(fit: JointFit, design: Design, particles: Particles) -> SharedFit:
    error = np.sqrt(np.diagonal(fit.covariance))
    at = design.coordinates(fit.state.own, fit.state.shared)
    at = jnp.asarray(at, particles.alignment.rotation.dtype)
    return SharedFit(
        values=design.values,
        change=fit.state.shared,
        standard_error=np.where(fit.determined, error, np.nan),
        covariance=fit.covariance,
        determined=fit.determined,
        offsets=jax.vmap(design.local.offsets)(at, particles.alignment),
        z=fit.z,
        probability=fit.weight,
        spread=fit.defocus_spread(design),
        converged=fit.converged,
    )


def _groups(
    parameters: Sequence[str], groups: Mapping[str, Int[np.ndarray, " n"]], count: int
) -> dict[str, Int[np.ndarray, " n"]]:
    """The group of each particle for each parameter.

    Raises:
        InputError: With all errors of the arguments.
    """
    known = ", ".join(SHARED)
    errors = [
        f"parameters: {name!r} — must be of {known}"
        for name in parameters
        if name not in SHARED
    ]
    errors += [
        f"groups: {name!r} — is not among the parameters"
        for name in groups
        if name not in parameters
    ]
    found = {name: np.zeros(count, int) for name in parameters}
    for name, numbers in groups.items():
        numbers = np.asarray(numbers)
        whole = np.issubdtype(numbers.dtype, np.integer)
        if numbers.shape != (count,) or not whole or numbers.min() < 0:
            errors.append(
                f"groups: {name}: must have a whole number, 0 or more, for each of the "
                f"{count} particles"
            )
        found[name] = numbers
    if errors:
        raise InputError(errors)
    return found
