"""Sums of movie frames, against what Leopard-EM 1.2 and its packages compute."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxrefine.physics.deformation import deformation_at
from jaxrefine.physics.exposure import frame_exposures
from jaxrefine.refine.movies import FrameOptics, add_to_boxes, finished_boxes
from tests.leopard_em_reference import frozen, settings

PEER = frozen("movies")


def summed(movie, corner, shift, box, s):
    """Boxes (n, h, w) at corners, by shifts (t, n, 2)."""
    count = len(corner)
    optics = FrameOptics(
        jnp.full(count, s["pixel_size"], jnp.float32),
        jnp.full(count, s["voltage"], jnp.float32),
    )
    exposures = frame_exposures(len(movie), s["pre_exposure"], s["fluence"])
    exposures = exposures.astype(np.float32)
    sums = jnp.zeros((count, box[0], box[1] // 2 + 1), jnp.complex64)
    for number, frame in enumerate(movie):
        sums = add_to_boxes(
            sums,
            jnp.asarray(frame),
            jnp.asarray(corner, jnp.int32),
            jnp.asarray(shift[number], jnp.float32),
            exposures[number],
            optics,
        )
    return np.asarray(finished_boxes(sums, exposures, optics, tuple(map(int, box))))


def test_a_field_is_between_its_samples_what_the_peers_is():
    ours = deformation_at(PEER["field"], PEER["tyx"])
    # The peer's times and places are float32, off by 1e-7 of up to 4 samples; and it takes
    # the first and last sample to be 1e-6 away from where they are.
    np.testing.assert_allclose(ours, PEER["field_at_tyx"], atol=5e-5)


def test_an_axis_of_one_sample_is_constant():
    field = PEER["field"][:, :1, :, :1]
    places = np.array([[0.0, 0.5, 0.2], [0.7, 0.5, 1.0], [2.0, 0.5, -1.0]])
    # y at 0.5 of three samples is the one in the middle.
    np.testing.assert_allclose(deformation_at(field, places), [field[:, 0, 1, 0]] * 3)


@pytest.mark.parametrize("n", [0, 1])
def test_boxes_are_the_peers(n):
    s = settings(PEER)[n]
    margin = (np.array(PEER["box"]) - PEER["template"]) // 2
    corner, shift = PEER["corner"] - margin, PEER[f"shifts_{n}"]
    ours = summed(PEER[f"movie_{n}"], corner, shift, PEER["box"], s)
    # Shifts below half a pixel, so that nothing is cut elsewhere. float32 on both sides.
    np.testing.assert_allclose(ours, PEER[f"by_shifts_{n}"], atol=2e-5)


def test_boxes_by_a_field_are_the_peers():
    s = settings(PEER)[0]
    movie, side = PEER["movie_0"], PEER["template"][0]
    centre = PEER["corner"] + side // 2
    places = centre / (np.array(movie.shape[1:]) - 1)
    shift = np.stack(
        [
            -deformation_at(PEER["field"], np.column_stack([np.full(3, t), places]))
            for t in np.linspace(0, 1, len(movie))
        ]
    )
    corner = PEER["corner"] - (np.array(PEER["box"]) - PEER["template"]) // 2
    ours = summed(movie, corner, shift / s["pixel_size"], PEER["box"], s)
    peer = PEER["by_field_0"]
    # The peer takes the field from a grid ten times as fine, by another interpolation, and
    # lets what leaves the box come in again: noise at the edge differs, the middle less.
    inner = (slice(None), slice(4, -4), slice(4, -4))
    agreement = np.corrcoef(ours[inner].ravel(), peer[inner].ravel())[0, 1]
    assert agreement > 0.97


def test_a_box_holds_what_a_frame_shows_where_the_specimen_was(rng):
    """A smooth periodic image moved by several pixels comes back from anywhere."""
    y, x = np.indices((64, 64))
    waves = [(3, 5, 0.4), (7, -2, 1.3), (0, 6, 2.0)]

    def image(dy, dx):
        return sum(
            np.cos(2 * np.pi * (a * (y - dy) + b * (x - dx)) / 64 + c) for a, b, c in waves
        )

    shift = np.array([[[7.3, -5.6]], [[0.0, 0.0]], [[-11.45, 3.2]]])
    movie = np.stack([image(*-each[0]) for each in shift]).astype(np.float32)
    still = dict(pixel_size=1.0, voltage=300.0, pre_exposure=0.0, fluence=0.0)
    found = summed(movie, [[16, 16]], shift, (32, 32), still)[0]
    wanted = image(0, 0)[16:48, 16:48] * np.sqrt(3)  # √3: noise as of one frame
    # A cut is not periodic, so that its edge rings.
    inner = slice(8, -8)
    error = (found - found.mean() - wanted + wanted.mean())[inner, inner]
    assert np.abs(error).max() < 0.15 * wanted.std() * np.sqrt(3)
