"""Mismatched arguments are refused before any work, with helpful messages."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrefine as jr
from jaxrefine.refine.arguments import check_defocus
from jaxrefine.refine.image_ctf import ImageCTF
from jaxrefine.refine.template_ctf import TemplateCTF
from tests.worlds import make_world

SIDE, BOX = 16, (24, 24)
WORLD = make_world(places=(1, 2))
SCORE = WORLD.imaging.image_ctf(BOX, SIDE)
MICROGRAPH = jr.prepare_micrograph(jnp.asarray(WORLD.image), *WORLD.maps, jr.Filters())
OPTICS, PIXEL_SIZE = WORLD.imaging.optics(2), jnp.full(2, 2.0)
GRID = jr.SearchGrid(jnp.eye(3)[None], jnp.zeros(1, bool), jnp.zeros(1), jnp.zeros(1))


def cut(score=SCORE, optics=OPTICS, pixel_size=PIXEL_SIZE, **changed):
    alignment = replace(WORLD.alignment(), **changed)
    return jr.cut_particles(MICROGRAPH, alignment, optics, pixel_size, score)


def searched(particles):
    """A search's results, of numbers that no check reads."""
    count = len(particles)
    nothing = jnp.zeros(count)
    index, status = jnp.zeros((count, 5), jnp.int32), jnp.zeros(count, jnp.int32)
    return jr.Refined(
        particles.alignment, nothing, nothing, nothing, index, status, nothing
    )


