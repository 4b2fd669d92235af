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
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float, Int, ScalarLike

from jaxrefine.data import InputError, Particles, SearchGrid, Template
from jaxrefine.physics.ctf import (
    antisymmetric_phase_factor,
    contrast_transfer,
    frequency_matrix,
)
from jaxrefine.physics.fourier import half_plane_weights

# No microscope is set as close to focus, and no micrograph in µm is as far from it.
_LEAST_DEFOCUS_ANGSTROM = 10.0


class Score(eqx.Module):
    """What a search needs of a score. Shapes are static, so that one compilation serves.

    Attributes:
        box: (H, W) of the box in which positions are searched.
        side: Side n of the template; valid positions are (H - n + 1, W - n + 1).
    """

    box: eqx.AbstractVar[tuple[int, int]]
    side: eqx.AbstractVar[int]

    def __check_init__(self) -> None:
        box = tuple(self.box)
        if len(box) != 2 or min(box) < self.side or self.side < 2 or self.side % 2:
            raise InputError(box_error(self.box, self.side))

    @property
    @abc.abstractmethod
    def padded_box(self) -> tuple[int, int]:
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

    @abc.abstractmethod
    def norms(
        self, prepared: Any, template: Template, rotation: Float[Array, "3 3"]
    ) -> Float[Array, "m l"]:
        """What `correlate` divides by."""

    @abc.abstractmethod
    def columns(
        self,
        particle: Particles,
        pixel_size: ScalarLike,
        defocus: ScalarLike,
        corners: Int[Array, "p 2"],
    ) -> Complex[Array, "p n nr"]:
        """The same correlation as a product with the central slice.

        Before the norm it is Σ Re(slice) Re(column) + Im(slice) Im(column) over the half
        plane, for each of some positions (y, x), at an absolute pixel size and a defocus
        offset. Linear in the particle's image.
        """

    @abc.abstractmethod
    def matched_filter(
        self, particle: Particles, template: Template, pixel_size: ScalarLike
    ) -> tuple[Complex[Array, "Qh Qr"], Float[Array, ""]]:
        """The same correlation, at the particle's own alignment, as a product with the cut.

        Differentiable: continuous scores and the polish are made of it.

        Args:
            particle: One particle; its image is not read.
            template: From `make_template`.
            pixel_size: Absolute pixel size; the alignment's is where the search started.

        Returns:
            rfft2 of an image f of the cut's shape, and the norm ν: the correlation at the
            middle position is Σ f · image / ν, which white noise of variance 1 gives the
            variance 1.
        """

    def scale(self, particle: Particles, grid: SearchGrid) -> Float[Array, " m"]:
        """Template voxel size / image pixel size, at each pixel size of the grid."""
        pixel_size = particle.alignment.pixel_size_angstrom + grid.pixel_size_angstrom
        return particle.template_pixel_size_angstrom / pixel_size

    def max_defocus_angstrom(
        self,
        voltage_kv: Float[np.ndarray, " n"],
        spherical_aberration_mm: Float[np.ndarray, " n"],
        pixel_size_angstrom: Float[np.ndarray, " n"],
    ) -> Float[np.ndarray, " n"]:
        """Largest |defocus| whose spread of signal the score's grids hold; inf: any."""
        return np.full(voltage_kv.shape, np.inf)

    @property
    def positions(self) -> tuple[int, int]:
        """Number of whole-pixel positions along y and x."""
        return self.box[0] - self.side + 1, self.box[1] - self.side + 1

    @property
    def margin(self) -> tuple[int, int]:
        """Position offset (y, x) that leaves a particle where it was."""
        return (self.positions[0]) // 2, (self.positions[1]) // 2


def box_error(box: tuple[int, int], side: int) -> str:
    """What is said of a box and a template that do not go together."""
    return (
        f"a score of box {box} and template side {side}: expected an even side, and a box "
        f"(height, width) of even lengths that are not smaller, such as {(side + 16,) * 2}"
    )


