"""Comparison of references: combine the refined tables, with the probability of each.

The computations are in `refine.references`, their theory in `refine.reference_likelihood`.
"""

import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from jaxrefine.app.config import Config
from jaxrefine.app.console.interrupts import Stop
from jaxrefine.app.console.progress import Progress
from jaxrefine.app.console.reference_summary import SURE, ReferenceSummary
from jaxrefine.app.run.build import starting_alignment
from jaxrefine.app.run.devices import float32_only
from jaxrefine.app.run.envelope import use_envelope
from jaxrefine.app.run.inputs import RunInputs, load_inputs
from jaxrefine.app.run.pipeline import filled_batches
from jaxrefine.data import ErrorCollector, InputError
from jaxrefine.io.paths import rebase_relative_paths
from jaxrefine.io.table import (
    ParticleTable,
    StartingValues,
    read_particle_table,
    write_table,
)
from jaxrefine.io.table.cells import normalised_euler_deg
from jaxrefine.io.table.compared import check_same_particles, compared_table
from jaxrefine.io.table.schema import ANGLES
from jaxrefine.physics.rotations import matrix_to_euler
from jaxrefine.refine.coordinates import count
from jaxrefine.refine.polish import Polish
from jaxrefine.refine.reference_likelihood import Decision, decide
from jaxrefine.refine.references import Reference, ReferenceFits, fit_references

_REFINED_Z = "refined_scaled_mip"


@float32_only()
def compare(
    configs: Mapping[str, Config],
    tables: Mapping[str, Path],
    output: Path,
    *,
    priors: str | tuple[float, ...] = "equal",
    quiet: bool = False,
    json_progress: bool = False,
    stop: Stop | None = None,
) -> ReferenceSummary:
    """Compare references of the same particles, and write the combined table.

    Args:
        configs: For each reference, the configuration of its refinement.
        tables: For each reference, the refined table.
        output: The table to write.
        priors: As in `Config.reference_priors`.
        quiet: Show no progress.
        json_progress: Log progress as events.
        stop: Called between batches.

    Raises:
        InputError: With all errors of tables and configurations; or the table cannot be
            written.
        Stopped: The run was asked to stop.
    """
    started = time.monotonic()
    refined, inputs = read_references(configs, tables)
    first = next(iter(inputs.values()))
    first = use_envelope(first, common_envelope(refined))
    polish = first.polish or Polish(parameters=_searched(first), errors=False)
    fits = _fit(
        first,
        list(inputs.values()),
        [refined_start(table) for table in refined.values()],
        polish,
        Progress(
            len(first.table),
            0,  # no search
            quiet=quiet,
            json_lines=json_progress,
            whose=" compared",
        ),
        stop or Stop(),
    )
    shares = None if priors == "estimated" else _shares(priors, len(refined))
    free = count(polish.parameters)
    decided = decide(fits["signal"], fits["log_determinant"], free, shares)
    names = list(refined)
    found = _columns(first.table.start(), list(refined.values()), names, fits, decided)
    frames = [table.raw for table in refined.values()]
    frame = compared_table(frames, names, decided.best, found)
    folders = (path.absolute().parent for path in (next(iter(tables.values())), output))
    write_table(rebase_relative_paths(frame, *folders), output)
    return _summary(output, names, found, decided, time.monotonic() - started)


def read_references(
    configs: Mapping[str, Config], tables: Mapping[str, Path]
) -> tuple[dict[str, ParticleTable], dict[str, RunInputs]]:
    """The refined table of each reference, and the inputs of its run.

    Raises:
        InputError: With every error; or the tables hold other particles.
    """
    errors = ErrorCollector()
    refined: dict[str, ParticleTable] = {}
    inputs: dict[str, RunInputs] = {}
    for name, path in tables.items():
        with errors:
            refined[name] = table = read_particle_table(path, ignore_aberrations=True)
            if _REFINED_Z not in table.raw.columns:
                raise InputError(
                    f"{path}: column that is missing: {_REFINED_Z}; name a refined table, "
                    "as `jaxrefine CONFIG.yaml` writes it"
                )
    for name, config in configs.items():
        with errors:
            inputs[name] = load_inputs(config, smooth=True)
    errors.raise_any()
    check_same_particles(refined)
    check_same_particles({"table": next(iter(inputs.values())).table, **refined})
    return refined, inputs


def common_envelope(refined: Mapping[str, ParticleTable]) -> np.ndarray:
    """One B for all references of a particle, so that only their shapes differ."""
    b = np.stack([table.numbers("template_envelope_b") for table in refined.values()])
    return np.nan_to_num(b).mean(axis=0)


def _searched(inputs: RunInputs) -> tuple[str, ...]:
    """The parameters that the comparison fits: what the search leaves between its steps."""
    pixel_sizes, defoci, orientations = inputs.grid.shape
    searched = {
        "orientation": orientations > 1,
        "shift": max(inputs.score.positions) > 1,
        "defocus": defoci > 1,
        "pixel_size": pixel_sizes > 1,
    }
    return tuple(name for name, was in searched.items() if was) or ("shift",)


def refined_start(table: ParticleTable) -> StartingValues:
    """Refined poses; NaN for particles that were not refined."""
    start = table.start()
    euler = start.euler_deg.copy()
    euler[~np.isfinite(table.numbers(_REFINED_Z))] = np.nan
    return replace(start, euler_deg=euler)


