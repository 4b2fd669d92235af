"""Sums over processes, by files; threads stand for the processes."""

import threading

import numpy as np
import pytest

from jaxrefine.app.cluster.process_group import ProcessGroup
from jaxrefine.app.console.interrupts import Stopped
from jaxrefine.app.run import process_sums as sums
from jaxrefine.app.run.process_sums import SumsOnDisk

COUNT = 3


class Thread(ProcessGroup):
    """A process whose texts reach the others by a barrier."""

    barrier = threading.Barrier(COUNT, timeout=30)

    def gather(self, name, text):
        self.barrier.wait()
        return [text] * COUNT


def test_all_get_the_same_sums(tmp_path):
    """Of arrays of any shape and kind, in each of several rounds; one file each is left."""
    found = [[] for _ in range(COUNT)]
    rng = np.random.default_rng(0)
    terms = rng.normal(size=(COUNT, 4, 3, 5))

    def work(index):
        total = SumsOnDisk(Thread(index=index, count=COUNT), tmp_path)
        for round_terms in terms[index]:
            found[index].append(total([round_terms, np.array(index), np.zeros(0)]))

    threads = [threading.Thread(target=work, args=(i,)) for i in range(COUNT)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number in range(4):
        matrix, scalar, none = found[0][number]
        np.testing.assert_allclose(matrix, terms[:, number].sum(axis=0), rtol=1e-12)
        assert scalar == 0 + 1 + 2 and none.shape == (0,)
        for other in found[1:]:
            assert other[number][0].tobytes() == matrix.tobytes()
    assert len(list(tmp_path.iterdir())) == COUNT


def test_one_process_needs_no_files(tmp_path):
    (found,) = SumsOnDisk(ProcessGroup(), tmp_path)([np.arange(3)])
    assert found.tolist() == [0, 1, 2] and not list(tmp_path.iterdir())


def test_a_file_that_never_comes_is_an_error(tmp_path, monkeypatch):
    """As without a shared folder."""
    monkeypatch.setattr(sums, "_SECONDS_TO_APPEAR", 0.2)
    group = ProcessGroup(index=0, count=2)
    monkeypatch.setattr(group, "gather", lambda name, text: [text, text])
    with pytest.raises(Stopped, match="which process 1 wrote, is not to be seen"):
        SumsOnDisk(group, tmp_path)([np.ones(2)])
