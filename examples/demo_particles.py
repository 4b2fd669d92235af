"""Particles of the demo at their best poses, for the other examples."""

from functools import partial
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

import jaxrefine as jr
from jaxrefine.app.setup import particle_optics, starting_alignment
from jaxrefine.io.mrc import read_image, read_volume
from jaxrefine.io.table import read_particle_table


def load(
    folder: Path,
) -> tuple[jr.Particles, jr.Offsets, jr.Template, jr.ImageCTF]:
    """The first micrograph's particles, searched and polished.

    Returns:
        Particles at whole pixels, the offsets at which each scores best (the sub-pixel
        rest of its position), the template and the score.
    """
    start = (table := read_particle_table(folder / "match_results.csv")).start()
    rows = np.flatnonzero([name == "micrograph_0.mrc" for name in table.micrograph_paths])
    images = [
        jnp.asarray(read_image(folder / f"{name}_0.mrc"))
        for name in ("micrograph", "correlation_average", "correlation_variance")
    ]
    volume, voxel_size = read_volume(folder / "template.mrc")
    n = volume.shape[0]
    template = jr.make_template(volume, "cubic")  # smooth, for derivatives
    score = jr.ImageCTF.for_particles(
        (n + 12, n + 12),
        n,
        max_defocus_angstrom=float(start.defocus_angstrom.max()) + 200,
        voltage_kv=float(start.voltage_kv.min()),
        spherical_aberration_mm=float(start.spherical_aberration_mm.max()),
        pixel_size_angstrom=float(start.pixel_size_angstrom.min()),
    )
    particles = jr.cut_particles(
        jr.prepare_micrograph(*images, jr.Filters()),
        starting_alignment(start, rows),
        particle_optics(start, rows),
        jnp.full(len(rows), voxel_size),
        score,
    )
    grid = jr.local_grid(
        jr.uniform_orientations(
            psi_coarse=1.5, psi_fine=0.5, theta_coarse=2.0, theta_fine=0.5
        ),
        jr.search_offsets(-100.0, 100.0, 50.0),
    )
    refined = jr.refine_particles(particles, template, grid, score)
    polish = jr.Polish(bound_to_cell=False)
    best = jr.polish_particles(particles, refined, template, grid, score, polish).refined
    particles = jax.vmap(partial(jr.recentred, score=score))(particles, best)
    position = best.alignment.position_px
    offsets = eqx.tree_at(
        lambda o: o.shift_px, jr.Offsets.zeros(len(rows)), position - jnp.round(position)
    )
    return particles, offsets, template, score
