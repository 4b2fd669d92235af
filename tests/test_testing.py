"""The test kit for scores: it passes ours, and reports the errors of wrong ones."""

from dataclasses import replace

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest

from jaxrefine.refine.image_ctf import ImageCTF
from jaxrefine.refine.template_ctf import TemplateCTF
from jaxrefine.testing import ScoreError, check_score

BOX, SIDE = (20, 20), 16
OURS = {
    "image": ImageCTF.for_particles(
        BOX,
        SIDE,
        max_defocus_angstrom=2600.0,
        voltage_kv=300.0,
        spherical_aberration_mm=2.7,
        pixel_size_angstrom=1.5,
    ),
    "template": TemplateCTF(BOX, SIDE),
}
OURS |= {f"{kind}, curved": replace(OURS[kind], ewald_sign=-1) for kind in list(OURS)}


@pytest.mark.slow
@pytest.mark.parametrize("kind", OURS)
def test_ours_are_right(kind):
    found = check_score(OURS[kind])
    # The peer's norm is off by the mean's square.
    assert found["length_over_norm"] == pytest.approx(1, abs=2e-3)
    assert found["product"] < 1e-6 and found["gradient"] < 1e-6
    assert found["power"] < 0.25


class AllWrong(TemplateCTF):
    """The search would use mirrored images, and the polish optimise another score."""

    def columns(self, particle, pixel_size, defocus, corners):
        image = particle.image[::-1] ** 2
        changed = eqx.tree_at(lambda p: p.image, particle, image)
        return super().columns(changed, pixel_size, defocus, corners)

    def power_weights(self, prepared):
        # Far more at some frequencies than at others.
        weights = super().power_weights(prepared)
        return weights * (1e3 * jnp.arange(weights.shape[-1]) ** 4 + 1)

    def matched_filter(self, particle, template, pixel_size):
        blind = eqx.tree_at(
            lambda p: p.alignment.defocus_angstrom,
            particle,
            jax.lax.stop_gradient(particle.alignment.defocus_angstrom),
        )
        rfft, norm = super().matched_filter(blind, template, pixel_size)
        return rfft, norm * (1.2 + jnp.abs(particle.image[0, 0]))


class WrongShape(TemplateCTF):
    def norms(self, prepared, template, rotation):
        return super().norms(prepared, template, rotation)[0]


class NoVmap(TemplateCTF):
    def prepare(self, particle, grid):
        if float(particle.alignment.astigmatism_deg) > 0:
            return super().prepare(particle, grid)
        return None


def said_of(kind):
    with pytest.raises(ScoreError) as caught:
        check_score(kind(BOX, SIDE))
    assert caught.match(kind.__name__)
    return caught


def test_wrong_shapes_are_found():
    said_of(WrongShape).match(r"norms: returns shape \(3,\); expected \(2, 3\)")


def test_what_cannot_be_mapped_is_found():
    said_of(NoVmap).match("correlate: ConcretizationTypeError")


@pytest.mark.slow
def test_wrong_numbers_are_found():
    """Each check finds its error, and all are reported together."""
    caught = said_of(AllWrong)
    for words in (
        "white noise of variance 1 correlates with a standard deviation of 0.[0-8]",
        "columns: its product with the central slice",
        "columns: not linear in the particle's image",
        "matched_filter: at its alignment",
        "matched_filter: at another pose",
        "norms: at its alignment",
        "power_weights: norms are",
        "depends on the particle's image",
        r"dz/d\(defocus_angstrom\) is -?0 by jax.grad",
    ):
        caught.match(words)
