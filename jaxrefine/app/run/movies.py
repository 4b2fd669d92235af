"""Sum micrographs and particles from movies during a run."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from jaxrefine.app.config.movie import MovieConfig
from jaxrefine.app.run.images import warn_of_defects
from jaxrefine.app.run.motion import Movie, Movies
from jaxrefine.io.movies import movie_frames
from jaxrefine.io.table import StartingValues
from jaxrefine.physics.defects import fill_defects, find_defects
from jaxrefine.physics.exposure import frame_exposures
from jaxrefine.physics.fourier import next_fast_even
from jaxrefine.refine.movies import (
    FrameOptics,
    add_to_boxes,
    add_to_image,
    finished,
    finished_boxes,
)
from jaxrefine.refine.scoring import Score, padded_corner

log = logging.getLogger("jaxrefine")

# Margin on each side of the padded box, so that filter and shift do not wrap into it.
_MARGIN_PX = 16
# Memory for summed boxes; for further boxes the movie is read again.
_BOX_BYTES = 1 << 28
# Number of movies whose boxes are kept: the one being refined, and the next.
_KEPT = 2


@dataclass(frozen=True)
class _Repair:
    """Defective pixels of a detector, and the values that replace them in each frame."""

    mask: Bool[np.ndarray, "Ny Nx"]
    values: Float[np.ndarray, " m"]


@dataclass(frozen=True)
class MovieImage:
    """The sum of a movie, from which a micrograph is prepared.

    Attributes:
        image: Sum of the frames, moved by the mean shift of the particles and weighted by
            exposure; None if it was not requested.
        filled: Mask of defective pixels; None if they were not searched for.
    """

    image: Float[np.ndarray, "Ny Nx"] | None
    filled: Bool[np.ndarray, "Ny Nx"] | None


@dataclass(frozen=True, eq=False)
class MovieReader:
    """Sums frames of movies, as whole images and at particles.

    Attributes:
        movies: The checked movies.
        settings: Settings of the exposure.
        start: Positions and optics of the particles.
        score: The score, which defines the padded box.
        template_side: Side of the template in px, to which positions refer.
        fill: Whether defective pixels are filled.
    """

    movies: Movies
    settings: MovieConfig
    start: StartingValues
    score: Score
    template_side: int
    fill: bool
    _lock: Lock = field(default_factory=Lock)
    # By the path of the movie.
    _repairs: dict[Path, _Repair] = field(default_factory=dict)
    _boxes: dict[Path, dict[int, np.ndarray]] = field(default_factory=dict)
    _expected: dict[Path, np.ndarray] = field(default_factory=dict)

    @property
    def box_shape(self) -> tuple[int, int]:
        """Sides of the summed boxes: the padded box with a margin."""
        height, width = (
            next_fast_even(side + 2 * _MARGIN_PX) for side in self.score.padded_box
        )
        return height, width

    def read(
        self, files: tuple[Path, ...], rows: np.ndarray | None, *, whole: bool
    ) -> MovieImage:
        """Sum the movie of a micrograph, and the boxes of its first particles.

        Args:
            files: Files of the micrograph and its maps.
            rows: Particles that `boxes` will be called for, in this order; None if unknown.
            whole: Also sum whole frames.

        Raises:
            InputError: The movie cannot be read.
        """
        movie = self.movies.of_micrograph[files]
        with self._lock:
            self._forget_older(movie.path)
            if rows is not None:
                self._expected[movie.path] = rows
            now = np.zeros(0, np.int64) if rows is None else rows[: self.at_once]
            image = self._sum(movie, now, whole=whole) if whole or len(now) else None
            repair = self._repair(movie)
        return MovieImage(image, None if repair is None else repair.mask)

    def boxes(self, rows: np.ndarray) -> Float[np.ndarray, "n Ph Pw"]:
        """Return unfiltered boxes of shape `box_shape`, of particles of one micrograph.

        Raises:
            InputError: The movie cannot be read.
        """
        movie = next(m for m in self.movies.of_micrograph.values() if rows[0] in m.rows)
        with self._lock:
            there = self._boxes.get(movie.path, {})
            missing = np.array([row for row in dict.fromkeys(rows) if row not in there])
            if len(missing):
                expected = self._expected.get(movie.path, missing)
                after = np.flatnonzero(expected == missing[-1])
                more = expected[after[0] + 1 :] if len(after) else missing[:0]
                more = more[: max(0, self.at_once - len(missing))]
                kept = {row: there[row] for row in rows if row in there}
                self._boxes[movie.path] = kept
                self._sum(movie, np.concatenate([missing, more]), whole=False)
            there = self._boxes[movie.path]
            return np.stack([there[row] for row in rows])

    @property
    def at_once(self) -> int:
        height, width = self.box_shape
        return max(1, _BOX_BYTES // (8 * height * (width // 2 + 1)))

    def _forget_older(self, path: Path) -> None:
        for kept in (self._boxes, self._repairs, self._expected):
            for old in [each for each in kept if each != path][: 1 - _KEPT or None]:
                del kept[old]

    def _sum(
        self, movie: Movie, rows: np.ndarray, *, whole: bool
    ) -> Float[np.ndarray, "Ny Nx"] | None:
        """Read a movie once, store the boxes, and return the sum of whole frames."""
        exposures = self.exposures(movie)
        place = {row: n for n, row in enumerate(movie.rows)}
        places = np.array([place[row] for row in rows], np.int64)
        corner = self.corner_px(rows)
        height, width = self.box_shape
        sums = jnp.zeros((len(rows), height, width // 2 + 1), jnp.complex64)
        ny, nx = movie.frame_shape
        total = jnp.zeros((ny, nx // 2 + 1), jnp.complex64) if whole else None
        boxes, image = self._optics(rows), self.optics(movie)
        mean_shift = movie.shift_px.mean(axis=1).astype(np.float32)
        for number, raw in enumerate(self.frames(movie)):
            frame, exposure = jnp.asarray(raw), exposures[number]
            if len(rows):
                shift = movie.shift_px[number, places].astype(np.float32)
                sums = add_to_boxes(sums, frame, corner, shift, exposure, boxes)
            if total is not None:
                total = add_to_image(total, frame, mean_shift[number], exposure, image)
        if len(rows):
            summed = np.asarray(finished_boxes(sums, exposures, boxes, self.box_shape))
            there = self._boxes.setdefault(movie.path, {})
            there.update(zip(rows.tolist(), summed, strict=True))
        if total is None:
            return None
        return np.array(finished(total, exposures, image, movie.frame_shape))

    def _optics(self, rows: np.ndarray) -> FrameOptics:
        return FrameOptics(
            jnp.asarray(self.start.pixel_size_angstrom[rows], jnp.float32),
            jnp.asarray(self.start.optics.voltage_kv[rows], jnp.float32),
        )

    def optics(self, movie: Movie) -> FrameOptics:
        """Optics of a movie: those of its first particle."""
        return jax.tree.map(lambda x: x[0], self._optics(movie.rows[:1]))

    def exposures(self, movie: Movie) -> Float[np.ndarray, " t"]:
        """Exposures of the frames of a movie; 0 if frames are not weighted."""
        exposures = frame_exposures(
            len(movie.shift_px), self.settings.pre_exposure, self.settings.fluence_per_frame
        ).astype(np.float32)
        return exposures if self.settings.fluence_per_frame else 0 * exposures

    def corner_px(self, rows: np.ndarray) -> Int[np.ndarray, "n 2"]:
        """(y, x) of the top-left corners of the boxes of particles."""
        corner = padded_corner(self.score, self.template_side, self.start.position_px[rows])
        sides = zip(self.box_shape, self.score.padded_box, strict=True)
        corner = corner - np.array([(box - cut) // 2 for box, cut in sides])
        return corner.astype(np.int32)

    def frames(self, movie: Movie) -> Iterator[Float[np.ndarray, "Ny Nx"]]:
        """Yield frames with the gain applied and defective pixels filled."""
        repair = self._repair(movie)
        for frame in self._raw_frames(movie):
            if repair is not None:
                frame[repair.mask] = repair.values
            elif not (finite := np.isfinite(frame)).all():
                frame[~finite] = frame[finite].mean() if finite.any() else 0.0
            yield frame

    def _raw_frames(self, movie: Movie) -> Iterator[Float[np.ndarray, "Ny Nx"]]:
        gain = self.movies.gain
        for frame in movie_frames(movie.path, eer_grouping=self.settings.eer_grouping):
            if gain is not None:
                frame *= gain
            yield frame

    def _repair(self, movie: Movie) -> _Repair | None:
        """Find defective pixels in the sum of unmoved frames."""
        if not self.fill:
            return None
        if movie.path not in self._repairs:
            total, count = np.zeros(movie.frame_shape, np.float32), len(movie.shift_px)
            for frame in self._raw_frames(movie):
                total += frame
            if self.movies.gain is not None:  # disabled pixels
                total[self.movies.gain == 0] = np.nan
            defects = find_defects(total)
            warn_of_defects(defects, movie.path)
            values = np.zeros(0, np.float32)
            if defects.mask.any() and not defects.mask.all():
                values = fill_defects(total, defects.mask)[defects.mask] / count
            elif defects.mask.any():
                values = np.zeros(defects.mask.size, np.float32)
            self._repairs[movie.path] = _Repair(defects.mask, values)
        return self._repairs[movie.path]
