"""A unit for each offset, so that an optimiser may treat all alike."""

from collections.abc import Sequence
from dataclasses import fields, replace

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from jaxrefine.data import InputError, Offsets, Particles, Template
from jaxrefine.refine.arguments import check_one, check_template
from jaxrefine.refine.differentiable import feature
from jaxrefine.refine.scoring import Score

# Shapes of the offsets that are None unless they are wanted.
_FURTHER = {
    "beam_tilt_mrad": (2,),
    "even_zernikes": (3,),
    "odd_zernikes": (4,),
    "mag_matrix": (2, 2),
}
# Square of a derivative that is none: a unit of 10⁶ is beyond what any field can be.
_NOTHING = 1e-12


def offset_units(
    particle: Particles,
    template: Template,
    score: Score,
    free: Sequence[str] = ("rotation_deg", "shift_px", "defocus_angstrom"),
) -> Offsets:
    """A unit for each offset, such that one of any changes the expected image as much.

    1/√(JᵀJ)ᵢᵢ, J the derivatives of the expected image of unit length at the particle's
    alignment. Where the score is z, unit/z is the standard error that a number would have
    if it alone were unknown. An optimiser with one step size for all numbers, such as those
    of optax, should move `scaled`, where
    `offsets = jax.tree.map(jnp.multiply, scaled, units)`.

    Args:
        particle: One particle; `recentred` puts a batch at its grid's best.
        template: From `make_template`.
        score: The score.
        free: Fields of `Offsets` to be moved; the unit of others is 0. It is 0 too where an
            offset changes nothing, as the direction of an astigmatism of 0.

    Raises:
        InputError: A name that is no field of `Offsets`; otherwise as `z_score`.
    """
    names = [field.name for field in fields(Offsets)]
    if isinstance(free, str) or not free or not set(free) <= set(names):
        raise InputError(f"free {free!r}: expected a list of some of {names}")
    check_template(template, score)
    check_one(particle, score)
    return _offset_units(particle, template, score, tuple(free))


@eqx.filter_jit
def _offset_units(
    particle: Particles, template: Template, score: Score, free: tuple[str, ...]
) -> Offsets:
    zeros = Offsets.zeros()
    wanted = {name: jnp.zeros(_FURTHER[name]) for name in free if name in _FURTHER}
    zeros = replace(zeros, **wanted)
    start, moved = ravel_pytree({name: getattr(zeros, name) for name in free})

    def expected(flat: Float[Array, " p"]) -> Float[Array, "2 k"]:
        offsets = replace(zeros, **moved(flat))
        values, _ = feature(offsets, particle, template, score)
        return jnp.stack([values.real, values.imag]).reshape(2, -1)

    values, along = jax.linearize(expected, start)
    length2 = jnp.sum(values**2)

    def squared_slope(direction: Float[Array, " p"]) -> Float[Array, ""]:
        slope = along(direction)
        # Changes of the length are not seen: the particle's strength is unknown.
        slope = slope - jnp.sum(slope * values) / length2 * values
        return jnp.sum(slope**2) / length2

    squared = jax.lax.map(squared_slope, jnp.eye(len(start), dtype=start.dtype))
    known = squared > _NOTHING
    units = jnp.where(known, 1 / jnp.sqrt(jnp.where(known, squared, 1.0)), 0.0)
    return replace(zeros, **moved(units))
