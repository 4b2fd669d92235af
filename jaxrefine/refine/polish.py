"""Polish: from the best grid point to the continuous optimum, with standard errors.

It maximises the z-score of the search over all coordinates of the pose together.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Float

from jaxrefine.data import (
    PARAMETERS,
    InputError,
    Offsets,
    Particles,
    Polished,
    Refined,
    SearchGrid,
    Status,
    Template,
)
from jaxrefine.refine import ascent
from jaxrefine.refine.arguments import (
    check_batch,
    check_grid,
    check_mesh,
    check_not_traced,
    check_searched,
    check_template,
)
from jaxrefine.refine.at_best import recentred
from jaxrefine.refine.coordinates import (
    aberrations_at,
    cell_limits,
    count,
    offsets_from,
)
from jaxrefine.refine.differentiable import (
    correlation_and_z,
    moved,
    z_score,
)
from jaxrefine.refine.information import (
    information_in_rings,
    pose_information,
    pose_rows,
)
from jaxrefine.refine.modes import Searched, with_other_optima
from jaxrefine.refine.near_score import near_z_score, near_z_score_at_start
from jaxrefine.refine.pose_errors import (
    covariance_at_strength,
    errors_of_covariance,
    observed_or_expected,
    strength_squared,
    uncertain,
    z_in_other_data,
)
from jaxrefine.refine.precision import in_single_precision
from jaxrefine.refine.prior import (
    cell_precision,
    fitted_count,
    offset_of,
    posterior_mean,
)
from jaxrefine.refine.scoring import Score
from jaxrefine.refine.sharding import PARTICLES, filled_up, split_over

Objective = Callable[[Offsets, Particles, Template, Score], Float[Array, ""]]


class Polish(eqx.Module):
    """Settings of the polish; plain values, but an own objective may hold arrays.

    Attributes:
        parameters: The free parameters, out of orientation, shift, defocus, astigmatism,
            pixel_size, beam_tilt, trefoil, even_zernikes and magnification.
        bound_to_cell: Stay within half a step of the best grid point, and within one pixel.
            Steps are usually finer than standard errors; then most particles end at a
            limit.
        method: "gauss_newton" (Levenberg-Marquardt), or "adam".
        max_evaluations: Largest number of evaluations of the score and its derivatives,
            per particle.
        objective: Function to maximise instead of the z-score, with the same arguments, in
            units of z. Steps use the curvature of the z-score, and the reported scores are
            z-scores. A function is compiled each time it is defined anew; an `eqx.Module`
            with `__call__` only once, whatever its arrays and its floats.
        prior: "none", or "match": a Gaussian prior around the starting values, whose width
            is the search range (`prior`). Poses are then posterior means, at which the
            score has no maximum.
        errors: Compute standard errors at the refined pose; otherwise they are the expected
            ones at the start, which cost no time.
        other_optima: Look for further optima among the orientations that the search has
            scored, and include them in the standard errors (`modes`).
        at_once: Number of particles that a device polishes together; None means one on a
            CPU, where data then stay in the cache, and 16 on other devices.
    """

    parameters: tuple[str, ...] = eqx.field(
        static=True, default=("orientation", "shift", "defocus")
    )
    bound_to_cell: bool = eqx.field(static=True, default=False)
    method: str = eqx.field(static=True, default="gauss_newton")
    max_evaluations: int = eqx.field(static=True, default=10)
    objective: Objective = eqx.field(default=z_score)
    prior: Literal["none", "match"] = eqx.field(static=True, default="none")
    errors: bool = eqx.field(static=True, default=True)
    other_optima: bool = eqx.field(static=True, default=True)
    at_once: int | None = eqx.field(static=True, default=None)

    def __check_init__(self) -> None:
        unknown = [name for name in self.parameters if name not in PARAMETERS]
        twice = len(set(self.parameters)) < len(self.parameters)
        if unknown or twice or not self.parameters:
            raise InputError(
                f"polish parameters {list(self.parameters)}: must be some of "
                f"{list(PARAMETERS)}, each once"
            )
        if self.method not in _METHODS:
            raise InputError(f"polish method {self.method!r}: one of {list(_METHODS)}")
        if self.prior not in ("none", "match"):
            raise InputError(f"polish prior {self.prior!r}: none or match")
        if self.max_evaluations < 1 or (self.at_once or 1) < 1:
            raise InputError("polish: max_evaluations and at_once must be at least 1")


_AT_ONCE_ON_ACCELERATORS = 16
_METHODS = {"gauss_newton": ascent.gauss_newton, "adam": ascent.adam}


def polish_particles(
    particles: Particles,
    refined: Refined,
    template: Template,
    grid: SearchGrid,
    score: Score,
    polish: Polish | None = None,
    *,
    mesh: Mesh | None = None,
) -> Polished:
    """Optimise each particle from its best grid point to the continuous optimum.

    Args:
        particles: The batch that was searched, unchanged.
        refined: The result of `refine_particles` for this batch.
        template: From `make_template`.
        grid: The grid that was searched; its steps define the cell around a grid point.
        score: The score of the search.
        polish: Settings; None takes the defaults.
        mesh: From `device_mesh`, as for the search.

    Returns:
        The polished batch, in float32. Without a prior, no z-score is lower than in
        `refined`. Particles that were not refined are returned unchanged.

    Raises:
        InputError: Arguments that do not fit together, as for `refine_particles`; results
            of other particles.
    """
    check_grid(grid)
    check_template(template, score)
    check_batch(particles, score, refined)
    check_mesh(mesh)
    check_not_traced("polish_particles", particles, refined, grid)
    check_searched(refined, grid)
    polish = Polish() if polish is None else polish
    if not isinstance(polish, Polish):
        raise InputError(f"polish: {type(polish).__name__}; expected jr.Polish(...)")
    polish = replace(polish, objective=_traced_floats(polish.objective))
    particles, refined, template, score, polish = in_single_precision(
        (particles, refined, template, score, polish)
    )
    limits = jnp.asarray(cell_limits(grid, polish.parameters), jnp.float32)
    precision = jnp.asarray(cell_precision(grid, polish.parameters), jnp.float32)
    if not polish.bound_to_cell:
        limits = jnp.full_like(limits, jnp.inf)
    at_once = polish.at_once
    if at_once is None:
        device = mesh.devices.flat[0] if mesh is not None else jax.devices()[0]
        at_once = 1 if device.platform == "cpu" else _AT_ONCE_ON_ACCELERATORS
    # The limits express `bound_to_cell`, so that both cases share one compilation.
    bound, polish = (
        polish.bound_to_cell,
        replace(polish, at_once=at_once, bound_to_cell=False),
    )
    count = particles.valid.shape[0]
    several, polish = polish.other_optima, replace(polish, other_optima=False)
    several &= polish.errors and not bound
    with jax.enable_x64(False):  # whatever the caller has set
        filled, its_best = filled_up((particles, refined), count, mesh)

        def climb(start: Refined) -> Polished:
            start = split_over(replace(start, orientation_z=None), mesh)
            cell = (limits, precision)
            return polish_batch(filled, start, template, cell, score, polish, mesh)

        polished = climb(its_best)
        if several:
            free = polish.parameters
            prior = precision if polish.prior == "match" else None
            searched = Searched(filled, its_best, template, grid, score, free, prior)
            polished = with_other_optima(polished, climb, searched)
        return jax.tree.map(lambda leaf: leaf[:count], polished)


def _traced_floats(objective: Objective) -> Objective:
    """An objective's numbers as arrays, so that others need no compilation."""

    def as_array(leaf: Any) -> Any:
        return jnp.asarray(leaf, jnp.float32) if isinstance(leaf, float) else leaf

    return jax.tree.map(as_array, objective)


