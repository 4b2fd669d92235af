"""Progress of a run: a bar on a terminal or in a notebook; otherwise log lines or JSON."""

import logging
import sys
import time

from tqdm import tqdm

from jaxrefine.app.console.logs import event

log = logging.getLogger("jaxrefine")

_SECONDS_BETWEEN_LINES = 30.0
_SECONDS_BETWEEN_EVENTS = 1.0  # for JSON
_MAX_LINES = 100  # largest number of log lines of a run


class Progress:
    """Counts finished particles. Use as a context manager.

    Args:
        total: Number of particles.
        poses: Number of correlations per particle, for the rate; 0 for no rate.
        quiet: Show nothing.
        json_lines: Log an event at most every second instead of a bar.
        whose: Added to "particles" if they are a share of all.
    """

    def __init__(
        self,
        total: int,
        poses: int,
        *,
        quiet: bool = False,
        json_lines: bool = False,
        whose: str = "",
    ):
        self._poses = poses
        self._started = self._last_line = time.monotonic()
        on_terminal = _draws_bars() and not quiet and not json_lines
        self._logs = json_lines or not (on_terminal or quiet)
        self._least_s, self._least = _SECONDS_BETWEEN_LINES, total / _MAX_LINES
        if json_lines:
            self._least_s, self._least = _SECONDS_BETWEEN_EVENTS, 0
        self._bar = tqdm(
            total=total, unit="particle", disable=not on_terminal, dynamic_ncols=True
        )
        self._total, self._done, self._said, self._whose = total, 0, 0, whose
        # Time and count after the first batch, which compiles: the start for the rate.
        self._paced_from: tuple[float, int] | None = None

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_) -> None:
        self._bar.close()

    def update(self, particles: int, micrograph: str) -> None:
        """Add a number of finished particles of a micrograph."""
        self._done += particles
        now = time.monotonic()
        elapsed = now - self._started
        since, before = self._paced_from or (self._started, 0)
        self._paced_from = self._paced_from or (now, self._done)
        pace = max(now - since, 1e-9) / max(self._done - before, 1)
        rate = self._poses / pace
        words = f"{rate:,.0f} correlations/s" if self._poses else ""
        self._bar.set_postfix_str(words, refresh=False)
        self._bar.update(particles)
        news = self._done - self._said > self._least
        if self._logs and news and now - self._last_line > self._least_s:
            self._last_line, self._said = now, self._done
            remaining = pace * (self._total - self._done)
            log.info(
                "%d of %d particles%s%s, %s left",
                self._done,
                self._total,
                self._whose,
                f", {words}" if words else "",
                tqdm.format_interval(remaining),
                extra=event(
                    "progress",
                    done=self._done,
                    total=self._total,
                    seconds=round(elapsed, 1),
                    seconds_left=round(remaining, 1),
                    correlations_per_second=round(rate),
                    micrograph=micrograph,
                ),
            )


def _draws_bars() -> bool:
    """Whether a bar can be drawn: on a terminal or in a notebook."""
    stream = sys.stderr
    if stream is None:
        return False
    return stream.isatty() or type(stream).__module__.split(".")[0] == "ipykernel"
