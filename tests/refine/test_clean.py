"""Loss of z due to artefacts in micrographs that are cleaned before filtering."""

import functools

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrefine.physics.filters import Filters
from jaxrefine.physics.slices import make_template
from jaxrefine.refine.clean import clean_micrograph
from jaxrefine.refine.prepare import cut_particles, filled_fraction, prepare_micrograph
from jaxrefine.refine.refine import score_particles
from jaxrefine.simulate.artefacts import noise_deviation, with_band, with_smeared_band
from tests.worlds import ARTEFACTS, make_world, single

# 25 particles, 64 px apart, in 320 x 320 px.
WORLD, COUNT = make_world(places=(5, 5), spacing=64, snr=12.0), 25
SIDE, BOX = WORLD.side, (24, 24)
SCORE = WORLD.imaging.image_ctf(BOX, SIDE)
OPTICS = WORLD.imaging.optics(COUNT)
PIXEL_SIZES = single([WORLD.imaging.pixel_size] * COUNT)
TEMPLATE = make_template(WORLD.volume, "padded")


@eqx.filter_jit
def score(micrograph):
    particles = cut_particles(micrograph, WORLD.alignment(), OPTICS, PIXEL_SIZES, SCORE)
    return score_particles(particles, TEMPLATE, SCORE)[0]


def z_scores(image, *, cleaned=True, global_filtering=True):
    """z of all particles at their true poses."""
    image = np.asarray(image, np.float32)
    more = {}
    if cleaned:
        clean = clean_micrograph(image)
        image = clean.image
        more = {
            "filled": jnp.asarray(clean.filled),
            "noise": jnp.asarray(clean.noise),
            "noise_share": clean.noise_share,
        }
    micrograph = prepare_micrograph(
        jnp.asarray(image),
        *WORLD.maps,
        Filters(),
        global_filtering=global_filtering,
        **more,
    )
    return np.asarray(score(micrograph))


def away_from(changed):
    """Particles none of whose pixels, and few of whose CTF's, were changed."""
    at = WORLD.corner_px[:, None] + np.stack(
        np.meshgrid(*2 * [np.arange(-6, SIDE + 6)], indexing="ij"), -1
    ).reshape(1, -1, 2)
    y, x = np.moveaxis(np.clip(at, 0, np.array(changed.shape) - 1), -1, 0)
    return ~changed[y, x].any(axis=1)


@functools.cache
def sound(mean: float) -> tuple[np.ndarray, np.ndarray]:
    """The image without an artefact, of this mean and deviation 1, and its z-scores."""
    image = (WORLD.image - WORLD.image.mean()) / WORLD.image.std() + np.float32(mean)
    return image, z_scores(image)


@functools.cache
def sound_scores(cleaned: bool) -> np.ndarray:
    return z_scores(WORLD.image, cleaned=cleaned)


def lost(image, spoilt, before, **how):
    """Fraction of the mean z lost by particles away from the artefact.

    What changes nearly everything, a slope or carbon, concerns all. Noise on the carbon is
    information that is lost, and no cleaning brings it back.
    """
    touched = np.abs(spoilt - image) > 0.5 * noise_deviation(image)
    away = away_from(touched) if touched.mean() < 0.3 else np.ones(COUNT, bool)
    assert away.sum() >= 15
    return 1 - z_scores(spoilt, **how)[away].mean() / before[away].mean()


@pytest.mark.slow
def test_a_sound_image_keeps_its_scores():
    raw = sound_scores(False)
    assert raw.mean() > 10
    # Made periodic it loses what noise has of steps from edge to edge, and no particle.
    np.testing.assert_allclose(sound_scores(True).mean(), raw.mean(), rtol=0.01)


@pytest.mark.slow
@pytest.mark.parametrize("mean", [0.0, 6.0, 40.0])
@pytest.mark.parametrize(
    ("edge", "width"),
    [("top", 2), ("bottom", 4), ("left", 16), ("right", 64), ("top", 64), ("left", 3)],
)
def test_a_band_costs_one_percent_at_most(edge, width, mean):
    image, before = sound(mean)
    for value in (0.0, image.mean(), image.max(), 1e4):
        spoilt = with_band(image, edge, width, float(value))
        assert abs(lost(image, spoilt, before)) < 0.01, value


@pytest.mark.parametrize("mean", [0.0, 6.0, 40.0])
def test_smeared_bands_cost_one_percent_at_most(mean):
    image, before = sound(mean)
    for edge, width in (("top", 2), ("left", 4), ("bottom", 16), ("right", 64)):
        spoilt = with_smeared_band(image, edge, width, 0.0)
        touched = with_band(np.zeros(image.shape), edge, width + 8, 1.0) == 1
        away = away_from(touched)
        z = z_scores(spoilt)[away].mean()
        assert abs(1 - z / before[away].mean()) < 0.01, (edge, width)


def test_bands_did_cost():
    """The test above would detect it."""
    image = with_band(WORLD.image, "top", 4, 0.0)
    assert lost(WORLD.image, image, sound_scores(False), cleaned=False) > 0.1


@pytest.mark.parametrize("name", ARTEFACTS)
def test_artefacts_cost_little(name):
    spoilt = ARTEFACTS[name](WORLD.image)
    cleaned, raw = (
        lost(WORLD.image, spoilt, sound_scores(how), cleaned=how) for how in (True, False)
    )
    assert cleaned < {"carbon edge": 0.05}.get(name, 0.01)
    assert cleaned < raw


def test_local_filtering_leaves_filled_pixels_out():
    """A box, a third of which is filled, keeps the scale of its noise."""
    image = with_band(WORLD.image, "left", 20, 0.0)
    z = z_scores(image, global_filtering=False)
    before = z_scores(WORLD.image, global_filtering=False)
    beside = WORLD.corner_px[:, 1] < 20
    assert np.all(z[~beside] > 0)
    np.testing.assert_allclose(z[~beside].mean(), before[~beside].mean(), rtol=0.02)


def test_share_of_the_template_that_is_filled():
    mask = np.zeros((40, 50), bool)
    mask[:, :8] = True
    corners = single([[10, 20], [10, 4], [-8, 0], [10, 8], [0, -20]])
    share = filled_fraction(jnp.asarray(mask), corners, 16)
    np.testing.assert_allclose(share, [0, 0.25, 0.25, 0, 0], atol=1e-6)
