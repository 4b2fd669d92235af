"""What the program prints as its result, on standard output."""

import io
import logging
import os
import sys
from contextlib import suppress

from jaxrefine.app.console.logs import printable

log = logging.getLogger("jaxrefine")


def say(text: str) -> None:
    """Print lines, at once; control characters are spelt out.

    A reader that has gone, as `head` does, or a full disk ends the printing, not the work.
    """
    try:
        print(printable(text), flush=True)
    except OSError as error:
        _print_nothing_more()
        if not isinstance(error, BrokenPipeError):
            log.warning("standard output cannot be written: %s", error.strerror)


def use_any_characters() -> None:
    """Spell out what the terminal's encoding lacks, instead of ending in an error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # not in a notebook, which has them all
            stream.reconfigure(errors="backslashreplace")


def flush_output() -> None:
    """Write out what is left, so that Python finds nothing to complain about at its end."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError:
        _print_nothing_more()


def _print_nothing_more() -> None:
    """What is left in the buffer, and what is still to come, goes nowhere."""
    with suppress(OSError, ValueError):  # a stream without a file
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
