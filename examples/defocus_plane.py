"""Defocus as a plane over a tilted micrograph, and each particle's deviation from it.

The defocus of one particle is known to some tens of Å. A plane through all particles is
known much better, and each particle's height is then estimated relative to it.

pip install '.[report]'
python examples/defocus_plane.py [FIGURE.png]
"""

import sys
from dataclasses import replace
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from figure import panels, save

import jaxrefine as jr
from jaxrefine import simulate as sim

SIDE, SIZE, COUNT, PIXEL_SIZE = 48, 640, 16, 2.0
DEFOCUS, TILT, ROUGHNESS = 6000.0, np.array([180.0, -110.0]), 20.0  # Å; Å across the image
rng = np.random.default_rng(3)

# A tilted micrograph with 16 particles, 4 by 4, each a little above or below the plane.
atoms = sim.random_globule(600, 36.0, rng).blurred(10.0)
rotation = sim.random_rotations(COUNT, rng)
corner = np.stack(np.divmod(np.arange(COUNT), 4), axis=-1) * 140 + 85
centre = (corner + SIDE // 2 - SIZE / 2) / SIZE  # y, x as fractions of the image
truth = DEFOCUS + centre @ TILT + rng.normal(0, ROUGHNESS, COUNT)
simulated = [
    sim.SimulatedParticle(r, (y + 24.2, x + 23.7), (d, d), 0.0, 15.0)
    for r, (y, x), d in zip(rotation, corner.tolist(), truth, strict=True)
]
microscope = sim.Microscope(b_factor_angstrom2=30.0)
made = sim.simulate_micrograph(atoms, simulated, (SIZE, SIZE), PIXEL_SIZE, microscope, rng)

# Starting values: the same defocus for all particles.
score = jr.ImageCTF.for_particles(
    (SIDE + 4, SIDE + 4),
    SIDE,
    max_defocus_angstrom=6500.0,
    voltage_kv=300.0,
    spherical_aberration_mm=2.7,
    pixel_size_angstrom=PIXEL_SIZE,
)
maps = (SIZE - SIDE + 1, SIZE - SIDE + 1)
particles = jr.cut_particles(
    jr.prepare_micrograph(
        jnp.asarray(made.image), jnp.zeros(maps), jnp.ones(maps), jr.Filters()
    ),
    jr.Alignment(
        rotation=jnp.asarray(rotation, jnp.float32),
        position_px=jnp.asarray(corner, jnp.float32),
        defocus_angstrom=jnp.full((COUNT, 2), DEFOCUS),
        astigmatism_deg=jnp.zeros(COUNT),
        pixel_size_angstrom=jnp.full(COUNT, PIXEL_SIZE),
    ),
    jr.Optics(*(jnp.full(COUNT, value) for value in (300.0, 2.7, 0.07, 0.0, 30.0))),
    jnp.full(COUNT, PIXEL_SIZE),
    score,
)
volume = sim.potential_volume(atoms, SIDE, PIXEL_SIZE)
template = jr.make_template(volume, "cubic")

# Each particle separately: pose and defocus.
no_search = jr.local_grid()
refined = jr.refine_particles(particles, template, no_search, score)
alone = jr.polish_particles(particles, refined, template, no_search, score).refined
whole = eqx.tree_at(
    lambda r: (r.alignment.position_px, r.alignment.defocus_angstrom),
    alone,
    (jnp.round(alone.alignment.position_px), jnp.full((COUNT, 2), DEFOCUS)),
)
shift = alone.alignment.position_px - whole.alignment.position_px
posed = eqx.filter_vmap(lambda p, r: jr.recentred(p, r, score))(particles, whole)


def log_likelihood(change, particle, shift):
    """z²/2 of one particle as its defocus changes; noise has standard deviation 1."""
    u_v = jnp.stack([change, change])
    offsets = replace(jr.Offsets.zeros(), shift_px=shift, defocus_angstrom=u_v)
    return jr.z_score(offsets, particle, template, score) ** 2 / 2


slope = jax.grad(log_likelihood)
slopes, bends = (jax.jit(jax.vmap(function)) for function in (slope, jax.grad(slope)))

# All together: each change of defocus is the sum of the plane's and the particle's own, for
# which ROUGHNESS is a Gaussian prior. Newton's method, starting from the mean.
plane = np.column_stack([np.ones(COUNT), centre])
design = np.column_stack([plane, np.eye(COUNT)])
spring = np.diag([0.0] * 3 + [ROUGHNESS**-2] * COUNT)
found = np.zeros(3 + COUNT)
for _ in range(6):
    change = jnp.asarray(design @ found, jnp.float32)
    uphill = design.T @ np.asarray(slopes(change, posed, shift)) - spring @ found
    bend = np.maximum(-np.asarray(bends(change, posed, shift)), 0)
    curvature = design.T @ (bend[:, None] * design) + spring
    found += np.linalg.solve(curvature, uphill)
covariance = np.linalg.inv(curvature)

for name, value, sigma, true in zip(
    ("mean defocus", "tilt along y", "tilt along x"),
    [found[0] + DEFOCUS, *found[1:3]],
    np.sqrt(np.diagonal(covariance)),
    (DEFOCUS, *TILT),
    strict=False,  # the remaining parameters are the particles' own
):
    print(f"{name}: {value:.0f} ± {sigma:.0f} Å (truth {true:.0f})")
together = DEFOCUS + design @ found
each = np.asarray(alone.alignment.defocus_angstrom).mean(axis=1)
error = {}
for name, value in (("one for all", DEFOCUS), ("each alone", each), ("plane", together)):
    error[name] = np.sqrt(np.mean((value - truth) ** 2))
    print(f"RMS error, {name}: {error[name]:.0f} Å")

figure, axes = panels(3, height=4.6, sharey=True)
share = np.linspace(-0.5, 0.5, 64)  # fraction of the image, as in `centre`
options = {"vmin": DEFOCUS - 150, "vmax": DEFOCUS + 150}
for ax, title, value, (mean, *tilt) in zip(
    axes,
    ("truth", "each alone: RMS error {each alone:.0f} Å", "with a plane: {plane:.0f} Å"),
    (truth, each, together),
    ((DEFOCUS, *TILT), (np.nan,) * 3, (DEFOCUS + found[0], *found[1:3])),
    strict=True,
):
    surface = mean + tilt[0] * share[:, None] + tilt[1] * share
    ax.imshow(surface, extent=(0, SIZE, SIZE, 0), **options)
    marks = ax.scatter(*(corner.T[::-1] + SIDE / 2), 120, value, edgecolors="w", **options)
    ax.set(title=title.format_map(error), xlabel="x (px)")
axes[0].set_ylabel("y (px)")
figure.colorbar(marks, ax=axes, label="defocus (Å)", shrink=0.8)
save(figure, Path("defocus_plane.png"), *sys.argv[1:])
