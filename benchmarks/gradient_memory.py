"""How much memory gradients of the z-score take.

By the pose and by the volume, for one particle, and for several with `jax.vmap` and with
`jax.lax.map(batch_size=...)`. The figures are what XLA allocates beside the arguments
(`memory_analysis`); with `--run` each program also runs, and the peak of resident memory
that it adds is printed.

    python benchmarks/gradient_memory.py --sides 64 128
"""

import argparse
import resource
import time

import jax
import jax.numpy as jnp

import jaxrefine as jr
from jaxrefine.testing import random_particle

COUNT = 16


def programs(side):
    """Name, function and arguments of each."""
    score = jr.ImageCTF.for_particles(
        (side + 16,) * 2,
        side,
        max_defocus_angstrom=12000.0,
        voltage_kv=300.0,
        spherical_aberration_mm=2.7,
        pixel_size_angstrom=1.5,
    )
    particle, _ = random_particle(score)
    volume = jax.random.normal(jax.random.key(0), (side,) * 3)
    template = jr.make_template(volume, "cubic")
    particles = jr.Particles.stack([particle] * COUNT)

    def z(offsets, particle, template):
        return jr.z_score(offsets, particle, template, score)

    def z_of_volume(volume, particle):
        return z(jr.Offsets.zeros(), particle, jr.make_template(volume, "cubic"))

    def slopes(particle, template):
        return jax.grad(z)(jr.Offsets.zeros(), particle, template)

    def mapped(particles, template):
        return jax.vmap(slopes, (0, None))(particles, template)

    def in_fours(particles, template):
        one = lambda particle: slopes(particle, template)  # noqa: E731
        return jax.lax.map(one, particles, batch_size=4)

    def total(volume, particles, batch_size):
        template = jr.make_template(volume, "cubic")

        @jax.checkpoint
        def one(particle):
            return z(jr.Offsets.zeros(), particle, template)

        return jnp.sum(jax.lax.map(one, particles, batch_size=batch_size))

    yield "pose, one particle", slopes, (particle, template)
    yield f"pose, {COUNT} particles, vmap", mapped, (particles, template)
    yield f"pose, {COUNT} particles, lax.map of 4", in_fours, (particles, template)
    yield "volume, one particle", jax.grad(z_of_volume), (volume, particle)
    yield (
        f"volume, {COUNT} particles, vmap",
        jax.grad(lambda v, p: jnp.sum(jax.vmap(z_of_volume, (None, 0))(v, p))),
        (volume, particles),
    )
    yield (
        f"volume, {COUNT} particles, lax.map of 4, checkpoint",
        jax.grad(lambda v, p: total(v, p, 4)),
        (volume, particles),
    )
    yield (
        f"volume, {COUNT} particles, lax.map of 1, checkpoint",
        jax.grad(lambda v, p: total(v, p, 1)),
        (volume, particles),
    )


def peak_mb():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sides", type=int, nargs="+", default=[64, 128])
    parser.add_argument("--run", action="store_true")
    options = parser.parse_args()
    print(
        f"jax {jax.__version__}, {jax.devices()[0].device_kind}, jaxrefine", jr.__version__
    )
    for side in options.sides:
        for name, function, arguments in programs(side):
            compiled = jax.jit(function).lower(*arguments).compile()
            needed = compiled.memory_analysis().temp_size_in_bytes / 1e6
            line = f"{side:4d} px  {name:52s} {needed:8.0f} MB"
            if options.run:
                before, start = peak_mb(), time.perf_counter()
                jax.block_until_ready(compiled(*arguments))
                seconds = time.perf_counter() - start
                line += f"  resident +{peak_mb() - before:.0f} MB, {seconds:.2f} s"
            print(line, flush=True)


if __name__ == "__main__":
    main()
