"""Fit the motion of refined particles in their movies, and write it as shifts."""

import logging
from dataclasses import dataclass, replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from jaxrefine.app.config import Config
from jaxrefine.app.console.interrupts import Stop
from jaxrefine.app.run.checks import Files
from jaxrefine.app.run.devices import float32_only
from jaxrefine.app.run.envelope import use_envelope
from jaxrefine.app.run.inputs import RunInputs, load_inputs
from jaxrefine.app.run.motion import Movie, particle_numbers
from jaxrefine.app.run.movies import MovieReader
from jaxrefine.app.run.output import check_output
from jaxrefine.app.run.particles import extract_rows, read_and_prepare
from jaxrefine.data import InputError
from jaxrefine.io.motion import write_particle_shifts
from jaxrefine.refine.motion import (
    Motion,
    MotionPrior,
    box_transfer,
    fit_motion,
    frame_correlations,
    unit_features,
)
from jaxrefine.refine.prepare import Micrograph

log = logging.getLogger("jaxrefine")

# Memory for the correlations of a movie.
_CORRELATION_BYTES = 1 << 30


@dataclass(frozen=True)
class MotionSettings:
    """Settings of a fit of motion, in the units and with the defaults of RELION.

    Attributes:
        velocity_sigma: Standard deviation of velocities, in Å per electron/Å².
        divergence_sigma: Distance at which the correlation of two particles' velocities has
            fallen to 1/e, in Å.
        acceleration_sigma: Standard deviation of the change of a velocity between frames,
            in Å per electron/Å².
        reach_px: Largest change of a shift along y and x, in px.
    """

    velocity_sigma: float = 0.5
    divergence_sigma: float = 5000.0
    acceleration_sigma: float = 2.0
    reach_px: int = 6


@dataclass(frozen=True)
class MovieMotion:
    """The fitted motion of one movie.

    Attributes:
        path: The movie.
        rows: Rows of its particles in the table.
        shift_px: (y, x) by which each frame is moved at each particle, as written.
        fit: The fit; its shifts are changes of those that were given.
    """

    path: Path
    rows: np.ndarray
    shift_px: Float[np.ndarray, "t n 2"]
    fit: Motion


@float32_only()
def fit_movies(
    config: Config,
    refined: Path,
    output: Path,
    settings: MotionSettings,
    stop: Stop | None = None,
) -> list[MovieMotion]:
    """Fit the motion of each movie, and write all shifts.

    Args:
        config: The configuration of the refinement, which used these movies.
        refined: The refined table.
        output: The file of shifts.
        settings: Settings of the fit.
        stop: Checked before each movie.

    Raises:
        InputError: With all errors of the inputs; or the configuration has no movies, or
            filters boxes by themselves.
    """
    stack = replace(config.particle_stack, df_path=str(refined.absolute()))
    config = replace(config, particle_stack=stack)
    if not config.movie_config.enabled or not config.apply_global_filtering:
        raise InputError(
            f"{config.source}: motion is fitted to particles refined from movies: "
            "needs movie_config.enabled: true and apply_global_filtering: true"
        )
    inputs = load_inputs(config, smooth=True)
    check_output(output, inputs.inputs, config.source)
    movies = inputs.movies
    if movies is None:
        raise InputError(f"{config.source}: movie_config: names no movies")
    _check_memory(inputs, movies, settings)
    extra_b = np.nan_to_num(inputs.table.numbers("template_envelope_b"))
    inputs = use_envelope(inputs, extra_b)
    fits = []
    with jax.default_device(inputs.mesh.devices.flat[0]):
        for files, rows in inputs.groups.items():
            (stop or Stop()).check()
            fits.append(_fit(inputs, movies, files, rows, settings))
    moves = {}
    for fit in fits:
        moves |= dict(zip(fit.rows.tolist(), fit.shift_px.swapaxes(0, 1), strict=True))
    order, numbers = sorted(moves), particle_numbers(inputs.table).astype(np.int64)
    write_particle_shifts(output, numbers[order], [moves[row] for row in order])
    return fits


def _check_memory(inputs: RunInputs, movies: MovieReader, settings: MotionSettings) -> None:
    side = 8 * settings.reach_px + 5
    for movie in movies.movies.of_micrograph.values():
        needed = 4 * side**2 * movie.shift_px[..., 0].size
        if needed > _CORRELATION_BYTES:
            raise InputError(
                f"{movie.path}: {movie.shift_px.shape[1]} particles in "
                f"{movie.shift_px.shape[0]} frames need {needed / 1e9:.1f} GB with a reach "
                f"of {settings.reach_px} px; expected at most "
                f"{_CORRELATION_BYTES / 1e9:.1f} GB: lower the reach, or sum frames"
            )


def _fit(
    inputs: RunInputs,
    movies: MovieReader,
    files: Files,
    rows: np.ndarray,
    settings: MotionSettings,
) -> MovieMotion:
    movie = movies.movies.of_micrograph[files]
    micrograph = read_and_prepare(inputs, files, rows)
    parts = []
    for first in range(0, len(rows), movies.at_once):
        some = rows[first : first + movies.at_once]
        parts.append(_correlations(inputs, movies, movie, micrograph, some, settings))
    pixel = float(inputs.start.pixel_size_angstrom[movie.rows[0]])
    # Without exposures, a frame counts as one electron/Å².
    per_frame = (inputs.config.movie_config.fluence_per_frame or 1.0) / pixel
    prior = MotionPrior(
        settings.velocity_sigma * per_frame,
        settings.divergence_sigma / pixel,
        settings.acceleration_sigma * per_frame,
    )
    position = jnp.asarray(inputs.start.position_px[rows], jnp.float32)
    fit = fit_motion(jnp.concatenate(parts, axis=1), position, prior)
    fit = jax.tree.map(np.asarray, fit)
    place = {row: number for number, row in enumerate(movie.rows)}
    given = movie.shift_px[:, [place[row] for row in rows]]
    return MovieMotion(movie.path, rows, given + fit.shift_px, fit)


def _correlations(
    inputs: RunInputs,
    movies: MovieReader,
    movie: Movie,
    micrograph: Micrograph,
    rows: np.ndarray,
    settings: MotionSettings,
) -> Float[jax.Array, "t n w w"]:
    """Read the movie once; correlations of its frames with some of its particles."""
    shift = [np.nan_to_num(inputs.table.numbers(f"refined_shift_{a}"))[rows] for a in "yx"]
    features = unit_features(
        extract_rows(inputs, micrograph, rows),
        jnp.asarray(np.stack(shift, axis=-1), jnp.float32),
        inputs.template,
        inputs.score,
    )
    if inputs.contrast_is_inverted:
        features = -features
    exposures, optics = movies.exposures(movie), movies.optics(movie)
    transfer = box_transfer(
        micrograph.filter, micrograph.gain, exposures, optics, movies.box_shape
    )
    corner, place = movies.corner_px(rows), {r: n for n, r in enumerate(movie.rows)}
    given = movie.shift_px[:, [place[row] for row in rows]].astype(np.float32)
    frames = [
        frame_correlations(
            jnp.asarray(frame),
            corner,
            given[number],
            exposures[number],
            optics,
            transfer,
            features,
            movies.box_shape,
            settings.reach_px,
        )
        for number, frame in enumerate(movies.frames(movie))
    ]
    return jnp.stack(frames)
