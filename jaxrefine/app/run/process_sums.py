"""Sums over the processes of a run, by files in a folder that all of them see."""

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from jaxrefine.app.cluster.process_group import ProcessGroup
from jaxrefine.app.console.exit_codes import EXIT_FAILED
from jaxrefine.app.console.interrupts import Stopped
from jaxrefine.io.atomic import atomic_open

SUMS_SUFFIX = ".npy"
# Network file systems may show files of another machine with delay.
_SECONDS_TO_APPEAR = 120.0


class SumsOnDisk:
    """Sums arrays of equal shapes over all processes, each of which gets the same result.

    Args:
        processes: The processes; each calls this equally often.
        folder: A folder that all of them see.
    """

    def __init__(self, processes: ProcessGroup, folder: Path):
        self._processes, self._folder, self._number = processes, folder, 0

    def __call__(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The sums; returns when all processes have given their arrays.

        Raises:
            InputError: The folder cannot be written.
            Stopped: A process has stopped, or its file is not to be seen.
        """
        processes, number = self._processes, self._number
        if processes.count == 1:
            return list(arrays)
        mine = np.concatenate([np.ravel(array).astype(float) for array in arrays])
        with atomic_open(self._path(number, processes.index)) as file:
            np.save(file, mine)
        processes.gather(f"sum/{number}", "")
        # In the order of the processes, so that all get the same digits.
        whole = np.zeros_like(mine)
        for index in range(processes.count):
            whole += mine if index == processes.index else self._read(number, index)
        # All are here, so nobody reads the previous file any more.
        self._path(number - 1, processes.index).unlink(missing_ok=True)
        self._number += 1
        ends = np.cumsum([np.size(array) for array in arrays])[:-1]
        parts = np.split(whole, ends)
        return [p.reshape(np.shape(a)) for p, a in zip(parts, arrays, strict=True)]

    def _path(self, number: int, index: int) -> Path:
        return self._folder / f"sum-{number:06d}-{index}{SUMS_SUFFIX}"

    def _read(self, number: int, index: int) -> np.ndarray:
        path, late = self._path(number, index), time.monotonic() + _SECONDS_TO_APPEAR
        while not path.exists():
            if time.monotonic() > late:
                text = f"{path}, which process {index} wrote, is not to be seen (do all "
                raise Stopped(f"{text}machines share the folder?)", EXIT_FAILED)
            self._processes.stop.check()
            time.sleep(0.1)
        return np.load(path, allow_pickle=False)