@eqx.filter_jit
def polish_batch(
    particles: Particles,
    refined: Refined,
    template: Template,
    cell: tuple[Float[Array, " p"], Float[Array, " p"]],
    score: Score,
    polish: Polish,
    mesh: Mesh | None,
) -> Polished:
    """The compiled part of `polish_particles`, with limits and prior as arguments."""

    arrays, rest = eqx.partition((polish, score), eqx.is_array)

    def shard(particles, refined, template, cell, arrays) -> Polished:
        polish, score = eqx.combine(arrays, rest)

        def one(both: tuple[Particles, Refined]) -> Polished:
            sound = (both[1].status < Status.BOX_OUTSIDE) & both[0].valid
            return jax.lax.cond(
                sound & jnp.isfinite(both[1].z_score),
                lambda p, r: _polish_one(p, r, template, cell, score, polish),
                lambda p, r: _not_polished(p, r, polish.parameters),
                *both,
            )

        batch = polish.at_once or 1
        together = batch if batch > 1 else None
        return jax.lax.map(one, (particles, refined), batch_size=together)

    if mesh is None:
        return shard(particles, refined, template, cell, arrays)
    split, whole = PartitionSpec(PARTICLES), PartitionSpec()
    sharded = jax.shard_map(
        shard,
        mesh=mesh,
        in_specs=(split, split, whole, whole, whole),
        out_specs=split,
        check_vma=False,
    )
    return sharded(particles, refined, template, cell, arrays)