# Calls that are mistakes, and words of the message (a pattern).
WRONG = {
    "score of another side": (
        lambda p, t: jr.score_particles(p, t, WORLD.imaging.image_ctf((20, 20), 12)),
        "template has a side of 16 px, the score was made for 12 px",
    ),
    "search with a score of another side": (
        lambda p, t: jr.refine_particles(p, t, GRID, WORLD.imaging.image_ctf((20, 20), 12)),
        "side=16",
    ),
    "score of another box": (
        lambda p, t: jr.score_particles(p, t, WORLD.imaging.image_ctf((28, 28), SIDE)),
        "cut for another score.*use the same score",
    ),
    "volume as template": (
        lambda p, t: jr.refine_particles(p, WORLD.volume, GRID, SCORE),
        r"ndarray of shape \(16, 16, 16\).*make_template",
    ),
    "volume as template of z_score": (
        lambda p, t: jr.z_score(jr.Offsets.zeros(), p[0], WORLD.volume, SCORE),
        "make_template",
    ),
    "class as score": (lambda p, t: jr.score_particles(p, t, ImageCTF), "for_particles"),
    "one particle to the search": (
        lambda p, t: jr.refine_particles(p[0], t, GRID, SCORE),
        r"expected a batch.*jr\.Particles\.stack",
    ),
    "one particle to be scored": (
        lambda p, t: jr.score_particles(p[0], t, SCORE),
        "expected a batch",
    ),
    "batch as one": (
        lambda p, t: jr.z_score(jr.Offsets.zeros(), p, t, SCORE),
        r"expected one particle.*jax\.vmap",
    ),
    "offsets of a batch for one": (
        lambda p, t: jr.z_score(jr.Offsets.zeros(2), p[0], t, SCORE),
        r"jr\.Offsets\.zeros\(\)",
    ),
    "alignment as particles": (
        lambda p, t: jr.score_particles(p.alignment, t, SCORE),
        r"Alignment; expected Particles",
    ),
    "batch to be recentred": (
        lambda p, t: jr.recentred(p, searched(p), SCORE),
        r"expected one particle.*jax\.vmap",
    ),
    "results of a batch for one particle": (
        lambda p, t: jr.at_best(p[0], searched(p), SCORE),
        r"at_best: one particle, but the results of \(2,\)",
    ),
    "one particle to the polish": (
        lambda p, t: jr.polish_particles(p[0], searched(p)[0], t, GRID, SCORE),
        r"expected a batch.*jr\.Particles\.stack",
    ),
    "results of others to the polish": (
        lambda p, t: jr.polish_particles(p, searched(p)[:1], t, GRID, SCORE),
        r"results of \(1,\) particles; the batch has \(2,\)",
    ),
    "z-scores as results to the polish": (
        lambda p, t: jr.polish_particles(p, searched(p).z_score, t, GRID, SCORE),
        "expected Refined",
    ),
    "volume to the polish": (
        lambda p, t: jr.polish_particles(p, searched(p), WORLD.volume, GRID, SCORE),
        "make_template",
    ),
    "own mesh to the polish": (
        lambda p, t: jr.polish_particles(
            p, searched(p), t, GRID, SCORE, mesh=jax.make_mesh((1,), ("x",))
        ),
        r"jr\.device_mesh",
    ),
    "polish inside jit": (
        lambda p, t: jax.jit(lambda p: jr.polish_particles(p, searched(p), t, GRID, SCORE))(
            p
        ),
        "polish_particles.*inside jit",
    ),
    "one particle to all scores": (
        lambda p, t: jr.score_grid(p[0], t, GRID, SCORE),
        "expected a batch",
    ),
    "batch to the feature": (
        lambda p, t: jr.feature(jr.Offsets.zeros(), p, t, SCORE),
        r"expected one particle",
    ),
    "units of what is no offset": (
        lambda p, t: jr.offset_units(p[0], t, SCORE, free=["shift"]),
        "free.*shift_px",
    ),
    "one reference": (
        lambda p, t: jr.fit_references(p, [], GRID, SCORE),
        "at least two",
    ),
    "own mesh": (
        lambda p, t: jr.refine_particles(
            p, t, GRID, SCORE, mesh=jax.make_mesh((1,), ("x",))
        ),
        r"axes \('x',\).*jr\.device_mesh",
    ),
    "offsets as grid": (
        lambda p, t: jr.refine_particles(p, t, jr.Offsets.zeros(), SCORE),
        r"jr\.local_grid",
    ),
    "search inside jit": (
        lambda p, t: jax.jit(lambda p: jr.refine_particles(p, t, GRID, SCORE))(p),
        "refine_particles.*inside jit.*call it outside",
    ),
    "unknown sampling": (
        lambda p, t: jr.make_template(WORLD.volume, "quintic"),
        "'quintic'.*'padded', 'trilinear', 'cubic'",
    ),
    "template of zeros": (
        lambda p, t: jr.make_template(np.zeros((16, 16, 16))),
        "0 everywhere",
    ),
    "template with NaN": (
        lambda p, t: jr.make_template(np.full((16, 16, 16), np.nan)),
        "not finite",
    ),
    "shape as number": (lambda p, t: jr.Offsets.zeros((3,)), r"Offsets\.zeros\(3\)"),
    "one defocus per particle": (
        lambda p, t: cut(defocus_angstrom=jnp.full(2, 3000.0)),
        r"defocus_angstrom: shape \(2,\); expected \(2, 2\)",
    ),
    "optics of one particle": (
        lambda p, t: cut(optics=WORLD.imaging.optics()),
        r"optics\.voltage_kv: shape \(\); expected \(2,\)",
    ),
    "one pixel size": (
        lambda p, t: cut(pixel_size=jnp.asarray(2.0)),
        r"template_pixel_size_angstrom: shape \(\)",
    ),
    "maps of the micrograph's shape": (
        lambda p, t: jr.prepare_micrograph(*[jnp.asarray(WORLD.image)] * 3, jr.Filters()),
        r"maps of shape \(36, 72\).*Ny - n \+ 1.*crop",
    ),
    "maps of two shapes": (
        lambda p, t: jr.prepare_micrograph(
            jnp.asarray(WORLD.image), WORLD.maps[0], WORLD.maps[1][1:], jr.Filters()
        ),
        "two maps of one shape",
    ),
    "box smaller than the template": (
        lambda p, t: WORLD.imaging.image_ctf((12, 12), SIDE),
        r"box \(12, 12\) and template side 16.*\(32, 32\)",
    ),
    "odd box": (lambda p, t: WORLD.imaging.image_ctf((25, 25), SIDE), "even"),
    "odd box of another score": (lambda p, t: cut(TemplateCTF((25, 25), SIDE)), "even"),
    "defocus in µm": (
        lambda p, t: jr.score_particles(
            cut(defocus_angstrom=jnp.full((2, 2), 1.2)), t, SCORE
        ),
        "1.2 Å.*12000 Å",
    ),
    "largest defocus in µm": (
        lambda p, t: replace(WORLD.imaging, defocus=(1.2, 1.1)).image_ctf(BOX, SIDE),
        "1.2 Å.*µm",
    ),
    "defocus beyond the score's": (
        lambda p, t: jr.score_particles(
            cut(defocus_angstrom=jnp.asarray([[3e3, 3e3], [9e3, 3e3]])), t, SCORE
        ),
        r"^particle 1: a defocus of 9000 Å.*hold \d{4} Å",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_arguments(name, refused):
    refused(*WRONG[name])


def test_largest_defocus_is_for_particles_the_other_way_round(particles):
    """What a score was made for it holds, also of the template's middle; a third more
    it does not."""
    wide = ImageCTF.for_particles(
        (64, 64),
        48,
        max_defocus_angstrom=15000.0,
        voltage_kv=300.0,
        spherical_aberration_mm=2.7,
        pixel_size_angstrom=1.1,
    )
    for score in (wide, wide.of_middle(32)):
        most = score.max_defocus_angstrom(*(np.full(1, v) for v in (300.0, 2.7, 1.1)))
        assert 15000 <= most[0] < 20000


def test_a_defocus_that_is_no_number_is_left_to_the_status(particles):
    nan = jnp.asarray([[jnp.nan] * 2, [3e3] * 2])
    lost = replace(particles, alignment=replace(particles.alignment, defocus_angstrom=nan))
    check_defocus(lost, SCORE)


@pytest.mark.slow
def test_the_position_has_no_slope_but_the_shift_has(particles, template):
    """As documented: boxes are extracted at the position."""

    def total(position):
        at = replace(particles.alignment, position_px=position)
        return jr.score_particles(replace(particles, alignment=at), template, SCORE)[
            0
        ].sum()

    assert not jax.grad(total)(particles.alignment.position_px).any()

    def z(shift):
        offsets = replace(jr.Offsets.zeros(), shift_px=shift)
        return jr.z_score(offsets, particles[0], template, SCORE)

    assert jnp.abs(jax.grad(z)(jnp.full(2, 0.3))).min() > 0.1


def test_at_best_keeps_the_sub_pixel_position(particles, template):
    """Moved by (1.3, -0.6) px, it has the same score as with this shift."""
    one = particles[0]
    move = jnp.asarray([1.3, -0.6])
    moved = replace(one.alignment, position_px=one.alignment.position_px + move)
    found = replace(searched(particles)[0], alignment=moved)
    there, offsets = jr.at_best(one, found, SCORE)
    z = jax.jit(lambda offsets, p: jr.z_score(offsets, p, template, SCORE))
    expected = z(replace(jr.Offsets.zeros(), shift_px=move), one)
    # float32; a shift turns the image's edges in, where no projection reaches
    assert float(z(offsets, there)) == pytest.approx(float(expected), abs=1e-3)
    assert abs(float(z(jr.Offsets.zeros(), there)) - float(expected)) > 0.05
