"""From a central slice to a projection in the template's box."""

import jax.numpy as jnp
from jaxtyping import Array, Complex, Float, ScalarLike

from jaxrefine.data import Template
from jaxrefine.physics.slices import central_slice


def project(
    template: Template, rotation: Float[Array, "3 3"], scale: ScalarLike = 1.0
) -> Float[Array, "n n"]:
    """Projection of a template along z of the image frame, its centre at pixel n // 2.

    Differentiable in the template and in the rotation. The sign is the volume's; in an
    image at underfocus a particle is minus this, times the CTF.

    Args:
        template: From `make_template`.
        rotation: Image frame -> volume frame, on xyz column vectors.
        scale: Template voxel size / image pixel size.
    """
    return slice_to_projection(central_slice(template, rotation, scale))


def slice_to_projection(central: Complex[Array, "n r"]) -> Float[Array, "n n"]:
    """Real-space projection, its centre at pixel n // 2.

    The sign (-1)^(kx+ky) moves the origin from the corner to the centre; it equals an
    ifftshift of the projection, n being even.
    """
    side = central.shape[0]
    sign = 1.0 - 2.0 * ((jnp.arange(side)[:, None] + jnp.arange(central.shape[1])) % 2)
    return jnp.fft.irfft2(central * sign.astype(jnp.float32), s=(side, side))


def subtract_border_mean(projection: Float[Array, "n n"]) -> Float[Array, "n n"]:
    """Subtract the mean of the border pixels, each counted once."""
    side = projection.shape[0]
    line = (jnp.arange(side) % (side - 1)) == 0
    border = jnp.sum(jnp.where(line[:, None] | line, projection, 0))
    return projection - border / (4 * side - 4)


def padded_variance_sum(
    projection: Float[Array, "n n"], box: tuple[int, int]
) -> Float[Array, ""]:
    """The sum of squares by which Leopard-EM 1.2 divides a projection.

    With m = mean · (n²/HW)², a factor of its own: Σ(p - m)² + (H - n)(W - n) m².
    """
    side = projection.shape[0]
    relative = side**2 / (box[0] * box[1])
    mean = jnp.mean(projection) * relative**2
    outside = (box[0] - side) * (box[1] - side)
    return jnp.sum((projection - mean) ** 2) + outside * mean**2
