"""How many nodes of orientation the slices of a template need for interpolation."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxrefine.data import Template
from jaxrefine.physics.slices import sample_slice
from jaxrefine.refine.nodes import chebyshev, from_turn, reach

# Rotations are measured by sines, which are monotonic only up to 90 degrees.
_LARGEST_SINE = 0.8
_NO_ROTATION = 2e-6
# Slices are sampled at the largest number of nodes along an axis, starting from some
# orientations, at some frequencies up to Nyquist.
_MOST_NODES, _STARTS, _FREQUENCIES = 40, 4, 2048
# Relative errors below this are not reduced further: those of fitted norms are as large.
_ROUGHNESS = 0.006
# Coarser detail is attenuated by the CTF: its first maximum, in pixels.
_COARSE_PX = 20.0


def count_orientation_nodes(
    rotation: Float[np.ndarray, "k 3 3"], template: Template, tolerance: float
) -> tuple[int, int] | None:
    """Number of degrees of polynomials that interpolate over orientations.

    As functions of an angle, slices are expanded in Chebyshev polynomials. The error of
    interpolation from r nodes is the part of degree r and higher, twice: truncated, and
    mistaken for lower degrees. Its size depends on how far the signal of the template
    reaches, in space and in frequency, and on the kinks of trilinear samples.

    Args:
        rotation: Offset rotations of a grid.
        template: The template.
        tolerance: Largest error, relative to the part of degree 1 and higher, which is how
            much slices change over the grid (root mean squares). An error of 0.6 % of the
            slices themselves is allowed in any case.

    Returns:
        The number for the tilts about x and y and for the angle about z, as
        `OrientationNodes` takes them; None if the offsets are too large for interpolation.
    """
    half = reach(rotation)
    if np.linalg.norm(half / 2) > _LARGEST_SINE:
        return None
    power = np.asarray(_power_of_degrees(template, jnp.asarray(half, jnp.float32)))
    x, y, z = (
        1 if most < _NO_ROTATION else _enough(degrees, tolerance)
        for most, degrees in zip(half, power, strict=True)
    )
    return max(x, y), z


def _enough(power: Float[np.ndarray, " r"], tolerance: float) -> int:
    """The least number of nodes, from the mean power of each degree."""
    beyond = np.cumsum(power[::-1])[::-1]
    allowed = max(tolerance**2 * beyond[1], _ROUGHNESS**2 * beyond[0])
    good = 2 * beyond <= allowed
    return int(np.argmax(good)) if good.any() else len(power)


@jax.jit
def _power_of_degrees(template: Template, half: Float[Array, " 3"]) -> Float[Array, "3 r"]:
    """Mean power of slices in each Chebyshev polynomial of the angle about each axis."""
    rng = np.random.default_rng(0)
    # Evenly distributed over the half disk up to Nyquist.
    radius = np.sqrt(rng.uniform(size=(_FREQUENCIES, 1))) / 2
    angle = np.pi * rng.uniform(size=radius.shape)
    kx, ky = radius * np.sin(angle), radius * np.cos(angle)
    weight = np.sin(np.pi / 2 * np.minimum((radius * _COARSE_PX) ** 2, 1))
    starts = np.linalg.qr(rng.standard_normal((_STARTS, 3, 3)))[0]
    starts *= np.linalg.det(starts)[:, None, None]

    nodes = chebyshev(_MOST_NODES)
    along = half[:, None, None] * jnp.eye(3)[:, None] * nodes[:, None]
    offsets = from_turn(along.reshape(-1, 3))
    poses = jnp.einsum("sij,ojk->ikso", starts, offsets, precision="highest")
    poses = poses.reshape(3, 3, -1).astype(jnp.float32)
    slices = sample_slice(template, poses, jnp.float32(kx), jnp.float32(ky))
    parts = jnp.stack(slices) * jnp.float32(weight)
    parts = parts.reshape(2, _FREQUENCIES, _STARTS, 3, _MOST_NODES)
    degree = np.arange(_MOST_NODES)
    polynomials = np.cos(np.multiply.outer(np.arccos(nodes), degree))
    each = np.where(degree == 0, 1, 2) / _MOST_NODES * polynomials
    spectrum = jnp.einsum("pfsan,nd->pfsad", parts, jnp.float32(each), precision="highest")
    # The mean square of every polynomial but the first is 1/2.
    share = np.where(degree == 0, 1, 0.5).astype(np.float32)
    return jnp.mean(spectrum**2, axis=(0, 1, 2)) * share
