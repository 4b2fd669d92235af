"""The results of a run so far, row by row."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from jaxrefine.app.console.summary import FoundPartners, Summary
from jaxrefine.app.run.checkpoint import Checkpoint
from jaxrefine.app.run.columns import columns_of_polish, columns_of_search, status_name
from jaxrefine.app.run.constrained import side_files, write_parameters
from jaxrefine.app.run.inputs import RunInputs
from jaxrefine.app.run.score_changes import (
    compare_expected,
    expected_scores,
    fallen_micrographs,
    z_at_start,
)
from jaxrefine.data import Polished, Refined, Status
from jaxrefine.io.hdf5 import SUFFIXES as HDF5_SUFFIXES
from jaxrefine.io.hdf5 import is_hdf5
from jaxrefine.io.paths import rebase_relative_paths
from jaxrefine.io.table import write_table
from jaxrefine.io.table.dataframe import DataFrame
from jaxrefine.io.table.hdf5 import hdf5_attributes, write_hdf5
from jaxrefine.io.table.refined import RefinedColumns, refined_table
from jaxrefine.physics.symmetry import in_asymmetric_unit
from jaxrefine.refine.prepare import Micrograph, filled_fraction
from jaxrefine.refine.significance import SearchSpace, expected_peaks, p_values

_STATUS, _FILLED = "refined_status", "refined_filled_fraction"


class Results:
    """Results of the rows during a run.

    Attributes:
        inputs: The run.
        columns: The results; NaN where there is none, or not yet.
        done: Mask of the rows that are finished.
        continued: Number of rows from the checkpoint of an earlier run.
    """

    def __init__(self, inputs: RunInputs):
        n = len(inputs.table)
        self.inputs = inputs
        self._own_start = inputs.table.start()
        self.done = np.zeros(n, bool)
        self.continued = 0
        self.columns = RefinedColumns.empty(
            n,
            inputs.template_side,
            polished=inputs.polish is not None,
            partner=inputs.constraint is not None,
        )

    def load(
        self, checkpoint: Checkpoint, numbers: Iterable[int], *, final: bool = False
    ) -> bool:
        """Load saved results of some micrographs.

        Args:
            checkpoint: The checkpoint.
            numbers: Numbers of the micrographs.
            final: Also load rows whose files could not be read; otherwise they are tried
                again.

        Returns:
            Whether the results of all rows of the table exist.
        """
        found = checkpoint.load(self.columns, numbers)
        if not final:
            found &= self.columns[_STATUS] != status_name(Status.UNREADABLE)
        self.done |= found
        return bool(self.done.all())

    def save(self, checkpoint: Checkpoint, number: int, rows: np.ndarray) -> None:
        """Save the finished rows of a micrograph."""
        if self.done[rows].any():
            checkpoint.save(number, rows[self.done[rows]], self.columns)

    def store_unreadable(self, rows: np.ndarray) -> None:
        """Mark rows whose files could not be read."""
        self.columns.store(rows, {_STATUS: status_name(Status.UNREADABLE)})
        self.done[rows] = True

    def mark_filled(self, rows: np.ndarray, micrograph: Micrograph) -> None:
        """Store which fraction of each template covers filled pixels at the start."""
        if micrograph.filled is None:
            return
        corner = jnp.asarray(self.inputs.start.position_px[rows].astype(np.float32))
        side = self.inputs.template_side
        fraction = np.asarray(filled_fraction(micrograph.filled, corner, side))
        self.columns.store(rows, {_FILLED: fraction})

    def store(
        self, rows: np.ndarray, refined: Refined, polished: Polished | None = None
    ) -> None:
        """Store the results of a batch; particles that were not refined stay NaN."""
        statuses = [status_name(Status(int(status))) for status in refined.status]
        self.columns.store(rows, {_STATUS: statuses})
        self.done[rows] = True
        good = np.isfinite(refined.z_score)
        rows = rows[good]
        refined, polished = jax.tree.map(lambda x: x[good], (refined, polished))
        inputs = self.inputs
        refined = self._reported(refined)
        found = columns_of_search(refined, self._own_start, rows, inputs.grid, inputs.score)
        if polished is not None and inputs.polish is not None:
            best = self._reported(polished.refined)
            there: Polished = eqx.tree_at(lambda p: p.refined, polished, best)
            found |= columns_of_polish(there, refined, found, inputs.polish.parameters)
        ours, the_table_s = (
            np.asarray(start.optics.b_factor_angstrom2)
            for start in (inputs.start, self._own_start)
        )
        if np.any(ours != the_table_s):
            found["template_envelope_b"] = (ours - the_table_s)[rows]
        if inputs.constraint is not None:
            pixel_size = inputs.start.pixel_size_angstrom[rows]
            found |= inputs.constraint.columns(refined, found, pixel_size)
        self.columns.store(rows, found)

    def mark_significance(
        self,
        rows: np.ndarray,
        refined: Refined,
        metric: np.ndarray | None,
        micrograph: Micrograph,
    ) -> None:
        """Store p-values and expected false positives; nothing without a metric."""
        if metric is None:
            return
        z_score = np.asarray(refined.z_score)
        good = np.isfinite(z_score)
        rows, z_score = rows[good], z_score[good]
        space = SearchSpace.of(self.inputs.grid, self.inputs.score)
        peaks = expected_peaks(z_score, metric[good], space)
        # Trials of the match, and its positions per position of the search.
        trials = self.inputs.table.numbers("total_correlations")[rows]
        positions = micrograph.corr_mean.size / np.prod(self.inputs.score.positions)
        found = {
            "refined_p_value": p_values(z_score, metric[good], space),
            "refined_false_positives": trials * positions * peaks,
        }
        self.columns.store(rows, found)

    def _reported(self, refined: Refined) -> Refined:
        """The same poses in float64, moved to the asymmetric unit of the point group."""
        rotation = np.asarray(refined.alignment.rotation, np.float64)
        unit = in_asymmetric_unit(rotation, self.inputs.point_group)
        return eqx.tree_at(lambda r: r.alignment.rotation, refined, unit)

    def table(self) -> DataFrame:
        """The refined table, all cells as text."""
        return refined_table(self.inputs.table, self.columns)

    def write(self, output: Path) -> Path:
        """Write the refined table; relative paths in it are valid from its folder.

        Raises:
            InputError: The file cannot be written.
        """
        folders = (p.absolute().parent for p in (self.inputs.table.path, output))
        frame = rebase_relative_paths(self.table(), *folders)
        if self.inputs.constraint is not None:
            found, parameters = side_files(output)
            self._write(frame.loc[self.columns["partner_found"] == 1], found)
            write_parameters(parameters, self.inputs.constraint)
        self._write(frame, output)
        return output

    def _write(self, frame: DataFrame, output: Path) -> None:
        """Write some rows of the table."""
        table = self.inputs.table
        if output.suffix.lower() in HDF5_SUFFIXES:
            stack = self.inputs.config.particle_stack
            sizes = {
                "extracted_box_size": list(stack.extracted_box_size),
                "original_template_size": list(stack.original_template_size),
            }
            earlier = hdf5_attributes(table.path) if is_hdf5(table.path) else {}
            write_hdf5(frame, output, {**earlier, **sizes})
        else:
            write_table(frame, output)

    def summary(self, seconds: float) -> Summary:
        """Means over the particles that were refined."""
        z_score = self.columns["refined_scaled_mip"]
        refined = np.isfinite(z_score)
        table, statuses = self.inputs.table, Counter(self.columns[_STATUS])
        nothing, found = np.full(len(z_score), np.nan), None
        before = z_at_start(table, self._own_start)
        if (constraint := self.inputs.constraint) is not None:
            before = nothing  # the z-scores in the table are the reference's
            found = FoundPartners(
                int(np.nansum(self.columns["partner_found"])),
                constraint.threshold,
                constraint.false_positives,
            )
        expected = self.columns.values.get("refined_scaled_mip_expected", nothing)
        named: dict[str, list[int]] = {}
        for files, rows in self.inputs.groups.items():
            named.setdefault(str(files[0]), []).extend(rows.tolist())
        return Summary(
            output=self.inputs.output,
            particles=len(refined),
            refined=int(refined.sum()),
            continued=self.continued,
            mean_z_before=_mean(before[refined]),
            mean_z_after=_mean(z_score[refined]),
            mean_snr=_mean(self.columns["refined_snr"][refined]),
            statuses={status: statuses[status_name(status)] for status in Status},
            seconds=seconds,
            fallen=fallen_micrographs(before, z_score, named),
            mean_z_expected=_mean(expected[np.isfinite(expected)]),
            expected=compare_expected(expected_scores(table, self._own_start), expected),
            partners=found,
        )


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else float("nan")
