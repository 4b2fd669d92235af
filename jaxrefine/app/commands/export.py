"""`jaxrefine export REFINED.csv`: particles for RELION, cisTEM or cryoSPARC."""

import argparse
from pathlib import Path

from jaxrefine.app.console.exit_codes import EXIT_WRITTEN
from jaxrefine.app.console.interrupts import interrupts_unwind
from jaxrefine.app.console.option_types import add_path_map, even
from jaxrefine.app.console.output import say

HELP = "write refined particles as a STAR file for RELION, cisTEM or cryoSPARC"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command line."""
    parser.add_argument("table", type=Path, metavar="REFINED.csv")
    parser.add_argument(
        "--to",
        required=True,
        choices=("relion", "cistem", "cryosparc"),
        help="the program; cryoSPARC reads RELION's file",
    )
    parser.add_argument("--output", required=True, type=Path, metavar="FILE.star")
    parser.add_argument(
        "--boxes",
        action="store_true",
        help="also extract the particle images, into FILE.mrcs beside the STAR file",
    )
    parser.add_argument(
        "--box-size",
        type=even,
        metavar="PX",
        help="side of the particle images, even; default: 1.5 times the template's",
    )
    parser.add_argument(
        "--optics-from",
        type=Path,
        metavar="MICROGRAPHS.star",
        help="RELION's micrographs, whose optics group names its re-extraction needs",
    )
    add_path_map(parser)
    parser.add_argument("--overwrite", action="store_true", help="replace existing files")


def run(options: argparse.Namespace) -> int:
    """Write the STAR file, and the particle images if requested."""
    from jaxrefine.app.interchange.export_star import export
    from jaxrefine.io.star.writer import need_starfile

    need_starfile()
    with interrupts_unwind():
        done = export(
            options.table,
            options.to,
            options.output,
            boxes=options.boxes or options.box_size is not None,
            box_px=options.box_size,
            optics_from=options.optics_from,
            overwrite=options.overwrite,
            path_map=tuple(options.map_path),
        )
    if not options.quiet:
        if done.left_out:
            total = done.written + done.left_out
            say(f"left out: {done.left_out} of {total} particles, which were not refined")
        if done.stack is not None:
            say(f"written: {done.stack}: {done.written} boxes")
        say(f"written: {done.star}: {done.written} particles")
    return EXIT_WRITTEN
