"""Which voxels of the template agree with the data: the gradient of the summed score.

python -m jaxrefine demo DIR
python examples/template_gradient.py DIR gradient.mrc
"""

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import mrcfile
import numpy as np
from demo_particles import load

import jaxrefine as jr
from jaxrefine.io.mrc import read_volume

folder = Path(sys.argv[1])
particles, offsets, _, score = load(folder)
volume, voxel_size = read_volume(folder / "template.mrc")


@jax.jit
@jax.grad
def gradient(volume):
    template = jr.make_template(volume, "cubic")
    z = jax.vmap(jr.z_score, in_axes=(0, 0, None, None))
    return jnp.sum(z(offsets, particles, template, score))


# The score does not know the template's strength, so that the gradient has no part along
# the template: positive where the data ask for more than the template has.
slope = np.asarray(gradient(jnp.asarray(volume)))
with mrcfile.new(sys.argv[2], data=slope, overwrite=True) as file:
    file.voxel_size = voxel_size
along = np.sum(slope * volume) / np.linalg.norm(slope) / np.linalg.norm(volume)
print(f"cosine between gradient and template: {along:.4f}")
inside = np.abs(volume) > 0.1 * np.abs(volume).max()
print(
    f"rms inside the particle / outside: {slope[inside].std() / slope[~inside].std():.2f}"
)
print(f"written: {sys.argv[2]}")
