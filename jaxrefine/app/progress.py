"""Progress of a run: a bar on a terminal, a log line now and then elsewhere."""

import logging
import sys
import time

from tqdm import tqdm

log = logging.getLogger("jaxrefine")

_SECONDS_BETWEEN_LINES = 30.0
_MAX_LINES = 100  # however long the run is


class Progress:
    """Counts particles done. Use as a context manager.

    Args:
        total: Number of particles.
        poses: Number of correlations per particle, for the rate.
        quiet: Show nothing.
        whose: Added to the particles where they are a share of all.
    """

    def __init__(self, total: int, poses: int, *, quiet: bool = False, whose: str = ""):
        self._poses = poses
        self._started = self._last_line = time.monotonic()
        self._on_terminal = sys.stderr.isatty() and not quiet
        self._logs = not self._on_terminal and not quiet
        self._bar = tqdm(
            total=total, unit="particle", disable=not self._on_terminal, dynamic_ncols=True
        )
        self._total, self._done, self._said, self._whose = total, 0, 0, whose

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_) -> None:
        self._bar.close()

    def update(self, particles: int) -> None:
        """Say that so many more are done."""
        self._done += particles
        now = time.monotonic()
        elapsed = now - self._started
        rate = self._done * self._poses / max(elapsed, 1e-9)
        self._bar.set_postfix_str(f"{rate:,.0f} correlations/s", refresh=False)
        self._bar.update(particles)
        news = self._done - self._said > self._total / _MAX_LINES
        if self._logs and news and now - self._last_line > _SECONDS_BETWEEN_LINES:
            self._last_line, self._said = now, self._done
            remaining = elapsed / self._done * (self._total - self._done)
            log.info(
                "%d of %d particles%s, %s correlations/s, %s left",
                self._done,
                self._total,
                self._whose,
                f"{rate:,.0f}",
                tqdm.format_interval(remaining),
            )
