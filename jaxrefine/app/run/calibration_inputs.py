"""The inputs of a calibration: those of a run, and the shared parameters."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from jaxrefine.app.config import Config
from jaxrefine.app.run.envelope import use_envelope
from jaxrefine.app.run.inputs import RunInputs, load_run
from jaxrefine.app.run.read import table_path
from jaxrefine.data import InputError
from jaxrefine.io.mrc import image_shape
from jaxrefine.io.table import ParticleTable
from jaxrefine.refine.design import Design
from jaxrefine.refine.joint_model import State

ALL = "all"
_OPTICS_GROUP = "optics_group"
_ASSUMED_SPREAD = 100.0  # Å, until it has been estimated
_ABERRATIONS = {"magnification", "beam_tilt", "trefoil", "even_zernikes"}


@dataclass(frozen=True, eq=False)
class CalibrationInputs:
    """Everything that a calibration needs.

    Attributes:
        run: The inputs of a run; if the defocus is fitted, its starting defocus is that of
            the micrograph.
        design: The shared values.
        start: Starting values of the fit.
        groups: For each parameter, the names of its groups, by number.
        columns: For each parameter, the column that groups it, or "all".
        place_angstrom: (y, x) of each particle from the centre of its micrograph.
        output: The table to write.
    """

    run: RunInputs
    design: Design
    start: State
    groups: dict[str, list[str]]
    columns: dict[str, str]
    place_angstrom: Float[np.ndarray, "n 2"]
    output: Path

    @property
    def values_path(self) -> Path:
        """The file of the fitted values: `<stem>_calibration.yaml` beside the table."""
        stem = self.output.stem.removesuffix("_calibrated")
        return self.output.with_name(f"{stem}_calibration.yaml")


def load_calibration(config: Config, output: Path | None = None) -> CalibrationInputs:
    """Read and check everything except the values of the micrographs.

    Raises:
        InputError: With all errors.
    """
    _check(config)
    table_file = table_path(config)
    output = output or table_file.with_name(f"{table_file.stem}_calibrated.csv")
    polish = replace(config.polish, enabled=True)  # for its template
    run = load_run(replace(config, polish=polish), output)
    wanted, table = config.calibrate, run.table
    columns = {name: _column(config, name, table) for name in wanted.parameters}
    of_rows = {name: _grouped(table, column) for name, column in columns.items()}
    _check_table(config, table, columns)
    run = use_envelope(run, _given_envelope(config, table))
    own = np.zeros((len(table), 6))
    own[:, 3:5] = np.nan_to_num(_shift_px(table))
    planar = {"defocus", "defocus_plane"} & set(wanted.parameters)
    if planar:
        relative = run.start.relative_defocus_angstrom
        own[:, 5] = relative
        defocus = run.start.defocus_angstrom - relative[:, None]
        run = replace(run, start=replace(run.start, defocus_angstrom=defocus))
    place, assumed = _places_angstrom(run), wanted.defocus_sigma
    design = Design.of(
        wanted.parameters,
        {name: numbers for name, (_, numbers) in of_rows.items()},
        place,
        _ASSUMED_SPREAD if isinstance(assumed, str) else assumed,
    )
    return CalibrationInputs(
        run=run,
        design=design,
        start=State(np.zeros(len(design.values)), own),
        groups={name: names for name, (names, _) in of_rows.items()},
        columns=columns,
        place_angstrom=place,
        output=output,
    )


def _check(config: Config) -> None:
    """Refuse configurations that are not for a calibration.

    Raises:
        InputError: With all errors.
    """
    errors = []
    if config.constraint is not None:
        errors.append("configures a constrained search: calibrate on its references")
    if config.references:
        errors.append("names several references; calibrate needs one template")
    if config.reproduce is not None:
        errors.append(f"reproduce: {config.reproduce} — calibrate needs reproduce: null")
    fitted = sorted(_ABERRATIONS & set(config.calibrate.parameters))
    if config.ignore_aberrations and fitted:
        errors.append(
            f"ignore_aberrations: true — must be false where calibrate fits "
            f"{', '.join(fitted)}: they are added to the table's"
        )
    if errors:
        raise InputError(f"{config.source}: {error}" for error in errors)


def _check_table(config: Config, table: ParticleTable, columns: dict[str, str]) -> None:
    """Refuse columns whose values a calibration cannot change.

    Raises:
        InputError: With all errors.
    """
    errors = []
    for name, column in columns.items():
        if column != ALL and column not in table.raw.columns:
            errors.append(
                f"{config.source}: calibrate.groups.{name}: {column} — must be a column of "
                f"{table.path}, or all"
            )
    odd = table.raw["odd_zernikes"] if "odd_zernikes" in table.raw.columns else ()
    if "beam_tilt" in columns and any("Z31" in text for text in odd):
        errors.append(
            f"{table.path}, column odd_zernikes: holds Z31c or Z31s, which take the place "
            "of the beam tilt: leave beam_tilt out of calibrate.parameters, or move them "
            "to beam_tilt_x and beam_tilt_y"
        )
    if errors:
        raise InputError(errors)


def _column(config: Config, parameter: str, table: ParticleTable) -> str:
    named = getattr(config.calibrate.groups, parameter)
    if named != "auto":
        return named
    return _OPTICS_GROUP if _OPTICS_GROUP in table.raw.columns else ALL


def _grouped(table: ParticleTable, column: str) -> tuple[list[str], Int[np.ndarray, " n"]]:
    """Names of the groups, in order of appearance, and each row's group number."""
    if column == ALL or column not in table.raw.columns:
        return [ALL], np.zeros(len(table), int)
    texts = table.raw[column].tolist()
    names = list(dict.fromkeys(texts))
    number = {name: at for at, name in enumerate(names)}
    return names, np.array([number[text] for text in texts])


def _given_envelope(config: Config, table: ParticleTable) -> Float[np.ndarray, " n"]:
    """B factor in addition to the table's: as configured, or from the refined table."""
    named = config.template_envelope
    if not isinstance(named, str):
        return np.full(len(table), float(named))
    earlier = np.nan_to_num(table.numbers("template_envelope_b"))
    return earlier if named == "auto" else np.zeros(len(table))


def _shift_px(table: ParticleTable) -> Float[np.ndarray, "n 2"]:
    return np.stack([table.numbers(f"refined_shift_{axis}") for axis in "yx"], axis=-1)


def _places_angstrom(run: RunInputs) -> Float[np.ndarray, "n 2"]:
    """(y, x) of the particles relative to the centres of their micrographs."""
    centre = run.start.position_px + run.template_side // 2
    for (micrograph, *_), rows in run.groups.items():
        height, width = image_shape(micrograph, warn=False)
        centre[rows] -= np.array([height, width]) / 2
    return centre * run.start.nominal_pixel_size_angstrom[:, None]


def in_batches_of(run: RunInputs, particles: int) -> RunInputs:
    """The run with this number of particles per device in a batch; without search."""
    return replace(run, layout=replace(run.layout, particles=particles))
