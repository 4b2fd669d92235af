"""Fits on disk: an earlier run's are used, and only those of the same inputs."""

import numpy as np
import pytest

from jaxrefine.app.cluster.process_group import ProcessGroup
from jaxrefine.app.run.kept_fits import KeptFits
from jaxrefine.refine import joint
from jaxrefine.refine.joint_model import State
from tests.refine.test_joint import Toy

KEPT = (
    *("covariance", "determined", "curvature", "z", "log_likelihood", "own_defocus"),
    *("weight", "passes", "converged"),
)


class Killed(Exception):
    """What ends a run at some pass."""


@pytest.fixture
def toy(monkeypatch):
    toy = Toy(("beam_tilt", "b_factor"), {})
    toy.expose(np.zeros((60, 6)), np.array([0.4, -0.3, 10.0]))
    monkeypatch.setattr(joint, "equations", toy.equations)
    return toy


def fitted(toy, folder, digest="this", most=None):
    """A fit with files in a folder, killed after so many passes; and their number."""
    model, passes = toy.model(), []

    def source(every=model.source):
        passes.append(1)
        if most is not None and len(passes) > most:
            raise Killed
        return every()

    object.__setattr__(model, "source", source)
    kept = KeptFits(folder, digest, ProcessGroup(), model.total)
    free = np.ones(len(toy.design.values), bool)
    return kept.fit("all", model, State.start(toy.design), free), len(passes)


def assert_same(one, other):
    for name in KEPT:
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    np.testing.assert_array_equal(one.state.shared, other.state.shared)
    np.testing.assert_array_equal(one.state.own, other.state.own)


def test_a_fit_that_was_killed_goes_on(toy, tmp_path):
    (tmp_path / "whole").mkdir()
    whole, passes = fitted(toy, tmp_path / "whole")
    with pytest.raises(Killed):
        fitted(toy, tmp_path, most=5)
    found, more = fitted(toy, tmp_path)
    assert_same(whole, found)
    assert more <= passes - 3  # the fifth was lost, and where it was is passed once more
    again, none = fitted(toy, tmp_path)
    assert none == 0 and again.determined.dtype == bool and again.converged is True
    assert_same(whole, again)


def test_files_that_are_not_of_this_run_are_left_alone(toy, tmp_path, caplog):
    whole, passes = fitted(toy, tmp_path)
    file = tmp_path / "all.npz"
    for digest, content, said in (
        ("other", file.read_bytes(), "damaged (of another run)"),
        ("this", b"", "damaged"),
        ("this", file.read_bytes()[:500], "damaged"),
    ):
        file.write_bytes(content)
        caplog.clear()
        found, again = fitted(toy, tmp_path, digest)
        assert again == passes and said in caplog.text
        assert_same(whole, found)
