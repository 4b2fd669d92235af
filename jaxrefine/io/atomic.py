"""Atomic writing: a reader sees either the old or the new file, always complete."""

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from jaxrefine.data.errors import InputError

PARTIAL_SUFFIX = ".partial"

# Errors of file systems that do not support syncing, such as some FUSE mounts.
_NO_SYNC = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP)


def refuse_no_file(path: Path) -> None:
    """Refuse to replace something that is not a regular file.

    Raises:
        InputError: It is not a regular file.
    """
    if os.path.lexists(path) and not os.path.isfile(path):
        raise InputError(
            f"{path}: is a folder, a device, a pipe or a broken link; name a file"
        )


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Path of a new file, which becomes `path` when the block ends without an error.

    Until then it has another name in the same folder, `.….partial`.

    Args:
        path: File in a folder that exists.

    Raises:
        InputError: The file cannot be written, or `path` is not a regular file.
    """
    refuse_no_file(path)
    temporary = path.parent / f".{secrets.token_hex(8)}{path.suffix}{PARTIAL_SUFFIX}"
    try:
        try:
            yield temporary
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror or error}") from error


@contextmanager
def atomic_open(path: Path, **options: Any) -> Iterator[IO]:
    """Open a file that replaces `path` when the block ends without an error.

    It is flushed to disk before it is renamed, if the file system supports this.

    Args:
        path: File in a folder that exists.
        options: For `open`, without a mode: encoding and newline, or nothing for bytes.

    Raises:
        InputError: The file cannot be written.
    """
    with (
        atomic_path(path) as temporary,
        open(temporary, "x" if options else "xb", **options) as file,
    ):
        yield file
        file.flush()
        try:
            os.fsync(file.fileno())
        except OSError as error:
            if error.errno not in _NO_SYNC:
                raise
