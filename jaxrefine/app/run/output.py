"""Check of the output path, before any long work."""

import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

from jaxrefine.data import InputError


def check_output(output: Path, inputs: Iterable[Path], source: str) -> None:
    """Refuse an output that cannot be written or would overwrite an input.

    Raises:
        InputError: The output cannot be written, or is an input.
    """
    key = f"{source}: output_path: {output}"
    try:
        real = Path(os.path.realpath(output))  # resolve() raises for circular links
        if os.path.lexists(output) and not os.path.exists(output):
            raise InputError(f"{key} — is a broken link; name a file")
        if not real.parent.is_dir():
            raise InputError(f"{key} — its folder does not exist; create it first")
        if real.is_dir():
            raise InputError(f"{key} — is a folder; name a file")
        if real.exists() and not real.is_file():  # a table would replace it
            raise InputError(f"{key} — is a device or a pipe; name a file")
        with tempfile.TemporaryFile(dir=real.parent):
            pass  # the folder is writable
        if os.path.realpath(output) in map(os.path.realpath, inputs):
            raise InputError(f"{key} — is an input of the run; name another file")
    except (OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{key} — cannot be written: {reason}") from error
