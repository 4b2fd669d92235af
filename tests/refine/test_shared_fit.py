"""The joint fit of particles in memory, on images of a simulated microscope."""

from dataclasses import replace

import numpy as np
import pytest

import jaxrefine as jr
from jaxrefine import simulate as sim
from tests.worlds import Imaging, ball, batch_of, one_particle, signal_in_padded_box

SIDE, COUNT, SNR = 20, 20, 25.0
IMAGING = Imaging(
    defocus=(3600.0, 3500.0), pixel_size=2.0, aberrations={"beam_tilt_mrad": (1.5, -1.0)}
)


@pytest.fixture(scope="module")
def particles():
    """Of two micrographs with defoci that differ; the start has no beam tilt."""
    rng = np.random.default_rng(4)
    atoms = ball(SIDE, 2.0, b=20.0)
    score = IMAGING.image_ctf((SIDE + 4, SIDE + 4), SIDE, defocus=300.0)
    made = []
    for number in range(COUNT):
        offset = 80.0 if number % 2 else -60.0
        defocus = tuple(d + offset + rng.normal(0, 20) for d in IMAGING.defocus)
        truth = replace(IMAGING, defocus=defocus)
        rotation = sim.random_rotations(1, rng)[0]
        image = SNR * signal_in_padded_box(score, atoms, truth, rotation, 120)
        image += rng.standard_normal(image.shape)
        start = sim.perturbed_rotation(rotation, rng, 1.0, 1.0)
        made.append(
            one_particle(score, image, replace(IMAGING, aberrations={}), rotation=start)
        )
    volume = sim.potential_volume(atoms, SIDE, 2.0)
    return batch_of(made), jr.make_template(volume, "cubic"), score


@pytest.mark.nightly
def test_what_particles_share_is_found(particles):
    """Within three standard errors, which are small compared with the changes."""
    batch, template, score = particles
    micrograph = np.arange(COUNT) % 2
    fit = jr.fit_shared(
        batch,
        template,
        score,
        ["beam_tilt", "defocus"],
        groups={"defocus": micrograph},
        defocus_sigma_angstrom=30.0,
    )
    assert fit.converged and fit.determined.all()
    truth = {("beam_tilt_x", 0): 1.5, ("beam_tilt_y", 0): -1.0}
    truth |= {("defocus", 0): -60.0, ("defocus", 1): 80.0}
    for (label, group), true in truth.items():
        change, sigma = fit.of(label, group)
        assert abs(change - true) < 3 * sigma < abs(true)
    with pytest.raises(KeyError):
        fit.of("pixel_size")
    # The offsets lead to the fitted scores, by the score of the library.
    for number in (0, 7):
        z = jr.z_score(fit.offsets[number], batch[number], template, score)
        # Which normalises without the effect of the box's edges: by 1e-3 here.
        assert float(z) == pytest.approx(fit.z[number], rel=3e-3)
    assert fit.probability.min() == 1 and fit.z.mean() > 20


def test_mistakes(particles):
    batch, template, score = particles
    with pytest.raises(jr.InputError) as error:
        jr.fit_shared(
            batch,
            template,
            score,
            ["beam_tilt", "tilt"],
            groups={"defocus": np.zeros(COUNT, int), "beam_tilt": np.zeros(3, int)},
        )
    assert [text.split(" — ")[0][:35] for text in error.value.errors] == [
        "parameters: 'tilt'",
        "groups: 'defocus'",
        "groups: beam_tilt: must have a whole number"[:35],
    ]
    with pytest.raises(jr.InputError, match="a defocus_plane needs the particles' places"):
        jr.fit_shared(batch, template, score, ["defocus_plane"])
