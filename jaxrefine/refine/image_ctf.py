"""The default score: filter and CTF applied to the image."""

import math
from dataclasses import replace
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float, Int, ScalarLike

from jaxrefine.data import InputError, Particles, SearchGrid, Template
from jaxrefine.physics.boxes import centre_crop
from jaxrefine.physics.ctf import ctf_spread_px, electron_wavelength_angstrom
from jaxrefine.physics.fourier import half_plane_weights, next_fast_even, next_fast_odd
from jaxrefine.physics.laser import LaserPhasePlate
from jaxrefine.physics.projection import slice_to_projection, subtract_border_mean
from jaxrefine.refine.ewald import (
    columns_of_curved_slices,
    curvature_voxels,
    template_slices,
    weights_of_curved_slices,
    with_quadrature,
)
from jaxrefine.refine.scoring import (
    Score,
    box_error,
    check_defocus_unit,
    limit_errors,
    over_optics,
    particle_phase_factor,
    place_in_padded_box,
    slice_rotation,
    valid_corner,
    window_columns,
)

# The padded box holds all signal up to this resolution; finer signal may spread beyond it.
_KEPT_RESOLUTION_ANGSTROM = 4.0
_WIDEST_SPREAD_PX = 2000


class PreparedImageCTF(eqx.Module):
    """Image with CTF and weights of the norm, per pixel size (m) and defocus (l).

    There are two images and three weights if slices are curved (`refine.ewald`).
    """

    scale: Float[Array, " m"]
    image_rfft: tuple[Complex[Array, "m l H Wr"], ...]
    norm_weights: tuple[Float[Array, "m l N Nr"], ...]
    power_weights: Float[Array, "m l n nr"]
    curvature: Float[Array, " m"] | None


