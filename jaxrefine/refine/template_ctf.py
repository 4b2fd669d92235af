"""Leopard-EM's score: filter and CTF applied to the central slice."""

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Complex, Float, Inexact, Int, ScalarLike

from jaxrefine.data import Particles, SearchGrid, Template
from jaxrefine.physics.projection import (
    padded_variance_sum,
    slice_to_projection,
    subtract_border_mean,
)
from jaxrefine.physics.slices import central_slice
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
    """Transform of the box, and filter times CTF per pixel size (m) and defocus (l)."""

    scale: Float[Array, " m"]
    image_rfft: Complex[Array, "H Wr"]
    filter_ctf: Inexact[Array, "m l n nr"]


class TemplateCTF(Score):
    """Score of Leopard-EM: CTF and filter on the central slice, on the template's grid.

    Attributes:
        box: (H, W) of the box.
        side: Side of the template.
        pixel_size_changes_cs: Search the pixel size as Leopard-EM does, which leaves
            template and frequencies unchanged and divides Cs by (1 + offset / pixel size)⁴.
    """

    box: tuple[int, int] = eqx.field(static=True)
    side: int = eqx.field(static=True)
    pixel_size_changes_cs: bool = eqx.field(static=True, default=False)

    @property
    def padded_box(self) -> tuple[int, int]:
        return self.box

    @property
    def filter_grid(self) -> tuple[int, int]:
        return self.side, self.side

    def scale(self, particle: Particles, grid: SearchGrid) -> Float[Array, " m"]:
        scale = super().scale(particle, grid)
        return jnp.ones_like(scale) if self.pixel_size_changes_cs else scale

    def prepare(self, particle: Particles, grid: SearchGrid) -> PreparedTemplateCTF:
        def one(pixel_size: ScalarLike, defocus: ScalarLike) -> Inexact[Array, "n nr"]:
            return self._filter_ctf(particle, pixel_size, defocus)

        return PreparedTemplateCTF(
            scale=self.scale(particle, grid),
            image_rfft=jnp.fft.rfft2(particle.image),
            filter_ctf=over_optics(one, particle, grid),
        )

    def _filter_ctf(
        self, particle: Particles, pixel_size: ScalarLike, defocus: ScalarLike
    ) -> Inexact[Array, "n nr"]:
        if self.pixel_size_changes_cs:
            start = particle.alignment.pixel_size_angstrom
            aberration = particle.optics.spherical_aberration_mm / (pixel_size / start) ** 4
            particle = eqx.tree_at(
                lambda p: p.optics.spherical_aberration_mm, particle, aberration
            )
            pixel_size = start
        ctf = self.ctf(particle, self.filter_grid, pixel_size, defocus)
        turn = particle_phase_factor(particle, self.filter_grid, pixel_size)
        return particle.filter_template * ctf * turn

    def _projection(
        self, central: Complex[Array, "n nr"], filter_ctf: Inexact[Array, "n nr"]
    ) -> tuple[Float[Array, "n n"], Float[Array, ""]]:
        """The projection before normalisation, and its norm."""
        projection = subtract_border_mean(slice_to_projection(central * filter_ctf))
        variance = padded_variance_sum(projection, self.box)
        return projection, jnp.sqrt(jnp.maximum(variance, 1e-8))

    def _over_poses(self, function: Any, prepared: PreparedTemplateCTF, template, rotation):
        """Map `function(projection, norm)` over pixel sizes and defocus values."""

        def one_scale(scale: ScalarLike, filter_ctf: Inexact[Array, "l n nr"]) -> Any:
            central = -central_slice(template, rotation, scale).at[0, 0].set(0)
            return jax.vmap(lambda f: function(*self._projection(central, f)))(filter_ctf)

        return jax.vmap(one_scale)(prepared.scale, prepared.filter_ctf)

    def norms(
        self,
        prepared: PreparedTemplateCTF,
        template: Template,
        rotation: Float[Array, "3 3"],
    ) -> Float[Array, "m l"]:
        return self._over_poses(lambda _, norm: norm, prepared, template, rotation)

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
    ) -> Complex[Array, "p n nr"]:
        # The mean of the padded projection is subtracted as well, which leaves n²/HW of the
        # border mean.
        kept = jnp.sum(particle.image) * self.side**2 / math.prod(self.box)
        windows = window_columns(particle.image, self.side, corners, kept)
        filter_ctf = self._filter_ctf(particle, pixel_size, defocus)
        return windows.at[:, 0, 0].set(0) * jnp.conj(filter_ctf)

    def matched_filter(
        self, particle: Particles, template: Template, pixel_size: ScalarLike
    ) -> tuple[Complex[Array, "Qh Qr"], Float[Array, ""]]:
        scale = particle.template_pixel_size_angstrom / pixel_size
        if self.pixel_size_changes_cs:
            scale = jnp.ones_like(scale)
        rotation = slice_rotation(particle, particle.alignment.rotation)
        central = -central_slice(template, rotation, scale).at[0, 0].set(0)
        filter_ctf = self._filter_ctf(particle, pixel_size, 0.0)
        projection, norm = self._projection(central, filter_ctf)
        # The mean of the box does not contribute.
        return jnp.fft.rfft2(place_in_padded_box(projection, self)).at[0, 0].set(0), norm
