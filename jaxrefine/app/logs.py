"""What the program says while it works: messages of the logger "jaxrefine"."""

import logging
import re
import sys

# What a terminal obeys; a file's or a path's text may hold it.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def printable(text: str) -> str:
    """A text whose control characters, but for line ends and tabs, are spelt out."""
    return _CONTROL.sub(lambda found: repr(found.group())[1:-1], text)


def set_up_logging(*, quiet: bool, prefix: str = "") -> None:
    """Messages go to the error stream; of other libraries warnings only.

    Args:
        quiet: Leave out all but warnings and errors.
        prefix: Put before each line.
    """
    logging.basicConfig(
        level=logging.WARNING, format="%(levelname)s: %(message)s", stream=sys.stderr
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Plain(prefix))
    logger = logging.getLogger("jaxrefine")
    logger.handlers[:] = [handler]
    logger.setLevel(logging.WARNING if quiet else logging.INFO)
    logger.propagate = False


class _Plain(logging.Formatter):
    """The message alone; its level only where it is a warning or worse."""

    def __init__(self, prefix: str):
        super().__init__()
        self._prefix = prefix

    def format(self, record: logging.LogRecord) -> str:
        text = printable(f"{self._prefix}{record.getMessage()}")
        return text if record.levelno < logging.WARNING else f"warning: {text}"
