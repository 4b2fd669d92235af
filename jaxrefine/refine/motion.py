"""Motion of particles in a movie, from the score: shifts of frames that maximise z.

The correlation of a particle that is summed from frames is a sum of correlations, one per
frame, each of which depends on the shift of its frame. With a free strength of the particle
its log likelihood is z²/2. Single frames are far too noisy, so that shifts are fitted to
all particles of a movie together with a prior: neighbours have similar velocities, and
velocities change slowly. The model, and its three parameters, are those of RELION's
Bayesian polishing (Zivanov, Nakane & Scheres, IUCrJ 6 (2019) 5).
"""

from dataclasses import replace
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Complex, Float, Int

from jaxrefine.data import Offsets, Particles, Template
from jaxrefine.physics.boxes import centre_crop, crop_reflected
from jaxrefine.physics.exposure import exposure_normalisation
from jaxrefine.physics.filters import RadialFilter
from jaxrefine.physics.fourier import half_plane_weights
from jaxrefine.refine.differentiable import feature
from jaxrefine.refine.movies import FrameOptics, weighted
from jaxrefine.refine.scoring import Score

# Samples of a correlation per pixel. Between them it is interpolated cubically, with an
# error of 0.2 % at Nyquist.
_SAMPLES_PER_PX = 4
# Samples beyond the reach, which the interpolation needs.
_BEYOND = 2
# Number of boxes of a frame that are transformed together.
_AT_ONCE = 16
# The unit of shifts before the first velocity, which have no prior: a small step at z = 10.
_START_UNIT_PX = 0.2
# The fit ends with a step that gains less than this in the log posterior.
_LEAST_GAIN = 3e-3
# Nearly equal velocities would make the covariance singular in float32.
_LEAST_INDEPENDENT = 1e-4
_CATMULL_ROM = np.array(
    [[0, 2, 0, 0], [-1, 0, 1, 0], [2, -5, 4, -1], [-1, 3, -3, 1]], np.float32
)


class MotionPrior(eqx.Module):
    """What is known about motion beforehand.

    Attributes:
        velocity_px: Standard deviation of the velocity along y and x, in px per frame.
        correlation_px: Distance at which the correlation of the velocities of two particles
            has fallen to 1/e.
        acceleration_px: Standard deviation of the change of a velocity from frame to frame.
    """

    velocity_px: float | Float[Array, ""]
    correlation_px: float | Float[Array, ""]
    acceleration_px: float | Float[Array, ""]


class Motion(eqx.Module):
    """Fitted motion of the particles of a movie.

    Attributes:
        shift_px: (y, x) by which each frame is moved at each particle, in addition to the
            shifts with which the correlations were computed.
        correlation_before: Correlation of each particle without these shifts.
        correlation_after: The same with them.
        steps: Number of steps.
        converged: Whether the last step changed the log posterior by less than 0.003.
    """

    shift_px: Float[Array, "t n 2"]
    correlation_before: Float[Array, " n"]
    correlation_after: Float[Array, " n"]
    steps: Int[Array, ""]
    converged: Bool[Array, ""]


@partial(jax.jit, static_argnames=("shape", "reach_px"))
def frame_correlations(
    frame: Float[Array, "Ny Nx"],
    corner_px: Int[Array, "n 2"],
    shift_px: Float[Array, "n 2"],
    exposure: Float[Array, ""],
    optics: FrameOptics,
    transfer: Float[Array, "Ph Pr"],
    unit_feature: Complex[Array, "n Qh Qr"],
    shape: tuple[int, int],
    reach_px: int,
) -> Float[Array, "n w w"]:
    """Contribution of a frame to the correlations of particles, over further shifts.

    Args:
        frame: The frame.
        corner_px: (y, x) of the top-left corner of the box of each particle.
        shift_px: (y, x) by which the frame is moved at each particle already.
        exposure: Exposure of the frame.
        optics: Optics of the movie.
        transfer: From `box_transfer`.
        unit_feature: Features of the particles divided by their norms, as of
            `differentiable.feature`.
        shape: Sides of the boxes, even.
        reach_px: Largest further shift along y and x.

    Returns:
        The contribution at shifts from -reach to reach, y first, `samples_per_px` for each
        pixel and some more beyond. The sum over frames at 0 is the correlation.
    """
    frame = frame - jnp.mean(frame)
    padded = unit_feature.shape[1], 2 * (unit_feature.shape[2] - 1)
    along_y, along_x = _waves(padded, reach_px)
    weights = jnp.sqrt(half_plane_weights(padded) / (padded[0] * padded[1]))
    high = jax.lax.Precision.HIGHEST

    def one(values: tuple[Array, Array, Array]) -> Float[Array, "w w"]:
        corner, shift, feature = values
        whole = jnp.round(shift)
        box = crop_reflected(frame, corner - whole.astype(jnp.int32), shape)
        rfft = weighted(box, shift - whole, exposure, optics) * transfer
        filtered = centre_crop(jnp.fft.irfft2(rfft, s=shape), padded)
        product = jnp.conj(feature) * jnp.fft.rfft2(filtered) * weights
        lines = jnp.matmul(along_y, product, precision=high)
        return jnp.matmul(lines, along_x, precision=high).real

    particles = (corner_px, shift_px, unit_feature)
    return jax.lax.map(one, particles, batch_size=_AT_ONCE)


