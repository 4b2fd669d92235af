"""`jaxrefine calibrate CONFIG.yaml`: fit shared parameters to all particles together."""

import argparse
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxrefine.app.commands.shared_run import add_process_options, shared_run
from jaxrefine.app.console.exit_codes import EXIT_NOTHING_REFINED, EXIT_WRITTEN
from jaxrefine.app.console.option_types import add_path_map
from jaxrefine.app.console.output import say
from jaxrefine.data import InputError
from jaxrefine.io.optional import require_packages

if TYPE_CHECKING:
    from jaxrefine.app.cluster.process_group import ProcessGroup
    from jaxrefine.app.config import Config
    from jaxrefine.app.config.optimize_template import SimulatorConfig
    from jaxrefine.app.run.calibration import Calibration

HELP = "fit pixel size, aberrations and defocus planes to all particles together"

_DESCRIPTION = """\
Fits parameters that particles share (pixel size, anisotropic magnification, beam tilt, …,
and for each micrograph defocus, astigmatism and a defocus plane) to all particles together,
with their poses. The section `calibrate` of the configuration says which. Writes a particle
table with the fitted values, <stem>_calibration.yaml with standard errors, correlations and
gains, and a page with figures, <stem>_calibration_report/report.html.
"""

log = logging.getLogger("jaxrefine")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command line."""
    parser.description = _DESCRIPTION
    parser.add_argument("config", type=Path, metavar="CONFIG.yaml")
    parser.add_argument(
        "--output",
        type=Path,
        metavar="FILE.csv",
        help="table with the fitted values; default: <stem>_calibrated.csv beside the "
        "particle table",
    )
    parser.add_argument(
        "--fresh",
        action="store_true",
        help="delete what an interrupted calibration of this output has left first",
    )
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="replace another template that has the name of the one to make, for a "
        "configuration of optimize_template",
    )
    add_path_map(parser)
    add_process_options(parser)


def _load(options: argparse.Namespace, processes: "ProcessGroup") -> "Config":
    """Load the configuration; for an optimize_template file, also make its template."""
    from jaxrefine.app.config import Config
    from jaxrefine.app.config.optimize_template import (
        is_optimize_template,
        load_optimize_template,
    )
    from jaxrefine.io.paths import resolve_path

    path, path_map = options.config, tuple(options.map_path)
    if not is_optimize_template(path):
        return Config.load(path, path_map=path_map)
    template = path.with_name(f"{path.stem}_template.mrc")
    config, simulator = load_optimize_template(path, template, path_map=path_map)
    model = resolve_path(simulator.pdb_filepath, beside=config.folder, path_map=path_map)
    processes.first(
        "template",
        lambda: _make_template(model, template, simulator, overwrite=options.overwrite),
    )
    if simulator.simulator_config.apply_dqe:
        log.warning(
            "%s: simulator.simulator_config.apply_dqe: the detector's envelope is not "
            "applied to the template",
            path,
        )
    return config


def _make_template(
    model: Path, template: Path, simulator: "SimulatorConfig", *, overwrite: bool
) -> None:
    """Make the template of an optimize_template file, unless it is there already."""
    from jaxrefine.app.interchange.model_template import make_model_template

    settings = simulator.simulator_config
    exposure = (settings.dose_start, settings.dose_end)
    made = make_model_template(
        model,
        template,
        simulator.pixel_spacing,
        simulator.volume_shape[0],
        b_factor_scale=simulator.b_factor_scaling,
        b_factor_add_angstrom2=simulator.additional_b_factor,
        exposure_e_per_angstrom2=exposure if settings.apply_dose_weighting else None,
        voltage_kv=settings.voltage,
        overwrite=overwrite,
        keep_same=True,
    )
    for warning in made.warnings:
        log.warning("%s", warning)
    log.info("template of %s: %s", model, template)


def _write_page(made: "Calibration", found: dict[str, Any]) -> Path | None:
    """Write the page; None, with a warning, if the packages for it are not installed."""
    try:
        require_packages(
            "the page of a calibration", "matplotlib", "jinja2", extra="report"
        )
    except InputError as error:
        log.warning("%s", error)
        return None
    from jaxrefine.app.report.calibration_page import write_calibration_page

    return write_calibration_page(made, found)


def run(options: argparse.Namespace) -> int:
    """Calibrate, and print the results."""
    from jaxrefine.app.console.calibration_summary import format_calibration
    from jaxrefine.app.run.calibrate import calibrate
    from jaxrefine.app.run.calibration_report import calibration_data
    from jaxrefine.compilation import use_compilation_cache

    with shared_run(options) as processes:
        config = processes.on_all("config", lambda: _load(options, processes))
        use_compilation_cache(config.computational_config.compilation_cache)
        made = calibrate(config, options.output, fresh=options.fresh, processes=processes)
    if not processes.is_first:
        return EXIT_WRITTEN
    found = calibration_data(made)
    table, values = made.inputs.output, made.inputs.values_path
    written = f"{table} and {values}"
    if page := _write_page(made, found):
        written = f"{table}, {values} and {page}"
    if not options.quiet:
        for line in format_calibration(found):
            say(line)
        say(f"written: {written}")
    if not made.fit.converged:
        log.warning(
            "the fit has not converged after %d passes: raise calibrate.max_passes",
            made.fit.passes,
        )
    return EXIT_WRITTEN if made.fit.weight.sum() else EXIT_NOTHING_REFINED
