"""Scores: how well a pose of the template matches a particle.

A score computes, for one particle and one orientation, the cross-correlation at every pixel
size, defocus and whole-pixel position of the search. It is written for one particle; the
caller applies it to batches (`vmap`, `lax.map`). Two scores exist:

- `ImageCTF` (the default): filter and CTF are applied to the image, in a padded box that is
  wide enough to keep all signal, and the result is correlated with the plain projection.
- `TemplateCTF`: filter and CTF are applied to the central slice on the template's own
  grid, as Leopard-EM does. The CTF's spread wraps around the template's box.

Both are normalised so that the correlation of noise has variance 1.
"""

import abc
from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float, Int, ScalarLike

from jaxrefine.data import InputError, Particles, SearchGrid, Template
from jaxrefine.data.optics import LIMITS
from jaxrefine.physics.ctf import (
    antisymmetric_phase_factor,
    contrast_transfer,
    frequency_matrix,
)
from jaxrefine.physics.fourier import half_plane_weights
from jaxrefine.physics.laser import LaserPhasePlate

# Of arrays (…, 2) of either kind.
Corners = TypeVar("Corners", Array, np.ndarray)

# No micrograph is this close to focus, and no defocus in µm is this large.
_LEAST_DEFOCUS_ANGSTROM = 10.0


class Score(eqx.Module):
    """The interface of a score. Shapes are static, so that a run compiles once.

    Attributes:
        box: (H, W) of the box in which positions are searched.
        side: Side n of the template; valid positions are (H - n + 1, W - n + 1).
    """

    box: eqx.AbstractVar[tuple[int, int]]
    side: eqx.AbstractVar[int]

    def __check_init__(self) -> None:
        fits = np.shape(self.box) == (2,) and min(self.box) >= self.side
        if not fits or self.side < 2 or self.side % 2:
            raise InputError(box_error(self.box, self.side))

    @property
    @abc.abstractmethod
    def padded_box(self) -> tuple[int, int]:
        """Shape of `Particles.image`: the box plus the margin that the score needs."""

    @property
    @abc.abstractmethod
    def filter_grid(self) -> tuple[int, int]:
        """Real-space shape of the grid of `Particles.filter_template`."""

    @abc.abstractmethod
    def prepare(self, particle: Particles, grid: SearchGrid) -> Any:
        """Compute everything that is independent of orientation, as a pytree of arrays."""

    @abc.abstractmethod
    def correlate(
        self, prepared: Any, template: Template, rotation: Float[Array, "3 3"]
    ) -> Float[Array, "m l Y X"]:
        """Cross-correlation at every pixel size, defocus and position for one pose."""

    @abc.abstractmethod
    def norms(
        self, prepared: Any, template: Template, rotation: Float[Array, "3 3"]
    ) -> Float[Array, "m l"]:
        """The norms by which `correlate` divides."""

    @abc.abstractmethod
    def power_weights(self, prepared: Any) -> Float[Array, "m l *s n nr"]:
        """Weights of |slice|², not negative, whose sum is nearly the square of the norm.

        A factor that is the same for all orientations is allowed: the search measures it,
        and how much it varies. There are two (s = 2) if there are two slices, as for
        `columns`.
        """

    @abc.abstractmethod
    def columns(
        self,
        particle: Particles,
        pixel_size: ScalarLike,
        defocus: ScalarLike,
        corners: Int[Array, "p 2"],
    ) -> Complex[Array, "p *s n nr"]:
        """Columns whose product with the central slice is the correlation.

        The correlation times the norm is Σ Re(slice) Re(column) + Im(slice) Im(column) over
        the half plane, for each of the positions (y, x), at an absolute pixel size and a
        defocus offset. Columns are linear in the particle's image. If the score has a
        curvature, there are two (s = 2): for the slice of this curvature and its negative.
        """

    @abc.abstractmethod
    def matched_filter(
        self, particle: Particles, template: Template, pixel_size: ScalarLike
    ) -> tuple[Complex[Array, "Qh Qr"], Float[Array, ""]]:
        """The feature and its norm at the particle's own alignment.

        Differentiable; continuous scores and the polish are based on it.

        Args:
            particle: One particle; its image is not used.
            template: From `make_template`.
            pixel_size: Absolute pixel size; that of the alignment is the starting value.

        Returns:
            rfft2 of an image f with the shape of the padded box, and the norm ν. The
            correlation at the central position is Σ f · image / ν. Its variance is 1 for
            white noise of variance 1.
        """

    def ctf(
        self,
        particle: Particles,
        shape: tuple[int, int],
        pixel_size: ScalarLike,
        defocus: ScalarLike,
    ) -> Float[Array, "h r"]:
        """Real CTF times envelope of a particle, which a score of one's own may replace.

        `ImageCTF` and `TemplateCTF` take it from here for search, norm and polish alike.

        Args:
            particle: One particle: its optics, defocus and astigmatism.
            shape: Real-space shape of the image; the CTF is on its half plane.
            pixel_size: Absolute pixel size in Å.
            defocus: Offset of u and v in Å.
        """
        alignment = particle.alignment
        return contrast_transfer(
            shape,
            pixel_size,
            alignment.defocus_angstrom + defocus,
            alignment.astigmatism_deg,
            particle.optics,
            self.phase_plate,
        )

    @property
    def phase_plate(self) -> LaserPhasePlate | None:
        """The laser phase plate that `ctf` includes; None for none."""
        return None

    def curvature(self, particle: Particles) -> Float[Array, ""] | None:
        """Curvature of slices, for `central_slice`, in voxels; None for flat slices."""
        return None

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
        """Largest |defocus| whose signal spread fits into the score's grids; inf: any."""
        return np.full(voltage_kv.shape, np.inf)

    @property
    def positions(self) -> tuple[int, int]:
        """Number of whole-pixel positions along y and x."""
        return self.box[0] - self.side + 1, self.box[1] - self.side + 1

    @property
    def margin(self) -> tuple[int, int]:
        """Index (y, x) of the starting position among the positions."""
        return (self.positions[0]) // 2, (self.positions[1]) // 2


