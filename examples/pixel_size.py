"""The pixel size of a data set, with its error, from all particles together.

python -m jaxrefine demo DIR
python examples/pixel_size.py DIR
"""

import sys
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
from demo_particles import load

import jaxrefine as jr

particles, offsets, template, score = load(Path(sys.argv[1]))
z_of_all = jax.vmap(jr.z_score, in_axes=(0, 0, None, None))


# With noise of 1, z²/2 is a particle's log-likelihood at its best strength.
@jax.jit
def log_likelihood(change_angstrom):
    changed = eqx.tree_at(
        lambda o: o.pixel_size_angstrom,
        offsets,
        jnp.full(len(offsets.astigmatism_deg), change_angstrom),
    )
    return jnp.sum(z_of_all(changed, particles, template, score) ** 2) / 2


slope, curvature = jax.jit(jax.grad(log_likelihood)), jax.jit(jax.hessian(log_likelihood))
change = 0.0
for step in range(5):
    change -= float(slope(change) / curvature(change))
    print(f"step {step + 1}: {change:+.5f} Å, log-likelihood {log_likelihood(change):.3f}")
sigma = float(-curvature(change)) ** -0.5
pixel_size = float(particles.alignment.pixel_size_angstrom[0])
print(
    f"pixel size: {pixel_size + change:.4f} ± {sigma:.4f} Å (the table says {pixel_size})"
)
