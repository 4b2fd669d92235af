"""A custom score, compared with the z-score as a function of tilt.

pip install '.[report]'
python -m jaxrefine demo DIR
python examples/own_score.py DIR [FIGURE.png]
"""

import sys
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from demo_particles import load
from figure import panels, save

import jaxrefine as jr

folder = Path(sys.argv[1])
particles, offsets, template, score = load(folder)
tilts = jnp.linspace(-3, 3, 7)


def low_resolution_z(offsets, particle, template, score):
    """z without the highest half of the frequencies: less signal, but a wider peak."""
    half = (
        jnp.asarray(np.fft.rfftfreq(score.padded_box[1]) < 0.25)
        & jnp.asarray(np.abs(np.fft.fftfreq(score.padded_box[0])) < 0.25)[:, None]
    )
    blurred = jnp.fft.irfft2(jnp.fft.rfft2(particle.image) * half, s=score.padded_box)
    particle = eqx.tree_at(lambda p: p.image, particle, blurred)
    return jr.z_score(offsets, particle, template, score)


figure, (left, right) = panels(2)
for name, function, line in (
    ("z-score", jr.z_score, "C0o-"),
    ("low resolution", low_resolution_z, "C1s--"),
):

    def best_tilt(offsets, particle, function=function):
        """The score along a tilt of up to 3 degrees about x."""

        def at(tilt_deg):
            turned = eqx.tree_at(
                lambda o: o.rotation_deg, offsets, jnp.zeros(3).at[0].set(tilt_deg)
            )
            return function(turned, particle, template, score)

        return jax.lax.map(at, tilts)

    profile = np.asarray(jax.jit(jax.vmap(best_tilt))(offsets, particles)).mean(axis=0)
    print(f"{name}, mean over particles at tilts of -3 … 3 degrees:")
    print("  ", profile.round(2))
    left.plot(tilts, profile, line, label=name)
    right.plot(tilts, profile / profile.max(), line)
left.set(xlabel="tilt about x (°)", ylabel="score, mean over particles")
right.set(xlabel="tilt about x (°)", ylabel="share of its best")
left.legend()
save(figure, folder / "own_score.png", *sys.argv[2:])
