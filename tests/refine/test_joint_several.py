"""The joint fit by several processes, and one that goes on after an interruption."""

import functools
import threading

import numpy as np
import pytest

from jaxrefine.refine import joint, joint_scan
from jaxrefine.refine.joint import fit_jointly
from jaxrefine.refine.joint_model import Progress, State
from jaxrefine.refine.joint_scan import Ranges, coarse_scan
from jaxrefine.refine.shared import OWN_COUNT
from tests.refine.test_joint import Toy

COUNT = 90


@pytest.fixture
def toy(monkeypatch):
    """Particles of three micrographs with false picks, and a row that cannot be read."""
    names = ("beam_tilt", "b_factor", "defocus", "defocus_plane")
    micrograph = np.arange(COUNT) % 3
    strength = np.where(np.arange(COUNT) % 5 == 0, 0.0, 12.0)
    groups = {"defocus": micrograph, "defocus_plane": micrograph}
    toy = Toy(names, groups, count=COUNT, strength=strength)
    own = toy.rng.normal(0, 0.2, (COUNT, OWN_COUNT)) * toy.design.own_sigma
    shared = np.zeros(len(toy.design.values))
    shared[:2], shared[3] = (0.4, -0.3), 30.0
    toy.expose(own, shared)
    toy.seen[COUNT - 1] = np.nan
    monkeypatch.setattr(joint, "equations", toy.equations)
    return toy


class Together:
    """The sums over threads that stand for processes."""

    def __init__(self, count):
        self.barrier, self.parts = threading.Barrier(count, timeout=60), [None] * count
        self.sums = []

    def total(self, index, arrays):
        self.parts[index] = [np.array(array) for array in arrays]
        self.barrier.wait()
        found = [sum(parts) for parts in zip(*self.parts, strict=True)]
        self.barrier.wait()
        if index == 0:
            self.sums.append(found)
        return found

    def run(self, toy, rows_of, work):
        """Results of `work(model)` of all threads, each with its own rows."""
        found = [None] * len(rows_of)

        def one(index):
            try:
                total = functools.partial(self.total, index)
                found[index] = work(toy.model(rows_of[index], total))
            except BaseException:
                self.barrier.abort()
                raise

        threads = [threading.Thread(target=one, args=(i,)) for i in range(len(rows_of))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert all(result is not None for result in found)
        return found


def assert_same(one, other, rtol=0.0):
    """Of two fits; sums in another order differ in the last digits."""
    for name in ("covariance", "z", "weight"):
        a, b = getattr(one, name), getattr(other, name)
        np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol * np.nanmax(abs(a)))
    for name in ("shared", "own"):
        a, b = getattr(one.state, name)[:-1], getattr(other.state, name)[:-1]
        np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol * abs(a).max())
    assert one.determined.tolist() == other.determined.tolist()
    assert (one.passes, one.converged) == (other.passes, other.converged)


def test_processes_find_what_one_finds(toy):
    """Each with some of the micrographs: all end with the same values of all particles."""
    model, nothing = toy.model(), State.start(toy.design)
    # Away from the optimum, so that what a process does not read would count if it could.
    start = State(nothing.shared, nothing.own + 0.2 * toy.design.own_sigma)
    free = np.ones(len(toy.design.values), bool)
    alone = fit_jointly(model, start, free)
    assert alone.converged and alone.weight[:-1].min() < 0.1
    rows = [np.flatnonzero(np.arange(COUNT) % 3 != 1), np.arange(1, COUNT, 3)]
    together, of_one = Together(2), Together(1)
    several = together.run(toy, rows, lambda mine: fit_jointly(mine, start, free))
    assert_same(several[0], several[1])
    # 14 digits in the sums; curvatures that differ by 1e5 lose up to five of them.
    assert_same(alone, several[0], rtol=1e-9)
    # All sums, also those that decide only on steps, and so rarely change the result.
    of_one.run(toy, [np.arange(COUNT)], lambda model: fit_jointly(model, start, free))
    assert len(of_one.sums) == len(together.sums) > alone.passes
    for one, other in zip(of_one.sums, together.sums, strict=True):
        for a, b in zip(one, other, strict=True):
            assert np.isfinite(a).all()  # whatever the row that cannot be read
            np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9 * np.nanmax(abs(a)))


def test_processes_scan_what_one_scans(toy, monkeypatch):
    """A peak per micrograph and one of all are found although each process sees few."""
    peak = np.array([150.0, -300.0, 0.0])[np.arange(COUNT) % 3]

    def scores(rows, at, *_):
        slices = toy.design.local.slices
        tilt = at[..., slices["beam_tilt"]] - np.array([1.0, -2.0])
        defocus = at[..., slices["defocus"]][..., 0] - peak[rows][:, None]
        return 9 - np.sum(np.asarray(tilt) ** 2, axis=-1) - np.asarray(defocus / 200) ** 2

    monkeypatch.setattr(joint_scan, "scores", scores)
    model, start = toy.model(), State.start(toy.design)

    def scan(model):
        return coarse_scan(model, start, Ranges(0.0, 450.0, 2.0), 2.0).shared

    alone = scan(model)
    expected = {"beam_tilt_x": [1], "beam_tilt_y": [-2], "defocus": [150, -300, 0]}
    for number, value in enumerate(toy.design.values):
        if value.label in expected:
            assert alone[number] == pytest.approx(expected[value.label][value.group])
    rows = [
        np.flatnonzero(np.arange(COUNT) % 3 == 1),
        np.flatnonzero(np.arange(COUNT) % 3 != 1),
    ]
    for found in Together(2).run(toy, rows, scan):
        assert found.tolist() == alone.tolist()


def test_a_fit_goes_on_where_it_was(toy):
    """From any of its steps, to the same result in the same number of passes."""
    model, start = toy.model(), State.start(toy.design)
    free, kept = np.ones(len(toy.design.values), bool), []
    whole = fit_jointly(model, start, free, keep=kept.append)
    assert len(kept) > 4 and isinstance(kept[0], Progress)
    for progress in (kept[1], kept[len(kept) // 2], kept[-1]):
        again = []
        found = fit_jointly(model, start, free, resume=progress, keep=again.append)
        assert_same(whole, found)
        assert len(again) == len(kept) - kept.index(progress)