class ImageCTF(Score):
    """Score that applies CTF and filter to the image, without loss of signal.

    With y the filtered image, t the projection of the template (border mean subtracted)
    and h the point spread function of filter times CTF, the correlation is
    Σ t (y ∗ h) / ‖t ∗ h‖. The convolution of y is computed in the padded box, which exceeds
    the box by the spread of the CTF at 4 Å. ‖t ∗ h‖² is the sum over lags of the product of
    the autocorrelations of t and h. It is exact at any defocus, because the transform of
    the latter is sampled finely enough for its oscillations.

    Attributes:
        box: (H, W) of the box.
        side: Side of the template.
        padded_shape: (Qh, Qw) of the padded box, from `for_particles`.
        norm_side: Side of the grid on which |F·CTF|² is sampled; odd sides are more
            accurate.
        ewald_sign: 0 for flat slices; otherwise slices follow the Ewald sphere: what has a
            larger z in the image frame has less defocus (1) or more (-1).
        laser: The laser phase plate; None for none.
    """

    box: tuple[int, int] = eqx.field(static=True)
    side: int = eqx.field(static=True)
    padded_shape: tuple[int, int] = eqx.field(static=True)
    norm_side: int = eqx.field(static=True)
    ewald_sign: int = eqx.field(static=True, default=0)
    laser: LaserPhasePlate | None = None

    def __check_init__(self) -> None:
        small = [q < b for q, b in zip(self.padded_shape, self.box, strict=True)]
        if any(small) or self.norm_side < self.side:
            raise InputError(
                f"padded_shape {self.padded_shape} and norm_side {self.norm_side} with a "
                f"box of {self.box} and a template of {self.side} px: expected grids that "
                "are not smaller, as ImageCTF.for_particles chooses them"
            )

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
        ewald_sign: int = 0,
    ) -> "ImageCTF":
        """Choose the grids for the widest CTF that occurs in a run.

        Args:
            box: (H, W).
            side: Side of the template.
            max_defocus_angstrom: Largest |defocus| of any particle, offsets included.
            voltage_kv: Lowest voltage (the longest wavelength).
            spherical_aberration_mm: Largest Cs.
            pixel_size_angstrom: Smallest pixel size, offsets included.
            ewald_sign: As the attribute.

        Raises:
            InputError: The box is odd or smaller than the template; a number is not finite
                or in another unit, such as a defocus in µm; or the CTF would spread a
                particle over thousands of pixels, which indicates the same.
        """
        if np.shape(box) != (2,) or box[0] % 2 or box[1] % 2:
            raise InputError(box_error(box, side))
        box = (int(box[0]), int(box[1]))
        numbers = {
            "voltage_kv": voltage_kv,
            "spherical_aberration_mm": spherical_aberration_mm,
            "pixel_size_angstrom": pixel_size_angstrom,
        }
        errors = [e for name, number in numbers.items() for e in limit_errors(name, number)]
        numbers["max_defocus_angstrom"] = max_defocus_angstrom
        errors += [f"{k} {v}: not finite" for k, v in numbers.items() if not np.isfinite(v)]
        if errors:
            raise InputError(errors)
        check_defocus_unit(max_defocus_angstrom)
        optics = (max_defocus_angstrom, voltage_kv, spherical_aberration_mm)
        kept = max(_KEPT_RESOLUTION_ANGSTROM, 2 * pixel_size_angstrom)
        margin = math.ceil(ctf_spread_px(*optics, pixel_size_angstrom, kept))
        # |CTF|² has twice the phase of the CTF, and extends to the corner of the plane.
        corner = math.sqrt(2) * pixel_size_angstrom
        widest = ctf_spread_px(*optics, pixel_size_angstrom, corner)
        if not widest <= _WIDEST_SPREAD_PX:
            raise InputError(
                f"at a defocus of {max_defocus_angstrom:g} Å, {voltage_kv:g} kV, Cs "
                f"{spherical_aberration_mm:g} mm and {pixel_size_angstrom:g} Å per pixel "
                f"the CTF spreads a particle over {widest:.3g} px; at most "
                f"{_WIDEST_SPREAD_PX} px are possible: check the units"
            )
        lags = 2 * ctf_spread_px(*optics, pixel_size_angstrom, corner)
        return cls(
            box=box,
            side=side,
            padded_shape=(
                next_fast_even(box[0] + 2 * margin),
                next_fast_even(box[1] + 2 * margin),
            ),
            norm_side=next_fast_odd(max(2 * side, math.ceil(side + 1.1 * lags) + 16)),
            ewald_sign=ewald_sign,
        )

    def max_defocus_angstrom(
        self,
        voltage_kv: Float[np.ndarray, " n"],
        spherical_aberration_mm: Float[np.ndarray, " n"],
        pixel_size_angstrom: Float[np.ndarray, " n"],
    ) -> Float[np.ndarray, " n"]:
        """Largest |defocus| for which the grids suffice: the inverse of `for_particles`."""
        wavelength = electron_wavelength_angstrom(voltage_kv)
        kept = np.maximum(_KEPT_RESOLUTION_ANGSTROM, 2 * pixel_size_angstrom)
        most = []
        for spread_px, resolution in (
            (min(self.padded_shape[i] - self.box[i] for i in (0, 1)) / 2, kept),
            (
                (self.norm_side - self.side - 16) / (2 * 1.1),
                math.sqrt(2) * pixel_size_angstrom,
            ),
        ):
            k = 1 / resolution
            of_cs = spherical_aberration_mm * 1e7 * wavelength**3 * k**3
            most.append((spread_px * pixel_size_angstrom - of_cs) / (wavelength * k))
        return np.minimum(*most)

    def of_middle(self, side: int) -> "ImageCTF":
        """The same score for the middle of its template, at the same positions.

        Padded box and norm grid are kept. With smaller ones, high-resolution signal that
        leaves the padded box would change z-scores by some hundredths.

        Args:
            side: Side of the trimmed template from `jaxrefine.physics.support.middle`.
        """
        height, width = (length - (self.side - side) for length in self.box)
        return replace(self, box=(height, width), side=side)

    @property
    def padded_box(self) -> tuple[int, int]:
        return self.padded_shape

    @property
    def filter_grid(self) -> tuple[int, int]:
        return self.norm_side, self.norm_side

    @property
    def phase_plate(self) -> LaserPhasePlate | None:
        return self.laser

    def curvature(self, particle: Particles) -> Float[Array, ""] | None:
        return curvature_voxels(particle, self.ewald_sign)

    def prepare(self, particle: Particles, grid: SearchGrid) -> PreparedImageCTF:
        def one(pixel_size: ScalarLike, defocus: ScalarLike) -> Any:
            seen = self._seen(particle, pixel_size, defocus)
            image_rfft = tuple(jnp.fft.rfft2(each) for each in seen)
            spreads = self._spreads(particle, pixel_size, defocus)
            norm_weights = tuple(self._norm_weights(s, 2 * self.side) for s in spreads)
            # Without some of the lags they may be negative, and with them sums of power.
            power_weights = jnp.maximum(self._norm_weights(spreads[0], self.side), 0)
            return image_rfft, norm_weights, power_weights

        image_rfft, norm_weights, power_weights = over_optics(one, particle, grid)
        scale, curvature = self.scale(particle, grid), self.curvature(particle)
        if curvature is not None:
            curvature = jnp.broadcast_to(curvature, scale.shape)
        return PreparedImageCTF(scale, image_rfft, norm_weights, power_weights, curvature)

    def _ctfs(
        self,
        particle: Particles,
        shape: tuple[int, int],
        pixel_size: ScalarLike,
        defocus: ScalarLike,
    ) -> tuple[Float[Array, "h r"], ...]:
        """The CTF of each slice of the template."""
        views = with_quadrature(particle) if self.ewald_sign else (particle,)
        return tuple(self.ctf(view, shape, pixel_size, defocus) for view in views)

    def _seen(
        self, particle: Particles, pixel_size: ScalarLike, defocus: ScalarLike
    ) -> tuple[Float[Array, "H W"], ...]:
        """The box of the image, with filter and CTF applied (the filter a second time)."""
        # A complex CTF on the projection is its conjugate on the image.
        turn = jnp.conj(particle_phase_factor(particle, self.padded_box, pixel_size))

        def seen(ctf: Float[Array, "Qh Qr"]) -> Float[Array, "H W"]:
            product = jnp.fft.rfft2(particle.image) * (particle.filter_image * ctf * turn)
            return centre_crop(jnp.fft.irfft2(product, s=self.padded_box), self.box)

        ctfs = self._ctfs(particle, self.padded_box, pixel_size, defocus)
        return tuple(seen(ctf) for ctf in ctfs)

    def _spreads(
        self, particle: Particles, pixel_size: ScalarLike, defocus: ScalarLike
    ) -> tuple[Float[Array, "S S"], ...]:
        """Autocorrelations of the point spread function, for each of `_powers`."""
        ctfs = self._ctfs(particle, self.filter_grid, pixel_size, defocus)
        filtered = [particle.filter_template * ctf for ctf in ctfs]
        powers = [transfer**2 for transfer in filtered]
        if len(filtered) == 2:
            powers.append(2 * filtered[0] * filtered[1])
        return tuple(jnp.fft.irfft2(power, s=self.filter_grid) for power in powers)

    def _norm_weights(self, spread: Float[Array, "S S"], side: int) -> Float[Array, "N Nr"]:
        """Weights of a power spectrum in the square of the norm, from one of `_spreads`.

        On a grid of twice the template's side they are those of `_powers`, and exact. On
        the template's grid, lags of more than half its side are left out.
        """
        lags = np.fft.fftfreq(side, 1 / side).astype(int) % self.norm_side
        weights = half_plane_weights((side, side)) / side**2
        return jnp.fft.rfft2(spread[lags[:, None], lags]).real * weights

    def _projections(
        self,
        template: Template,
        rotation: Float[Array, "3 3"],
        scale: ScalarLike,
        curvature: ScalarLike | None,
    ) -> tuple[Float[Array, "n n"], ...]:
        # Protein is dark at underfocus: the image is minus the projection.
        slices = template_slices(template, rotation, scale, curvature)
        return tuple(
            subtract_border_mean(slice_to_projection(-central)) for central in slices
        )

    def _powers(
        self, projections: tuple[Float[Array, "n n"], ...]
    ) -> tuple[Float[Array, "N Nr"], ...]:
        """|T|² of one projection; of two also their cross-spectrum."""
        rffts = [jnp.fft.rfft2(p, s=(2 * self.side,) * 2) for p in projections]
        powers = tuple(jnp.abs(rfft) ** 2 for rfft in rffts)
        if len(rffts) == 1:
            return powers
        return (*powers, (jnp.conj(rffts[0]) * rffts[1]).real)

    def _norm(
        self,
        projections: tuple[Float[Array, "n n"], ...],
        weights: tuple[Float[Array, "l N Nr"], ...],
    ) -> Float[Array, " l"]:
        high = jax.lax.Precision.HIGHEST
        squares = [
            jnp.einsum("lyx,yx->l", weight, power, precision=high)
            for weight, power in zip(weights, self._powers(projections), strict=True)
        ]
        return jnp.sqrt(sum(squares[1:], squares[0]))

    def norms(
        self, prepared: PreparedImageCTF, template: Template, rotation: Float[Array, "3 3"]
    ) -> Float[Array, "m l"]:
        def one(at: PreparedImageCTF) -> Float[Array, " l"]:
            projections = self._projections(template, rotation, at.scale, at.curvature)
            return self._norm(projections, at.norm_weights)

        return jax.vmap(one)(prepared)

    def power_weights(self, prepared: PreparedImageCTF) -> Float[Array, "m l *s n nr"]:
        return weights_of_curved_slices(prepared.power_weights, prepared.curvature)

    def correlate(
        self, prepared: PreparedImageCTF, template: Template, rotation: Float[Array, "3 3"]
    ) -> Float[Array, "m l Y X"]:
        def one(at: PreparedImageCTF) -> Float[Array, "l Y X"]:
            projections = self._projections(template, rotation, at.scale, at.curvature)
            products = [
                jnp.conj(jnp.fft.rfft2(projection, s=self.box)) * image_rfft
                for projection, image_rfft in zip(projections, at.image_rfft, strict=True)
            ]
            product = sum(products[1:], products[0])
            corner = valid_corner(product, self.box[1], self.positions)
            return corner / self._norm(projections, at.norm_weights)[:, None, None]

        return jax.vmap(one)(prepared)

    def columns(
        self,
        particle: Particles,
        pixel_size: ScalarLike,
        defocus: ScalarLike,
        corners: Int[Array, "p 2"],
    ) -> Complex[Array, "p *s n nr"]:
        seen = self._seen(particle, pixel_size, defocus)
        return columns_of_curved_slices(
            tuple(window_columns(each, self.side, corners, 0.0) for each in seen)
        )

    def matched_filter(
        self, particle: Particles, template: Template, pixel_size: ScalarLike
    ) -> tuple[Complex[Array, "Qh Qr"], Float[Array, ""]]:
        scale = particle.template_pixel_size_angstrom / pixel_size
        rotation = slice_rotation(particle, particle.alignment.rotation)
        curvature = self.curvature(particle)
        projections = self._projections(template, rotation, scale, curvature)
        ctfs = self._ctfs(particle, self.padded_box, pixel_size, 0.0)
        turn = particle_phase_factor(particle, self.padded_box, pixel_size)
        spread = [
            jnp.fft.rfft2(place_in_padded_box(projection, self))
            * (particle.filter_image * ctf * turn)
            for projection, ctf in zip(projections, ctfs, strict=True)
        ]
        spreads = self._spreads(particle, pixel_size, 0.0)
        weights = tuple(self._norm_weights(s, 2 * self.side)[None] for s in spreads)
        norm = self._norm(projections, weights)[0]
        return sum(spread[1:], spread[0]), norm
