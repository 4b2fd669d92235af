"""The one exception for what a user can mend."""

from collections.abc import Iterable


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