@partial(jax.jit, static_argnames="shape")
def box_transfer(
    radial: RadialFilter,
    gain: Float[Array, ""],
    exposures: Float[Array, " t"],
    optics: FrameOptics,
    shape: tuple[int, int],
) -> Float[Array, "Ph Pr"]:
    """What a box of a frame is multiplied by, apart from its exposure's weight.

    Args:
        radial: The filter of the micrograph.
        gain: The factor beside it.
        exposures: Exposures of all frames.
        optics: Optics of the movie.
        shape: Sides of the boxes.
    """
    lens = optics.pixel_size_angstrom, optics.voltage_kv
    norm = exposure_normalisation(shape, lens[0], exposures, lens[1])
    return radial.on_grid(shape) * gain / norm


@eqx.filter_jit
def unit_features(
    particles: Particles,
    shift_px: Float[Array, "n 2"],
    template: Template,
    score: Score,
) -> Complex[Array, "n Qh Qr"]:
    """Features of a batch of particles, divided by their norms; 0 where not finite.

    Args:
        particles: The particles at their refined poses.
        shift_px: (y, x) of their centres relative to their positions.
        template: From `make_template`.
        score: The score.
    """

    def one(values: tuple[Particles, Array]) -> Complex[Array, "Qh Qr"]:
        offsets = replace(Offsets.zeros(), shift_px=values[1])
        found, norm = feature(offsets, values[0], template, score)
        found = found / norm
        return jnp.where(jnp.all(jnp.isfinite(found)), found, 0.0)

    return jax.lax.map(one, (particles, shift_px))


def _waves(
    shape: tuple[int, int], reach_px: int
) -> tuple[Complex[np.ndarray, "w h"], Complex[np.ndarray, "r w"]]:
    """exp(-2πi k s) along y and x, at the samples s of a correlation."""
    count = reach_px * _SAMPLES_PER_PX + _BEYOND
    samples = np.arange(-count, count + 1) / _SAMPLES_PER_PX
    ky, kx = np.fft.fftfreq(shape[0]), np.fft.rfftfreq(shape[1])
    along_y = np.exp(-2j * np.pi * np.outer(samples, ky))
    along_x = np.exp(-2j * np.pi * np.outer(kx, samples))
    return along_y.astype(np.complex64), along_x.astype(np.complex64)


def correlation_at(
    correlations: Float[Array, "t n w w"], shift_px: Float[Array, "t n 2"]
) -> Float[Array, "t n"]:
    """Contributions of frames at any shifts; beyond the reach those at its limit."""
    middle = correlations.shape[-1] // 2
    limit = (middle - _BEYOND) / _SAMPLES_PER_PX
    place = jnp.clip(shift_px, -limit, limit) * _SAMPLES_PER_PX + middle
    first = jnp.floor(place)
    powers = (place - first)[..., None] ** jnp.arange(4)
    taps = powers @ jnp.asarray(_CATMULL_ROM / 2)
    index = first.astype(jnp.int32) - 1

    def one(window: Float[Array, "w w"], corner: Int[Array, " 2"], tap: Array) -> Array:
        part = jax.lax.dynamic_slice(window, (corner[0], corner[1]), (4, 4))
        return tap[0] @ part @ tap[1]

    return jax.vmap(jax.vmap(one))(correlations, index, taps)


