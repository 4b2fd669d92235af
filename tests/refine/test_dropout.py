"""Random Fourier dropout, from the filters to the score."""

from dataclasses import replace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrefine import simulate as sim
from jaxrefine.data import Offsets
from jaxrefine.physics.filters import Dropout, Filters
from jaxrefine.physics.slices import make_template
from jaxrefine.refine.differentiable import feature, z_score
from jaxrefine.refine.prepare import cut_particles, prepare_micrograph
from jaxrefine.refine.template_ctf import TemplateCTF
from tests.worlds import (
    Imaging,
    ball,
    batch_of,
    one_particle,
    signal_in_padded_box,
    single,
)


@pytest.mark.parametrize("kind", ["image", "template"])
def test_dropout_leaves_out_coefficients_of_the_template(kind):
    """The image stays; a particle keeps its share of z², and noise a variance of 1."""
    side, pixel = 48, 1.5
    imaging = Imaging(defocus=(6000.0, 6000.0), pixel_size=pixel, b=0.0)
    score = TemplateCTF((56, 56), side)
    if kind == "image":
        score = imaging.image_ctf((56, 56), side)
    atoms = ball(side, pixel, fill=0.6, b=60.0)
    template = make_template(sim.potential_volume(atoms, side, pixel), "padded")
    image = signal_in_padded_box(score, atoms, imaging, np.eye(3), 300)
    maps = jnp.zeros((image.shape[0] - side + 1,) * 2)
    corner = np.asarray(image.shape) // 2 - side // 2

    def cut(dropout):
        filters = Filters(None, dropout=dropout)
        micrograph = prepare_micrograph(single(image), maps, maps + 1, filters)
        one = one_particle(score, image, imaging)
        batch = batch_of([one])
        alignment = replace(batch.alignment, position_px=single(corner[None]))
        pixels = batch.template_pixel_size_angstrom
        found = cut_particles(micrograph, alignment, batch.optics, pixels, score)
        return jax.tree.map(lambda x: x[0], found)

    whole, dropped = cut(None), cut(Dropout(0.3, 1))
    np.testing.assert_array_equal(dropped.image, whole.image)

    @eqx.filter_jit
    def z_and_noise(particle):
        values, norm = feature(Offsets.zeros(), particle, template, score)
        noise = jnp.linalg.norm(values) / norm
        return z_score(Offsets.zeros(), particle, template, score), noise

    (all_of_it, _), (share, noise) = map(z_and_noise, (whole, dropped))
    # The fraction of some 500 coefficients with signal scatters by √(0.3 · 0.7 / 500).
    assert (share / all_of_it) ** 2 == pytest.approx(0.7, abs=0.06)
    # The norm is of a grid with other frequencies at the edges of what is left out.
    assert noise == pytest.approx(1.0, abs=0.015)
