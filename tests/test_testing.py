"""The test kit for scores: it passes ours, and says what is wrong with wrong ones."""

import equinox as eqx
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
    "template, Cs": TemplateCTF(BOX, SIDE, pixel_size_changes_cs=True),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", OURS)
def test_ours_are_right(kind):
    found = check_score(OURS[kind])
    # The peer's norm is off by the mean's square.
    assert found["length_over_norm"] == pytest.approx(1, abs=2e-3)
    assert found["product"] < 1e-6 and found["gradient"] < 1e-6


class TwiceTheNorm(TemplateCTF):
    """Every norm is twice what it should be: all agree, and noise has variance 1/4."""

    def _projection(self, central, filter_ctf):
        projection, norm = super()._projection(central, filter_ctf)
        return projection, 2 * norm


class WrongColumns(TemplateCTF):
    """The search would see every image mirrored, and squared."""

    def columns(self, particle, pixel_size, defocus, corners):
        image = particle.image[::-1] ** 2
        changed = eqx.tree_at(lambda p: p.image, particle, image)
        return super().columns(changed, pixel_size, defocus, corners)


class OtherFilter(TemplateCTF):
    """The polish would climb another score; its slope in defocus is lost as well."""

    def matched_filter(self, particle, template, pixel_size):
        blind = eqx.tree_at(
            lambda p: p.alignment.defocus_angstrom,
            particle,
            jnp.round(particle.alignment.defocus_angstrom, -2),
        )
        rfft, norm = super().matched_filter(blind, template, pixel_size)
        return rfft, norm * (1 + jnp.abs(particle.image[0, 0]))


class WrongShape(TemplateCTF):
    def norms(self, prepared, template, rotation):
        return super().norms(prepared, template, rotation)[0]


class NoVmap(TemplateCTF):
    def prepare(self, particle, grid):
        if float(particle.alignment.astigmatism_deg) > 0:
            return super().prepare(particle, grid)
        return None


WRONG = {
    TwiceTheNorm: ["standard deviation of 0.4"],
    WrongColumns: ["columns: its product with the central slice", "not linear"],
    OtherFilter: [
        "matched_filter: at another pose",
        "norms: at its alignment",
        "depends on the particle's image",
        r"dz/d\(defocus_angstrom\) is 0 by jax.grad",
    ],
    WrongShape: [r"norms: returns shape \(3,\); expected \(2, 3\)"],
    NoVmap: ["correlate: ConcretizationTypeError"],
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", WRONG, ids=lambda kind: kind.__name__)
def test_wrong_ones_are_found(kind):
    with pytest.raises(ScoreError) as caught:
        check_score(kind(BOX, SIDE))
    for words in WRONG[kind]:
        caught.match(words)
    assert caught.match(kind.__name__)
