"""`jaxrefine join A.csv B.csv …`: combine particle tables."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from jaxrefine.app.console.exit_codes import EXIT_WRITTEN
from jaxrefine.app.console.output import say

if TYPE_CHECKING:
    from jaxrefine.app.interchange.join import Changes

HELP = "join particle tables, and report what a second refinement changed"

_FAR_ANGSTROM = 5.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command line."""
    parser.add_argument("tables", type=Path, nargs="+", metavar="TABLE.csv")
    parser.add_argument("--output", required=True, type=Path, metavar="JOINED.csv")
    parser.add_argument(
        "--keep",
        choices=("last", "first", "best"),
        default="last",
        help="which row of a particle that is in several tables: of the last of them, of "
        "the first, or of the highest z-score (last)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an older file")


def run(options: argparse.Namespace) -> int:
    """Write the table, and print what it contains."""
    from jaxrefine.app.interchange.join import join

    done = join(
        options.tables, options.output, keep=options.keep, overwrite=options.overwrite
    )
    if not options.quiet:
        for changes in done.changes:
            for line in lines_of(changes):
                say(line)
        if done.filled:
            say(f"columns that some tables lack, empty there: {', '.join(done.filled)}")
        if done.renumbered:
            say(f"particle_index: {done.renumbered} were already in use, and replaced")
        counts = zip(done.of_each, options.tables, strict=True)
        of_each = ", ".join(f"{count} of {path}" for count, path in counts)
        say(f"written: {done.output}: {done.rows} particles ({of_each})")
    return EXIT_WRITTEN


def lines_of(changes: "Changes") -> list[str]:
    """Differences between the two refinements, one line each."""
    one, other = changes.tables
    moved = changes.moved_angstrom
    lines = [
        f"{len(moved)} particles are in both {one} and {other}:",
        f"  moved by {np.median(moved):.2f} Å (median), {moved.max():.2f} Å at most; "
        f"{int((moved > _FAR_ANGSTROM).sum())} by more than {_FAR_ANGSTROM:g} Å",
    ]
    z_score = changes.z_score[:, np.isfinite(changes.z_score).all(axis=0)]
    if z_score.size:
        before, after = z_score
        lines.append(
            f"  z-score {before.mean():.2f} -> {after.mean():.2f} (mean); higher for "
            f"{int((after > before).sum())} of {len(before)}"
        )
    different = {pair: n for pair, n in changes.statuses.items() if pair[0] != pair[1]}
    same = len(moved) - sum(different.values())
    words = [f"{same} unchanged"] + [
        f"{count} {before or 'none'} -> {after or 'none'}"
        for (before, after), count in sorted(different.items())
    ]
    return [*lines, f"  status: {', '.join(words)}"]
