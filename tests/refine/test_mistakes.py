"""Mistakes that a researcher made with arrays only: one clear message each."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrefine as jr
from jaxrefine import simulate as sim
from jaxrefine.testing import check_score
from tests.refine.test_arguments import (
    GRID,
    MICROGRAPH,
    OPTICS,
    PIXEL_SIZE,
    SCORE,
    WORLD,
    cut,
    searched,
)

NUMBERS = {
    "max_defocus_angstrom": 3000.0,
    "voltage_kv": 300.0,
    "spherical_aberration_mm": 2.7,
    "pixel_size_angstrom": 2.0,
}


FILTERS = jr.Filters()


def prepare(image=WORLD.image, filters=FILTERS):
    return jr.prepare_micrograph(image, *WORLD.maps, filters)


def score(box=(24, 24), **changed):
    return jr.ImageCTF.for_particles(box, 16, **(NUMBERS | changed))


def polish_of_another_grid(particles, template):
    found = replace(searched(particles), orientation_z=jnp.zeros((2, 2)))
    return jr.polish_particles(particles, found, template, GRID, SCORE)


def at_defocus(particle, defocus):
    return replace(
        particle,
        alignment=replace(particle.alignment, defocus_angstrom=jnp.full(2, defocus)),
    )


WRONG = {
    # Starting values and optics
    "no rotation": (
        lambda p, t: cut(rotation=jnp.ones((2, 3, 3))),
        "rotation of particle 0",
    ),
    "mirrored": (
        lambda p, t: cut(rotation=jnp.stack([jnp.eye(3), -jnp.eye(3)])),
        "rotation of particle 1.*not mirrored",
    ),
    "position of NaN": (
        lambda p, t: cut(position_px=jnp.asarray([[1.0, 2.0], [jnp.nan, 3.0]])),
        "position_px of particle 1: not finite",
    ),
    "no pixel size": (
        lambda p, t: cut(pixel_size_angstrom=jnp.zeros(2)),
        r"alignment\.pixel_size_angstrom of particle 0: 0; expected 0\.01",
    ),
    "voxel size in nm": (
        lambda p, t: cut(pixel_size=PIXEL_SIZE / 10),
        "template_pixel_size_angstrom of particle 0: 0.2 Å, for pixels of 2 Å.*not nm",
    ),
    "no voxel size": (lambda p, t: cut(pixel_size=PIXEL_SIZE * 0), "particle 0: 0 Å"),
    "voltage in V": (
        lambda p, t: cut(optics=replace(OPTICS, voltage_kv=jnp.full(2, 3e5))),
        r"optics\.voltage_kv of particle 0: 300000; expected 1 … 5000",
    ),
    "amplitude contrast in per cent": (
        lambda p, t: cut(optics=replace(OPTICS, amplitude_contrast=jnp.full(2, 7.0))),
        "amplitude_contrast.*0 … 1",
    ),
    "image as micrograph": (
        lambda p, t: jr.cut_particles(
            WORLD.image, WORLD.alignment(), OPTICS, PIXEL_SIZE, SCORE
        ),
        r"jr\.prepare_micrograph",
    ),
    # Images
    "no filters": (lambda p, t: prepare(filters=None), r"NoneType.*jr\.Filters\(\)"),
    "transform as image": (lambda p, t: prepare(WORLD.image + 0j), "complex"),
    # Scores
    "box of one number": (lambda p, t: score(24), "box 24.*height, width"),
    "largest defocus NaN": (
        lambda p, t: score(max_defocus_angstrom=np.nan),
        "max_defocus_angstrom nan: not finite",
    ),
    "score of V": (lambda p, t: score(voltage_kv=3e5), "voltage_kv: 300000"),
    "negative pixel size": (lambda p, t: score(pixel_size_angstrom=-1.0), "pixel_size.*-1"),
    "padded box in the box": (
        lambda p, t: jr.ImageCTF((24, 24), 16, (20, 20), 33),
        r"padded_shape \(20, 20\).*for_particles",
    ),
    "grid of another score": (
        lambda p, t: jr.score_particles(
            replace(
                p, alignment=replace(p.alignment, pixel_size_angstrom=jnp.full(2, 0.2))
            ),
            t,
            SCORE,
        ),
        "particle 0: with 300 kV.*0.2 Å per pixel.*check the units",
    ),
    "z at a defocus in µm": (
        lambda p, t: jr.z_score(jr.Offsets.zeros(), at_defocus(p[0], 1.2), t, SCORE),
        "1.2 Å.*12000 Å",
    ),
    "z beyond the score's defocus": (
        lambda p, t: jr.z_score(jr.Offsets.zeros(), at_defocus(p[0], 9e3), t, SCORE),
        "^a defocus of 9000 Å.*max_defocus_angstrom",
    ),
    "number to the test kit": (lambda p, t: check_score(3), "score: int"),
    # Grids
    "rotations without a mask": (lambda p, t: jr.local_grid(np.eye(3)[None]), "mask"),
    "scaled rotations": (
        lambda p, t: jr.local_grid((2 * np.eye(3)[None], np.zeros(1, bool))),
        "not all matrices are rotations",
    ),
    "mask of another length": (
        lambda p, t: jr.local_grid((np.eye(3)[None], np.zeros(2, bool))),
        r"\(1, 3, 3\) rotations and a mask \(2,\)",
    ),
    "u and v as offsets": (
        lambda p, t: jr.local_grid(None, np.zeros((3, 2)), np.asarray([np.nan])),
        r"defocus_angstrom: offsets \(3, 2\).*pixel_size_angstrom: offsets \(1,\)",
    ),
    "unknown frame": (lambda p, t: jr.local_grid(frame="lab"), "'lab'.*'volume'"),
    "step of 0°": (
        lambda p, t: jr.uniform_orientations(
            psi_coarse=1.0, psi_fine=0.0, theta_coarse=1.0, theta_fine=0.5
        ),
        "steps of 0°",
    ),
    "offsets backwards": (lambda p, t: jr.search_offsets(9.0, -9.0, 1.0), "min ≤ max"),
    # Polish and posterior
    "polish with another grid": (
        polish_of_another_grid,
        "2 orientations, the grid has 1: expected the grid that was searched",
    ),
    "settings as a dictionary": (
        lambda p, t: jr.polish_particles(
            p, searched(p), t, GRID, SCORE, {"method": "adam"}
        ),
        r"dict; expected jr\.Polish",
    ),
    "posterior of a batch": (
        lambda p, t: jr.grid_posterior(grid_scores(), GRID),
        r"scores of shape \(3, 1, 1, 2\).*scores\[i\]",
    ),
    # Devices
    "explicit axes": (
        lambda p, t: jr.refine_particles(
            p, t, GRID, SCORE, mesh=jax.make_mesh((1, 1), ("particles", "orientations"))
        ),
        r"\['Explicit', 'Explicit'\].*Auto",
    ),
    "devices as mesh": (
        lambda p, t: jr.refine_particles(p, t, GRID, SCORE, mesh=jax.devices()),
        r"mesh: list.*jr\.device_mesh",
    ),
    "no devices": (lambda p, t: jr.device_mesh([]), "empty list"),
    # Templates
    "complex template": (lambda p, t: jr.make_template(WORLD.volume + 0j), "complex"),
    "volume to project": (
        lambda p, t: jr.project(WORLD.volume, jnp.eye(3)),
        "make_template",
    ),
    "rotations to project": (
        lambda p, t: jr.project(t, p.alignment.rotation),
        r"rotation: shape \(2, 3, 3\).*vmap",
    ),
    "formula as elements": (
        lambda p, t: jr.template_from_atoms(np.zeros((2, 3)), "CO", np.zeros(2), 1.0, 8),
        "2 letters.*list of symbols",
    ),
}


def grid_scores(count=3):
    values = jnp.arange(2.0 * count).reshape(count, 1, 1, 2)
    return jr.GridScores(values, values, jnp.zeros((count, 1, 1, 2, 2), jnp.int32))


@pytest.mark.parametrize("name", WRONG)
def test_one_message_says_what_is_wrong(name, refused):
    refused(*WRONG[name])


def test_what_is_not_finite_or_padding_has_a_status(particles):
    """A particle that fails never stops the others."""
    lost = replace(OPTICS, voltage_kv=jnp.asarray([jnp.nan, 300.0]))
    assert len(cut(optics=lost)) == 2
    rotation = jnp.stack([jnp.full((3, 3), jnp.nan), jnp.eye(3)])
    assert len(cut(rotation=rotation)) == 2
    padding = replace(WORLD.alignment(), rotation=jnp.stack([jnp.eye(3), jnp.ones((3, 3))]))
    valid = jnp.asarray([True, False])
    given = (MICROGRAPH, padding, OPTICS, PIXEL_SIZE, SCORE)
    assert len(jr.cut_particles(*given, valid=valid)) == 2
    assert jr.Status(4).meaning.startswith("no finite score")


def test_particles_can_be_cut_inside_jit(particles):
    """Where values are not known, they are not checked."""

    @jax.jit
    def image(alignment):
        return jr.cut_particles(MICROGRAPH, alignment, OPTICS, PIXEL_SIZE, SCORE).image

    np.testing.assert_allclose(image(WORLD.alignment()), particles.image, rtol=1e-6)


@pytest.mark.slow
def test_float64_elsewhere_does_not_change_images_in_float32():
    """With JAX set to float64, they would take twice the memory."""
    image = np.asarray(WORLD.image, np.float32)
    with jax.enable_x64(True):
        assert prepare(jnp.asarray(image)).image.dtype == jnp.float32


def test_scores_of_one_particle_are_taken_by_its_index():
    scores = grid_scores()
    assert len(scores) == 3 and scores[1].strength.shape == (1, 1, 2)
    with pytest.raises(TypeError, match="one particle"):
        len(scores[1])
    assert len(list(scores)) == 3
    grid = jr.SearchGrid(
        jnp.stack([jnp.eye(3)] * 2), jnp.zeros(2, bool), jnp.zeros(1), jnp.zeros(1)
    )
    # log L = s²/2 of the strengths 2 and 3
    ratio = jr.grid_posterior(scores[1], grid).probability.ravel()
    assert ratio[1] / ratio[0] == pytest.approx(np.exp((9 - 4) / 2))


def test_atoms_beyond_the_volume_are_refused():
    """They would reappear on the opposite side."""
    atoms = sim.Atoms(np.asarray([[0.0, 0.0, 9.0]]), np.ones(1), np.zeros(1))
    with pytest.raises(ValueError, match=r"9 px from the centre.*at least 18"):
        sim.potential_volume(atoms, 16, 1.0)
    assert sim.potential_volume(atoms, 18, 1.0).shape == (18,) * 3
