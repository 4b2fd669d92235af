"""Curvature of the Ewald sphere: a particle whose parts differ in defocus by their height.

A slab at height z contributes its projection times the CTF at a defocus larger by z.
All slabs together are, with F the transform of the volume and h = λk²/2,

    -sin χ · E + cos χ · D,
    E = (F(k, h) + F(k, -h)) / 2,   D = i (F(k, h) - F(k, -h)) / 2.

E and D are transforms of real images: the projection, and what it lacks. Each has a real
CTF of its own, so that all that is done with one projection is done with the two, and their
results are added. (DeRosier, Ultramicroscopy 81 (2000) 83; for small angles.)
"""

from dataclasses import replace

import jax.numpy as jnp
from jaxtyping import Array, Complex, Float, ScalarLike

from jaxrefine.data import Particles, Template
from jaxrefine.physics.ctf import electron_wavelength_angstrom
from jaxrefine.physics.slices import central_slice


def curvature_voxels(particle: Particles, ewald_sign: int) -> Float[Array, ""] | None:
    """Curvature for `central_slice`: ∓λ/2 in voxels of the template; None without a sign.

    Args:
        particle: One particle.
        ewald_sign: 1 if larger z in the image frame means less defocus, -1 if more, or 0
            for flat slices.
    """
    if ewald_sign == 0:
        return None
    wavelength = electron_wavelength_angstrom(particle.optics.voltage_kv)
    return -ewald_sign * wavelength / (2 * particle.template_pixel_size_angstrom)


def with_quadrature(particle: Particles) -> tuple[Particles, Particles]:
    """The particle twice: with its CTF, -sin χ, and with cos χ instead."""
    optics = particle.optics
    shifted = replace(optics, phase_shift_deg=optics.phase_shift_deg + 90.0)
    return particle, replace(particle, optics=shifted)


def template_slices(
    template: Template,
    rotation: Float[Array, "3 3"],
    scale: ScalarLike,
    curvature: ScalarLike | None,
) -> tuple[Complex[Array, "n nr"], ...]:
    """E and D, or the flat slice alone without curvature."""
    if curvature is None:
        return (central_slice(template, rotation, scale),)
    above = central_slice(template, rotation, scale, curvature)
    below = central_slice(template, rotation, scale, -jnp.asarray(curvature))
    return (above + below) / 2, (above - below) * 0.5j


def columns_of_curved_slices(
    columns: tuple[Complex[Array, "p n nr"], ...],
) -> Complex[Array, "p s n nr"] | Complex[Array, "p n nr"]:
    """Columns for F(k, h) and F(k, -h), stacked, from those for E and D."""
    if len(columns) == 1:
        return columns[0]
    of_e, of_d = columns
    return jnp.stack([of_e - 1j * of_d, of_e + 1j * of_d], axis=1) / 2


def weights_of_curved_slices(
    weights: Float[Array, "m l n nr"], curvature: Float[Array, "..."] | None
) -> Float[Array, "m l *s n nr"]:
    """Weights of |F(k, h)|² and |F(k, -h)|², stacked, from those for |E|², if curved.

    As if the two were equal: then E is each of them, and D is 0.
    """
    if curvature is None:
        return weights
    return jnp.stack([weights, weights], axis=2) / 2
