"""The exception for errors that a user can fix."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import TracebackType


class InputError(ValueError):
    """Invalid input: a configuration, a table, a file, or a device that does not exist.

    Carries every error that was found, so that a user can fix them together. The program
    prints the errors without a traceback and exits with code 2.

    Attributes:
        errors: One sentence each, naming the file, key or row, the value, and what
            would be right.
    """

    errors: tuple[str, ...]

    def __init__(self, errors: str | Iterable[str]):
        self.errors = (errors,) if isinstance(errors, str) else tuple(errors)
        super().__init__("\n".join(self.errors))


class ErrorCollector:
    """Collects the errors of several steps, so that one error names them all.

    ```python
    errors = ErrorCollector()
    with errors:
        table = read_particle_table(path)
    with errors:
        volume, _ = read_volume(path)
    errors.raise_any()
    ```
    """

    def __init__(self) -> None:
        self._sentences: list[str] = []

    def __enter__(self) -> "ErrorCollector":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        if not isinstance(error, InputError):
            return False
        self._sentences += error.errors
        return True

    def raise_any(self) -> None:
        """Raise an `InputError` if any step raised one."""
        if self._sentences:
            raise InputError(dict.fromkeys(self._sentences))


@contextmanager
def add_error_context(*, before: str = "", after: str = "") -> Iterator[None]:
    """Add text before or after the messages of errors raised in this context."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{before}{message}{after}" for message in error.errors) from error


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error reports that the machine or a device is out of memory.

    XLA raises a RuntimeError that contains this word.
    """
    if isinstance(error, RuntimeError):
        return "RESOURCE_EXHAUSTED" in str(error)
    return isinstance(error, MemoryError)
