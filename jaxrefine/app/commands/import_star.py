"""`jaxrefine import FILE.star`: particles of RELION or cisTEM as a particle table."""

import argparse
from pathlib import Path

from jaxrefine.app.console.exit_codes import EXIT_WRITTEN
from jaxrefine.app.console.option_types import even

HELP = "make a particle table of a STAR file of RELION or cisTEM"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command line."""
    parser.add_argument("star", type=Path, metavar="FILE.star")
    parser.add_argument("--output", required=True, type=Path, metavar="TABLE.csv")
    parser.add_argument(
        "--template-size",
        required=True,
        type=even,
        metavar="PX",
        help="side of the template to refine with: positions are those of its corner",
    )
    parser.add_argument(
        "--maps-from",
        type=Path,
        metavar="TABLE.csv",
        help="a particle table that names the statistic maps of the same micrographs, "
        "which a STAR file does not; without it their columns are left empty",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an older table")


def run(options: argparse.Namespace) -> int:
    """Write the table."""
    from jaxrefine.app.interchange.import_star import import_star

    done = import_star(
        options.star,
        options.output,
        options.template_size,
        options.maps_from,
        overwrite=options.overwrite,
    )
    if not options.quiet:
        print(f"written: {options.output}: {done.particles} particles")
        if done.statistics is not None:
            print(
                f"to refine it, set `statistics: {done.statistics}`: that is what the maps "
                f"hold by {options.maps_from}, and the new table does not tell"
            )
        if options.maps_from is None:
            print(
                "a refinement needs correlation_average_path and "
                "correlation_variance_path: fill them in, or give --maps-from"
            )
    return EXIT_WRITTEN
