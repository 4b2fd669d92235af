"""Which voxels of the template agree with the data: the gradient of the summed score.

The figure, beside gradient.mrc, compares the gradient of the whole template with that of
one without a piece, which the gradient then shows.

pip install '.[report]'
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
from figure import panels, save
from scipy.ndimage import gaussian_filter

import jaxrefine as jr
from jaxrefine.io.mrc import read_volume

folder = Path(sys.argv[1])
particles, offsets, _, score = load(folder)
volume, voxel_size = read_volume(folder / "template.mrc")


@jax.jit
@jax.value_and_grad
def z_and_gradient(volume):
    template = jr.make_template(volume, "cubic")
    z = jax.vmap(jr.z_score, in_axes=(0, 0, None, None))
    return jnp.sum(z(offsets, particles, template, score))


# The score is independent of the template's scale, so the gradient has no component along
# the template: it is positive where the data require more density than the template has.
z, slope = map(np.asarray, z_and_gradient(jnp.asarray(volume)))
with mrcfile.new(sys.argv[2], data=slope, overwrite=True) as file:
    file.voxel_size = voxel_size
along = np.sum(slope * volume) / np.linalg.norm(slope) / np.linalg.norm(volume)
print(f"cosine between gradient and template: {along:.4f}")
inside = np.abs(volume) > 0.1 * np.abs(volume).max()
print(
    f"rms inside the particle / outside: {slope[inside].std() / slope[~inside].std():.2f}"
)
print(f"written: {sys.argv[2]}")

piece = np.where(np.arange(len(volume)) >= 56, volume, 0)  # the part beyond some x
z_less, slope_less = map(np.asarray, z_and_gradient(jnp.asarray(volume - piece)))
print(f"Σz: {z:.1f}, without a piece {z_less:.1f}")
along, along_less = (np.sum(s * piece) for s in (slope, slope_less))
print(f"slope of Σz along the piece: {along:.1f}, without it {along_less:.1f}")

figure, (left, *others) = panels(3, height=4)
side = voxel_size * len(volume)
options = {"extent": (0, side, side, 0)}
shown = left.imshow(volume.sum(axis=0), **options)
figure.colorbar(shown, ax=left, label="density, summed along z")
left.axvline(56 * voxel_size, color="w", linestyle="--")
left.set(title="template, cut at the line", ylabel="y (Å)")
# Increase of Σz with more of each part of the template; smoothed.
gains = [gaussian_filter((s * volume).sum(axis=0), 3) for s in (slope, slope_less)]
most = np.abs(gains).max()
titles = ("gradient, whole template", "gradient, without the right part")
for axes, gain, title in zip(others, gains, titles, strict=True):
    shown = axes.imshow(gain, cmap="PuOr", vmin=-most, vmax=most, **options)
    axes.set(title=title)
figure.colorbar(shown, ax=others, label="gradient × template (Σz per px)")
for axes in (left, *others):
    axes.set(xlabel="x (Å)")
save(figure, Path(sys.argv[2]).with_suffix(".png"))
