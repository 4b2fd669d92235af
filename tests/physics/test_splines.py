"""Cubic interpolation and its derivatives, compared with the plain formula."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxrefine.physics.splines import tricubic
from tests.worlds import single

SIDE = 6
STRIDES = (SIDE * SIDE, SIDE, 1)
RNG = np.random.default_rng(0)
VOLUMES = tuple(single(RNG.standard_normal(SIDE**3)) for _ in range(2))
BASE = jnp.asarray([0, 43, 86])
SHARES = single(RNG.uniform(size=(3, 3)))


def ours(volumes, shares):
    return jnp.stack(tricubic(volumes, STRIDES, BASE, tuple(shares)))


def plain(volumes, shares):
    """Each of 64 samples times the B-spline at its distance along each axis."""
    distance = jnp.abs(shares[:, :, None] + 1 - jnp.arange(4))
    near, far = 2 / 3 - distance**2 + distance**3 / 2, (2 - distance) ** 3 / 6
    weights = jnp.where(distance < 1, near, far)
    tap = np.arange(4)
    steps = np.add.outer(np.add.outer(STRIDES[0] * tap, STRIDES[1] * tap), tap)
    samples = jnp.stack([volume[BASE[:, None, None, None] + steps] for volume in volumes])
    return jnp.einsum("vpzyx,pz,py,px->vp", samples, *weights)


def all_of(function):
    """Values, slopes and curvatures along shares, and slopes along volumes, both ways."""

    @jax.jit
    def derivatives(volumes, shares):
        def summed(volumes, shares):
            return jnp.sum(jnp.sin(function(volumes, shares)))

        along = jax.grad(summed, argnums=(0, 1))(volumes, shares)
        mixed = jax.jvp(
            lambda v: jax.grad(summed, argnums=1)(v, shares), (volumes,), (volumes[::-1],)
        )[1]
        forward = jax.jacfwd(function, argnums=1)(volumes, shares)
        return (
            function(volumes, shares),
            along,
            mixed,
            forward,
            jax.hessian(summed, argnums=1)(volumes, shares),
        )

    return derivatives(VOLUMES, SHARES)


def test_derivatives_are_those_of_the_plain_formula():
    for a, b in zip(*map(jax.tree.leaves, (all_of(ours), all_of(plain))), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=2e-5)  # float32, sums of 64


def test_third_derivatives_are_constant_within_a_voxel():
    def along_x(share):
        return tricubic(VOLUMES, STRIDES, BASE[0], (single(0.3), single(0.8), share))[0]

    third = jax.jit(jax.vmap(jax.grad(jax.grad(jax.grad(along_x)))))
    values = third(single([0.1, 0.5, 0.9]))
    np.testing.assert_allclose(values, values[0], rtol=1e-5)
    assert abs(values[0]) > 1e-3
