"""Checks that particles reach the scores of their table at the poses of their table.

If they do not, the known confusions of conventions are tried, one at a time, and the one
that restores the score is named. The caller passes the function that reads a micrograph;
`pipeline`, which checks the start of each run, passes its own.
"""

import logging
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, replace

import jax
import jax.numpy as jnp
import numpy as np

from jaxrefine.app.run.build import build_score, particle_optics, starting_alignment
from jaxrefine.app.run.checks import Files
from jaxrefine.app.run.confusion_evidence import (
    Evidence,
    Tried,
    agrees,
    decide,
    doubt,
    likeness,
    noise_level,
    scatter,
)
from jaxrefine.app.run.confusions import (
    Confusion,
    Sample,
    known_confusions,
    pixel_sizes,
)
from jaxrefine.app.run.devices import float32_only
from jaxrefine.app.run.file_confusions import (
    PrepareFiles,
    other_axes,
    other_micrographs,
    other_statistics,
    other_templates,
    wrong_maps,
)
from jaxrefine.app.run.inputs import RunInputs
from jaxrefine.app.run.score_changes import FALLEN, z_at_start
from jaxrefine.data import InputError, SearchGrid
from jaxrefine.io.table import StartingValues
from jaxrefine.refine.prepare import Micrograph, cut_particles
from jaxrefine.refine.refine import best_in_box

log = logging.getLogger("jaxrefine")

_PARTICLES, _MICROGRAPHS = 8, 4
# Grids of a score that exceed this and those of the run take too long for a trial.
_WIDEST_PX = 1600


@dataclass(frozen=True)
class MicrographCheck:
    """Scores of the particles of one micrograph at the poses of their table.

    Attributes:
        files: The micrograph and its maps.
        particles: Number of particles that were scored.
        table_z: Their median z-score in the table; NaN if it has none.
        z: Their median z-score now, at the best position in the box.
        sound: Whether the two agree or, without the first, whether z is above noise.
        wrong_maps: Description of errors of the statistic maps; empty if there are none.
    """

    files: Files
    particles: int
    table_z: float
    z: float
    sound: bool
    wrong_maps: str


@dataclass(frozen=True)
class Check:
    """Result of the check.

    Attributes:
        micrographs: The micrographs that were checked.
        noise_z: z-score of the best position in a box of noise.
        restoring: Confusions that restore the score, the best first.
        nearest: If there are none, the confusion that comes nearest.
    """

    micrographs: list[MicrographCheck]
    noise_z: float
    restoring: list[Tried]
    nearest: Tried | None

    @property
    def sound(self) -> bool:
        """Whether there is nothing to warn about."""
        return all(each.sound and not each.wrong_maps for each in self.micrographs)


@float32_only()
def check_conventions(
    inputs: RunInputs, prepare: PrepareFiles, numbers: Sequence[int] | None = None
) -> Check:
    """Score some of the best particles at the poses of their table.

    Args:
        inputs: The run.
        prepare: Reads and filters a micrograph with its maps.
        numbers: Micrographs to check; None takes some of them, evenly spread.

    Raises:
        InputError: A file of these micrographs cannot be read.
    """
    files, groups = list(inputs.groups), list(inputs.groups.values())
    count = min(_MICROGRAPHS, len(groups))
    evenly = np.unique(np.linspace(0, len(groups) - 1, count).round().astype(int))
    z_of_table = z_at_start(inputs.table, inputs.start)
    positions = math.prod(inputs.score.positions)
    noise = noise_level(positions)
    found, failed = [], []
    for number in evenly.tolist() if numbers is None else numbers:
        rows = best_rows(groups[number], z_of_table)
        sample = _sample(inputs, prepare(inputs, files[number]), rows)
        z = float(np.median(_z(inputs, sample)))
        reference = float(np.median(z_of_table[rows]))
        each = MicrographCheck(
            files=files[number],
            particles=len(rows),
            table_z=reference,
            z=z,
            sound=agrees(z, reference, noise),
            wrong_maps=wrong_maps(inputs, sample.micrograph, rows, files[number]),
        )
        found.append(each)
        if not each.sound:
            failed.append((each, sample, z_of_table[rows]))
    if not failed:
        return Check(found, noise, [], None)
    each, sample, table_z = max(failed, key=lambda one: one[0].particles)
    known = Evidence(each.z, each.table_z, each.particles, positions)
    tried: list[Tried] = []
    restoring, nearest = [], None
    # There are many pixel sizes to try, so only if nothing else helps.
    for confusions in (
        _all_but_pixel_sizes(inputs, prepare, each.files, sample),
        pixel_sizes(sample.template.side),
    ):
        tried += _tried(inputs, sample, table_z, confusions)
        restoring, nearest = decide(known, tried)
        if restoring:
            break
    return Check(found, noise, restoring, nearest)


