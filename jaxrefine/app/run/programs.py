"""The compiled programs of a run, applied to one batch: search, polish, score metric."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxrefine.app.run.build import particle_optics, starting_alignment
from jaxrefine.app.run.inputs import RunInputs
from jaxrefine.data import Particles, Polished, Refined
from jaxrefine.refine.layout import Layout
from jaxrefine.refine.polish import polish_particles
from jaxrefine.refine.refine import refine_within_memory
from jaxrefine.refine.significance import score_metric

# Results of the search, of the polish, and the score's metric, if they are wanted.
Found = tuple[Refined, Polished | None, jax.Array | None]


def refine_particles_of(
    inputs: RunInputs, particles: Particles, layout: Layout
) -> tuple[Found, Layout]:
    """Search and polish a batch, and compute the score's metric if it is needed; also
    returns the layout that fitted into the devices' memory."""
    refined, fitting = refine_within_memory(
        particles,
        inputs.template,
        inputs.grid,
        inputs.score,
        mesh=inputs.mesh,
        layout=layout,
    )
    polished = None
    if inputs.polish is not None and inputs.smooth_template is not None:
        others = (inputs.grid, inputs.score, inputs.polish)
        polished = polish_particles(
            particles, refined, inputs.smooth_template, *others, mesh=inputs.mesh
        )
    metric = None
    if inputs.config.significance:
        template = jax.device_put(inputs.template, inputs.mesh.devices.flat[0])
        metric = score_metric(particles, template, inputs.score)
    return (refined, polished, metric), fitting


def compile_ahead(inputs: RunInputs) -> Layout:
    """Compile the programs with a batch that is all padding, which costs no other time.

    For the time in which the first micrographs are read and prepared by other threads.
    Returns the layout that fitted into the devices' memory.
    """
    rows = np.zeros(inputs.particles_at_once, int)
    score, count = inputs.score, len(rows)

    def zeros(*shape: int, dtype: type = np.float32) -> jax.Array:
        return jax.device_put(np.zeros((count, *shape), dtype))

    def half_plane(shape: tuple[int, int]) -> jax.Array:
        return zeros(shape[0], shape[1] // 2 + 1)

    padding = Particles(
        alignment=starting_alignment(inputs.start, rows),
        optics=particle_optics(inputs.start, rows),
        template_pixel_size_angstrom=jnp.asarray(
            inputs.template_pixel_size_angstrom[rows], jnp.float32
        ),
        image=zeros(*score.padded_box),
        filter_image=half_plane(score.padded_box),
        filter_template=half_plane(score.filter_grid),
        corr_mean=zeros(*score.positions),
        corr_std=zeros(*score.positions),
        background_mean=zeros(),
        background_std=zeros(),
        noise_std=zeros(),
        mean_peaks=zeros(dtype=np.bool_),
        valid=zeros(dtype=np.bool_),
    )
    found, fitting = refine_particles_of(inputs, padding, inputs.layout)
    jax.block_until_ready(found)
    return fitting