def _common_shift(correlations: Float[Array, "t n w w"]) -> Float[Array, "t 2"]:
    """The shift of each frame at which its correlations are highest on average."""
    mean = jnp.mean(correlations, axis=1)[:, _BEYOND:-_BEYOND, _BEYOND:-_BEYOND]
    side = mean.shape[-1]
    best = jnp.argmax(mean.reshape(-1, side**2), axis=1)
    place = jnp.stack(jnp.divmod(best, side), axis=-1)
    return (place - side // 2) / _SAMPLES_PER_PX


@partial(jax.jit, static_argnames="max_steps")
def fit_motion(
    correlations: Float[Array, "t n w w"],
    position_px: Float[Array, "n 2"],
    prior: MotionPrior,
    max_steps: int = 1000,
) -> Motion:
    """Shifts of all frames at all particles with the highest posterior probability.

    Maximised by L-BFGS, over velocities in units of the prior and the shift of the first
    frame, which has no prior: the mean shift of a particle is that of its own position.
    It starts twice, from no motion and from the best common shift of all particles in each
    frame, and the better result counts.

    Args:
        correlations: Of all frames, from `frame_correlations`.
        position_px: (y, x) of the particles.
        prior: Parameters of the prior.
        max_steps: Largest number of steps.
    """
    frames, count = correlations.shape[:2]
    apart = position_px[:, None] - position_px
    distance = jnp.sqrt(jnp.sum(apart**2, axis=-1))
    covariance = jnp.exp(-distance / prior.correlation_px)
    covariance += _LEAST_INDEPENDENT * jnp.eye(count)
    root = prior.velocity_px * jnp.linalg.cholesky(covariance)

    def shifts(coordinates: tuple[Array, Array]) -> tuple[Array, Array]:
        start, units = coordinates
        velocity = jnp.einsum("nm,tmc->tnc", root, units, precision="highest")
        first = start[None] * _START_UNIT_PX
        moved = first + jnp.cumsum(velocity, axis=0)
        return jnp.concatenate([first, moved]), velocity

    def loss(coordinates: tuple[Array, Array]) -> Float[Array, ""]:
        moves, velocity = shifts(coordinates)
        correlation = jnp.sum(correlation_at(correlations, moves), axis=0)
        likelihood = jnp.sum(jnp.maximum(correlation, 0) ** 2) / 2
        change = jnp.diff(velocity, axis=0) / prior.acceleration_px
        return (jnp.sum(coordinates[1] ** 2) + jnp.sum(change**2)) / 2 - likelihood

    solver = optax.lbfgs()
    evaluate = optax.value_and_grad_from_state(loss)

    def step(carry: tuple) -> tuple:
        at, state, number, _, value = carry
        new_value, gradient = evaluate(at, state=state)
        update, state = solver.update(
            gradient, state, at, value=new_value, grad=gradient, value_fn=loss
        )
        gain = value - new_value
        return optax.apply_updates(at, update), state, number + 1, gain, new_value

    def goes_on(carry: tuple) -> Bool[Array, ""]:
        _, _, number, gain, _ = carry
        return (number < max_steps) & (gain > _LEAST_GAIN)

    def fitted(common: Float[Array, "t 2"]) -> tuple:
        velocity = jnp.broadcast_to(
            jnp.diff(common, axis=0)[:, None], (frames - 1, count, 2)
        )
        solve = partial(jax.scipy.linalg.solve_triangular, root, lower=True)
        units = jax.vmap(solve)(velocity)
        begin = jnp.tile(common[0] / _START_UNIT_PX, (count, 1)), units
        infinite = jnp.asarray(jnp.inf)
        carry = begin, solver.init(begin), jnp.asarray(0), infinite, infinite
        found, _, number, gain, value = jax.lax.while_loop(goes_on, step, carry)
        return shifts(found)[0], number, gain, value

    starts = jnp.stack([jnp.zeros((frames, 2)), _common_shift(correlations)])
    fits = jax.lax.map(fitted, starts)
    moves, number, gain, _ = jax.tree.map(lambda each: each[jnp.argmin(fits[-1])], fits)
    before, after = (
        jnp.sum(correlation_at(correlations, each), axis=0)
        for each in (jnp.zeros_like(moves), moves)
    )
    return Motion(moves, before, after, number, gain <= _LEAST_GAIN)
