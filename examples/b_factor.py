"""Fit B-factor and amplitude contrast to all particles together.

pip install '.[report]'
python -m jaxrefine demo DIR
python examples/b_factor.py DIR [FIGURE.png]
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


@jax.jit
def log_likelihood(changes):
    """Log likelihood of changes of (B in Å², amplitude contrast in %)."""
    changed = eqx.tree_at(
        lambda o: (o.b_factor_angstrom2, o.amplitude_contrast),
        offsets,
        tuple(
            jnp.full(len(offsets.astigmatism_deg), c) for c in changes / jnp.array([1, 100])
        ),
    )
    return jnp.sum(z_of_all(changed, particles, template, score) ** 2) / 2


slope, curvature = jax.jit(jax.grad(log_likelihood)), jax.jit(jax.hessian(log_likelihood))
changes = jnp.zeros(2)
damping = 0.1
for _ in range(12):
    matrix = -curvature(changes)
    matrix = matrix + damping * jnp.diag(jnp.abs(jnp.diagonal(matrix)))
    tried = changes + jnp.linalg.solve(matrix, slope(changes))
    if log_likelihood(tried) > log_likelihood(changes):
        changes, damping = tried, damping / 5
    else:
        damping *= 8
sigma = np.sqrt(np.diagonal(np.linalg.inv(-np.asarray(curvature(changes)))))
b, contrast = (
    float(v[0])
    for v in (particles.optics.b_factor_angstrom2, particles.optics.amplitude_contrast)
)
gain = float(log_likelihood(changes) - log_likelihood(jnp.zeros(2)))
print(f"B-factor: {b + changes[0]:.1f} ± {sigma[0]:.1f} Å² (the table says {b:g})")
print(
    f"amplitude contrast: {100 * contrast + changes[1]:.1f} ± {sigma[1]:.1f} % "
    f"(the table says {100 * contrast:g})"
)
print(f"log-likelihood gained: {gain:.2f}")

figure, (axes,) = panels(1, height=4.4)
best, around = log_likelihood(changes), sigma[:, None] * np.linspace(-3, 3, 21)
rise = [
    [float(log_likelihood(changes + jnp.array([x, y])) - best) for x in around[0]]
    for y in around[1]
]
place = np.array([b, 100 * contrast]) + changes
where = (place[0] + around[0], place[1] + around[1], rise)
shades = axes.contourf(*where, levels=np.linspace(-10, 0, 51), extend="min", cmap="cividis")
figure.colorbar(shades, ticks=range(-10, 1, 2), label="log-likelihood, less the best")
lines = axes.contour(*where, levels=[-3.0, -1.15], colors="k", linestyles="-")
axes.clabel(lines, fmt={-3.0: "95 %", -1.15: "68 %"})  # χ² of two parameters
axes.plot(*place, "kD", label="best")
truth = {"marker": "X", "color": "w", "markeredgecolor": "k", "markersize": 10}
axes.plot(b, 100 * contrast, **truth, linestyle="", label="truth (the table's)")
axes.set(xlabel="B-factor (Å²)", ylabel="amplitude contrast (%)")
figure.legend(loc="outside upper center", ncols=2)
save(figure, folder / "b_factor.png", *sys.argv[2:])
