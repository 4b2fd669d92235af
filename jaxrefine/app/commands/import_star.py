"""`jaxrefine import FILE`: particles of RELION, cisTEM or cryoSPARC as a particle table."""

import argparse
from pathlib import Path

from jaxrefine.app.console.exit_codes import EXIT_WRITTEN
from jaxrefine.app.console.option_types import even, pixel_size
from jaxrefine.app.console.output import say

HELP = "make a particle table of a file of RELION, cisTEM or cryoSPARC"


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
        help="side of the template to refine with: positions are those of its corner",
    )
    maps = parser.add_mutually_exclusive_group()
    maps.add_argument(
        "--maps-from",
        type=Path,
        metavar="TABLE.csv",
        help="a particle table that names the statistic maps of the same micrographs, "
        "which a STAR file does not; without it their columns are left empty",
    )
    maps.add_argument(
        "--flat-maps",
        action="store_true",
        help="without a match's maps: write some of mean 0 and deviation 1 beside the "
        "table, as the score has in noise",
    )
    parser.add_argument(
        "--pixel-size",
        type=pixel_size,
        metavar="ANGSTROM",
        help="of the micrographs, where the file does not say it or is wrong",
    )
    parser.add_argument(
        "--phase-shift-unit",
        choices=("degrees", "radians"),
        help="of cisTEM's phase shifts, where the file does not tell",
    )
    parser.add_argument(
        "--passthrough",
        type=Path,
        action="append",
        default=[],
        metavar="FILE.cs",
        help="another file of cryoSPARC's with more of the same particles' fields",
    )
    parser.add_argument(
        "--mirrored",
        action="store_true",
        help="the micrographs are cryoSPARC's turned top to bottom",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an older table")


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
                f"hold{by}, and the new table does not tell"
            )
        if options.maps_from is None and not options.flat_maps:
            say(
                "a refinement needs correlation_average_path and "
                "correlation_variance_path, the match's statistic maps: fill them in, or "
                "import again with --maps-from TABLE.csv, a table that names them; where "
                "no match was made, with --flat-maps"
            )
        say(f"next: jaxrefine init {options.output} --template TEMPLATE.mrc")
    return EXIT_WRITTEN
