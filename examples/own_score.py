"""A scoring function of one's own: polish by it, and compare.

python -m jaxrefine demo DIR
python examples/own_score.py DIR
"""

import sys
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from demo_particles import load

import jaxrefine as jr

particles, offsets, template, score = load(Path(sys.argv[1]))


def low_resolution_z(offsets, particle, template, score):
    """z with the image's finest half taken away: less signal, but a wider peak."""
    half = (
        jnp.asarray(np.fft.rfftfreq(score.cut[1]) < 0.25)
        & jnp.asarray(np.abs(np.fft.fftfreq(score.cut[0])) < 0.25)[:, None]
    )
    blurred = jnp.fft.irfft2(jnp.fft.rfft2(particle.image) * half, s=score.cut)
    particle = eqx.tree_at(lambda p: p.image, particle, blurred)
    return jr.z_score(offsets, particle, template, score)


for name, function in (("z-score", jr.z_score), ("low resolution", low_resolution_z)):

    def best_tilt(offsets, particle, function=function):
        """z along a tilt of up to 3 degrees about x."""

        def at(tilt_deg):
            turned = eqx.tree_at(
                lambda o: o.rotation_deg, offsets, jnp.zeros(3).at[0].set(tilt_deg)
            )
            return function(turned, particle, template, score)

        return jax.lax.map(at, jnp.linspace(-3, 3, 7))

    profile = jax.jit(jax.vmap(best_tilt))(offsets, particles)
    print(f"{name}, mean over particles at tilts of -3 … 3 degrees:")
    print("  ", np.round(profile.mean(axis=0), 2))
