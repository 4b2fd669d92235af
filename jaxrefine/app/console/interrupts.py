"""Stopping a run early without losing results."""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from jaxrefine.app.console.exit_codes import EXIT_INTERRUPTED


class Stopped(Exception):
    """A run that ended early; finished results are kept.

    Its text is for the user; it is empty if another process reports it.

    Attributes:
        exit_code: Exit code of the program.
    """

    exit_code: int

    def __init__(self, text: str, exit_code: int):
        super().__init__(text)
        self.exit_code = exit_code


class Stop:
    """Whether a run should stop; checked between batches and while waiting."""

    def __init__(self) -> None:
        self.reason: Stopped | None = None

    def request(self, text: str, exit_code: int) -> None:
        """Ask the run to stop; the first reason is kept."""
        if self.reason is None:
            self.reason = Stopped(text, exit_code)

    def check(self) -> None:
        """Raise the reason, if there is one."""
        if self.reason is not None:
            raise self.reason


@contextmanager
def interrupts_unwind() -> Iterator[None]:
    """Let Ctrl-C and SIGTERM raise KeyboardInterrupt, so that incomplete files are
    removed."""
    with _handled(signal.default_int_handler):
        yield


@contextmanager
def stop_on_signals(stop: Stop, *, quiet: bool = False) -> Iterator[None]:
    """Turn the first Ctrl-C or SIGTERM into a request to stop; a second one ends at once.

    Signals reach only the main thread; a run in another thread cannot be stopped by them.

    Args:
        stop: Receives the request.
        quiet: Do not print a message.
    """

    def asked(number: int, frame: object) -> None:
        stop.request("interrupted", EXIT_INTERRUPTED)
        # The system's handler: Python's would wait for the end of a compilation.
        signal.signal(number, signal.SIG_DFL)
        if not quiet:  # not with `log`, which the signal may have interrupted
            with suppress(OSError, ValueError):  # the stream of a notebook has no file
                os.write(
                    sys.stderr.fileno(), b"finishing the batch; once more kills at once\n"
                )

    with _handled(asked):
        yield


@contextmanager
def _handled(handler: Callable[[int, FrameType | None], object]) -> Iterator[None]:
    """Handle Ctrl-C and SIGTERM, unless they are ignored, as under nohup."""
    taken = {}
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) is not signal.SIG_IGN:
                taken[number] = signal.signal(number, handler)
    try:
        yield
    finally:
        for number, earlier in taken.items():
            signal.signal(number, earlier)
