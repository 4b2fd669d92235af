"""Scores of every pose of a grid, not only of the best."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxrefine.data import Particles, SearchGrid, Template
from jaxrefine.data.batch import Batch
from jaxrefine.refine.arguments import check_batch, check_grid, check_template
from jaxrefine.refine.prepare import OUTSIDE_STD
from jaxrefine.refine.scoring import Score, slice_rotation
from jaxrefine.refine.search import pose_rotations, ranked_by_background, z_scores

# Number of orientations that are scored together, as in the search.
_AT_ONCE = 8


class GridScores(Batch):
    """The best position of every pose of a grid, and its scores.

    Of a batch, `scores[3]` are the scores of one particle.

    Attributes:
        z_score: z-score there; -inf if no position has a finite one.
        strength: Correlation there above the mean of the background, in standard
            deviations of the noise; it determines the likelihood of the pose.
        offset_px: Offset (y, x) of the position from the particle's starting position.
    """

    z_score: Float[Array, "*n m l k"]
    strength: Float[Array, "*n m l k"]
    offset_px: Int[Array, "*n m l k 2"]

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """() for one particle, (n,) for a batch."""
        return self.z_score.shape[:-3]


@eqx.filter_jit
def score_grid(
    particles: Particles, template: Template, grid: SearchGrid, score: Score
) -> GridScores:
    """Score every pixel size, defocus and orientation of a grid with Fourier transforms.

    All scores are exact: the highest z-score of a particle is that of `refine_particles` on
    the same grid. This needs a transform for every pose, which costs many times as much as
    a search, and 16 bytes for each pose.

    Args:
        particles: A batch, with one leading axis; particles are scored one by one.
        template: From `make_template`.
        grid: From `local_grid`.
        score: `ImageCTF` or `TemplateCTF`.

    Returns:
        For each particle, arrays of shape `grid.shape`: (pixel sizes, defocus values,
        orientations).

    Raises:
        InputError: Arguments that do not fit together, as for `refine_particles`.
    """
    check_grid(grid)
    check_template(template, score)
    check_batch(particles, score)

    def one(particle: Particles) -> GridScores:
        prepared = score.prepare(particle, grid)
        ranked = ranked_by_background(particle)
        outside = jnp.all(particle.corr_std >= OUTSIDE_STD)

        def of_pose(rotation: Float[Array, "3 3"]) -> tuple[Array, Array, Array]:
            correlation = score.correlate(prepared, template, rotation)
            shape = correlation.shape[:2]
            z = z_scores(correlation, ranked).reshape(*shape, -1)
            flat = jnp.argmax(z, axis=-1)  # the first of equal scores, as in the search
            there = jnp.stack(jnp.unravel_index(flat, score.positions), axis=-1)

            def at_best(values: Float[Array, "m l Y X"]) -> Float[Array, "m l"]:
                values = values.reshape(*shape, -1)
                return jnp.take_along_axis(values, flat[..., None], -1)[..., 0]

            above = at_best(correlation) - particle.background_mean
            z = at_best(z_scores(correlation, particle))
            return (
                jnp.where(outside, -jnp.inf, z),
                above / particle.noise_std,
                there - jnp.asarray(score.margin),
            )

        poses = slice_rotation(particle, pose_rotations(particle, grid.rotation, grid))
        found = jax.lax.map(of_pose, poses, batch_size=_AT_ONCE)
        return GridScores(*(jnp.moveaxis(leaf, 0, 2) for leaf in found))

    return jax.lax.map(one, particles)
