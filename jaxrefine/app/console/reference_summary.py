"""What a comparison of references found, in a few lines."""

import logging
from dataclasses import dataclass
from pathlib import Path

from jaxrefine.app.console.logs import event
from jaxrefine.app.console.output import say

log = logging.getLogger("jaxrefine")

# A particle is said to be of a reference from this probability on.
SURE = 0.9


@dataclass(frozen=True)
class ReferenceSummary:
    """What a comparison found.

    Attributes:
        output: The table.
        names: Of the references.
        sure: How many particles are of each with a probability of `SURE` or more.
        expected: How many are of each by the sum of the probabilities.
        sigma: Standard errors of these sums.
        undecided: How many have no reference of that probability.
        not_refined: How many were refined against none.
        wrong: Share of the decided that may be expected to be of another reference.
        overlap: Mean correlation of the images expected of the best and the next.
        priors: Of each reference.
        seconds: Wall time of the comparison.
    """

    output: Path
    names: tuple[str, ...]
    sure: tuple[int, ...]
    expected: tuple[float, ...]
    sigma: tuple[float, ...]
    undecided: int
    not_refined: int
    wrong: float
    overlap: float
    priors: tuple[float, ...]
    seconds: float


def format_references(summary: ReferenceSummary) -> list[str]:
    """How many particles are of each reference, and how sure that is."""
    decided = sum(summary.sure)
    counts = ", ".join(
        f"{name} {n}" for name, n in zip(summary.names, summary.sure, strict=True)
    )
    undecided = f"{summary.undecided} undecided (P < {SURE:g})"
    lines = [f"  references: {counts}, {undecided}"]
    if decided:
        lines.append(
            f"  of the {decided} decided, {summary.wrong * decided:.1f} may be expected to "
            "be of another reference"
        )
    each = zip(summary.names, summary.expected, summary.sigma, strict=True)
    shares = ", ".join(f"{name} {n:.1f} ± {sigma:.1f}" for name, n, sigma in each)
    lines.append(f"  in all, by the sum of the probabilities: {shares}")
    if summary.not_refined:
        lines.append(f"  {summary.not_refined} were refined against none")
    return [*lines, f"written: {summary.output}"]


def print_references(
    summary: ReferenceSummary, *, quiet: bool, json_progress: bool
) -> None:
    """Print a summary, and keep it in the log file.

    Args:
        summary: Of a comparison.
        quiet: Do not print it.
        json_progress: Log it as an event, too.
    """
    for line in format_references(summary):
        if not quiet:
            say(line)
        log.debug("%s", line)
    if json_progress:
        counts = dict(zip(summary.names, summary.sure, strict=True))
        done = event(
            "compared",
            output=str(summary.output),
            references=counts,
            undecided=summary.undecided,
            seconds=round(summary.seconds, 1),
        )
        log.info("compared", extra=done)
