"""Write a commented configuration for a particle table: `jaxrefine init`."""

import math
import textwrap
from collections.abc import Callable
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import yaml

from jaxrefine.app.config.config import Config
from jaxrefine.app.config.yaml_reader import read_yaml
from jaxrefine.data import ErrorCollector, InputError
from jaxrefine.io.mrc import read_volume
from jaxrefine.io.paths import resolve_path
from jaxrefine.io.table import ParticleTable, decide_statistics, read_particle_table

# Margin of the box over the template: positions up to 4 px to either side are searched, and
# those of a match are accurate to one or two.
_MARGIN_PX = 8


# In units of the expected errors: the smallest search range. (A step is one error.)
_REACH_SIGMAS = 2.0


@dataclass(frozen=True)
class ExpectedErrors:
    """Expected standard errors of a table's particles: medians.

    Attributes:
        tilt_deg: Standard error of tilts.
        in_plane_deg: Standard error of the in-plane angle.
        defocus_angstrom: Standard error of the defocus.
        z_score: z-score of the particles.
    """

    tilt_deg: float
    in_plane_deg: float
    defocus_angstrom: float
    z_score: float

    @property
    def sound(self) -> bool:
        """Whether all are numbers above 0."""
        return all(math.isfinite(value) and value > 0 for value in astuple(self))


Measure = Callable[[Config], ExpectedErrors | None]


def make_config(
    output: Path,
    *,
    particles: Path,
    template: Path | None = None,
    match: Path | None = None,
    measure: Measure | None = None,
) -> list[str]:
    """Write a configuration for the refinement of a table.

    Args:
        output: The file; it must not exist.
        particles: The particle table.
        template: The template volume; None takes the match's or else the table's.
        match: The match_template YAML of the table: its filters are copied, and its steps
            become the search ranges.
        measure: Computes the expected errors for a configuration. They become the steps,
            and the search ranges if the match's steps are smaller. None takes defaults.

    Returns:
        Description of the choices, one line each.

    Raises:
        InputError: With all errors of the files.
    """
    errors = ErrorCollector()
    settings: dict[str, Any] = {}
    with errors:
        table = read_particle_table(particles, ignore_aberrations=True)
    with errors:
        settings = _match_settings(match)
    errors.raise_any()
    if template is None:
        template = _named_template(settings, match, table)
    volume, _ = read_volume(template)
    side = volume.shape[0]
    if len(set(volume.shape)) != 1 or side % 2:
        raise InputError(
            f"{template}: has shape {volume.shape}; a template is a cube of even side"
        )
    fixed = dict(
        template=_written(template, output),
        table=_written(particles, output),
        box=side + _MARGIN_PX,
        reach=_MARGIN_PX // 2,
        side=side,
        turn_source="one step of the match" if match else "one usual step of a match",
        defocus_source="half a step of the match, to either side"
        if match
        else "half a usual step of a match, to either side",
        source="The filters of the match"
        if match
        else "The default, whitening only; they should be the same as those of the match",
        filters=_filters(settings),
    )
    reaches = (
        _number(settings, "orientation_search_config", "psi_step", 1.5),
        _number(settings, "orientation_search_config", "theta_step", 2.5),
        _number(settings, "defocus_search_config", "defocus_step", 200.0) / 2,
    )
    untold = _statistics_untold(table)
    end = _STATISTICS if untold else ""
    text = _TEXT.format(**fixed, **_steps(reaches, None)) + end
    # A match's filters may be invalid.
    config = Config.from_dict(yaml.safe_load(text), str(match or output))
    expected = None if measure is None or output.exists() else measure(config)
    if expected is not None:
        text = _TEXT.format(**fixed, **_steps(reaches, expected)) + end
    try:
        with output.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise InputError(
            f"{output}: exists already; give another name with --output, or remove it"
        ) from None
    except OSError as error:
        raise InputError(f"{output}: cannot be written: {error.strerror}") from error
    lines = [
        f"{len(table)} particles of {particles}",
        f"template {template}, {side} px; box {side + _MARGIN_PX} px",
        *(
            [
                "statistics: standard_deviation, as in Leopard-EM's maps, because the "
                "table does not show it; change it if your maps hold variances"
            ]
            if untold
            else []
        ),
    ]
    if expected is not None:
        lines.append(
            f"steps: about the standard errors to expect at z = {expected.z_score:.1f}, "
            f"{expected.tilt_deg:.2g}° in tilt, {expected.in_plane_deg:.2g}° in plane, "
            f"{expected.defocus_angstrom:.2g} Å in defocus (if the table's B factor is "
            "right; if the signal falls off faster they are larger, see `jaxrefine check`)"
        )
    return lines


