"""Results on disk while a run goes on: beside `X.csv` the folder `X.csv.parts`.

A file per micrograph, with the exact values of those of its particles that are refined. A
run that was interrupted, in whatever way, continues from there.
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
from jaxrefine.data import InputError
from jaxrefine.io.atomic import PARTIAL_SUFFIX, atomic_open
from jaxrefine.io.table.refined import RefinedColumns

log = logging.getLogger("jaxrefine")

_RUN, _BEFORE, _LOCK = "run.json", "before.json", "lock"
# Beside the columns' names in a file; no column begins with an underscore.
_ROWS, _MADE_FROM = "_rows", "_made_from"


@contextlib.contextmanager
def _no_stand_in() -> Iterator[None]:
    """No file in a lock's place where a system has no locks: a kill would leave it.

    filelock says with a warning that it takes one; here that is an error.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        yield


def parts_folder(output: Path) -> Path:
    """Where the results of an output are kept."""
    return output.with_name(f"{output.name}.parts")


def remove_parts(output: Path) -> None:
    """Delete the folder of an output that is written."""
    folder = parts_folder(output)
    try:
        for pattern in ("*.npz", _RUN, _BEFORE, _LOCK):
            for path in folder.glob(pattern):
                path.unlink(missing_ok=True)
        folder.rmdir()
    except OSError as error:  # somebody has put something there
        log.warning("%s: cannot be removed: %s", folder, error.strerror)


class Checkpoint:
    """The folder of one output. Several processes may share it; the first one owns it.

    Args:
        inputs: The run that the results belong to.
    """

    def __init__(self, inputs: RunInputs):
        self.folder = parts_folder(inputs.output)
        self._output = inputs.output
        self._files, self._rows = list(inputs.groups), list(inputs.groups.values())
        self._made_from = fp.fingerprint(inputs)
        self._digest = fp.digest(self._made_from)
        # Now, before the images are read: one that changes later is not what was refined.
        self._stamps = [fp.image_stamp(files) for files in self._files]
        self._lock: FileLock | None = None
        self._is_ours = False

    def begin(self, *, fresh: bool) -> None:
        """Take the folder for this run, and make it if it is not there.

        Args:
            fresh: Delete what an earlier run has left.

        Raises:
            InputError: Another run holds it, or its results are of something else.
        """
        try:
            self.folder.mkdir(exist_ok=True)
            self._lock, self._is_ours = self._take_lock(), True
            self._delete(f".*{PARTIAL_SUFFIX}")  # of a run that was killed in writing
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
        """Whether an earlier run has left results for this one; the folder stays as it is.

        Raises:
            InputError: Its results are of something else.
        """
        if not any(self.folder.glob("*.npz")):
            return False
        self._compare()
        return True

    def load(self, columns: RefinedColumns, numbers: Iterable[int]) -> np.ndarray:
        """Read the results that are there.

        Args:
            columns: Takes them.
            numbers: Which micrographs, by their order in the table.

        Returns:
            Which rows of the table were found.

        Raises:
            InputError: They were made from other images.
        """
        found = np.zeros(sum(map(len, self._rows)), bool)
        changes: list[str] = []
        for number in numbers:
            path = self._path(number)
            if not path.exists():
                continue
            try:
                rows, values, stamp = self._read(number, columns)
            except Exception as error:  # whatever a damaged file brings about
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
        """Write a micrograph's results, in place of what was there before.

        Args:
            number: Of the micrograph, by the order in the table.
            rows: Those of its rows that are refined.
            columns: Results of the whole table.

        Raises:
            InputError: The file cannot be written.
        """
        made_from = {"run": self._digest, "images": self._stamps[number]}
        arrays = {name: _storable(c[rows]) for name, c in columns.values.items()}
        arrays |= {_ROWS: rows, _MADE_FROM: np.asarray(json.dumps(made_from))}
        with atomic_open(self._path(number)) as file:
            # numpy's types take any of the names for its flag allow_pickle.
            np.savez(file, **arrays)  # pyright: ignore[reportArgumentType]

    def once(self, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """What the run that is continued found before it began, else what `make` finds.

        Args:
            make: Gives plain values, fit for JSON.
        """
        path = self.folder / _BEFORE
        if self.any_saved():
            with contextlib.suppress(OSError, ValueError, LookupError, TypeError):
                kept = json.loads(path.read_text())
                if kept[_MADE_FROM] == self._digest:
                    return kept["found"]
        found = make()
        with atomic_open(path, encoding="utf-8") as file:
            json.dump({_MADE_FROM: self._digest, "found": found}, file)
        return found

    def any_saved(self) -> bool:
        """Whether there are results that another run could continue from."""
        return any(self.folder.glob("*.npz"))

    def remove(self) -> None:
        """Delete the folder: the final table holds everything."""
        remove_parts(self._output)
        self._release()

    def close(self, *, shared: bool) -> None:
        """Let another run have the folder; an empty one goes.

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
        """The system takes it back when this process ends, in whatever way.

        Returns:
            None where the file system has no locks.
        """
        lock = FileLock(self.folder / _LOCK)
        try:
            with _no_stand_in():
                lock.acquire(timeout=0)
            return lock
        except (OSError, UserWarning) as error:  # filelock's Timeout is one
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
        """Whether a new file, which no other run knows of, can be locked."""
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
        """Refuse the results of an earlier run that was told something else."""
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
            # Each file has its own mark: those that do not fit count as damaged.
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
        """Rows, results and stamp of the images in a file; anything odd is an error."""
        with (
            self._path(number).open("rb") as stream,
            np.load(stream, allow_pickle=False) as file,
        ):
            unpacked = sum(member.file_size for member in file.zip.infolist())
            if unpacked > self._path(number).stat().st_size:
                raise ValueError("compressed, which no part is")
            values = {name: file[name] for name in file.files}
        rows, made_from = values.pop(_ROWS), json.loads(str(values.pop(_MADE_FROM)))
        if made_from["run"] != self._digest:
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
    """Texts as numpy's own: as objects they would be pickled."""
    return column.astype(str) if column.dtype == object else column
