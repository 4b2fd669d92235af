"""Memory and time of a movie of a K3: 50 frames of 5760 x 4092 px, in its own process.

    python benchmarks/movie_memory.py [--frames 50] [--particles 100] [--box 600]

Writes a movie of counts (MRC, int8) into a temporary folder, measures the detector's
defects, sums whole frames and the boxes of particles by shifts at random, and prints
seconds and the peak resident memory of the process. The box is what a template of 512 px
needs at about 1 µm of defocus.
"""

import argparse
import resource
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import mrcfile
import numpy as np

from jaxrefine.app.config.movie import MovieConfig
from jaxrefine.app.run.motion import Movie, Movies
from jaxrefine.app.run.movies import MovieReader

SHAPE = 4092, 5760


def write_movie(path: Path, frames: int) -> None:
    rng = np.random.default_rng(0)
    with mrcfile.new_mmap(path, (frames, *SHAPE), mrc_mode=0) as file:
        for number in range(frames):
            file.data[number] = rng.poisson(0.8, SHAPE)


def peak_gib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=50)
    parser.add_argument("--particles", type=int, default=100)
    parser.add_argument("--box", type=int, default=600)
    given = parser.parse_args()
    rng = np.random.default_rng(1)
    count, side = given.particles, given.box
    start = SimpleNamespace(
        position_px=rng.uniform((0, 0), np.array(SHAPE) - side, (count, 2)).round(),
        pixel_size_angstrom=np.full(count, 1.06),
        optics=SimpleNamespace(voltage_kv=np.full(count, 300.0)),
    )
    score = SimpleNamespace(side=side, box=(side, side), padded_box=(side, side))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "movie.mrc"
        write_movie(path, given.frames)
        shift = rng.normal(0, 3, (given.frames, count, 2))
        movie = Movie(path, (path,), SHAPE, np.arange(count), shift)
        movies = Movies({(path,): movie}, {}, None)
        reader = MovieReader(movies, MovieConfig(), start, score, side, fill=True)
        print(f"before: {peak_gib():.2f} GiB")
        begin = time.monotonic()
        reader.read((path,), np.arange(count), whole=True)
        print(f"defects, whole sum, {reader.at_once} boxes at once at most: ", end="")
        print(f"{time.monotonic() - begin:.0f} s, peak {peak_gib():.2f} GiB")
        reader.boxes(np.arange(count))
        print(f"all {count} boxes: {time.monotonic() - begin:.0f} s, ", end="")
        print(f"peak {peak_gib():.2f} GiB")


if __name__ == "__main__":
    main()
