"""Messages of the program, from the logger "jaxrefine".

They go to the error stream, as plain lines or as JSON, and with `--log-file` also to a
file, with the time of each. There are no colours.
"""

import json
import logging
import re
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from jaxrefine.data import InputError

# The levels whose name is printed.
_LABELS = {logging.WARNING: "warning: ", logging.ERROR: "error: "}

_MOST_ALIKE = 20
_MOST_KEPT = 200
# Start of a line in a log file.
_STAMP = re.compile(rb"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d ")
# Control characters of terminals, which file contents and paths may contain.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def printable(text: str) -> str:
    """Escape the control characters of a text, except line ends and tabs."""
    return _CONTROL.sub(lambda found: repr(found.group())[1:-1], text)


def set_up_logging(
    *,
    quiet: bool,
    prefix: str = "",
    json_lines: bool = False,
    log_file: Path | None = None,
) -> None:
    """Set where messages go; from other libraries only warnings are shown.

    Args:
        quiet: Show only warnings and errors on the error stream; no effect on JSON.
        prefix: Text before each line.
        json_lines: Write JSON objects to the error stream.
        log_file: File to which all messages and printed results are appended.

    Raises:
        InputError: The file cannot be written.
    """
    logging.basicConfig(
        level=logging.WARNING, format="%(levelname)s: %(message)s", stream=sys.stderr
    )
    shown = logging.StreamHandler(sys.stderr)
    shown.setFormatter(_Json() if json_lines else _Plain(prefix))
    shown.setLevel(logging.WARNING if quiet and not json_lines else logging.INFO)
    shown.addFilter(_First())
    logger = logging.getLogger("jaxrefine")
    for earlier in logger.handlers:
        earlier.close()
    logger.handlers[:] = [shown]
    logger.setLevel(shown.level)
    logger.propagate = False
    if log_file is None:
        return
    try:
        _refuse_what_is_no_log(log_file)
        kept = _LogFile(log_file, encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise InputError(
            f"--log-file: {log_file} — cannot be written: {error.strerror}"
        ) from error
    kept.setFormatter(_Plain(prefix, "%Y-%m-%d %H:%M:%S "))
    logger.addHandler(kept)
    logger.setLevel(logging.DEBUG)


def _refuse_what_is_no_log(path: Path) -> None:
    """Refuse to append to a file that does not start like a log file of jaxrefine."""
    if not path.is_file():
        return
    with path.open("rb") as file:
        if not _STAMP.match(file.readline(40) or b"2000-01-01 00:00:00 "):
            raise InputError(f"--log-file: {path} — is not a log file; name another file")


def event(name: str, **values: object) -> dict[str, dict[str, object]]:
    """Values that a message carries as its `extra`; JSON lines show them."""
    return {"event": {"event": name, **values}}


@contextmanager
def keep_warnings() -> Iterator[list[str]]:
    """Collect all warnings in this context, each once, in a list that grows."""
    kept = _Kept()
    logger = logging.getLogger("jaxrefine")
    logger.addHandler(kept)
    try:
        yield kept.texts
    finally:
        logger.removeHandler(kept)


class _Kept(logging.Handler):
    def __init__(self):
        super().__init__(logging.WARNING)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        text = printable(record.getMessage())
        if len(self.texts) < _MOST_KEPT and text not in self.texts:
            self.texts.append(text)


class _LogFile(logging.FileHandler):
    """A log file; a full disk ends the log, with a warning, but not the run."""

    def handleError(self, record: logging.LogRecord) -> None:
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            super().handleError(record)
            return
        logger = logging.getLogger("jaxrefine")
        logger.removeHandler(self)
        with suppress(OSError):  # closing writes the buffer
            self.close()
        logger.warning(
            "--log-file: %s: cannot be written: %s; the run continues without it",
            self.baseFilename,
            error.strerror,
        )


class _First(logging.Filter):
    """Of warnings of one kind, which many micrographs may cause, keep the first."""

    def __init__(self):
        super().__init__()
        self._seen = Counter[str]()

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno != logging.WARNING:
            return True
        self._seen[record.msg] += 1
        count = self._seen[record.msg]
        if count == _MOST_ALIKE:
            record.msg = f"{record.getMessage()} (further ones only in --log-file)"
            record.args = ()
        return count <= _MOST_ALIKE


class _Plain(logging.Formatter):
    """Format a message without its level, unless it is a warning or an error."""

    def __init__(self, prefix: str, time_format: str = ""):
        super().__init__(datefmt=time_format)
        self._prefix, self._timed = prefix, bool(time_format)

    def format(self, record: logging.LogRecord) -> str:
        time = self.formatTime(record, self.datefmt) if self._timed else ""
        label = _LABELS.get(record.levelno, "")
        return printable(f"{time}{label}{self._prefix}{record.getMessage()}")


class _Json(logging.Formatter):
    """Format a message as an object: its event, or its level and text."""

    def format(self, record: logging.LogRecord) -> str:
        words = {"event": record.levelname.lower(), "message": record.getMessage()}
        return json.dumps(getattr(record, "event", words))
