"""The fits of a calibration on disk, finished or not, so that another run goes on there."""

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxrefine.app.cluster.process_group import ProcessGroup
from jaxrefine.io.atomic import atomic_open
from jaxrefine.refine.joint import fit_jointly
from jaxrefine.refine.joint_model import JointFit, Model, Progress, State, Total

log = logging.getLogger("jaxrefine")

_MADE_FROM = "made_from"
_FIT = (
    *("shared", "own", "covariance", "determined", "curvature", "z", "log_likelihood"),
    *("own_defocus", "weight", "passes", "converged"),
)
_PROGRESS = ("shared", "own", "free", "damping", "own_damping", "passes")
_STATE = ("shared", "own")
_MASKS = ("determined", "free", "converged")

Arrays = Mapping[str, np.ndarray]


class KeptFits:
    """Fits, and the state of one that was interrupted, each in a file of the checkpoint.

    Args:
        folder: Folder of the files.
        digest: Text that identifies the inputs.
        processes: The processes that share the fits. The first one reads and writes.
        total: Sums over them, which pass on what the first one has read.
    """

    def __init__(self, folder: Path, digest: str, processes: ProcessGroup, total: Total):
        self._folder, self._digest = folder, digest
        self._processes, self._total = processes, total

    def fit(
        self, name: str, model: Model, start: State, free: np.ndarray, **options: Any
    ) -> JointFit:
        """The fit of this name: an earlier run's, or `fit_jointly` from where that was.

        Args:
            name: Name of the fit.
            model: The particles, and the model of their images.
            start: Starting values.
            free: Mask of the shared values to fit.
            options: Of `fit_jointly`.
        """
        kept = self._load(name, len(free), len(start.own))
        if kept is not None and "converged" in kept:
            return _fit_from(kept)
        resume = None if kept is None else _progress_from(kept)
        found = fit_jointly(
            model,
            start,
            free,
            resume=resume,
            keep=lambda progress: self._save(name, _of_progress(progress)),
            **options,
        )
        self._save(name, _of_fit(found))
        return found

    def state(
        self, name: str, make: Callable[[], State], shared: int, particles: int
    ) -> State:
        """The state of this name: an earlier run's, or a new one.

        Args:
            name: Name of the state.
            make: Makes it.
            shared: Number of its shared values.
            particles: Number of its particles.
        """
        kept = self._load(name, shared, particles)
        if kept is not None:
            return State(kept["shared"], kept["own"])
        made = make()
        self._save(name, {"shared": made.shared, "own": made.own})
        return made

    def _save(self, name: str, arrays: Arrays) -> None:
        if not self._processes.is_first:
            return
        plain = {key: np.asarray(value) for key, value in arrays.items()}
        plain[_MADE_FROM] = np.asarray(self._digest)
        with atomic_open(self._folder / f"{name}.npz") as file:
            np.savez(file, **plain)  # pyright: ignore[reportArgumentType]

    def _load(self, name: str, shared: int, particles: int) -> Arrays | None:
        """What the first process finds on disk, in all processes."""
        kept: Arrays | None = None
        if self._processes.is_first:
            kept = self._read(name, shared, particles)
        form = self._processes.first(
            f"kept/{name}",
            lambda: None if kept is None else [(k, v.shape) for k, v in kept.items()],
        )
        if form is None:
            return None
        own = kept or {key: np.zeros(shape) for key, shape in form}
        sums = self._total([np.asarray(own[key], float) for key, _ in form])
        return {
            key: value.astype(bool) if key in _MASKS else value
            for (key, _), value in zip(form, sums, strict=True)
        }

    def _read(self, name: str, shared: int, particles: int) -> Arrays | None:
        """A file of this run's inputs; None, with a warning, if it is damaged."""
        path = self._folder / f"{name}.npz"
        if not path.exists():
            return None
        try:
            # Opened here, since numpy leaves a damaged file open.
            with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
                if str(file[_MADE_FROM]) != self._digest:
                    raise ValueError("of another run")
                names = _FIT if "converged" in file else _PROGRESS
                names = _STATE if "passes" not in file else names
                found = {key: file[key] for key in names}
            if found["shared"].shape != (shared,) or len(found["own"]) != particles:
                raise ValueError("of another form")
        except Exception as error:  # a damaged file can raise anything
            log.warning("%s: damaged (%s): fitting again", path, error)
            return None
        log.info("resuming an interrupted calibration: %s", name)
        return found


def _of_fit(fit: JointFit) -> Arrays:
    state = {"shared": fit.state.shared, "own": fit.state.own}
    return state | {key: np.asarray(getattr(fit, key)) for key in _FIT[2:]}


def _fit_from(kept: Arrays) -> JointFit:
    return JointFit(
        State(kept["shared"], kept["own"]),
        covariance=kept["covariance"],
        determined=kept["determined"],
        curvature=float(kept["curvature"]),
        z=kept["z"],
        log_likelihood=kept["log_likelihood"],
        own_defocus=kept["own_defocus"],
        weight=kept["weight"],
        passes=int(kept["passes"]),
        converged=bool(kept["converged"]),
    )


def _of_progress(progress: Progress) -> Arrays:
    state = {"shared": progress.state.shared, "own": progress.state.own}
    return state | {key: np.asarray(getattr(progress, key)) for key in _PROGRESS[2:]}


def _progress_from(kept: Arrays) -> Progress:
    return Progress(
        State(kept["shared"], kept["own"]),
        kept["free"],
        float(kept["damping"]),
        kept["own_damping"],
        int(kept["passes"]),
    )
