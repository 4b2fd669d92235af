"""Prior of the polish: what is known about a pose from the match, before refinement.

The match has searched all poses, so a particle is in a cell around its best grid point, and
the search of the refinement covers this cell. If the image holds less information than
that, the optimum of the score scatters over the cell and has a larger error than the
starting values. With the score as a Gaussian around its optimum, and the cell as a Gaussian
around the starting values, the posterior is a Gaussian whose mean weights the two by their
information (Lindley & Smith, J. R. Stat. Soc. B 34 (1972) 1).
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxrefine.data import COORDINATES, Alignment, SearchGrid
from jaxrefine.physics.rotations import matrix_to_rotation_vector
from jaxrefine.refine.coordinates import parameter_slices

# Standard deviation of a position from the match, which is known to about a pixel.
_POSITION_SIGMA_PX = 1.0
# Standard deviation of the cell, relative to the search range, which reaches its corners.
_OF_REACH = 0.5


def cell_precision(
    grid: SearchGrid, parameters: tuple[str, ...]
) -> Float[np.ndarray, " p"]:
    """1/σ² of each coordinate around the start; 0 if the grid does not search it."""
    rotations = np.asarray(grid.rotation, np.float64)
    tilt = np.rad2deg(np.arccos(np.clip(rotations[:, 2, 2], -1, 1))).max()
    upright = rotations[rotations[:, 2, 2] >= rotations[:, 2, 2].max() - 1e-9]
    in_plane = np.abs(np.rad2deg(np.arctan2(upright[:, 1, 0], upright[:, 0, 0]))).max()
    reach = {
        "orientation": [tilt, tilt, in_plane],
        "shift": [_POSITION_SIGMA_PX / _OF_REACH] * 2,
        "defocus": [np.abs(grid.defocus_angstrom).max()],
        "pixel_size": [np.abs(grid.pixel_size_angstrom).max()],
    }
    reaches = [reach.get(name, [0.0] * COORDINATES[name]) for name in parameters]
    sigma = _OF_REACH * np.concatenate(reaches)
    known = sigma > 1e-3
    return np.where(known, 1 / np.where(known, sigma, 1) ** 2, 0).astype(np.float32)


def offset_of(
    start: Alignment, here: Alignment, parameters: tuple[str, ...]
) -> Float[Array, " p"]:
    """Coordinates of the starting values relative to an alignment, for one particle."""
    at = parameter_slices(parameters)
    high = jax.lax.Precision.HIGHEST
    between = jnp.matmul(here.rotation.T, start.rotation, precision=high)
    mean_defocus = jnp.mean(start.defocus_angstrom - here.defocus_angstrom)
    parts = {
        "orientation": matrix_to_rotation_vector(between),
        "shift": start.position_px - here.position_px,
        "defocus": mean_defocus[None],
        "pixel_size": (start.pixel_size_angstrom - here.pixel_size_angstrom)[None],
    }
    # The prior of all others has no width.
    return jnp.concatenate([parts.get(name, jnp.zeros(COORDINATES[name])) for name in at])


def fitted_count(
    information: Float[Array, "p p"], precision: Float[Array, " p"]
) -> Float[Array, ""]:
    """tr (H + Λ)⁻¹ H: the number of coordinates determined by the score, not the prior."""
    scale, total = _scaled_total(information, precision)
    return jnp.trace(jnp.linalg.solve(total, information * scale[:, None] * scale))


def posterior_mean(
    optimum: Float[Array, " p"],
    information: Float[Array, "p p"],
    start: Float[Array, " p"],
    precision: Float[Array, " p"],
) -> Float[Array, " p"]:
    """(H + Λ)⁻¹ (H optimum + Λ start), H the information and Λ the prior's precision."""
    scale, total = _scaled_total(information, precision)
    pull = jnp.linalg.solve(total, scale * precision * (start - optimum))
    return optimum + scale * pull


def _scaled_total(
    information: Float[Array, "p p"], precision: Float[Array, " p"]
) -> tuple[Float[Array, " p"], Float[Array, "p p"]]:
    """The units in which the diagonal of H + Λ is 1, and H + Λ in these units."""
    scale = 1 / jnp.sqrt(jnp.diagonal(information) + precision)
    return scale, (information + jnp.diag(precision)) * scale[:, None] * scale
