"""The summary numbers of a page, and the rows of its small tables."""

from collections import Counter

import numpy as np

from jaxrefine.app.report.compare import Comparison
from jaxrefine.app.report.figures import signed
from jaxrefine.app.report.table_data import REASONS, Concern, ReportData


def tiles(
    data: ReportData, threshold: float | None, comparison: Comparison | None
) -> list[tuple[str, str, str]]:
    """(label, value, note) of the summary numbers."""
    good = data.refined
    both = good & np.isfinite(data.z_before)
    before, after = data.z_before[both], data.z_after[both]
    tiles = [("refined", f"{good.sum():,}", f"of {len(data):,} particles")]
    if both.any():
        gained = int((after > before).sum())
        tiles += [
            ("mean z-score", f"{after.mean():.2f}", f"{before.mean():.2f} in the match"),
            (
                "median gain in z",
                signed("{:+.2f}", float(np.median(after - before))),
                f"{gained:,} of {both.sum():,} gained",
            ),
        ]
    told = good & np.isfinite(data.z_expected)
    if told.any():
        mean = f"{data.z_expected[told].mean():.2f}"
        tiles.append(("expected z-score", mean, "in independent data"))
    if threshold is not None:
        tiles.append(
            (
                f"z above {threshold:g}",
                f"{int((data.z_after[good] > threshold).sum()):,}",
                f"{int((data.z_before > threshold).sum()):,} in the match",
            )
        )
    if good.any():
        distance = np.hypot(*data.shift_px[good].T)
        tiles += [
            (
                "median tilt",
                f"{np.median(data.tilt_deg[good]):.2f}°",
                "out of the plane",
            ),
            ("median shift", f"{np.median(distance):.2f} px", "in position"),
        ]
    if comparison is not None and np.isfinite(comparison.gain).any():
        gain = comparison.gain[np.isfinite(comparison.gain)]
        change = signed("{:+.2f}", float(np.median(gain)))
        note = f"this − other, {len(gain):,} refined in both"
        tiles.append(("median difference in z", change, note))
    return tiles


def statuses(data: ReportData) -> list[tuple[str, int, str]]:
    """(status, count, meaning), the most frequent first."""
    counts = Counter(word for word in data.status if word).most_common()
    return [(word, count, REASONS.get(word, "unknown status")) for word, count in counts]


def micrograph_rows(data: ReportData) -> list[tuple[str, ...]]:
    """(name, particles, refined, mean z, mean relative defocus) of each micrograph."""
    found = []
    for text, rows in data.micrographs.items():
        good = rows[data.refined[rows]]
        means = ("—", "—")
        if len(good):
            z, defocus = data.z_after[good], data.relative_defocus_angstrom[good]
            means = (f"{z.mean():.2f}", signed("{:+.0f}", float(defocus.mean())))
        found.append((text, f"{len(rows)}", f"{len(good)}", *means))
    return found


def concern_row(data: ReportData, concern: Concern) -> tuple[str, ...]:
    """(particle, line, micrograph, z before, z after, status, limits)."""
    row = concern.row
    return (
        data.labels[row],
        str(data.table.row_numbers[row]),
        data.table.micrograph_paths[row],
        _score(data.z_before[row]),
        _score(data.z_after[row]),
        concern.words,
        concern.limits,
    )


def meanings(concerns: list[Concern]) -> list[tuple[str, str]]:
    """(status, meaning) of each status among them."""
    return list({concern.words: concern.meaning for concern in concerns}.items())


def _score(z: float) -> str:
    return f"{z:.2f}" if np.isfinite(z) else "—"
