"""Results printed on standard output."""

import io
import logging
import os
import sys
from contextlib import suppress

from jaxrefine.app.console.logs import printable

log = logging.getLogger("jaxrefine")


def say(text: str) -> None:
    """Print lines immediately; control characters are escaped.

    A closed reader, such as `head`, or a full disk ends the printing, not the run.
    """
    try:
        print(printable(text), flush=True)
    except OSError as error:
        _print_nothing_more()
        if not isinstance(error, BrokenPipeError):
            log.warning("standard output cannot be written: %s", error.strerror)


def use_any_characters() -> None:
    """Escape characters that the terminal's encoding lacks, instead of raising an error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # streams of notebooks need no change
            stream.reconfigure(errors="backslashreplace")


def flush_output() -> None:
    """Flush the output, so that Python raises no error at exit."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError:
        _print_nothing_more()


def _print_nothing_more() -> None:
    """Discard the buffer and all further output."""
    with suppress(OSError, ValueError):  # a stream without a file
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