def _polish_one(
    particle: Particles,
    refined: Refined,
    template: Template,
    cell: tuple[Float[Array, " p"], Float[Array, " p"]],
    score: Score,
    polish: Polish,
) -> Polished:
    (limits, precision), start = cell, particle.alignment
    particle = recentred(particle, refined, score)
    parameters = polish.parameters

    def objective(coordinates: Float[Array, " p"], /) -> Float[Array, ""]:
        offsets = offsets_from(coordinates, parameters, particle.alignment)
        return polish.objective(offsets, particle, template, score)

    start_rows = pose_rows(jnp.zeros_like(limits), particle, template, score, parameters)
    z_near = near_z_score(particle, template, score, parameters, start_rows[1])
    first = None
    if polish.objective is z_score:
        objective = z_near
        first = near_z_score_at_start(*start_rows, particle, score)

    def information(coordinates: Float[Array, " p"]) -> Float[Array, "p p"]:
        return pose_information(coordinates, particle, template, score, parameters)

    rings = information_in_rings(start_rows[0], score.padded_box)
    expected = rings.total
    summit = _METHODS[polish.method](
        jax.value_and_grad(objective),
        expected,
        limits,
        polish.max_evaluations,
        first,
    )
    best = _scored(summit.coordinates, particle, refined, template, score, parameters)
    better = jnp.any(summit.coordinates != 0)
    if polish.objective is z_score:
        better &= best.z_score > refined.z_score  # both in float32
    found = jax.tree.map(lambda a, b: jnp.where(better, a, b), best, refined)
    reported = jnp.where(better, summit.coordinates, 0)
    above = (found.correlation - particle.background_mean) / particle.noise_std
    above = jnp.where(jnp.isfinite(summit.value), above, jnp.nan)
    strength2 = strength_squared(above, limits.shape[0])
    fitted = jnp.asarray(float(limits.shape[0]))
    if not polish.errors:
        known = expected
    elif template.order == 3:
        known = observed_or_expected(z_near, summit.coordinates, expected)
    else:  # whose second derivatives leave the kinks out
        known = information(summit.coordinates)
    if polish.errors:
        known = uncertain(known, rings, strength2, precision)
    if polish.prior == "match":
        origin = offset_of(start, refined.alignment, parameters)
        mean = posterior_mean(reported, strength2 * known, origin, precision)
        found = _scored(mean, particle, refined, template, score, parameters)
        reported = mean
        fitted = fitted_count(strength2 * known, precision)
        known = known + jnp.diag(precision / strength2)
    y, x = score.margin
    noise = particle.noise_std / particle.corr_std[y, x]
    covariance = covariance_at_strength(known, strength2)
    return Polished(
        refined=found,
        errors=errors_of_covariance(covariance, parameters),
        evaluations=summit.evaluations,
        converged=summit.converged,
        at_limit=jnp.any(jnp.abs(summit.coordinates) >= limits),
        expected_z=z_in_other_data(found.z_score, noise, strength2, fitted),
        covariance=covariance,
        optima=jnp.int32(1),
        **aberrations_at(reported, parameters, particle.optics),
    )


def _scored(
    coordinates: Float[Array, " p"],
    particle: Particles,
    refined: Refined,
    template: Template,
    score: Score,
    parameters: tuple[str, ...],
) -> Refined:
    """Alignment and scores at coordinates relative to the best grid point."""
    offsets = offsets_from(coordinates, parameters, particle.alignment)
    correlation, z = correlation_and_z(offsets, particle, template, score)
    snr = (correlation - particle.background_mean) / particle.background_std
    there = moved(particle, offsets).alignment
    there = eqx.tree_at(
        lambda a: (a.position_px, a.pixel_size_angstrom),
        there,
        (
            there.position_px + offsets.shift_px,
            there.pixel_size_angstrom + offsets.pixel_size_angstrom,
        ),
    )
    return replace(refined, alignment=there, z_score=z, correlation=correlation, snr=snr)


def _not_polished(
    particle: Particles, refined: Refined, parameters: tuple[str, ...]
) -> Polished:
    free, nan = count(parameters), jnp.asarray(jnp.nan)
    nothing, false = jnp.full(free, nan), jnp.asarray(False)
    covariance = jnp.full((free, free), nan)
    return Polished(
        refined,
        errors_of_covariance(covariance, parameters),
        jnp.int32(0),
        false,
        false,
        nan,
        covariance,
        jnp.int32(0),
        **aberrations_at(nothing, parameters, particle.optics),
    )
