"""`jaxrefine report REFINED.csv`: write a report as an HTML page."""

import argparse
from pathlib import Path

from jaxrefine.app.console.exit_codes import EXIT_WRITTEN
from jaxrefine.app.console.option_types import add_path_map, count, count_or_all, finite
from jaxrefine.app.console.output import say
from jaxrefine.data import InputError
from jaxrefine.io.optional import require_packages

HELP = "write a report of a refined table, an interactive page"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command line."""
    parser.add_argument("table", type=Path, metavar="REFINED.csv")
    parser.add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        help="folder for report.html and the figures; default: <stem>_report beside the "
        "table",
    )
    parser.add_argument(
        "--threshold",
        type=finite,
        metavar="Z",
        help="z-score above which the match counts a particle as found: drawn and counted",
    )
    parser.add_argument(
        "--config",
        type=Path,
        metavar="CONFIG.yaml",
        help="the run's configuration, for images of particles and --landscape; default: "
        "the one that the run has recorded beside the table",
    )
    add_path_map(parser)
    parser.add_argument(
        "--against",
        type=Path,
        metavar="OTHER.csv",
        help="another refined table of the same particles, for comparison",
    )
    parser.add_argument(
        "--particles",
        type=count_or_all,
        metavar="N|all",
        help="box images beside projections for all particles, or for N, half with the "
        "highest z-scores and half with the lowest; needs the configuration and the "
        "micrographs (all of up to 500, otherwise 16)",
    )
    parser.add_argument(
        "--indices",
        type=Path,
        metavar="FILE.csv",
        help="box images for the particles that this file lists, such as a selection saved "
        "in the page",
    )
    parser.add_argument(
        "--thumbnails",
        type=count,
        default=500,
        metavar="N",
        help="images of N micrographs in the page, those with most particles (500)",
    )
    parser.add_argument(
        "--micrographs",
        type=count,
        default=6,
        metavar="N",
        help="maps of N micrographs for print, those with most particles (6)",
    )
    parser.add_argument(
        "--landscape",
        type=count,
        default=0,
        metavar="N",
        help="plot the score around the refined pose of N particles (12 at most), from the "
        "highest z-score to the lowest; needs --config and the images (0)",
    )


def need_packages() -> None:
    """Check that the packages for a report are installed.

    Raises:
        InputError: A package is missing; the message says how to install it.
    """
    require_packages("a report", "matplotlib", "jinja2", "bokeh", extra="report")


def run(options: argparse.Namespace) -> int:
    """Write the report."""
    need_packages()
    from jaxrefine.app.config import Config
    from jaxrefine.app.report.page import ReportOptions, default_folder, write_report
    from jaxrefine.app.run.record import recorded_config
    from jaxrefine.compilation import use_compilation_cache

    path_map = tuple(options.map_path)
    if options.config is not None:
        config = Config.load(options.config, path_map=path_map)
    else:
        config = recorded_config(options.table, path_map)
    needing = {"--landscape": options.landscape, "--indices": options.indices}
    needing["--particles"] = options.particles
    for name, given in needing.items():
        if given and config is None:
            raise InputError(
                f"{name} needs the run's configuration: give --config CONFIG.yaml"
            )
    report_options = ReportOptions(
        threshold=options.threshold,
        micrographs=options.micrographs,
        thumbnails=options.thumbnails,
        particles=options.particles,
        indices=options.indices,
        against=options.against,
        config=config,
        landscape=options.landscape,
        path_map=path_map,
    )
    if report_options.config is not None:
        use_compilation_cache(report_options.config.computational_config.compilation_cache)
    page = write_report(
        options.table, options.output or default_folder(options.table), report_options
    )
    if not options.quiet:
        say(f"written: {page}")
    return EXIT_WRITTEN
