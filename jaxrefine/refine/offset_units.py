"""Units of offsets, for optimisers with one step size."""

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

# Shapes of the offsets that are None by default.
_FURTHER = {
    "beam_tilt_mrad": (2,),
    "even_zernikes": (3,),
    "odd_zernikes": (4,),
    "mag_matrix": (2, 2),
}
# Squares of derivatives below this count as 0: a unit of 10⁶ is beyond any plausible value.
_NOTHING = 1e-12


def offset_units(
    particle: Particles,
    template: Template,
    score: Score,
    free: Sequence[str] = ("rotation_deg", "shift_px", "defocus_angstrom"),
) -> Offsets:
    """Return units of the offsets in which all change the expected image equally.

    The unit is 1/√(JᵀJ)ᵢᵢ, where J are the derivatives of the expected image, normalised to
    unit length, at the particle's alignment. At a z-score of z, unit/z is the standard
    error of a number if all others are known. An optimiser with one step size for all
    numbers, such as those of optax, should optimise `scaled`, where
    `offsets = jax.tree.map(jnp.multiply, scaled, units)`.

    Args:
        particle: One particle; `recentred` moves it to its best grid point.
        template: From `make_template`.
        score: The score.
        free: Fields of `Offsets` to optimise; the unit of others is 0. It is also 0 if an
            offset has no effect, as the direction of an astigmatism of 0.

    Raises:
        InputError: A name is not a field of `Offsets`; otherwise as `z_score`.
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
        # Project out changes of length, since the strength of the particle is unknown.
        slope = slope - jnp.sum(slope * values) / length2 * values
        return jnp.sum(slope**2) / length2

    squared = jax.lax.map(squared_slope, jnp.eye(len(start), dtype=start.dtype))
    known = squared > _NOTHING
    units = jnp.where(known, 1 / jnp.sqrt(jnp.where(known, squared, 1.0)), 0.0)
    return replace(zeros, **moved(units))