def best_rows(rows: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Of the given rows, those with the highest z-scores, in rising order."""
    order = np.argsort(-np.nan_to_num(z[rows], nan=-np.inf), kind="stable")
    return np.sort(rows[order[:_PARTICLES]])


def _sample(inputs: RunInputs, micrograph: Micrograph, rows: np.ndarray) -> Sample:
    names = (field.name for field in fields(StartingValues))
    values = {name: getattr(inputs.start, name) for name in names}
    per_row = {n: v for n, v in values.items() if not isinstance(v, int)}
    chosen = jax.tree.map(lambda column: column[rows], per_row)
    return Sample(
        start=replace(inputs.start, **chosen),
        micrograph=micrograph,
        template=inputs.template,
        template_pixel_size_angstrom=inputs.template_pixel_size_angstrom[rows],
        template_follows=inputs.config.template_pixel_size is None,
    )


def _z(inputs: RunInputs, sample: Sample) -> np.ndarray:
    """Each particle's best z-score in its box; NaN if they cannot be scored."""
    count = len(sample.start.position_px)
    nothing = jnp.zeros(1)
    grid = SearchGrid(jnp.eye(3)[None], jnp.zeros(1, bool), nothing, nothing)
    start = sample.start
    # Few different sizes of the padded box, so that most confusions share a compilation.
    wide = replace(
        start,
        defocus_angstrom=_power_above(np.abs(start.defocus_angstrom), 1.5),
        pixel_size_angstrom=1 / _power_above(1 / start.pixel_size_angstrom, 1.15),
    )
    unscored = np.full(count, np.nan)
    try:
        score = build_score(inputs.config, wide, grid, inputs.score.side)
    except InputError:  # the CTF would spread too far
        return unscored
    usual = inputs.score
    widest = max(_WIDEST_PX, *usual.filter_grid, *usual.padded_box)
    if max(*score.filter_grid, *score.padded_box) > widest:
        return unscored
    # The same number of particles for all samples, for the same reason.
    rows = np.minimum(np.arange(_PARTICLES), count - 1)
    with jax.default_device(inputs.mesh.devices.flat[0]):
        try:
            particles = cut_particles(
                sample.micrograph,
                starting_alignment(start, rows),
                particle_optics(start, rows),
                jnp.asarray(sample.template_pixel_size_angstrom[rows], jnp.float32),
                score,
                image_scale=-1.0 if inputs.contrast_is_inverted else 1.0,
            )
        except InputError:  # numbers that no image has
            return unscored
        z = np.asarray(best_in_box(particles, sample.template, score)[0])[:count]
    return np.where(np.isfinite(z), z, 0.0)


def _power_above(values: np.ndarray, base: float) -> np.ndarray:
    """The smallest power of `base` that is not below, for positive values."""
    positive = np.maximum(values, 1e-3)
    return base ** np.ceil(np.log(positive) / math.log(base) - 1e-9)


def _all_but_pixel_sizes(
    inputs: RunInputs, prepare: PrepareFiles, files: Files, sample: Sample
) -> Iterator[Confusion]:
    yield from known_confusions(sample, inputs.contrast_is_inverted)
    yield from other_statistics(inputs)
    yield from other_templates(inputs)
    yield from other_axes(inputs)
    yield from other_micrographs(inputs, prepare, files)


def _tried(
    inputs: RunInputs,
    sample: Sample,
    table_z: np.ndarray,
    confusions: Iterable[Confusion],
) -> Iterator[Tried]:
    """Scores of the sample without each confusion that applies to it."""
    for confusion in confusions:
        changed = confusion.undo(sample)
        if changed is not None and np.isfinite(z := _z(inputs, changed)).all():
            yield Tried(confusion, float(np.median(z)), scatter(z, table_z))


class StartWatch:
    """Compares the first particles of a run with their table, and checks those that fell.

    Args:
        inputs: The run.
        prepare: As for `check_conventions`.
        enabled: False disables it. It is also disabled in a constrained search, in which
            the table has the scores of another template.
    """

    def __init__(self, inputs: RunInputs, prepare: PrepareFiles, *, enabled: bool = True):
        self._inputs, self._prepare = inputs, prepare
        self._before = z_at_start(inputs.table, inputs.start)
        self._z: list[float] = []
        self._rows: list[int] = []
        self._waiting = enabled and inputs.constraint is None

    def see(self, number: int, rows: np.ndarray, z: np.ndarray, *, last: bool) -> None:
        """Take the refined z-scores of a batch; warn, once, if the first ones fell.

        Args:
            number: Number of the micrograph.
            rows: Rows of the batch.
            z: Their refined z-scores; NaN for particles not refined.
            last: Whether this is the last batch of the micrograph.
        """
        if not self._waiting:
            return
        known = np.isfinite(z) & np.isfinite(self._before[rows])
        self._rows += rows[known].tolist()
        self._z += z[known].tolist()
        if not self._rows or (len(self._rows) < _PARTICLES and not last):
            return
        self._waiting = False
        was, now = float(np.median(self._before[self._rows])), float(np.median(self._z))
        if now >= FALLEN * was:
            return
        log.warning(
            "the first %d particles have a median z-score of %.1f, refined, and of %.1f in "
            "the table: something is wrong; trying what",
            len(self._rows),
            now,
            was,
        )
        try:
            check = check_conventions(self._inputs, self._prepare, [number])
        except InputError:  # of a file; reported when its particles are refined
            return
        for line in format_problems(check):
            log.warning("%s", line)


def format_check(check: Check) -> list[str]:
    """Results of the check: a line for each micrograph and each problem."""
    lines = []
    for each in check.micrographs:
        count = f"{each.particles} particle{'s' if each.particles > 1 else ''}"
        said = (
            f"{each.table_z:.1f} in the table"
            if np.isfinite(each.table_z)
            else f"none in the table; noise reaches {check.noise_z:.1f}"
        )
        verdict = "" if each.sound else ": does not agree"
        lines.append(
            f"{each.files[0].name}: median z-score of {count} at the table's poses "
            f"{each.z:.1f} ({said}){verdict}"
        )
    return lines


def format_problems(check: Check) -> list[str]:
    """The problems, and what to do about them; empty if there are none."""
    lines = []
    bad = [each for each in check.micrographs if not each.sound]
    if bad:
        worst = max(bad, key=lambda each: each.particles)
        for each in check.restoring[:1]:
            lines.append(
                f"{each.confusion.name} z is {each.z:.1f} in place of {worst.z:.1f}: "
                f"{each.confusion.remedy}{doubt(check.restoring, worst.particles)}"
            )
        lines += [
            f"  {likeness(check.restoring[0], each)} {each.confusion.name} "
            f"(z {each.z:.1f}): {each.confusion.remedy}"
            for each in check.restoring[1:4]
        ]
        if not check.restoring:
            lines.append(
                f"z is {worst.z:.1f} and no known confusion restores it: the template is "
                "another than that of the match, or the micrograph or the table is"
            )
            if check.nearest is not None:
                near = check.nearest
                lines.append(
                    f"  the nearest is z {near.z:.1f} {near.confusion.name}: "
                    f"{near.confusion.remedy}"
                )
    lines += [
        f"{each.files[0].name}: {each.wrong_maps}"
        for each in check.micrographs
        if each.wrong_maps
    ]
    return lines
