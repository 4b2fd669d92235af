"""`jaxrefine select TABLE.csv`: select particles by criteria."""

import argparse
from pathlib import Path

from jaxrefine.app.console.exit_codes import EXIT_WRITTEN
from jaxrefine.app.console.option_types import distance_angstrom, positive
from jaxrefine.app.console.output import say

HELP = "write the particles of a table that meet given criteria"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command line."""
    parser.add_argument("table", type=Path, metavar="REFINED.csv")
    parser.add_argument("--output", required=True, type=Path, metavar="KEPT.csv")
    parser.add_argument(
        "--where",
        action="append",
        default=[],
        metavar="CONDITION",
        help="keep the particles for which the condition holds, such as "
        "\"refined_scaled_mip > 8 and refined_status == 'converged'\"; may be repeated",
    )
    parser.add_argument(
        "--indices",
        type=Path,
        metavar="FILE.csv",
        help="keep the particles that this file lists by particle_index, such as a "
        "selection saved in the report",
    )
    parser.add_argument(
        "--false-positives",
        type=positive,
        metavar="N",
        help="keep particles whose score is reached by at most N noise peaks per "
        "micrograph, as expected (refined_false_positives)",
    )
    parser.add_argument(
        "--drop-at-edge",
        action="store_true",
        help="drop particles whose best grid point is on the border of the search range",
    )
    parser.add_argument(
        "--drop-moved",
        type=distance_angstrom,
        nargs="?",
        const=5.0,
        metavar="ANGSTROM",
        help="drop particles that the refinement moved further than this (5)",
    )
    parser.add_argument(
        "--drop-duplicates",
        type=distance_angstrom,
        metavar="ANGSTROM",
        help="of particles in a micrograph that are no further apart than this, such as "
        "30A, keep the one with the highest z-score",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an older file")


def run(options: argparse.Namespace) -> int:
    """Write the rows, and print how many each criterion removed."""
    from jaxrefine.app.interchange.select import Criteria, select

    criteria = Criteria(
        where=tuple(options.where),
        indices=options.indices,
        false_positives=options.false_positives,
        drop_at_edge=options.drop_at_edge,
        drop_moved_angstrom=options.drop_moved,
        drop_duplicates_angstrom=options.drop_duplicates,
    )
    done = select(options.table, options.output, criteria, overwrite=options.overwrite)
    if not options.quiet:
        for name, count in done.removed:
            say(f"{name}: removed {count}")
        say(f"written: {done.output}: {done.kept} of {done.total} particles")
    return EXIT_WRITTEN
