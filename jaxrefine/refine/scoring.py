"""Scores: how well a pose of the template explains a particle's box.

A score turns one particle and one orientation into cross-correlations at every searched
pixel size, defocus and whole-pixel position. It is written for one particle; batching
is the caller's (`vmap`, `lax.map`). Two exist:

- `ImageCTF` (the default): filter and CTF are applied to the image, on a cut wide enough
  that no signal is lost, and the plain template projection is correlated with that.
- `TemplateCTF`: filter and CTF are applied to the central slice on the template's own
  grid, as Leopard-EM does. The CTF's spread wraps around the template's box.

Both are normalised so that the correlation of noise has variance 1.
"""

import abc
import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float, ScalarLike

from jaxrefine.data import Particles, SearchGrid, Template
from jaxrefine.physics.boxes import centre_crop
from jaxrefine.physics.ctf import contrast_transfer, ctf_spread_px
from jaxrefine.physics.fourier import half_plane_weights, next_fast_even, next_fast_odd
from jaxrefine.physics.projection import (
    padded_variance_sum,
    slice_to_projection,
    subtract_border_mean,
)
from jaxrefine.physics.slices import central_slice

# The cut keeps all signal up to this resolution; finer signal may spread beyond it.
_KEPT_RESOLUTION_ANGSTROM = 4.0


class Score(eqx.Module):
    """What a search needs of a score. Shapes are static, so that one compilation serves.

    Attributes:
        box: (H, W) of the box in which positions are searched.
        side: Side n of the template; valid positions are (H - n + 1, W - n + 1).
    """

    box: eqx.AbstractVar[tuple[int, int]]
    side: eqx.AbstractVar[int]

    @property
    @abc.abstractmethod
    def cut(self) -> tuple[int, int]:
        """Shape of `Particles.image`: the box and the margin that the score wants."""

    @property
    @abc.abstractmethod
    def filter_grid(self) -> tuple[int, int]:
        """Real-space shape of the grid of `Particles.filter_template`."""

    @abc.abstractmethod
    def prepare(self, particle: Particles, grid: SearchGrid) -> Any:
        """All that does not depend on the orientation, as a pytree of arrays."""

    @abc.abstractmethod
    def correlate(
        self, prepared: Any, template: Template, rotation: Float[Array, "3 3"]
    ) -> Float[Array, "m l Y X"]:
        """Cross-correlation at every pixel size, defocus and position for one pose."""

    @property
    def positions(self) -> tuple[int, int]:
        """Number of whole-pixel positions along y and x."""
        return self.box[0] - self.side + 1, self.box[1] - self.side + 1

    @property
    def margin(self) -> tuple[int, int]:
        """Position offset (y, x) that leaves a particle where it was."""
        return (self.positions[0]) // 2, (self.positions[1]) // 2


def _over_optics(function: Any, particle: Particles, grid: SearchGrid) -> Any:
    """Map `function(pixel_size, defocus)` over the grid: leading axes (m, l)."""

    def one(index: Array) -> Any:
        m, l = jnp.divmod(index, grid.defocus_angstrom.shape[0])
        pixel_size = particle.alignment.pixel_size_angstrom + grid.pixel_size_angstrom[m]
        return function(pixel_size, grid.defocus_angstrom[l])

    pixel_sizes, defoci, _ = grid.shape
    stacked = jax.lax.map(one, jnp.arange(pixel_sizes * defoci))
    return jax.tree.map(lambda x: x.reshape(pixel_sizes, defoci, *x.shape[1:]), stacked)


def _ctf(
    particle: Particles, shape: tuple[int, int], pixel_size: ScalarLike, defocus: ScalarLike
) -> Float[Array, "h r"]:
    alignment = particle.alignment
    return contrast_transfer(
        shape,
        pixel_size,
        alignment.defocus_angstrom + defocus,
        alignment.astigmatism_deg,
        particle.optics,
    )


def _valid_corner(
    product: Complex[Array, "*l H Wr"], width: int, positions: tuple[int, int]
) -> Float[Array, "*l Y X"]:
    """The first positions of irfft2, rows cut before the columns are transformed."""
    rows = jnp.fft.ifft(product, axis=-2)[..., : positions[0], :]
    return jnp.fft.irfft(rows, n=width, axis=-1)[..., : positions[1]]


