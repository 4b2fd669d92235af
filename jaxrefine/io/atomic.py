"""Writing a file in one step: whoever reads it sees the old one or the new one, whole."""

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from jaxrefine.data.errors import InputError

PARTIAL_SUFFIX = ".partial"

# Said by file systems that cannot be told to write at once, such as some FUSE mounts.
_NO_SYNC = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP)


def refuse_no_file(path: Path) -> None:
    """Refuse what is there, but is no file: it would be lost.

    Raises:
        InputError: If so.
    """
    if os.path.lexists(path) and not os.path.isfile(path):
        raise InputError(
            f"{path}: is a folder, a device, a pipe or a broken link; name a file"
        )


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A new file's path, which becomes `path` when the block has ended well.

    Until then it has another name in the same folder, `.….partial`.

    Args:
        path: File in a folder that exists.

    Raises:
        InputError: The file cannot be written, or what is there is no file.
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
    """Open a file that takes the place of `path` when the block has ended well.

    It is on the disk before it is renamed, where the file system can be told to see to it.

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
