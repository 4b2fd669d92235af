"""The checkpoint: results on disk during a run, for `X.csv` in the folder `X.csv.parts`.

There is one file per micrograph, with the exact values of the particles refined so far. A
run that was interrupted, for whatever reason, resumes from it.
"""

import contextlib
import json
import logging
import secrets
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout

from jaxrefine.app.run import fingerprint as fp
from jaxrefine.app.run.inputs import RunInputs
from jaxrefine.app.run.process_sums import SUMS_SUFFIX
from jaxrefine.data import InputError
from jaxrefine.io.atomic import PARTIAL_SUFFIX, atomic_open
from jaxrefine.io.table.refined import RefinedColumns

log = logging.getLogger("jaxrefine")

_RUN, _BEFORE, _LOCK = "run.json", "before.json", "lock"
# Additional names in a file; no column begins with an underscore.
_ROWS, _MADE_FROM = "_rows", "_made_from"


@contextlib.contextmanager
def _no_stand_in() -> Iterator[None]:
    """Prevent filelock from using a plain file as a lock on systems without locks.

    Such a file would remain if the process was killed. filelock announces it by a warning,
    which is an error here.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        yield


def parts_folder(output: Path) -> Path:
    """The folder with the checkpoint of an output."""
    return output.with_name(f"{output.name}.parts")


def remove_parts(output: Path) -> None:
    """Delete the checkpoint of an output that has been written."""
    folder = parts_folder(output)
    try:
        for pattern in ("*.npz", f"*{SUMS_SUFFIX}", _RUN, _BEFORE, _LOCK):
            for path in folder.glob(pattern):
                path.unlink(missing_ok=True)
        folder.rmdir()
    except OSError as error:  # it holds other files
        log.warning("%s: cannot be removed: %s", folder, error.strerror)


class Checkpoint:
    """The checkpoint of one output. Several processes may share it; the first one owns it.

    Args:
        inputs: The run that the results belong to.
        calibration: Whether it is that of a calibration.

    Attributes:
        folder: The folder.
        digest: Text that identifies the inputs.
    """

    def __init__(self, inputs: RunInputs, *, calibration: bool = False):
        self.folder = parts_folder(inputs.output)
        self._output = inputs.output
        self._files, self._rows = list(inputs.groups), list(inputs.groups.values())
        self._made_from = fp.fingerprint(inputs, calibration=calibration)
        self.digest = fp.digest(self._made_from)
        # Before the images are read, since an image that changes later was not refined.
        self._stamps = [fp.image_stamp(inputs.sources(files)) for files in self._files]
        self._lock: FileLock | None = None
        self._is_ours = False

    def begin(self, *, fresh: bool) -> None:
        """Lock the folder for this run, and create it if it does not exist.

        Args:
            fresh: Delete the results of an earlier run.

        Raises:
            InputError: Another run uses it, or its results are from different inputs.
        """
        try:
            self.folder.mkdir(exist_ok=True)
            self._lock, self._is_ours = self._take_lock(), True
            self._delete(f".*{PARTIAL_SUFFIX}")  # of a run that was killed while writing
            self._delete(f"*{SUMS_SUFFIX}")
            if fresh:
                self._delete("*.npz")
            if self.any_saved():
                self._compare()
        except OSError as error:
            raise InputError(
                f"{self.folder}: cannot be used: {error.strerror or error}"
            ) from error
        with atomic_open(self.folder / _RUN, encoding="utf-8") as file:
            json.dump(self._made_from, file, indent=1)

    def left_behind(self) -> bool:
        """Whether an earlier run has left results; the folder is not changed.

        Raises:
            InputError: They are from different inputs.
        """
        if not any(self.folder.glob("*.npz")):
            return False
        self._compare()
        return True

    def load(self, columns: RefinedColumns, numbers: Iterable[int]) -> np.ndarray:
        """Read the saved results.

        Args:
            columns: Columns to fill.
            numbers: Micrographs to read, by their order in the table.

        Returns:
            Mask of the rows of the table that were read.

        Raises:
            InputError: They were computed from other images.
        """
        found = np.zeros(sum(map(len, self._rows)), bool)
        changes: list[str] = []
        for number in numbers:
            path = self._path(number)
            if not path.exists():
                continue
            try:
                rows, values, stamp = self._read(number, columns)
            except Exception as error:  # a damaged file can raise anything
                log.warning("%s: damaged (%s): refining again", path, error)
                continue
            changes += [
                f"{path} has changed"
                for path, was, now in zip(
                    self._files[number], stamp, self._stamps[number], strict=True
                )
                if was != now
            ]
            columns.store(rows, values)
            found[rows] = True
        self._refuse(changes)
        return found

    def save(self, number: int, rows: np.ndarray, columns: RefinedColumns) -> None:
        """Write a micrograph's results, replacing earlier ones.

        Args:
            number: Number of the micrograph, by order in the table.
            rows: Its rows that have been refined.
            columns: Results of the whole table.

        Raises:
            InputError: The file cannot be written.
        """
        made_from = {"run": self.digest, "images": self._stamps[number]}
        arrays = {name: _storable(c[rows]) for name, c in columns.values.items()}
        arrays |= {_ROWS: rows, _MADE_FROM: np.asarray(json.dumps(made_from))}
        with atomic_open(self._path(number)) as file:
            # numpy's types could take any of these names for the flag allow_pickle.
            np.savez(file, **arrays)  # pyright: ignore[reportArgumentType]

    def once(self, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """The value found at the start of the run, now or by the run that is resumed.

        Args:
            make: Computes plain values that JSON can store.
        """
        path = self.folder / _BEFORE
        if self.any_saved():
            with contextlib.suppress(OSError, ValueError, LookupError, TypeError):
                kept = json.loads(path.read_text())
                if kept[_MADE_FROM] == self.digest:
                    return kept["found"]
        found = make()
        with atomic_open(path, encoding="utf-8") as file:
            json.dump({_MADE_FROM: self.digest, "found": found}, file)
        return found

    def any_saved(self) -> bool:
        """Whether there are results from which another run could resume."""
        return any(self.folder.glob("*.npz"))

    def remove(self) -> None:
        """Delete the folder, once the final table holds everything."""
        remove_parts(self._output)
        self._release()

    def close(self, *, shared: bool) -> None:
        """Release the folder for other runs; delete it if it is empty.

        Args:
            shared: Other processes may still be saving.
        """
        if self._is_ours and not shared and not self.any_saved():
            self.remove()
        self._release()

    def _release(self) -> None:
        self._is_ours = False
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def _take_lock(self) -> FileLock | None:
        """Lock the folder; the system releases it when this process ends in any way.

        Returns:
            None if the file system has no locks.
        """
        lock = FileLock(self.folder / _LOCK)
        try:
            with _no_stand_in():
                lock.acquire(timeout=0)
            return lock
        except (OSError, UserWarning) as error:  # including filelock's Timeout
            if not self._has_locks():
                log.warning(
                    "%s: its file system has no locks: make sure that no two runs "
                    "write the same output at once",
                    self.folder,
                )
                return None
            if not isinstance(error, Timeout):
                raise
            raise InputError(
                f"{self._output}: another run is writing this output; wait until it ends, "
                "or name another file with --output"
            ) from None

    def _has_locks(self) -> bool:
        """Whether a new file, unknown to other runs, can be locked."""
        path = self.folder / f".{secrets.token_hex(8)}{PARTIAL_SUFFIX}"
        path.touch()
        try:
            with _no_stand_in(), FileLock(path, timeout=0):
                return True
        except (OSError, UserWarning):
            return False
        finally:
            path.unlink(missing_ok=True)

    def _compare(self) -> None:
        """Refuse the results of an earlier run with different inputs."""
        path = self.folder / _RUN
        try:
            changes = list(fp.differences(json.loads(path.read_text()), self._made_from))
        except (
            OSError,
            ValueError,
            LookupError,
            TypeError,
            AttributeError,
            RecursionError,
        ):
            # Each file has its own digest; those that do not match count as damaged.
            log.warning("%s: damaged, written again", path)
            return
        self._refuse(changes)

    def _refuse(self, changes: list[str]) -> None:
        if changes:
            raise InputError(
                f"{self.folder}: holds results of an earlier run, but since then "
                f"{'; '.join(changes)}. Undo that to continue it; or start over with "
                "--fresh, which deletes them"
            )

    def _read(self, number: int, columns: RefinedColumns) -> tuple[Any, Any, fp.Stamp]:
        """Rows, results and image stamp in a file; anything unexpected is an error."""
        with (
            self._path(number).open("rb") as stream,
            np.load(stream, allow_pickle=False) as file,
        ):
            unpacked = sum(member.file_size for member in file.zip.infolist())
            if unpacked > self._path(number).stat().st_size:
                raise ValueError("compressed, which no part is")
            values = {name: file[name] for name in file.files}
        rows, made_from = values.pop(_ROWS), json.loads(str(values.pop(_MADE_FROM)))
        if made_from["run"] != self.digest:
            raise ValueError("of another run")
        stamp = made_from["images"]
        if not isinstance(stamp, list) or len(stamp) != len(self._files[number]):
            raise ValueError("made from files of another kind")
        if (
            rows.ndim != 1
            or rows.dtype.kind != "i"
            or len(set(rows.tolist())) != len(rows)
            or not np.isin(rows, self._rows[number]).all()
        ):
            raise ValueError("rows of another micrograph")
        for name, column in columns.values.items():
            value, expected = values[name], _storable(column[rows]).dtype
            texts = value.dtype.kind == expected.kind == "U"
            same_type = texts or value.dtype == expected
            if not same_type or value.shape != rows.shape:
                raise ValueError(f"{name} of another form")
        return rows, {name: values[name] for name in columns.values}, stamp

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:06d}.npz"

    def _delete(self, pattern: str) -> None:
        for path in self.folder.glob(pattern):
            path.unlink(missing_ok=True)


def _storable(column: np.ndarray) -> np.ndarray:
    """Text columns as numpy strings; objects would be pickled."""
    return column.astype(str) if column.dtype == object else column
