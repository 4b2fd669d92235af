"""The one exception for what a user can mend."""

from collections.abc import Iterable
from types import TracebackType


class InputError(ValueError):
    """Faulty input: a config, a table, a file, a device that is not there.

    Carries every fault that was found, so that a user mends them in one go. The
    program prints the faults and exits with code 2; it shows no traceback.

    Attributes:
        faults: One sentence each, naming the file, key or row, the value, and what
            would be right.
    """

    faults: tuple[str, ...]

    def __init__(self, faults: str | Iterable[str]):
        self.faults = (faults,) if isinstance(faults, str) else tuple(faults)
        super().__init__("\n".join(self.faults))


class Faults:
    """Collects the faults of several steps, so that one error names them all.

    ```python
    faults = Faults()
    with faults:
        table = read_particle_table(path)
    with faults:
        volume, _ = read_volume(path)
    faults.raise_any()
    ```
    """

    def __init__(self) -> None:
        self._sentences: list[str] = []

    def __enter__(self) -> "Faults":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        if not isinstance(error, InputError):
            return False
        self._sentences += error.faults
        return True

    def raise_any(self) -> None:
        """Raise an `InputError` if any step had one."""
        if self._sentences:
            raise InputError(dict.fromkeys(self._sentences))
