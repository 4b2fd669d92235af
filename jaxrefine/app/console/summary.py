"""The summary of a run."""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jaxrefine.app.console.logs import event
from jaxrefine.app.console.output import say
from jaxrefine.data import STATUS_MEANING, Status

log = logging.getLogger("jaxrefine")

_MOST_FALLEN = 20


@dataclass(frozen=True)
class FallenMicrograph:
    """A micrograph whose z-scores fell instead of rising.

    Attributes:
        name: The micrograph, as named in the table.
        particles: Number of its particles with z-scores before and after.
        z_before: Their median z-score at the start.
        z_after: The same after refinement.
    """

    name: str
    particles: int
    z_before: float
    z_after: float


@dataclass(frozen=True)
class ExpectedScores:
    """Mean z-scores at the start and expected in independent data.

    Attributes:
        particles: Number of particles with both.
        z_before: Mean z-score at the start.
        z_after: Expected mean z-score of the refined poses in independent data.
    """

    particles: int
    z_before: float
    z_after: float


@dataclass(frozen=True)
class FoundPartners:
    """Result of a constrained search.

    Attributes:
        found: Number of partners above the threshold.
        threshold: z-score above which a partner counts as found.
        false_positives: Expected number per particle if there is no partner.
    """

    found: int
    threshold: float
    false_positives: float


@dataclass(frozen=True)
class Summary:
    """Results of a run.

    Attributes:
        output: The refined table.
        particles: Number of its rows.
        refined: Number of refined particles.
        continued: Number of rows that an earlier run had refined.
        mean_z_before: Mean z-score in the input, the refined one if it was refined before;
            NaN without that column.
        mean_z_after: Mean refined z-score.
        mean_snr: Mean 2DTM SNR.
        statuses: Number of particles with each status.
        seconds: Wall time of the search and the preparation.
        fallen: Micrographs whose median z-score fell far below the starting one.
        mean_z_expected: Expected mean z-score of the refined poses in independent data; NaN
            without a polish.
        expected: The same, with the starting mean; None if either is unknown.
        partners: Result of a constrained search; None after a refinement.
    """

    output: Path
    particles: int
    refined: int
    continued: int
    mean_z_before: float
    mean_z_after: float
    mean_snr: float
    statuses: dict[Status, int]
    seconds: float
    fallen: tuple[FallenMicrograph, ...] = ()
    mean_z_expected: float = math.nan
    expected: ExpectedScores | None = None
    partners: FoundPartners | None = None

    @property
    def not_refined(self) -> int:
        """Number of particles that were not refined; their cells are empty."""
        return self.particles - self.refined


def format_not_refined(summary: Summary) -> str:
    """The warning about particles that were not refined."""
    bad = (Status.BOX_OUTSIDE, Status.NOT_FINITE, Status.UNREADABLE)
    counts = ((summary.statuses[status], status.name.lower()) for status in bad)
    each = ", ".join(f"{count} {name}" for count, name in counts if count)
    return (
        f"{summary.not_refined} of {summary.particles} particles were not refined "
        f"({each}): see refined_status in {summary.output}"
    )


def format_fallen(fallen: Sequence[FallenMicrograph]) -> list[str]:
    """The warnings about z-scores that fell; empty if they did not."""
    if not fallen:
        return []
    lines = [
        f"{each.name}: the median z-score of {each.particles} particles fell from "
        f"{each.z_before:.1f} to {each.z_after:.1f}"
        for each in fallen[:_MOST_FALLEN]
    ]
    if len(fallen) > _MOST_FALLEN:
        lines.append(f"… and of {len(fallen) - _MOST_FALLEN} more micrographs")
    return [*lines, "z-scores should rise: `jaxrefine check` looks for the cause"]


def format_noise_fitted(expected: ExpectedScores | None) -> list[str]:
    """The warning about fitted noise; empty if the expected z-score rose."""
    if expected is None or expected.z_after >= expected.z_before:
        return []
    return [
        f"the expected mean z-score of {expected.particles} particles in independent data "
        f"is {expected.z_after:.2f}, below the starting {expected.z_before:.2f}: noise was "
        "fitted. The images contain too little information: free fewer parameters, or set "
        "polish.prior: match (docs/accuracy.md)"
    ]


def format_summary(summary: Summary) -> list[str]:
    """The summary at the end of a run."""
    earlier = (
        f" ({summary.continued} of them by an earlier run)" if summary.continued else ""
    )
    before = f"{summary.mean_z_before:.2f} at the start"
    if math.isnan(summary.mean_z_before):
        before = "none in the particle table"
    expected = ""
    if math.isfinite(summary.mean_z_expected):
        expected = f"; expected in independent data: {summary.mean_z_expected:.2f}"
    what, score = "refined", f"{before}, {summary.mean_z_after:.2f} refined"
    found: list[str] = []
    if (partners := summary.partners) is not None:
        what, score = "searched for the partners of", f"{summary.mean_z_after:.2f}"
        by_chance = partners.false_positives * summary.refined
        found = [
            f"  found {partners.found}: z above {partners.threshold:.2f}, which noise "
            f"alone should reach {by_chance:.2g} times in {summary.refined} searches"
        ]
    return [
        f"{what} {summary.refined} of {summary.particles} particles in "
        f"{summary.seconds:.1f} s{earlier}",
        *found,
        f"  mean z-score: {score}{expected}",
        f"  mean refined_snr (2DTM SNR): {summary.mean_snr:.2f}",
        *(
            f"  {count} {status.name.lower()}: {STATUS_MEANING[status]}"
            for status, count in summary.statuses.items()
            if count and status != Status.CONVERGED
        ),
        *(f"  {line}" for line in format_fallen(summary.fallen)),
        *(f"  {line}" for line in format_noise_fitted(summary.expected)),
        f"written: {summary.output}",
    ]


def print_summary(summary: Summary, *, quiet: bool, json_progress: bool) -> None:
    """Print a summary, and keep it in the log file.

    Args:
        summary: Summary of a run.
        quiet: Do not print it.
        json_progress: Also log it as an event.
    """
    for line in format_summary(summary):
        if not quiet:
            say(line)
        log.debug("%s", line)
    if json_progress:
        statuses = {status.name.lower(): n for status, n in summary.statuses.items()}
        done = event(
            "written",
            output=str(summary.output),
            done=summary.refined,
            total=summary.particles,
            seconds=round(summary.seconds, 1),
            statuses=statuses,
        )
        log.info("done", extra=done)