def _fit(
    first: RunInputs,
    inputs: list[RunInputs],
    starts: list[StartingValues],
    polish: Polish,
    progress: Progress,
    stop: Stop,
) -> dict[str, np.ndarray]:
    """Fields of `ReferenceFits` for all rows, and rotation, position and defocus."""
    done: list[np.ndarray] = []
    parts: list[ReferenceFits] = []
    with progress, jax.default_device(first.mesh.devices.flat[0]):
        for rows, particles in filled_batches(first, np.arange(len(first.table))):
            stop.check()
            filled = np.append(rows, np.repeat(rows[-1:], len(particles.valid) - len(rows)))
            references = [
                Reference(
                    each.template,
                    jnp.asarray(each.template_pixel_size_angstrom[filled], jnp.float32),
                    starting_alignment(start, filled),
                )
                for each, start in zip(inputs, starts, strict=True)
            ]
            fits = fit_references(
                particles, references, first.grid, first.score, polish, mesh=first.mesh
            )
            done.append(rows)
            there = slice(len(rows))
            parts.append(jax.tree.map(lambda x, at=there: np.asarray(x)[at], fits))
            progress.update(len(rows), "")
    return _in_order(len(first.table), len(inputs), done, parts)


def _in_order(
    length: int, references: int, rows: list[np.ndarray], parts: list[ReferenceFits]
) -> dict[str, np.ndarray]:
    """Results in the order of the table; rows with unreadable images stay NaN."""

    def of(get, *shape: int) -> np.ndarray:
        values = np.full((length, references, *shape), np.nan)
        for some, part in zip(rows, parts, strict=True):
            values[some] = get(part)
        return values

    return {
        "z_score": of(lambda f: f.z_score),
        "signal": of(lambda f: f.signal),
        "log_determinant": of(lambda f: f.log_determinant),
        "overlap": of(lambda f: f.overlap, references),
        "rotation": of(lambda f: f.alignment.rotation, 3, 3),
        "position_px": of(lambda f: f.alignment.position_px, 2),
        "defocus_angstrom": of(lambda f: f.alignment.defocus_angstrom.mean(axis=-1)),
    }


def _shares(priors: str | tuple[float, ...], references: int) -> np.ndarray:
    given = np.ones(references) if isinstance(priors, str) else np.asarray(priors)
    return given / given.sum()


def _columns(
    start: StartingValues,
    tables: list[ParticleTable],
    names: list[str],
    fits: dict[str, np.ndarray],
    decided: Decision,
) -> dict[str, np.ndarray]:
    """Values of the columns of a comparison."""
    best, rows = decided.best, np.arange(len(decided.best))
    some = best >= 0
    probability = decided.probability
    likely = np.where(np.isfinite(decided.log_likelihood), decided.log_likelihood, -np.inf)
    likely[rows, best] = -np.inf
    following = likely.argmax(axis=1)
    overlap = fits["overlap"][rows, best, following]
    columns = {
        "best_reference": np.array([names[b] if b >= 0 else "" for b in best], object),
        "reference_probability": np.where(some, probability[rows, best], np.nan),
        "reference_log_ratio": decided.log_ratio,
        "reference_overlap": np.where(np.isfinite(decided.log_ratio), overlap, np.nan),
    }
    # Defocus of the micrograph: the difference of a row's absolute and relative defocus.
    of_micrograph = start.defocus_angstrom.mean(axis=-1) - start.relative_defocus_angstrom
    for number, (name, table) in enumerate(zip(names, tables, strict=True)):
        known = np.isfinite(fits["z_score"][:, number])
        rotation = np.where(known[:, None, None], fits["rotation"][:, number], np.eye(3))
        euler = normalised_euler_deg(matrix_to_euler(rotation), 4)
        euler = np.where(known[:, None], euler, np.nan)
        position = np.where(known[:, None], fits["position_px"][:, number], np.nan)
        defocus = fits["defocus_angstrom"][:, number] - of_micrograph
        status = table.raw.get("refined_status")
        columns |= {
            f"probability_{name}": probability[:, number],
            f"refined_scaled_mip_{name}": fits["z_score"][:, number],
            f"refined_status_{name}": np.array(
                [""] * len(table) if status is None else status.tolist(), object
            ),
            **{f"refined_{a}_{name}": euler[:, i] for i, a in enumerate(ANGLES)},
            f"refined_pos_x_{name}": position[:, 1],
            f"refined_pos_y_{name}": position[:, 0],
            f"refined_relative_defocus_{name}": np.where(known, defocus, np.nan),
        }
    return columns


def _summary(
    output: Path,
    names: list[str],
    found: Mapping[str, np.ndarray],
    decided: Decision,
    seconds: float,
) -> ReferenceSummary:
    some = decided.best >= 0
    probability = decided.probability[some]
    highest = probability.max(axis=1, initial=0)
    sure = highest >= SURE
    overlap = found["reference_overlap"]
    known = np.isfinite(overlap)
    return ReferenceSummary(
        output=output,
        names=tuple(names),
        sure=tuple(
            int((sure & (decided.best[some] == number)).sum())
            for number in range(len(names))
        ),
        expected=tuple(probability.sum(axis=0).tolist()),
        sigma=tuple(np.sqrt((probability * (1 - probability)).sum(axis=0)).tolist()),
        undecided=int((~sure).sum()),
        not_refined=int((~some).sum()),
        wrong=float(1 - highest[sure].mean()) if sure.any() else 0.0,
        overlap=float(overlap[known].mean()) if known.any() else float("nan"),
        priors=tuple(decided.priors.tolist()),
        seconds=seconds,
    )