class PreparedImageCTF(eqx.Module):
    """Per pixel size (m) and defocus (l): image with CTF, and the norm's weights."""

    scale: Float[Array, " m"]
    image_rfft: Complex[Array, "m l H Wr"]
    norm_weights: Float[Array, "m l N Nr"]


class ImageCTF(Score):
    """CTF and filter on the image; nothing of the signal lost.

    With y the filtered image, t the projection of the template (border mean subtracted),
    h the point spread of F·CTF: the correlation Σ t (y ∗ h) / ‖t ∗ h‖. The convolution
    of y is done on a cut larger than the box by the CTF's spread at 4 Å; ‖t ∗ h‖² is the
    sum over lags of the autocorrelations of t and h, exact at any defocus, since h's is
    sampled on a grid wide enough for its oscillation.

    Attributes:
        box: (H, W) of the box.
        side: Side of the template.
        cut_shape: (Qh, Qw) of the cut, from `for_particles`.
        norm_side: Side of the grid on which |F·CTF|² is sampled; odd is more accurate.
    """

    box: tuple[int, int] = eqx.field(static=True)
    side: int = eqx.field(static=True)
    cut_shape: tuple[int, int] = eqx.field(static=True)
    norm_side: int = eqx.field(static=True)

    @classmethod
    def for_particles(
        cls,
        box: tuple[int, int],
        side: int,
        *,
        max_defocus_angstrom: float,
        voltage_kv: float,
        spherical_aberration_mm: float,
        pixel_size_angstrom: float,
    ) -> "ImageCTF":
        """Choose the grids for the widest CTF that a run will meet.

        Args:
            box: (H, W).
            side: Side of the template.
            max_defocus_angstrom: Largest |defocus| of any particle, offsets included.
            voltage_kv: Lowest voltage (the longest wavelength).
            spherical_aberration_mm: Largest Cs.
            pixel_size_angstrom: Smallest pixel size, offsets included.
        """
        optics = (max_defocus_angstrom, voltage_kv, spherical_aberration_mm)
        kept = max(_KEPT_RESOLUTION_ANGSTROM, 2 * pixel_size_angstrom)
        margin = math.ceil(ctf_spread_px(*optics, pixel_size_angstrom, kept))
        # |CTF|² holds twice the CTF's phase, up to the corner of the Fourier plane.
        corner = math.sqrt(2) * pixel_size_angstrom
        lags = 2 * ctf_spread_px(*optics, pixel_size_angstrom, corner)
        return cls(
            box=box,
            side=side,
            cut_shape=(
                next_fast_even(box[0] + 2 * margin),
                next_fast_even(box[1] + 2 * margin),
            ),
            norm_side=next_fast_odd(max(2 * side, math.ceil(side + 1.1 * lags) + 16)),
        )

    @property
    def cut(self) -> tuple[int, int]:
        return self.cut_shape

    @property
    def filter_grid(self) -> tuple[int, int]:
        return self.norm_side, self.norm_side

    def prepare(self, particle: Particles, grid: SearchGrid) -> PreparedImageCTF:
        image_rfft = jnp.fft.rfft2(particle.image) * particle.filter_image
        doubled = (2 * self.side, 2 * self.side)
        lags = (
            np.fft.fftfreq(2 * self.side, 1 / (2 * self.side)).astype(int) % self.norm_side
        )
        weights = half_plane_weights(doubled) / (doubled[0] * doubled[1])

        def one(pixel_size: ScalarLike, defocus: ScalarLike) -> Any:
            ctf = _ctf(particle, self.cut, pixel_size, defocus)
            seen = jnp.fft.irfft2(image_rfft * ctf, s=self.cut)
            power = (
                particle.filter_template
                * _ctf(particle, self.filter_grid, pixel_size, defocus)
            ) ** 2
            spread = jnp.fft.irfft2(power, s=self.filter_grid)
            norm = jnp.fft.rfft2(spread[lags[:, None], lags]).real * weights
            return jnp.fft.rfft2(centre_crop(seen, self.box)), norm

        image_rfft, norm_weights = _over_optics(one, particle, grid)
        pixel_size = particle.alignment.pixel_size_angstrom + grid.pixel_size_angstrom
        return PreparedImageCTF(
            scale=particle.template_pixel_size_angstrom / pixel_size,
            image_rfft=image_rfft,
            norm_weights=norm_weights,
        )

    def correlate(
        self, prepared: PreparedImageCTF, template: Template, rotation: Float[Array, "3 3"]
    ) -> Float[Array, "m l Y X"]:
        def one(at: PreparedImageCTF) -> Float[Array, "l Y X"]:
            # Protein is dark at underfocus: the image is minus the projection.
            central = -central_slice(template, rotation, at.scale)
            projection = subtract_border_mean(slice_to_projection(central))
            power = jnp.abs(jnp.fft.rfft2(projection, s=(2 * self.side,) * 2)) ** 2
            high = jax.lax.Precision.HIGHEST
            squared = jnp.einsum("lyx,yx->l", at.norm_weights, power, precision=high)
            norm = jnp.sqrt(squared)
            conjugate = jnp.conj(jnp.fft.rfft2(projection, s=self.box))
            product = conjugate * at.image_rfft
            corner = _valid_corner(product, self.box[1], self.positions)
            return corner / norm[:, None, None]

        return jax.vmap(one)(prepared)