def check_defocus_unit(largest_angstrom: float) -> None:
    """Raise an `InputError` where a largest defocus is so small that it must be in µm."""
    if 0 < abs(largest_angstrom) < _LEAST_DEFOCUS_ANGSTROM:
        raise InputError(
            f"a largest defocus of {largest_angstrom:g} Å: expected Å, and this looks like "
            f"µm ({largest_angstrom * 1e4:g} Å)"
        )


def over_optics(function: Any, particle: Particles, grid: SearchGrid) -> Any:
    """Map `function(pixel_size, defocus)` over the grid: leading axes (m, l)."""

    def one(index: Array) -> Any:
        m, l = jnp.divmod(index, grid.defocus_angstrom.shape[0])
        pixel_size = particle.alignment.pixel_size_angstrom + grid.pixel_size_angstrom[m]
        return function(pixel_size, grid.defocus_angstrom[l])

    pixel_sizes, defoci, _ = grid.shape
    stacked = jax.lax.map(one, jnp.arange(pixel_sizes * defoci))
    return jax.tree.map(lambda x: x.reshape(pixel_sizes, defoci, *x.shape[1:]), stacked)


def place_in_padded_box(
    projection: Float[Array, "n n"], score: Score
) -> Float[Array, "Qh Qw"]:
    """A projection in the middle of the score's cut, zero around it."""
    pads = []
    for cut, box, margin in zip(score.padded_box, score.box, score.margin, strict=True):
        before = (cut - box) // 2 + margin
        pads.append((before, cut - before - score.side))
    return jnp.pad(projection, pads)


def particle_ctf(
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


def particle_phase_factor(
    particle: Particles, shape: tuple[int, int], pixel_size: ScalarLike
) -> Complex[Array, "h r"] | float:
    """What the real CTF of a particle is multiplied by: 1 without odd aberrations."""
    factor = antisymmetric_phase_factor(shape, pixel_size, particle.optics)
    return 1.0 if factor is None else factor


def slice_rotation(
    particle: Particles, rotation: Float[Array, "*k 3 3"]
) -> Float[Array, "*k 3 3"]:
    """Where a slice at some rotation is sampled: with the magnification's distortion.

    A central slice is sampled at rotation @ (kx, ky, 0), so that the distortion of (kx, ky)
    can be taken into the matrix, which then is no rotation.
    """
    if particle.optics.mag_matrix is None:
        return rotation
    (yy, yx), (xy, xx) = frequency_matrix(particle.optics.mag_matrix)
    distortion = jnp.eye(3).at[:2, :2].set(jnp.array([[xx, xy], [yx, yy]]))
    return jnp.matmul(rotation, distortion, precision=jax.lax.Precision.HIGHEST)


def valid_corner(
    product: Complex[Array, "*l H Wr"], width: int, positions: tuple[int, int]
) -> Float[Array, "*l Y X"]:
    """The first positions of irfft2, rows cut before the columns are transformed."""
    rows = jnp.fft.ifft(product, axis=-2)[..., : positions[0], :]
    return jnp.fft.irfft(rows, n=width, axis=-1)[..., : positions[1]]


def window_columns(
    image: Float[Array, "H W"], side: int, corners: Int[Array, "p 2"], kept: ScalarLike
) -> Complex[Array, "p n nr"]:
    """Columns for the correlation of minus a projection with windows of an image.

    The projection's border mean is subtracted, which as it is linear in the projection
    is taken into the windows: I - M (ΣI - kept), M the mean over border pixels.
    """
    border = np.ones((side, side), np.float32)
    border[1:-1, 1:-1] = 0
    border /= border.sum()
    sign = 1 - 2 * (np.add.outer(np.arange(side), np.arange(side // 2 + 1)) % 2)
    weights = -half_plane_weights((side, side)) * sign.astype(np.float32) / side**2

    def one(corner: Int[Array, " 2"]) -> Complex[Array, "n nr"]:
        window = jax.lax.dynamic_slice(image, (corner[0], corner[1]), (side, side))
        window = window - border * (jnp.sum(window) - kept)
        return jnp.fft.rfft2(window) * weights

    return jax.lax.map(one, corners, batch_size=32)
