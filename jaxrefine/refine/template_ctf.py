"""Leopard-EM's score: filter and CTF applied to the central slice."""

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Complex, Float, Inexact, Int, ScalarLike

from jaxrefine.data import Particles, SearchGrid, Template
from jaxrefine.physics.fourier import half_plane_weights
from jaxrefine.physics.laser import LaserPhasePlate
from jaxrefine.physics.projection import (
    padded_variance_sum,
    slice_to_projection,
    subtract_border_mean,
)
from jaxrefine.refine.ewald import (
    columns_of_curved_slices,
    curvature_voxels,
    template_slices,
    weights_of_curved_slices,
    with_quadrature,
)
from jaxrefine.refine.scoring import (
    Score,
    over_optics,
    particle_phase_factor,
    place_in_padded_box,
    slice_rotation,
    valid_corner,
    window_columns,
)


class PreparedTemplateCTF(eqx.Module):
    """Transform of the box, and filter times CTF per pixel size (m) and defocus (l).

    There are two of the latter if slices are curved (`refine.ewald`).
    """

    scale: Float[Array, " m"]
    image_rfft: Complex[Array, "H Wr"]
    filter_ctf: tuple[Inexact[Array, "m l n nr"], ...]
    curvature: Float[Array, ""] | None


class TemplateCTF(Score):
    """Score of Leopard-EM: CTF and filter on the central slice, on the template's grid.

    Attributes:
        box: (H, W) of the box.
        side: Side of the template.
        pixel_size_changes_cs: Search the pixel size as Leopard-EM does, which leaves
            template and frequencies unchanged and divides Cs by (1 + offset / pixel size)⁴.
        ewald_sign: As of `ImageCTF`.
        laser: The laser phase plate; None for none.
    """

    box: tuple[int, int] = eqx.field(static=True)
    side: int = eqx.field(static=True)
    pixel_size_changes_cs: bool = eqx.field(static=True, default=False)
    ewald_sign: int = eqx.field(static=True, default=0)
    laser: LaserPhasePlate | None = None

    @property
    def padded_box(self) -> tuple[int, int]:
        return self.box

    @property
    def filter_grid(self) -> tuple[int, int]:
        return self.side, self.side

    def scale(self, particle: Particles, grid: SearchGrid) -> Float[Array, " m"]:
        scale = super().scale(particle, grid)
        return jnp.ones_like(scale) if self.pixel_size_changes_cs else scale

    @property
    def phase_plate(self) -> LaserPhasePlate | None:
        return self.laser

    def curvature(self, particle: Particles) -> Float[Array, ""] | None:
        return curvature_voxels(particle, self.ewald_sign)

    def prepare(self, particle: Particles, grid: SearchGrid) -> PreparedTemplateCTF:
        def one(pixel_size: ScalarLike, defocus: ScalarLike) -> Any:
            return self._filter_ctfs(particle, pixel_size, defocus)

        return PreparedTemplateCTF(
            scale=self.scale(particle, grid),
            image_rfft=jnp.fft.rfft2(particle.image),
            filter_ctf=over_optics(one, particle, grid),
            curvature=self.curvature(particle),
        )

    def _filter_ctfs(
        self, particle: Particles, pixel_size: ScalarLike, defocus: ScalarLike
    ) -> tuple[Inexact[Array, "n nr"], ...]:
        """Filter times CTF of each slice of the template."""
        if self.pixel_size_changes_cs:
            start = particle.alignment.pixel_size_angstrom
            aberration = particle.optics.spherical_aberration_mm / (pixel_size / start) ** 4
            particle = eqx.tree_at(
                lambda p: p.optics.spherical_aberration_mm, particle, aberration
            )
            pixel_size = start
        turn = particle_phase_factor(particle, self.filter_grid, pixel_size)
        views = with_quadrature(particle) if self.ewald_sign else (particle,)
        ctfs = (self.ctf(view, self.filter_grid, pixel_size, defocus) for view in views)
        return tuple(particle.filter_template * ctf * turn for ctf in ctfs)

    def _projection(
        self,
        slices: tuple[Complex[Array, "n nr"], ...],
        filter_ctfs: tuple[Inexact[Array, "n nr"], ...],
    ) -> tuple[Float[Array, "n n"], Float[Array, ""]]:
        """The projection before normalisation, and its norm."""
        products = [
            -s.at[0, 0].set(0) * f for s, f in zip(slices, filter_ctfs, strict=True)
        ]
        central = sum(products[1:], products[0])
        projection = subtract_border_mean(slice_to_projection(central))
        variance = padded_variance_sum(projection, self.box)
        return projection, jnp.sqrt(jnp.maximum(variance, 1e-8))

    def _over_poses(self, function: Any, prepared: PreparedTemplateCTF, template, rotation):
        """Map `function(projection, norm)` over pixel sizes and defocus values."""

        def one_scale(scale: ScalarLike, filter_ctfs: Any) -> Any:
            slices = template_slices(template, rotation, scale, prepared.curvature)
            return jax.vmap(lambda f: function(*self._projection(slices, f)))(filter_ctfs)

        return jax.vmap(one_scale)(prepared.scale, prepared.filter_ctf)

    def norms(
        self,
        prepared: PreparedTemplateCTF,
        template: Template,
        rotation: Float[Array, "3 3"],
    ) -> Float[Array, "m l"]:
        return self._over_poses(lambda _, norm: norm, prepared, template, rotation)

    def power_weights(self, prepared: PreparedTemplateCTF) -> Float[Array, "m l *s n nr"]:
        shape = self.filter_grid
        power = jnp.abs(prepared.filter_ctf[0]) ** 2 * half_plane_weights(shape)
        power = (power / math.prod(shape)).at[:, :, 0, 0].set(0)
        return weights_of_curved_slices(power, prepared.curvature)

    def correlate(
        self,
        prepared: PreparedTemplateCTF,
        template: Template,
        rotation: Float[Array, "3 3"],
    ) -> Float[Array, "m l Y X"]:
        def one(
            projection: Float[Array, "n n"], norm: Float[Array, ""]
        ) -> Float[Array, "Y X"]:
            conjugate = jnp.conj(jnp.fft.rfft2(projection / norm, s=self.box))
            product = conjugate.at[0, 0].set(0) * prepared.image_rfft
            return valid_corner(product, self.box[1], self.positions)

        return self._over_poses(one, prepared, template, rotation)

    def columns(
        self,
        particle: Particles,
        pixel_size: ScalarLike,
        defocus: ScalarLike,
        corners: Int[Array, "p 2"],
    ) -> Complex[Array, "p *s n nr"]:
        # The mean of the padded projection is subtracted as well, which leaves n²/HW of the
        # border mean.
        kept = jnp.sum(particle.image) * self.side**2 / math.prod(self.box)
        windows = window_columns(particle.image, self.side, corners, kept)
        windows = windows.at[:, 0, 0].set(0)
        filter_ctfs = self._filter_ctfs(particle, pixel_size, defocus)
        return columns_of_curved_slices(tuple(windows * jnp.conj(f) for f in filter_ctfs))

    def matched_filter(
        self, particle: Particles, template: Template, pixel_size: ScalarLike
    ) -> tuple[Complex[Array, "Qh Qr"], Float[Array, ""]]:
        scale = particle.template_pixel_size_angstrom / pixel_size
        if self.pixel_size_changes_cs:
            scale = jnp.ones_like(scale)
        rotation = slice_rotation(particle, particle.alignment.rotation)
        slices = template_slices(template, rotation, scale, self.curvature(particle))
        filter_ctfs = self._filter_ctfs(particle, pixel_size, 0.0)
        projection, norm = self._projection(slices, filter_ctfs)
        # The mean of the box does not contribute.
        return jnp.fft.rfft2(place_in_padded_box(projection, self)).at[0, 0].set(0), norm
