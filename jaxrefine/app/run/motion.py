"""Find and check the movie of each micrograph and the motion of its particles."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
from jaxtyping import Float, Int

from jaxrefine.app.config import Config
from jaxrefine.data import ErrorCollector, InputError, add_error_context
from jaxrefine.io.motion import ShiftRows, read_deformation_field, read_particle_shifts
from jaxrefine.io.movies import movie_shape, read_gain
from jaxrefine.io.mrc import image_shape
from jaxrefine.io.paths import resolve_path
from jaxrefine.io.table import ParticleTable, StartingValues
from jaxrefine.physics.deformation import deformation_at

_SHOWN = 5
_SECTION = "movie_config"


@dataclass(frozen=True, eq=False)
class Movie:
    """A movie, and the motion of its particles.

    Attributes:
        path: The file.
        sources: All files that the sums depend on: the movie and its deformation field.
        frame_shape: Sides (y, x) of a frame.
        rows: Rows of its particles in the table.
        shift_px: (y, x) by which each frame is moved at each particle.
    """

    path: Path
    sources: tuple[Path, ...]
    frame_shape: tuple[int, int]
    rows: Int[np.ndarray, " n"]
    shift_px: Float[np.ndarray, "t n 2"]


@dataclass(frozen=True, eq=False)
class Movies:
    """The movies of a run.

    Attributes:
        of_micrograph: The movie of each group of particles, by the group's image files.
        shared: Files that all movies share: shifts of particles, gain reference.
        gain: Gain reference, by which frames are multiplied.
    """

    of_micrograph: dict[tuple[Path, ...], Movie]
    shared: dict[str, Path]
    gain: Float[np.ndarray, "Ny Nx"] | None

    @property
    def files(self) -> list[Path]:
        """All files that are read."""
        own = (path for movie in self.of_micrograph.values() for path in movie.sources)
        return [*self.shared.values(), *own]


def check_movies(
    config: Config,
    table: ParticleTable,
    start: StartingValues,
    groups: dict[tuple[Path, Path, Path], np.ndarray],
) -> Movies | None:
    """Find and check the movies of a run; None if it uses none.

    Raises:
        InputError: With all errors.
    """
    wanted = config.movie_config
    if not wanted.enabled:
        return None
    errors = ErrorCollector()
    shared: dict[str, Path] = {}
    shifts = gain = None
    with errors:
        if wanted.particle_shifts_path:
            path = _found(config, wanted.particle_shifts_path, "particle_shifts_path")
            shared["particle shifts"], shifts = path, read_particle_shifts(path)
    with errors:
        if wanted.gain_path:
            path = _found(config, wanted.gain_path, "gain_path")
            shared["gain reference"], gain = path, read_gain(path)
    use_fields = not wanted.particle_shifts_path
    named = {}
    for files, rows in groups.items():
        where = f" (first named on {table.locate(rows[0])} of the particle table)"
        with errors, add_error_context(after=where):
            named[files] = _named(config, table, rows, use_fields)
    _refuse_shared(errors, named)
    fields: dict[Path, np.ndarray] = {}
    found: dict[tuple[Path, ...], Movie] = {}
    for files, (path, field_path) in named.items():
        rows = groups[files]
        where = f" (first named on {table.locate(rows[0])} of the particle table)"
        count = shape = None
        with errors, add_error_context(after=where):
            count, *shape = movie_shape(path, eer_grouping=wanted.eer_grouping)
            _check_shape(path, shape, files[0], gain, config)
        with errors:
            if field_path is not None and field_path not in fields:
                fields[field_path] = read_deformation_field(field_path)
        if count is None or shape is None:
            continue
        with errors:
            if shifts is not None:
                moves = _of_particles(shared["particle shifts"], shifts, table, rows, count)
            elif field_path in fields:
                side = config.particle_stack.original_template_size[0]
                moves = _of_field(fields[field_path], start, rows, count, shape, side)
            else:
                continue
            sources = (path,) if field_path is None else (path, field_path)
            found[files] = Movie(path, sources, (shape[0], shape[1]), rows, moves)
    with errors:
        if shifts is not None and len(found) == len(groups):
            _check_used(shared["particle shifts"], shifts, table)
    errors.raise_any()
    return Movies(found, shared, gain)


def _found(config: Config, text: str, key: str) -> Path:
    """Resolve a path from the configuration."""
    path = resolve_path(text, beside=config.folder, path_map=config.path_map)
    if not path.exists():
        raise InputError(
            f"{config.source}: {_SECTION}.{key}: {text} — no such file in the current "
            "folder or beside the configuration"
        )
    return path


def _named(
    config: Config, table: ParticleTable, rows: np.ndarray, use_fields: bool
) -> tuple[Path, Path | None]:
    """The movie and the deformation field of particles of one micrograph."""
    errors = ErrorCollector()
    movie = field = None
    with errors:
        movie = _of_rows(config, table, rows, "movie_path")
        if movie is None:
            raise InputError(
                f"{config.source}: {_SECTION}.movie_path: is empty, and so is the column "
                "movie_path of the particle table; one of them must name the movie"
            )
    with errors:
        if use_fields:
            field = _of_rows(config, table, rows, "deformation_field_path")
            if field is None:
                raise InputError(
                    f"{config.source}: {_SECTION}: names neither particle_shifts_path nor "
                    "deformation_field_path, and the particle table has no column "
                    "deformation_field_path; one must say how particles move (in an "
                    "aligned movie by zeros)"
                )
    errors.raise_any()
    return cast(Path, movie), field


def _of_rows(
    config: Config, table: ParticleTable, rows: np.ndarray, name: str
) -> Path | None:
    """The file in a column for some rows, else in the configuration; None if in neither."""
    texts = [""] * len(table)
    if name in table.raw.columns:
        texts = [text.strip() for text in table.paths(name)]
    named = dict.fromkeys(texts[row] for row in rows)
    if len(named) > 1:
        raise InputError(
            f"{table.path}, column {name}: has {', '.join(map(repr, named))} for particles "
            "of one micrograph; it should be one"
        )
    text = next(iter(named))
    if not text:
        default = getattr(config.movie_config, name)
        return _found(config, default, name) if default else None
    beside = table.path.absolute().parent
    path = resolve_path(text, beside=beside, path_map=config.path_map)
    if not path.exists():
        raise InputError(f"{table.path}, column {name}: {text}: no such file")
    return path


def _refuse_shared(
    errors: ErrorCollector, named: dict[tuple[Path, Path, Path], tuple[Path, Path | None]]
) -> None:
    """Refuse one movie for several micrographs."""
    micrographs: dict[Path, set[Path]] = {}
    for files, (movie, _) in named.items():
        micrographs.setdefault(movie, set()).add(files[0])
    for movie, those in micrographs.items():
        with errors:
            if len(those) > 1:
                some = ", ".join(str(path) for path in sorted(those)[:2])
                raise InputError(
                    f"{movie}: is the movie of {len(those)} micrographs ({some}, …); each "
                    "needs its own: give the particle table a column movie_path"
                )


def _check_shape(
    path: Path,
    shape: list[int],
    micrograph: Path,
    gain: np.ndarray | None,
    config: Config,
) -> None:
    """Refuse frames whose shape differs from the micrograph or the gain reference."""
    expected = image_shape(micrograph, warn=False)
    if tuple(shape) != expected:
        raise InputError(
            f"{path}: its frames have shape {tuple(shape)}, the micrograph {micrograph} "
            f"has {expected}; positions would be wrong: the two should be equal"
        )
    if gain is not None and gain.shape != tuple(shape):
        raise InputError(
            f"{path}: its frames have shape {tuple(shape)}, the gain reference "
            f"{config.movie_config.gain_path} has {gain.shape}; the two should be equal"
        )


def particle_numbers(table: ParticleTable) -> np.ndarray:
    """The numbers of particles in a file of shifts: particle_index, else the row number."""
    index = table.numbers("particle_index")
    if np.isfinite(index).all() and len(np.unique(index)) == len(index):
        return index
    return np.arange(len(table), dtype=np.float64)


def _of_particles(
    path: Path, shifts: ShiftRows, table: ParticleTable, rows: np.ndarray, count: int
) -> Float[np.ndarray, "t n 2"]:
    """Shifts of particles in all frames of their movie."""
    number, frame, shift, lines = shifts
    numbers = particle_numbers(table)[rows]
    order = np.argsort(numbers)
    place = np.minimum(np.searchsorted(numbers, number, sorter=order), len(rows) - 1)
    place = order[place]
    mine = numbers[place] == number
    errors = []
    beyond = np.flatnonzero(mine & (frame >= count))
    if len(beyond):
        errors.append(
            f"{path}, line {lines[beyond[0]]}: frame {frame[beyond[0]]} of particle "
            f"{number[beyond[0]]}, whose movie has {count} frames, 0 to {count - 1}"
            + (f" (and {len(beyond) - 1} more rows)" if len(beyond) > 1 else "")
        )
    moves = np.full((count, len(rows), 2), np.nan)
    inside = mine & (frame < count)
    moves[frame[inside], place[inside]] = shift[inside]
    missing = np.isnan(moves).any(axis=(0, 2))
    if missing.any():
        some = ", ".join(f"{value:g}" for value in numbers[missing][:_SHOWN])
        more = ", …" if missing.sum() > _SHOWN else ""
        lacks = int(np.isnan(moves[:, missing, 0]).sum())
        errors.append(
            f"{path}: has no shifts for {lacks} frames of {int(missing.sum())} particles "
            f"(particle_index {some}{more}), the first on {table.locate(rows[missing][0])} "
            f"of the particle table; each needs one for each of its movie's {count} frames"
        )
    if errors:
        raise InputError(errors)
    return moves


def _check_used(path: Path, shifts: ShiftRows, table: ParticleTable) -> None:
    """Refuse shifts of which none belongs to a particle of the table."""
    strangers = Counter(shifts[0].tolist()).keys() - set(particle_numbers(table).tolist())
    if len(strangers) == len(set(shifts[0].tolist())):
        raise InputError(f"{path}: none of its particles is in {table.path}")


def _of_field(
    field: Float[np.ndarray, "2 t h w"],
    start: StartingValues,
    rows: np.ndarray,
    count: int,
    shape: list[int],
    side: int,
) -> Float[np.ndarray, "t n 2"]:
    """Shifts that undo a deformation field at the centres of particles."""
    centre = start.position_px[rows] + side // 2
    places = centre / np.maximum(np.asarray(shape) - 1, 1)
    times = np.linspace(0.0, 1.0, count) if count > 1 else np.zeros(1)
    moves = [
        deformation_at(field, np.column_stack([np.full(len(rows), time), places]))
        for time in times
    ]
    return -np.stack(moves) / start.pixel_size_angstrom[rows, None]
