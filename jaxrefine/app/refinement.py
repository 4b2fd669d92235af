"""A run step by step, for research code: what the program does, under one's own control."""

import os
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Int

from jaxrefine.app.config import Config
from jaxrefine.app.run.envelope import use_envelope
from jaxrefine.app.run.inputs import describe, load_run
from jaxrefine.app.run.output import check_output
from jaxrefine.app.run.pipeline import (
    envelope_of,
    extract_rows,
    in_batches,
    micrographs,
)
from jaxrefine.app.run.results import Results
from jaxrefine.data import InputError, Particles, Polished, Refined, SearchGrid, Template
from jaxrefine.data.html import html_table
from jaxrefine.io.table.dataframe import DataFrame, results_to_dataframe, roundtrip_csv
from jaxrefine.physics.rotations import matrix_to_euler
from jaxrefine.refine.polish import Polish
from jaxrefine.refine.scoring import Score


class Refinement:
    """The inputs of a run, read and checked, and the table of results.

    ```python
    run = Refinement.load("refine.yaml")
    for rows, particles in run.particles():
        refined = jr.refine_particles(particles, run.template, run.grid, run.score)
        run.store(rows, refined)
    run.write("refined.csv")
    ```

    Args:
        config: From `Config.load` or `Config.from_dict`.
        output: The refined table; default: that of the configuration.

    Attributes:
        config: The configuration.
        template: The template, for the search.
        smooth_template: The same with cubic slices, for the polish, if the configuration
            enables it or an estimate of the envelope; otherwise `template`.
        grid: The configured search grid.
        score: The configured score.
        polish: The configured polish; None if it is not enabled.
        mesh: The configured devices, for `mesh=`; all arrays above are on each of them.
        output: The file that `write` writes.

    Raises:
        InputError: With all errors of the inputs.
    """

    def __init__(self, config: Config, *, output: str | os.PathLike[str] | None = None):
        inputs = load_run(config, None if output is None else Path(output))
        self._inputs = inputs = use_envelope(inputs, envelope_of(inputs).extra_b_angstrom2)
        self._results = Results(inputs)
        self.config: Config = config
        self.template: Template = inputs.template
        self.smooth_template: Template = inputs.smooth_template or inputs.template
        self.grid: SearchGrid = inputs.grid
        self.score: Score = inputs.score
        self.polish: Polish | None = inputs.polish
        self.mesh: Mesh = inputs.mesh
        self.output: Path = inputs.output

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        *,
        output: str | os.PathLike[str] | None = None,
    ) -> "Refinement":
        """Load a configuration file.

        Raises:
            InputError: With all errors of the file, or of the inputs that it names.
        """
        return cls(Config.load(path), output=output)

    def __len__(self) -> int:
        """Number of particles in the table."""
        return len(self._inputs.table)

    def _repr_html_(self) -> str:
        """Representation in a notebook: inputs, settings and progress."""
        done = int(self._results.done.sum())
        rows = {
            "particles": f"{len(self):,} in {len(self._inputs.groups):,} micrographs",
            "stored": f"{done:,} of {len(self):,}",
            "configuration": self.config.source,
            "run": "; ".join(describe(self._inputs)),
            "polish": "no" if self.polish is None else ", ".join(self.polish.parameters),
            "output": str(self.output),
        }
        return html_table("Refinement", rows)

    def particles(
        self, at_once: int = 64
    ) -> Iterator[tuple[Int[np.ndarray, " n"], Particles]]:
        """Iterate over particles, as the search receives them, by micrograph.

        Particles whose micrograph or maps are damaged are omitted, with a warning and the
        status `unreadable` in the table.

        Args:
            at_once: Largest number of particles in a batch. Each different number is
                compiled separately; with 1 there is one compilation.

        Yields:
            Rows in the table, from 0, and the particles.
        """
        left = dict(enumerate(self._inputs.groups.values()))
        for number, micrograph in micrographs(self._inputs, left):
            if micrograph is None:
                self._results.store_unreadable(left[number])
                continue
            self._results.mark_filled(left[number], micrograph)
            for rows in in_batches(left[number], at_once):
                # Not around the yield, since it would affect the caller's computations.
                with jax.default_device(self.mesh.devices.flat[0]):
                    particles = extract_rows(self._inputs, micrograph, rows)
                yield rows, particles

    def store(
        self,
        rows: Int[np.ndarray, " n"],
        refined: Refined,
        polished: Polished | None = None,
    ) -> None:
        """Store results in the table.

        Args:
            rows: From `particles`.
            refined: Result of a search on `grid`.
            polished: Result of a polish.

        Raises:
            InputError: There is a polish, but the configuration, which determines the
                columns of the table, does not enable it.
        """
        if polished is not None and self.polish is None:
            raise InputError(
                f"{self.config.source}: polish.enabled: false — must be true to store "
                "polished results"
            )
        found = jax.tree.map(np.asarray, (refined, polished))
        self._results.store(np.asarray(rows), *found)

    def to_pandas(self) -> DataFrame:
        """The refined table as read by pandas; rows without stored results are empty."""
        return roundtrip_csv(self._results.table())

    def write(self, path: str | os.PathLike[str] | None = None) -> Path:
        """Write the refined table, which can be refined again; returns its path.

        Args:
            path: Default: `output`.

        Raises:
            InputError: The file cannot be written, or is an input.
        """
        output = self.output if path is None else Path(path)
        check_output(output, self._inputs.inputs, self.config.source)
        return self._results.write(output)


def to_pandas(found: Refined | Polished) -> DataFrame:
    """Results as a data frame: one row per particle, with units in the column names.

    Args:
        found: From `refine_particles` or, with standard errors, from `polish_particles`.
    """
    errors = found.errors if isinstance(found, Polished) else None
    refined = found.refined if isinstance(found, Polished) else found
    rotation = np.asarray(refined.alignment.rotation, np.float64)
    return results_to_dataframe(refined, matrix_to_euler(rotation), errors)
