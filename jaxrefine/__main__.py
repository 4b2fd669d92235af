"""`python -m jaxrefine`, and the program `jaxrefine`."""

import gc
import os
import signal
import sys
from types import FrameType


def main() -> int:
    """Run the program; Ctrl-C ends it without a traceback."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupted)
    from jaxrefine.app.cli import main as run

    code = run()
    # Otherwise the interpreter looks for garbage among all objects before it ends: 0.3 s.
    gc.freeze()
    return code


def _interrupted(number: int, frame: FrameType | None) -> None:
    # Not an exception, which an import might catch or be interrupted by half-way. During a
    # run, the program handles the signal itself and keeps finished results.
    os.write(sys.stderr.fileno(), b"interrupted\n")
    os._exit(130)


if __name__ == "__main__":
    sys.exit(main())
