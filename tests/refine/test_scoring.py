"""Both scores against their brute-force oracles, the peer, and known signals."""

import equinox as eqx
import jax
import numpy as np
import pytest
import worlds
from frozen import frozen, settings
from oracles import ctf, rotations, scores, slices
from worlds import Lens, one_particle, single

from jaxrefine.physics.slices import make_template
from jaxrefine.refine.grids import local_grid
from jaxrefine.refine.template_ctf import TemplateCTF

PEER = frozen("correlation")
SIDE = 16
POSES = np.stack([rotations.euler_matrix(*angles) for angles in PEER["euler_deg"]])
VOLUME = PEER["volume"]


@eqx.filter_jit
def correlations(score, particle, template, grid, poses):
    """(pixel size, defocus, orientation, y, x)"""
    prepared = score.prepare(particle, grid)
    each = jax.vmap(score.correlate, in_axes=(None, None, 0), out_axes=2)
    return each(prepared, template, poses)


def uneven(k):
    """A filter that is neither flat nor small anywhere."""
    return 0.4 + 1.2 * k


def transfer_of(lens, curve, pixel_size, defocus):
    """F·CTF·B on any grid, float64."""

    def transfer(shape):
        return curve(worlds.radial_frequency(shape)) * ctf.ctf_2d(
            shape,
            pixel_size,
            lens.defocus[0] + defocus,
            lens.defocus[1] + defocus,
            lens.angle,
            lens.kv,
            lens.cs,
            lens.contrast,
            lens.phase,
            lens.b,
            signed_astigmatism=True,
        )

    return transfer


def noise(shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


LENSES = {
    "astigmatic": Lens(),
    "u below v": Lens(defocus=(4700.0, 5400.0), angle=75.0, phase=30.0, b=0.0),
}
# rectangular: 11 x 13 positions; and one position only
BOXES = [(26, 28), (16, 16)]


@pytest.mark.parametrize("box", BOXES)
@pytest.mark.parametrize("lens", LENSES.values(), ids=LENSES)
@pytest.mark.parametrize("kind", ["image", "template"])
def test_correlations_are_the_oracle_s(kind, lens, box):
    defoci, pixel_sizes = np.array([-300.0, 0.0, 150.0]), np.array([-0.06, 0.0, 0.03])
    if kind == "image":
        score = lens.image_ctf(box, SIDE, defocus=300.0, pixel_size=0.06)
    else:
        score = TemplateCTF(box, SIDE)
    assert score.positions == (box[0] - 15, box[1] - 15)
    cut = noise(score.cut)
    particle = one_particle(score, cut, lens, template_pixel_size=1.47, curve=uneven)
    grid = local_grid(None, defoci, pixel_sizes)
    template = make_template(VOLUME, "trilinear")
    ours = correlations(score, particle, template, grid, single(POSES))
    assert ours.shape == (3, 3, 3, *score.positions)

    half = slices.half_volume(VOLUME)
    for m, l, k in np.ndindex(3, 3, 3):
        if m != 1 and l != 1:
            continue  # each offset alone and with one other is enough
        pixel_size = lens.pixel_size + pixel_sizes[m]
        transfer = transfer_of(lens, uneven, pixel_size, defoci[l])
        scale = 1.47 / pixel_size
        # The unit is the standard deviation of noise, 1. float32: sums of 256 products of
        # order 1, after two transforms, are good to some 1e-5 of it.
        if kind == "image":
            # An odd side: on the Nyquist lines of an even one an astigmatic CTF is not
            # Hermitian, which costs the oracle's norm 1e-4 of itself.
            expected = scores.image_ctf_correlation(
                half, POSES[k], cut, box, transfer, scale, large_side=8 * SIDE + 1
            )
        else:
            expected = scores.template_ctf_correlation(
                half,
                POSES[k],
                cut / np.sqrt(box[0] * box[1]),  # the peer's unit
                uneven(worlds.radial_frequency((SIDE, SIDE))),
                transfer((SIDE, SIDE)) / uneven(worlds.radial_frequency((SIDE, SIDE))),
                scale,
            )
        assert np.abs(expected).max() > 0.1
        np.testing.assert_allclose(ours[m, l, k], expected, rtol=0, atol=1e-4)


def test_template_ctf_is_the_peer_s():
    """Its pixel-size search too, which changes Cs and nothing else."""
    optics = settings(PEER, "optics")
    lens = Lens(
        defocus=(optics["defocus_u"], optics["defocus_v"]),
        angle=optics["astigmatism_angle"],
        pixel_size=optics["pixel_size"],
        b=optics["ctf_B_factor"],
    )
    score = TemplateCTF((24, 24), SIDE, pixel_size_changes_cs=True)
    box = np.fft.irfft2(PEER["box_rfft"].astype(np.complex128), s=(24, 24))
    particle = one_particle(score, box * 24, lens)  # ours has pixel variance 1
    particle = eqx.tree_at(
        lambda p: p.filter_template, particle, single(PEER["projective_filter"])
    )
    grid = local_grid(
        None,
        PEER["defocus_offsets"].astype(float),
        PEER["pixel_size_offsets"].astype(float),
    )
    template = make_template(VOLUME, "trilinear")
    ours = correlations(score, particle, template, grid, single(POSES))
    # Standard deviation 1 here. Two float32 programs, each some 4e-5 from float64.
    np.testing.assert_allclose(ours, PEER["correlation"][..., :9, :9], rtol=0, atol=8e-5)

    # Without that switch the pixel size rescales the template, and the result differs.
    scaled = TemplateCTF((24, 24), SIDE)
    other = correlations(scaled, particle, template, grid, single(POSES))
    np.testing.assert_allclose(other[0], ours[0], rtol=0, atol=1e-5)
    assert np.abs(other[1] - ours[1]).max() > 0.1
