"""`jaxrefine import FILE`: particles of RELION, cisTEM or cryoSPARC as a particle table."""

import argparse
from pathlib import Path

from jaxrefine.app.console.exit_codes import EXIT_WRITTEN
from jaxrefine.app.console.option_types import even, pixel_size
from jaxrefine.app.console.output import say

HELP = "make a particle table from a file of RELION, cisTEM or cryoSPARC"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command line."""
    parser.add_argument(
        "star", type=Path, metavar="FILE", help="a .star file, or a .cs file of cryoSPARC"
    )
    parser.add_argument("--output", required=True, type=Path, metavar="TABLE.csv")
    parser.add_argument(
        "--template-size",
        required=True,
        type=even,
        metavar="PX",
        help="side of the template of the refinement: positions are those of its corner",
    )
    maps = parser.add_mutually_exclusive_group()
    maps.add_argument(
        "--maps-from",
        type=Path,
        metavar="TABLE.csv",
        help="a particle table that names the statistic maps of the same micrographs; "
        "without it the columns of the maps are left empty",
    )
    maps.add_argument(
        "--flat-maps",
        action="store_true",
        help="without template matching: write maps of mean 0 and standard deviation 1, as "
        "for noise, beside the table",
    )
    parser.add_argument(
        "--pixel-size",
        type=pixel_size,
        metavar="ANGSTROM",
        help="pixel size of the micrographs, if it is missing or wrong in the file",
    )
    parser.add_argument(
        "--phase-shift-unit",
        choices=("degrees", "radians"),
        help="unit of cisTEM's phase shifts, if the file does not show it",
    )
    parser.add_argument(
        "--passthrough",
        type=Path,
        action="append",
        default=[],
        metavar="FILE.cs",
        help="another cryoSPARC file with more fields of the same particles",
    )
    parser.add_argument(
        "--mirrored",
        action="store_true",
        help="the micrographs are mirrored vertically with respect to cryoSPARC's",
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="replace an existing table"
    )


def run(options: argparse.Namespace) -> int:
    """Write the table."""
    from jaxrefine.app.interchange.import_star import import_star
    from jaxrefine.io.star.particles import ReadOptions

    done = import_star(
        options.star,
        options.output,
        options.template_size,
        options.maps_from,
        flat_maps=options.flat_maps,
        options=ReadOptions(
            pixel_size_angstrom=options.pixel_size,
            phase_shift_unit=options.phase_shift_unit,
            mirrored=options.mirrored,
            passthrough=tuple(options.passthrough),
        ),
        overwrite=options.overwrite,
    )
    if not options.quiet:
        for note in done.notes:
            say(f"note: {note}")
        say(f"written: {options.output}: {done.particles} particles")
        if done.statistics is not None:
            by = f" by {options.maps_from}" if options.maps_from else ""
            say(
                f"to refine it, set `statistics: {done.statistics}`: that is what the maps "
                f"hold{by}, and the new table does not show it"
            )
        if options.maps_from is None and not options.flat_maps:
            say(
                "a refinement needs correlation_average_path and "
                "correlation_variance_path, the match's statistic maps: fill them in, or "
                "import again with --maps-from TABLE.csv, a table that names them, or, "
                "without a match, with --flat-maps"
            )
        say(f"next: jaxrefine init {options.output} --template TEMPLATE.mrc")
    return EXIT_WRITTEN
