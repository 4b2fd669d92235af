"""The summary of a comparison of references."""

import logging
from dataclasses import dataclass
from pathlib import Path

from jaxrefine.app.console.logs import event
from jaxrefine.app.console.output import say

log = logging.getLogger("jaxrefine")

# Smallest probability with which a particle is assigned to a reference.
SURE = 0.9


@dataclass(frozen=True)
class ReferenceSummary:
    """Result of a comparison.

    Attributes:
        output: The table.
        names: Names of the references.
        sure: Number of particles of each reference with a probability of at least `SURE`.
        expected: Number of particles of each reference, as the sum of probabilities.
        sigma: Standard errors of these sums.
        undecided: Number of particles without a reference of that probability.
        not_refined: Number of particles that were not refined against any reference.
        wrong: Expected fraction of wrong assignments.
        overlap: Mean correlation of the expected images of the best two references.
        priors: Prior probability of each reference.
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
    """Number of particles of each reference, and how certain it is."""
    decided = sum(summary.sure)
    counts = ", ".join(
        f"{name} {n}" for name, n in zip(summary.names, summary.sure, strict=True)
    )
    undecided = f"{summary.undecided} undecided (P < {SURE:g})"
    lines = [f"  references: {counts}, {undecided}"]
    if decided:
        lines.append(
            f"  of the {decided} decided, {summary.wrong * decided:.1f} are expected to be "
            "of another reference"
        )
    each = zip(summary.names, summary.expected, summary.sigma, strict=True)
    shares = ", ".join(f"{name} {n:.1f} ± {sigma:.1f}" for name, n, sigma in each)
    lines.append(f"  in all, by the sum of the probabilities: {shares}")
    if summary.not_refined:
        lines.append(f"  {summary.not_refined} were not refined against any reference")
    return [*lines, f"written: {summary.output}"]


def print_references(
    summary: ReferenceSummary, *, quiet: bool, json_progress: bool
) -> None:
    """Print a summary, and keep it in the log file.

    Args:
        summary: Summary of a comparison.
        quiet: Do not print it.
        json_progress: Also log it as an event.
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
