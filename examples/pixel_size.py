"""The pixel size of a data set, with its error, from all particles together.

pip install '.[report]'
python -m jaxrefine demo DIR
python examples/pixel_size.py DIR [FIGURE.png]
"""

import sys
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from demo_particles import load
from figure import panels, save

import jaxrefine as jr

folder = Path(sys.argv[1])
particles, offsets, template, score = load(folder)
z_of_all = jax.vmap(jr.z_score, in_axes=(0, 0, None, None))


# With noise of variance 1, z²/2 is a particle's log likelihood at its best strength.
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

figure, (axes,) = panels(1, height=4.2)
# The points scatter because the samples outside the template's cube differ between them.
best, around = pixel_size + change, np.linspace(-3, 3, 25) * sigma
rise = [float(log_likelihood(change + a) - log_likelihood(change)) for a in around]
axes.plot(best + around, rise, "C0o", markersize=4, label="log-likelihood")
axes.plot(best + around, -((around / sigma) ** 2) / 2, "C0", label="its curvature")
axes.axvspan(best - sigma, best + sigma, color="C0", alpha=0.15, label="± 1 σ")
axes.axvline(pixel_size, color="C1", linestyle="--", label="truth (the table's)")
axes.set(xlabel="pixel size (Å)", ylabel="log-likelihood, less the best")
figure.legend(loc="outside upper center", ncols=2)
save(figure, folder / "pixel_size.png", *sys.argv[2:])
