"""Images of refined particles beside the projections of the template."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxrefine.app.config import Config
from jaxrefine.app.run.devices import float32_only
from jaxrefine.app.run.landscape import each_particle, load_refined
from jaxrefine.data import Particles, Template
from jaxrefine.physics.fourier import frequency_grid
from jaxrefine.refine.refine import scores_in_box
from jaxrefine.refine.scoring import Score

# Resolution at which the Gaussian filter halves amplitudes; finer detail is mostly noise.
LOW_PASS_ANGSTROM = 15.0
_PIXELS_PER_LOW_PASS = 3
_LARGEST_SIDE_PX = 128
# Relative to the maximum of the filter; below it the image cannot be recovered.
_LEAST_FILTER = 1e-4


@dataclass(frozen=True, eq=False)
class ParticleView:
    """One particle at its refined pose; low-passed images with the side of the template.

    Attributes:
        row: Row of the table.
        image: The micrograph there, without its filters.
        projection: The template's projection times the CTF, scaled to fit the image.
        difference: Image minus projection.
        z: z-score at each position of the box (y, x), with the refined one in the middle.
    """

    row: int
    image: Float[np.ndarray, "h w"]
    projection: Float[np.ndarray, "h w"]
    difference: Float[np.ndarray, "h w"]
    z: Float[np.ndarray, "Y X"]


@float32_only()
def particle_views(
    config: Config,
    table: Path,
    rows: Sequence[int],
    shift_px: Float[np.ndarray, "n 2"],
    see: Callable[[ParticleView], None],
) -> None:
    """Compute a view of each particle, except of those whose images cannot be read.

    Args:
        config: Configuration of the run that refined them; its particle table is not used.
        table: The refined table.
        rows: Rows of the particles.
        shift_px: Sub-pixel shifts (y, x) of all rows' positions.
        see: Called with each view, one micrograph after the other.

    Raises:
        InputError: With all errors of the configuration's inputs.
    """
    inputs = load_refined(config, table)
    for row, one, template in each_particle(inputs, rows, skip_unreadable=True):
        shift = jnp.asarray(shift_px[row], jnp.float32)
        seen = jax.tree.map(np.asarray, _seen(one, shift, template, inputs.score))
        pixel_size = float(one.alignment.pixel_size_angstrom)
        image, projection, difference = (_smaller(i, pixel_size) for i in seen[:3])
        see(ParticleView(row, image, projection, difference, seen[3]))


@eqx.filter_jit
def _seen(
    particle: Particles, shift_px: Float[Array, " 2"], template: Template, score: Score
) -> tuple[
    Float[Array, "n n"], Float[Array, "n n"], Float[Array, "n n"], Float[Array, "Y X"]
]:
    """Image, projection, difference, and z-scores."""
    pixel_size = particle.alignment.pixel_size_angstrom
    expected, _ = score.matched_filter(particle, template, pixel_size)
    # Both contain the micrograph's filter, which suppresses most of the visible signal.
    weight = particle.filter_image
    there = weight > _LEAST_FILTER * jnp.max(weight)
    ky, kx = frequency_grid(score.padded_box)
    wave = (ky * ky + kx * kx) * (LOW_PASS_ANGSTROM / pixel_size) ** 2
    undo = jnp.where(there, jnp.exp2(-wave) / jnp.where(there, weight, 1.0), 0.0)
    phase = 2 * np.pi * (ky * shift_px[0] + kx * shift_px[1])
    at_place = jnp.fft.rfft2(particle.image) * jax.lax.complex(
        jnp.cos(phase), jnp.sin(phase)
    )
    moved = jnp.fft.irfft2(at_place, s=score.padded_box)
    particle = eqx.tree_at(lambda p: p.image, particle, moved)

    def shown(rfft: Array) -> Float[Array, "n n"]:
        whole = jnp.fft.irfft2(rfft * undo, s=score.padded_box)
        starts = [
            (cut - box) // 2 + margin
            for cut, box, margin in zip(
                score.padded_box, score.box, score.margin, strict=True
            )
        ]
        seen = jax.lax.dynamic_slice(whole, starts, (score.side, score.side))
        return seen - jnp.mean(seen)

    image, projection = shown(at_place), shown(expected)
    scale = jnp.sum(image * projection) / jnp.sum(projection**2)
    # The projection is shown even if there is no particle.
    fitted = projection * jnp.where(jnp.isfinite(scale), scale, 0.0)
    z, _ = scores_in_box(particle, template, score)
    return image, projection * jnp.abs(scale), image - fitted, z


def _smaller(
    image: Float[np.ndarray, "n n"], pixel_size_angstrom: float
) -> Float[np.ndarray, "h w"]:
    """Means over blocks of pixels that are small compared with the low-pass resolution."""
    side = len(image)
    wanted = int(LOW_PASS_ANGSTROM / _PIXELS_PER_LOW_PASS / pixel_size_angstrom)
    factor = max(1, wanted, -(-side // _LARGEST_SIDE_PX))
    kept = side // factor * factor
    cut = image[:kept, :kept].reshape(kept // factor, factor, kept // factor, factor)
    return cut.mean(axis=(1, 3))
