"""The plain exhaustive search: every pose scored by transforms, one chunk after another.

The oracle of the search as a matrix product, which must give the same grid point.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxrefine.data import Particles, SearchGrid, Template
from jaxrefine.refine.scoring import Score
from jaxrefine.refine.search import pose_rotations, z_scores


def plain_search(
    score: Score,
    particle: Particles,
    template: Template,
    grid: SearchGrid,
    chunk: int,
) -> tuple[Float[Array, ""], Float[Array, ""], Int[Array, " 5"]]:
    """Best of every pixel size, defocus, orientation and position.

    Ties go to the lowest flat index in (pixel size, defocus, orientation, y, x),
    whatever the chunk.

    Args:
        score: How to correlate.
        particle: One particle.
        template: What to look for.
        grid: Offsets around the particle's start.
        chunk: Orientations evaluated at once; bounds memory, changes nothing else.

    Returns:
        z-score and correlation at the best, and its five indices. Without any finite
        score the z-score is -inf.
    """
    pixel_sizes, defoci, orientations = grid.shape
    chunk = min(chunk, orientations)
    prepared = score.prepare(particle, grid)
    rows, columns = score.positions

    # The last chunk is filled up with copies of the last orientation, masked below.
    n_chunks = -(-orientations // chunk)
    index = jnp.minimum(jnp.arange(n_chunks * chunk), orientations - 1).reshape(-1, chunk)
    real = (jnp.arange(n_chunks * chunk) < orientations).reshape(-1, chunk)

    def evaluate(carry, orientation):
        best_z, _, best_index = carry
        number, is_real = orientation
        poses = pose_rotations(particle, grid.rotation[number], grid)
        correlation = jax.vmap(score.correlate, in_axes=(None, None, 0), out_axes=2)(
            prepared, template, poses
        )
        z = jnp.where(is_real[:, None, None], z_scores(correlation, particle), -jnp.inf)
        flat = jnp.argmax(z)
        m, l, k, y, x = jnp.unravel_index(flat, (pixel_sizes, defoci, chunk, rows, columns))
        here = jnp.stack([m, l, number[k], y, x]).astype(jnp.int32)
        z_here = z.reshape(-1)[flat]
        # Chunks come in order of orientation: a later one wins a tie only by an
        # earlier pixel size or defocus.
        earlier = (m * defoci + l) < (best_index[0] * defoci + best_index[1])
        better = (z_here > best_z) | ((z_here == best_z) & earlier)
        found = (z_here, correlation.reshape(-1)[flat], here)
        return jax.tree.map(
            lambda new, old: jnp.where(better, new, old), found, carry
        ), None

    start = (jnp.float32(-jnp.inf), jnp.float32(jnp.nan), jnp.zeros(5, jnp.int32))
    best, _ = jax.lax.scan(evaluate, start, (index, real))
    return best