def _steps(
    reaches: tuple[float, float, float], expected: ExpectedErrors | None
) -> dict[str, str]:
    """Ranges and steps of in-plane angle, tilt and defocus, and notes on the steps."""
    found = {"errors_note": ""}
    names, defaults = ("psi", "theta", "defocus"), (0.1, 0.25, 20.0)
    errors = (None, None, None)
    if expected is not None:
        errors = (expected.in_plane_deg, expected.tilt_deg, expected.defocus_angstrom)
    for name, reach, default, error in zip(names, reaches, defaults, errors, strict=True):
        step, note = default, ""
        if error is not None:
            step = _one_digit(error, math.floor)
            reach = max(reach, _one_digit(_REACH_SIGMAS * error, math.ceil))
            note = f"  # about one standard error; default if omitted: {default:g}"
            found["errors_note"] = _ERRORS_NOTE
        found |= {name: f"{reach:g}", f"{name}_step": f"{step:g}", f"{name}_note": note}
    return found


def _one_digit(value: float, towards: Callable[[float], int]) -> float:
    """A number rounded up or down to one digit."""
    unit = 10.0 ** math.floor(math.log10(value))
    return float(f"{towards(round(value / unit, 6)) * unit:.1g}")


def _statistics_untold(table: ParticleTable) -> bool:
    """Whether a table lacks the match's z-scores, for example one from a STAR file."""
    try:
        decide_statistics(table)
    except InputError:
        return True
    return False


def _match_settings(match: Path | None) -> dict[str, Any]:
    """Content of a match_template YAML; empty without one."""
    if match is None:
        return {}
    settings, _ = read_yaml(match)
    if not isinstance(settings, dict) or "match_template_result" not in settings:
        raise InputError(
            f"{match}: has no match_template_result; give Leopard-EM's match_template "
            "YAML, or a particle table (.csv)"
        )
    return settings


def _named_template(
    settings: dict[str, Any], match: Path | None, table: ParticleTable
) -> Path:
    """The template that the match names, or the only one in the table."""
    if match is not None:
        named, where = {str(settings.get("template_volume_path", ""))}, match
    else:
        texts = table.raw["template_path"] if "template_path" in table.raw else []
        named, where = set(texts), table.path
    if len(named) != 1 or not min(named):
        found = ", ".join(sorted(named)) or "none"
        raise InputError(
            f"{where}: names no single template (it names: {found}); give one with "
            "--template"
        )
    return resolve_path(min(named), beside=where.absolute().parent)


def _number(settings: dict[str, Any], section: str, key: str, default: float) -> float:
    """A number of the match's settings; the default if it is missing or invalid."""
    found = settings.get(section)
    value = found.get(key) if isinstance(found, dict) else None
    if not isinstance(value, int | float) or isinstance(value, bool) or value <= 0:
        return default
    return float(value)


def _filters(settings: dict[str, Any]) -> str:
    """The section of the filters, indented."""
    block = settings.get("preprocessing_filters") or {"whitening_filter": {"enabled": True}}
    if isinstance(block, dict):  # a refinement uses all coefficients, unless asked
        block = {k: v for k, v in block.items() if k != "random_fourier_dropout"}
    return textwrap.indent(yaml.safe_dump(block, sort_keys=False), "  ").rstrip()


def _written(path: Path, output: Path) -> str:
    """A path as YAML text: relative to the configuration's folder if it is inside."""
    target, folder = path.absolute(), output.absolute().parent
    if target.is_relative_to(folder):
        target = target.relative_to(folder)
    return yaml.safe_dump(str(target), width=10_000).removesuffix("...\n").strip()


_ERRORS_NOTE = """\
# The steps are the expected standard errors if the table's B is right. If the particles'
# signal falls off faster, errors are larger: `python -m jaxrefine check THIS_FILE` reports
# by how much, and the standard errors to expect then.

"""
_TEXT = """\
# Refinement of 2D template matching particles. Every key, with defaults and units, is in
# docs/configuration.md. To see what a run would do: python -m jaxrefine plan THIS_FILE

template_volume_path: {template}
particle_stack:
  df_path: {table}
  # Height and width in px. Positions up to {reach} px from the match's are searched. If
  # particles end with the status moved_to_edge, enlarge the box.
  extracted_box_size: [{box}, {box}]
  original_template_size: [{side}, {side}]

{errors_note}# Search range around each particle's orientation, in degrees: {turn_source}.
orientation_refinement_config:
  psi_step_coarse: {psi}     # in-plane rotation, to either side
  psi_step_fine: {psi_step}{psi_note}
  theta_step_coarse: {theta}   # tilt in every direction
  theta_step_fine: {theta_step}{theta_note}

# Search range around each particle's defocus, in Å: {defocus_source}.
# If many particles end with the status edge_of_grid, widen it.
defocus_refinement_config:
  defocus_min: -{defocus}
  defocus_max: {defocus}
  defocus_step: {defocus_step}{defocus_note}

# Search of the pixel size; worth trying once if it is not well calibrated.
pixel_size_refinement_config:
  enabled: false

# {source}.
preprocessing_filters:
{filters}

# Continuous optimisation from the best grid point, with standard errors.
polish:
  enabled: false
  bound_to_cell: false

computational_config:
  gpu_ids: auto   # every GPU, otherwise the CPU
  num_cpus: 1     # threads that read and filter the next micrographs
"""
_STATISTICS = """
# What the maps of correlation_variance_path hold, which this table does not show:
# `variance` or `standard_deviation` (Leopard-EM's maps, and flat maps).
statistics: standard_deviation
"""
