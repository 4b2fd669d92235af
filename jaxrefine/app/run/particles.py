"""Prepare micrographs, and extract particles that are ready to score."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxrefine.app.run.build import particle_optics, starting_alignment
from jaxrefine.app.run.checks import Files
from jaxrefine.app.run.images import clean_image, read_images
from jaxrefine.app.run.inputs import RunInputs
from jaxrefine.data import InputError, Particles
from jaxrefine.refine.prepare import Micrograph, cut_particles, prepare_micrograph


def read_and_prepare(
    inputs: RunInputs, files: Files, rows: np.ndarray | None = None
) -> Micrograph:
    """Read, clean and filter a micrograph with its maps, or the sum of its movie.

    Args:
        inputs: The inputs of the run.
        files: Files of the micrograph and its maps.
        rows: The particles that will be extracted, if known; from a movie, they are summed
            in the same pass.

    Raises:
        InputError: A file cannot be read.
    """
    fill = inputs.config.fill_defects
    image, mean, std = read_images(
        *files, maps_hold_variance=inputs.maps_hold_variance, as_it_is=fill
    )
    expected = tuple(length - inputs.template_side + 1 for length in image.shape)
    if not mean.shape == std.shape == expected:
        raise InputError(f"{files[0]}: it or its maps have another shape than when checked")
    with jax.default_device(inputs.mesh.devices.flat[0]):  # each thread has its own
        movie = None
        if inputs.movies is not None:
            movie = inputs.movies.read(files, rows, whole=inputs.global_filtering)
            image = image if movie.image is None else movie.image
        # With local filtering of a movie, only its boxes are used; they are filled already.
        clean = None
        if fill and (movie is None or movie.image is not None):
            clean = clean_image(image, files[0])
        filled = None if clean is None else clean.filled
        if movie is not None and movie.filled is not None:
            filled = movie.filled if filled is None else movie.filled | filled
        return prepare_micrograph(
            jnp.asarray(image if clean is None else clean.image),
            jnp.asarray(mean),
            jnp.asarray(std),
            inputs.filters,
            global_filtering=inputs.global_filtering,
            second_square_root=inputs.reproduces_leopard_em
            and not inputs.maps_hold_variance,
            filled=None if filled is None else jnp.asarray(filled),
            noise=None if clean is None else jnp.asarray(clean.noise),
            noise_share=1.0 if clean is None else clean.noise_share,
        )


def extract_rows(
    inputs: RunInputs,
    micrograph: Micrograph,
    rows: np.ndarray,
    valid: jax.Array | None = None,
) -> Particles:
    """Extract particles of one micrograph from it or from its movie.

    Args:
        inputs: The inputs of the run.
        micrograph: From `read_and_prepare`.
        rows: Rows of the particles.
        valid: Mask of the particles to refine; None: all.
    """
    movies, start = inputs.movies, starting_alignment(inputs.start, rows)
    particles = cut_particles(
        micrograph,
        start,
        particle_optics(inputs.start, rows),
        jnp.asarray(inputs.template_pixel_size_angstrom[rows], jnp.float32),
        inputs.score,
        image_scale=_image_scale(inputs),
        place_by_z=inputs.reproduces_leopard_em,
        valid=jnp.ones(len(rows), bool) if valid is None else valid,
        boxes=None if movies is None else jnp.asarray(movies.boxes(rows)),
    )
    if inputs.reference is None:
        return particles
    return inputs.reference.removed_from(particles, start, rows)


def _image_scale(inputs: RunInputs) -> float:
    """Factor on filtered boxes: sign of the contrast, and Leopard-EM's normalisation."""
    sign = -1.0 if inputs.contrast_is_inverted else 1.0
    if not (inputs.reproduces_leopard_em and inputs.global_filtering):
        return sign
    # With global filtering it counts the box's area as (H + 1)(W + 1).
    height, width = inputs.score.box
    return sign * float(np.sqrt(height * width / ((height + 1) * (width + 1))))
