"""What a run has found so far, row by row."""

import itertools
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from jaxrefine.app.console.summary import Summary
from jaxrefine.app.run.checkpoint import Checkpoint
from jaxrefine.app.run.inputs import RunInputs
from jaxrefine.data import Polished, Refined, Status
from jaxrefine.io.paths import rebase_relative_paths
from jaxrefine.io.table import write_table
from jaxrefine.io.table.dataframe import DataFrame
from jaxrefine.io.table.polished import mean_defocus, polish_statuses, polished_numbers
from jaxrefine.io.table.refined import RefinedColumns, refined_table
from jaxrefine.io.table.schema import ANGLES, POLISHED
from jaxrefine.physics.rotations import matrix_to_euler
from jaxrefine.refine.prepare import Micrograph, filled_fraction
from jaxrefine.refine.refine import at_edges


class Results:
    """Results of the rows, as they come.

    Attributes:
        inputs: The run.
        columns: What was found; NaN where nothing was, or not yet.
        done: Which rows need no more work.
        continued: How many an earlier run had left.
    """

    def __init__(self, inputs: RunInputs):
        n = len(inputs.table)
        self.inputs = inputs
        self._own_start = inputs.table.start()
        self._defocus = np.asarray(inputs.grid.defocus_angstrom)
        self._pixel_size = np.asarray(inputs.grid.pixel_size_angstrom)
        self.done = np.zeros(n, bool)
        self.continued = 0
        self._polished, self._polish = np.full((n, len(POLISHED)), np.nan), [""] * n
        self.columns = RefinedColumns(
            template_side=inputs.score.side,
            mip=np.full(n, np.nan, np.float32),
            scaled_mip=np.full(n, np.nan, np.float32),
            position_px=np.full((n, 2), np.nan),
            euler_deg=np.full((n, 3), np.nan),
            relative_defocus_angstrom=np.full(n, np.nan),
            pixel_size_angstrom=np.full(n, np.nan),
            snr=np.full(n, np.nan, np.float32),
            status=[""] * n,
            at_edge=[""] * n,
            filled=np.full(n, np.nan) if inputs.config.fill_defects else None,
            polished=self._polished if inputs.polish else None,
            polish=self._polish if inputs.polish else None,
        )

    def load(
        self, checkpoint: Checkpoint, numbers: Iterable[int], *, final: bool = False
    ) -> bool:
        """Take what was saved of some micrographs.

        Args:
            checkpoint: Where it was saved.
            numbers: Of the micrographs.
            final: Also take rows whose files could not be read; before, they are tried
                once more.

        Returns:
            Whether all rows of the table are there.
        """
        found = checkpoint.load(self.columns, numbers)
        if not final:
            unreadable = _name(Status.UNREADABLE)
            found &= np.array([status != unreadable for status in self.columns.status])
        self.done |= found
        return bool(self.done.all())

    def save(self, checkpoint: Checkpoint, number: int, rows: np.ndarray) -> None:
        """Save a micrograph's rows, as far as they are done."""
        if self.done[rows].any():
            checkpoint.save(number, rows[self.done[rows]], self.columns)

    def store_unreadable(self, rows: np.ndarray) -> None:
        """Say that the files of these rows could not be read."""
        for row in rows:
            self.columns.status[row] = _name(Status.UNREADABLE)
        self.done[rows] = True

    def mark_filled(self, rows: np.ndarray, micrograph: Micrograph) -> None:
        """Say how much of each template, where the search starts, is no image."""
        if self.columns.filled is None or micrograph.filled is None:
            return
        corner = jnp.asarray(self.inputs.start.position_px[rows], jnp.float32)
        side = self.inputs.score.side
        self.columns.filled[rows] = filled_fraction(micrograph.filled, corner, side)

    def store(
        self, rows: np.ndarray, refined: Refined, polished: Polished | None = None
    ) -> None:
        """Keep the results of a batch; a particle that was not refined stays NaN."""
        columns, start = self.columns, self._own_start
        for row, status in zip(rows, refined.status, strict=True):
            columns.status[row] = _name(Status(int(status)))
        self.done[rows] = True
        good = np.isfinite(refined.z_score)
        rows = rows[good]
        refined, polished = jax.tree.map(lambda x: x[good], (refined, polished))
        at_pixel_size, at_defocus = refined.grid_index[:, 0], refined.grid_index[:, 1]
        for row, words in zip(rows, self._edges(refined), strict=True):
            columns.at_edge[row] = words
        columns.mip[rows] = refined.correlation
        columns.scaled_mip[rows] = refined.z_score
        columns.snr[rows] = refined.snr
        columns.position_px[rows] = refined.alignment.position_px
        rotation = refined.alignment.rotation.astype(np.float64)
        columns.euler_deg[rows] = matrix_to_euler(rotation)
        columns.relative_defocus_angstrom[rows] = (
            start.relative_defocus_angstrom[rows] + self._defocus[at_defocus]
        )
        columns.pixel_size_angstrom[rows] = (
            start.pixel_size_angstrom[rows] + self._pixel_size[at_pixel_size]
        )
        if polished is not None:
            self._store_polished(rows, refined, polished)

    def _edges(self, refined: Refined) -> list[str]:
        """Of each particle, what was found outermost of all that was searched."""
        index = jnp.asarray(refined.grid_index)
        edges = at_edges(self.inputs.grid, self.inputs.score, index)
        flags = zip(*(np.asarray(flag).tolist() for flag in edges.values()), strict=True)
        return [" ".join(itertools.compress(edges, each)) for each in flags]

    def _store_polished(
        self, rows: np.ndarray, refined: Refined, polished: Polished
    ) -> None:
        """Put polished values in the place of the grid's, and these into their own."""
        columns, best = self.columns, polished.refined
        grid = {
            "grid_mip": columns.mip[rows],
            "grid_scaled_mip": columns.scaled_mip[rows],
            "grid_pos_y": columns.position_px[rows, 0],
            "grid_pos_x": columns.position_px[rows, 1],
            "grid_relative_defocus": columns.relative_defocus_angstrom[rows],
            "grid_pixel_size": columns.pixel_size_angstrom[rows],
            **{f"grid_{name}": columns.euler_deg[rows, i] for i, name in enumerate(ANGLES)},
        }
        gained = mean_defocus(best.alignment) - mean_defocus(refined.alignment)
        columns.mip[rows] = best.correlation
        columns.scaled_mip[rows] = best.z_score
        columns.snr[rows] = best.snr
        columns.position_px[rows] = np.rint(best.alignment.position_px)
        columns.euler_deg[rows] = matrix_to_euler(
            best.alignment.rotation.astype(np.float64)
        )
        columns.relative_defocus_angstrom[rows] += gained
        columns.pixel_size_angstrom[rows] += (
            best.alignment.pixel_size_angstrom.astype(np.float64)
            - refined.alignment.pixel_size_angstrom
        )
        relative_defocus = columns.relative_defocus_angstrom[rows]
        numbers = grid | polished_numbers(
            polished, relative_defocus, self.inputs.config.polish.parameters
        )
        self._polished[rows] = np.stack([numbers[name] for name in POLISHED], axis=-1)
        for row, word in zip(rows, polish_statuses(polished), strict=True):
            self._polish[row] = word

    def table(self) -> DataFrame:
        """The refined table, all cells as text."""
        return refined_table(self.inputs.table, self.columns)

    def write(self, output: Path) -> Path:
        """Write the refined table; paths in it are found from its folder, too.

        Raises:
            InputError: The file cannot be written.
        """
        folders = (path.absolute().parent for path in (self.inputs.table.path, output))
        write_table(rebase_relative_paths(self.table(), *folders), output)
        return output

    def summary(self, seconds: float) -> Summary:
        """Means over the particles that were refined."""
        refined = np.isfinite(self.columns.scaled_mip)
        table, statuses = self.inputs.table, Counter(self.columns.status)
        earlier = table.numbers("refined_scaled_mip")
        again = self._own_start.from_refined & np.isfinite(earlier)
        before = np.where(again, earlier, table.numbers("scaled_mip"))
        return Summary(
            output=self.inputs.output,
            particles=len(refined),
            refined=int(refined.sum()),
            continued=self.continued,
            mean_z_before=_mean(before[refined]),
            mean_z_after=_mean(self.columns.scaled_mip[refined]),
            mean_snr=_mean(self.columns.snr[refined]),
            statuses={status: statuses[_name(status)] for status in Status},
            seconds=seconds,
        )


def _name(status: Status) -> str:
    """A status as tables have it."""
    return status.name.lower()


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else float("nan")
