"""Refine one micrograph's particles with the library: no configuration, no program.

pip install '.[report]'
python -m jaxrefine demo DIR
python examples/library.py DIR [FIGURE.png]
"""

import sys
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from figure import panels, save

import jaxrefine as jr
from jaxrefine.app.run.build import particle_optics, starting_alignment
from jaxrefine.io.mrc import read_image, read_volume
from jaxrefine.io.table import read_particle_table

folder = Path(sys.argv[1])

# The input: a table, its first micrograph with the maps, and the template.
table = read_particle_table(folder / "match_results.csv")
start = table.start()
rows = np.flatnonzero([name == "micrograph_0.mrc" for name in table.micrograph_paths])
image = read_image(folder / "micrograph_0.mrc")
mean = read_image(folder / "correlation_average_0.mrc")
std = read_image(folder / "correlation_variance_0.mrc")  # holds a standard deviation
volume, _ = read_volume(folder / "template.mrc")

# From files to particles that are ready to score.
n = volume.shape[0]
template = jr.make_template(volume)
score = jr.ImageCTF.for_particles(
    (n + 12, n + 12),
    n,
    max_defocus_angstrom=float(start.defocus_angstrom.max()) + 200,
    voltage_kv=float(start.optics.voltage_kv.min()),
    spherical_aberration_mm=float(start.optics.spherical_aberration_mm.max()),
    pixel_size_angstrom=float(start.pixel_size_angstrom.min()),
)
micrograph = jr.prepare_micrograph(
    jnp.asarray(image),
    jnp.asarray(mean),
    jnp.asarray(std),
    jr.Filters(),
)
particles = jr.cut_particles(
    micrograph,
    starting_alignment(start, rows),
    particle_optics(start, rows),
    jnp.asarray(start.nominal_pixel_size_angstrom[rows], jnp.float32),
    score,
)

# Score at the starting values, search around them, and score again.
before, _ = jr.score_particles(particles, template, score)
grid = jr.local_grid(
    jr.uniform_orientations(psi_coarse=1.0, psi_fine=0.5, theta_coarse=2.0, theta_fine=1.0),
    jr.search_offsets(-200.0, 200.0, 100.0),
)
refined = jr.refine_particles(particles, template, grid, score)
print("z before:", np.asarray(before).round(2))
print("z after: ", np.asarray(refined.z_score).round(2))


# The score is differentiable: the change of z with each particle's defocus.
def total_z(defocus):
    moved = eqx.tree_at(lambda p: p.alignment.defocus_angstrom, particles, defocus)
    return jr.score_particles(moved, template, score)[0].sum()


gradient = jax.grad(total_z)(particles.alignment.defocus_angstrom)
slope = 100 * np.asarray(gradient)[:, 0]
print("dz/d(defocus u), per 100 Å:", slope.round(3))

figure, (left, right) = panels(2)
left.vlines(rows, before, refined.z_score, color="lightgrey")
left.plot(rows, before, "ko", label="before")
left.plot(rows, refined.z_score, "C1s", label="after")
left.set(xlabel="particle", ylabel="z-score")
left.legend()
right.bar(rows, slope)
right.axhline(0, color="k", linewidth=0.8)
right.set(xlabel="particle", ylabel="dz/d(defocus u) before, per 100 Å")
save(figure, folder / "library.png", *sys.argv[2:])
