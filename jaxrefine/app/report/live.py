"""Regular updates of the report during a run, at a small fraction of its time."""

import logging
import time

import numpy as np

from jaxrefine.app.report.page import ReportOptions, default_folder, write_page
from jaxrefine.app.report.table_data import ReportData
from jaxrefine.app.run.checkpoint import Checkpoint
from jaxrefine.app.run.results import Results
from jaxrefine.data import InputError
from jaxrefine.io.table import ParticleTable

log = logging.getLogger("jaxrefine")

# While a page is written, devices are idle.
_LARGEST_SHARE = 0.05


class LivePage:
    """Called after each micrograph; writes a report of the results so far.

    It does so for at most 5 % of the run's time: a page takes a fraction of a second for
    thousands of particles. Images of micrographs and particles, and figures for print, are
    added in the final report.

    Args:
        shared: Other processes refine a part of the particles.
    """

    def __init__(self, *, shared: bool = False):
        self._shared = shared
        self._next, self._told, self._broken = 0.0, False, False

    def __call__(self, results: Results, checkpoint: Checkpoint) -> None:
        """Write the page, if it is time and something has been refined."""
        started = time.monotonic()
        if self._broken or started < self._next:
            return
        try:
            if self._shared:  # load the results of other processes
                results.load(checkpoint, range(len(results.inputs.groups)))
            if not results.done.any():
                return
            self._write(results)
        except InputError as error:  # a failure must not end the run
            log.warning("no report during the run: %s", error)
            self._broken = True
        ended = time.monotonic()
        self._next = ended + (ended - started) / _LARGEST_SHARE

    def _write(self, results: Results) -> None:
        rows = np.flatnonzero(results.done)
        inputs = results.inputs
        so_far = ParticleTable(
            path=inputs.output,
            raw=results.table().iloc[rows].reset_index(drop=True),
            row_numbers=tuple(inputs.table.row_numbers[row] for row in rows),
            row_word=inputs.table.row_word,
        )
        options = ReportOptions(
            micrographs=0,
            thumbnails=0,
            particles=0,
            config=inputs.config,
            path_map=inputs.config.path_map,
            going_on=(len(rows), len(inputs.table)),
        )
        page = write_page(ReportData(so_far), default_folder(inputs.output), options)
        if not self._told:
            log.info("report of the results so far, updated during the run: %s", page)
            self._told = True