def box_corner(score: Score, corner: Corners) -> Corners:
    """Top-left corner (y, x) of the boxes of particles, from their positions."""
    return corner - np.asarray([(b - score.side) // 2 for b in score.box])


def padded_corner(score: Score, template_side: int, corner: Corners) -> Corners:
    """Top-left corners of what is cut, `score.padded_box`, from whole positions.

    Args:
        score: Its template may be the middle of the one that positions are of.
        template_side: Side of that one.
        corner: Its top-left corners (y, x), the positions.
    """
    trimmed = template_side - score.side
    sides = zip(score.padded_box, score.box, strict=True)
    around = np.asarray([(trimmed - (cut - box)) // 2 for cut, box in sides])
    return box_corner(score, corner) + around


def box_error(box: tuple[int, int], side: int) -> str:
    """Describe why a box does not suit a template."""
    return (
        f"a score of box {box} and template side {side}: expected an even side, and a box "
        f"(height, width) of even lengths that are not smaller, such as {(side + 16,) * 2}"
    )


def check_defocus_unit(largest_angstrom: float) -> None:
    """Raise an `InputError` if the largest defocus is so small that it must be in µm."""
    if 0 < abs(largest_angstrom) < _LEAST_DEFOCUS_ANGSTROM:
        raise InputError(
            f"a largest defocus of {largest_angstrom:g} Å: expected Å, and this looks like "
            f"µm ({largest_angstrom * 1e4:g} Å)"
        )


def limit_errors(name: str, values: Any) -> list[str]:
    """Describe the first of some numbers that is beyond the limits of its kind.

    Args:
        name: The last part is a key of `LIMITS`: "optics.voltage_kv".
        values: One number, or one per particle; NaN is within the limits.
    """
    low, high = LIMITS[name.rpartition(".")[2]]
    values = np.asarray(values, np.float64)
    beyond = np.flatnonzero((values < low) | (values > high))
    if not len(beyond):
        return []
    of = f" of particle {beyond[0]}" if values.ndim else ""
    value = values.ravel()[beyond[0]]
    return [f"{name}{of}: {value:g}; expected {low:g} … {high:g}: check the unit"]


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
    """A projection in the middle of the score's padded box, surrounded by zeros."""
    pads = []
    for cut, box, margin in zip(score.padded_box, score.box, score.margin, strict=True):
        before = (cut - box) // 2 + margin
        pads.append((before, cut - before - score.side))
    return jnp.pad(projection, pads)


def particle_phase_factor(
    particle: Particles, shape: tuple[int, int], pixel_size: ScalarLike
) -> Complex[Array, "h r"] | float:
    """Phase factor on the real CTF of a particle: 1 without odd aberrations."""
    factor = antisymmetric_phase_factor(shape, pixel_size, particle.optics)
    return 1.0 if factor is None else factor


def slice_rotation(
    particle: Particles, rotation: Float[Array, "*k 3 3"]
) -> Float[Array, "*k 3 3"]:
    """Rotation for sampling a central slice, including anisotropic magnification.

    A central slice is sampled at rotation @ (kx, ky, 0). The distortion of (kx, ky) is
    included in the matrix, which is then no longer a rotation.
    """
    if particle.optics.mag_matrix is None:
        return rotation
    (yy, yx), (xy, xx) = frequency_matrix(particle.optics.mag_matrix)
    distortion = jnp.eye(3).at[:2, :2].set(jnp.array([[xx, xy], [yx, yy]]))
    return jnp.matmul(rotation, distortion, precision=jax.lax.Precision.HIGHEST)


def valid_corner(
    product: Complex[Array, "*l H Wr"], width: int, positions: tuple[int, int]
) -> Float[Array, "*l Y X"]:
    """The first positions of irfft2; unneeded rows are dropped after the first axis."""
    rows = jnp.fft.ifft(product, axis=-2)[..., : positions[0], :]
    return jnp.fft.irfft(rows, n=width, axis=-1)[..., : positions[1]]


def window_columns(
    image: Float[Array, "H W"], side: int, corners: Int[Array, "p 2"], kept: ScalarLike
) -> Complex[Array, "p n nr"]:
    """Columns for the correlation of minus a projection with windows of an image.

    The border mean of the projection is subtracted. As this is linear in the projection, it
    is applied to the windows: I - M (ΣI - kept), with M the mean over border pixels.
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