class PreparedTemplateCTF(eqx.Module):
    """The box's transform, and filter times CTF per pixel size (m) and defocus (l)."""

    scale: Float[Array, " m"]
    image_rfft: Complex[Array, "H Wr"]
    filter_ctf: Float[Array, "m l n nr"]


class TemplateCTF(Score):
    """CTF and filter on the central slice, on the template's own grid: Leopard-EM's score.

    Attributes:
        box: (H, W) of the box.
        side: Side of the template.
        pixel_size_changes_cs: Leopard-EM's pixel-size search, which leaves template and
            frequencies alone and divides Cs by (1 + offset / pixel size)⁴.
    """

    box: tuple[int, int] = eqx.field(static=True)
    side: int = eqx.field(static=True)
    pixel_size_changes_cs: bool = eqx.field(static=True, default=False)

    @property
    def cut(self) -> tuple[int, int]:
        return self.box

    @property
    def filter_grid(self) -> tuple[int, int]:
        return self.side, self.side

    def prepare(self, particle: Particles, grid: SearchGrid) -> PreparedTemplateCTF:
        start = particle.alignment.pixel_size_angstrom

        def one(pixel_size: ScalarLike, defocus: ScalarLike) -> Float[Array, "n nr"]:
            if not self.pixel_size_changes_cs:
                return _ctf(particle, self.filter_grid, pixel_size, defocus)
            aberration = particle.optics.spherical_aberration_mm / (pixel_size / start) ** 4
            optics = eqx.tree_at(
                lambda o: o.spherical_aberration_mm, particle.optics, aberration
            )
            changed = eqx.tree_at(lambda p: p.optics, particle, optics)
            return _ctf(changed, self.filter_grid, start, defocus)

        pixel_size = start + grid.pixel_size_angstrom
        scale = particle.template_pixel_size_angstrom / pixel_size
        return PreparedTemplateCTF(
            scale=jnp.ones_like(scale) if self.pixel_size_changes_cs else scale,
            image_rfft=jnp.fft.rfft2(particle.image),
            filter_ctf=_over_optics(one, particle, grid) * particle.filter_template,
        )

    def correlate(
        self,
        prepared: PreparedTemplateCTF,
        template: Template,
        rotation: Float[Array, "3 3"],
    ) -> Float[Array, "m l Y X"]:
        def one_ctf(
            central: Complex[Array, "n nr"], filter_ctf: Float[Array, "n nr"]
        ) -> Float[Array, "Y X"]:
            projection = subtract_border_mean(slice_to_projection(central * filter_ctf))
            norm = jnp.sqrt(jnp.maximum(padded_variance_sum(projection, self.box), 1e-8))
            conjugate = jnp.conj(jnp.fft.rfft2(projection / norm, s=self.box))
            product = conjugate.at[0, 0].set(0) * prepared.image_rfft
            return _valid_corner(product, self.box[1], self.positions)

        def one_scale(
            scale: ScalarLike, filter_ctf: Float[Array, "l n nr"]
        ) -> Float[Array, "l Y X"]:
            central = -central_slice(template, rotation, scale).at[0, 0].set(0)
            return jax.vmap(one_ctf, in_axes=(None, 0))(central, filter_ctf)

        return jax.vmap(one_scale)(prepared.scale, prepared.filter_ctf)
