"""Evaluations and z reached: the polish compared with optimisers of other libraries.

Each starts from the result of a search, with coordinates in units of their standard errors,
and optimises the same function. A callback in the function counts its calls.

    pip install optimistix
    python benchmarks/optimisers.py

The least-squares methods minimise |A f(θ) - x|²/2 with f the unit feature, x the image and
A the score at the start: its gradient is that of -A z, and Gauss-Newton's curvature A² JᵀJ.
"""

import argparse

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import optimistix as optx
from simulated import make_case, structures

import jaxrefine as jr
from jaxrefine import simulate as sim
from jaxrefine.refine import ascent, coordinates
from jaxrefine.refine.differentiable import feature, spectrum
from jaxrefine.refine.information import pose_information

FREE = ("orientation", "shift", "defocus")
MOST = 40
# Good enough: this close to the best z that any method reached.
CLOSE = 5e-3


def problem(particle, template, score):
    """z and residuals as functions of coordinates in standard errors, and their unit."""

    def offsets(at):
        return coordinates.offsets_from(at, FREE, particle.alignment)

    def z(at):
        return jr.z_score(offsets(at), particle, template, score)

    zero = jnp.zeros(6)
    information = pose_information(zero, particle, template, score, FREE)
    strength = z(zero)
    unit = 1 / (strength * jnp.sqrt(jnp.diagonal(information)))
    seen = spectrum(particle, score)

    def residual(at):
        values, norm = feature(offsets(at), particle, template, score)
        return [part(strength * values / norm - seen) for part in (jnp.real, jnp.imag)]

    return z, residual, information, unit


def solve(method, particle, template, score, count):
    z, residual, information, unit = problem(particle, template, score)

    def counted_z(y, args=None):
        jax.debug.callback(count, 0.0)
        return -z(y * unit)

    def counted_residual(y, args=None):
        jax.debug.callback(count, 0.0)
        return residual(y * unit)

    start = jnp.zeros(6)
    if method == "ours":
        summit = ascent.gauss_newton(
            lambda at: jax.tree.map(jnp.negative, jax.value_and_grad(counted_z)(at)),
            information * unit[:, None] * unit,
            jnp.full(6, jnp.inf),
            MOST,
        )
        found = summit.coordinates
    elif method == "optimistix LevenbergMarquardt":
        solver = optx.LevenbergMarquardt(rtol=1e-3, atol=1e-3)
        solution = optx.least_squares(
            counted_residual, solver, start, max_steps=MOST, throw=False
        )
        found = solution.value
    elif method == "optimistix BFGS":
        solver = optx.BFGS(rtol=1e-3, atol=1e-3)
        solution = optx.minimise(counted_z, solver, start, max_steps=MOST, throw=False)
        found = solution.value
    else:
        found = with_optax(optax.lbfgs(), counted_z, start)
    return z(found * unit)


def with_optax(optimizer, function, start):
    """The loop from optax's documentation, until the gradient is small."""
    value_and_grad = optax.value_and_grad_from_state(function)

    def step(state):
        at, inner, steps, _ = state
        value, slope = value_and_grad(at, state=inner)
        update, inner = optimizer.update(
            slope, inner, at, value=value, grad=slope, value_fn=function
        )
        return optax.apply_updates(at, update), inner, steps + 1, jnp.linalg.norm(slope)

    state = (start, optimizer.init(start), 0, jnp.inf)
    # in z per standard error: 0.01 leaves 5e-4 of z at z = 10
    return jax.lax.while_loop(lambda s: (s[2] < MOST) & (s[3] > 0.01), step, state)[0]


METHODS = ("ours", "optimistix LevenbergMarquardt", "optimistix BFGS", "optax lbfgs")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--count", type=int, default=24)
    parser.add_argument("--sampling", default="cubic", choices=["cubic", "padded"])
    options = parser.parse_args()
    structure = structures()[0]
    case = make_case(structure, 6000.0, options.count, np.random.default_rng(5))
    volume = sim.potential_volume(structure.atoms, structure.side, structure.pixel_size)
    template = jr.make_template(volume, options.sampling)
    score = structure.score
    grid = jr.local_grid(
        jr.uniform_orientations(
            psi_coarse=1.5, psi_fine=0.5, theta_coarse=2.0, theta_fine=0.5
        ),
        jr.search_offsets(-100.0, 100.0, 50.0),
    )
    refined = jr.refine_particles(case.particles, template, grid, score)
    there = jax.vmap(lambda p, r: jr.recentred(p, r, score))(case.particles, refined)
    started = [jax.tree.map(lambda leaf, i=i: leaf[i], there) for i in range(options.count)]
    reached, calls = {}, {}
    for method in METHODS:
        ticks = []
        run = eqx.filter_jit(
            lambda p, t, method=method, ticks=ticks: solve(
                method, p, t, score, ticks.append
            )
        )
        reached[method], calls[method] = [], []
        for particle in started:
            ticks.clear()
            reached[method].append(float(run(particle, template)))
            jax.effects_barrier()
            calls[method].append(len(ticks))
    best = np.max(list(reached.values()), axis=0)
    print(
        f"{options.count} particles, {options.sampling}, z {refined.z_score.mean():.2f} to"
    )
    print(f"{best.mean():.2f} at best\n")
    print("| | calls: median | 90 % | below the best: mean | within 0.005 |")
    print("|---|---|---|---|---|")
    for method in METHODS:
        short = best - reached[method]
        print(
            f"| {method} | {np.median(calls[method]):.0f} "
            f"| {np.quantile(calls[method], 0.9):.0f} | {short.mean():.4f} "
            f"| {np.mean(short < CLOSE):.0%} |"
        )


if __name__ == "__main__":
    main()
