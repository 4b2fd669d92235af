"""Comparison of estimates of the noise spectrum, on real micrographs and with artefacts.

    pip download --no-binary :all: --no-deps mrcfile==1.5.4 && tar xf mrcfile-1.5.4.tar.gz
    .venv/bin/python benchmarks/noise_spectrum.py mrcfile-1.5.4/tests/test_data [more.mrc]

The signal of a particle (1IGY) at several places of a micrograph is computed: a filter F
changes it to |F t|², with t its projection with CTF. The noise is the standard deviation of
the correlation of F t with the filtered micrograph around the place. Their quotient is the
z-score with F, without the noise of the peak itself. The estimates differ only in F.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import jax.numpy as jnp
import mrcfile
import numpy as np

from jaxrefine import simulate as sim
from jaxrefine.physics.background import find_objects, periodic_part
from jaxrefine.physics.defects import fill_defects
from jaxrefine.physics.filters import Whitening, whitening_values
from jaxrefine.simulate import artefacts

CORNER = np.sqrt(0.5)
WINDOW = 768  # px; region around a place in which the noise is measured
ORIENTATIONS = 2
PLACES = 3  # per axis


def radius(shape: tuple[int, int]) -> np.ndarray:
    """|k| in cycles/px on the half plane."""
    return np.hypot(np.fft.fftfreq(shape[0])[:, None], np.fft.rfftfreq(shape[1]))


def whole(image: np.ndarray) -> np.ndarray:
    """The filter from the periodogram of the whole image, as in the program."""
    rfft = np.fft.rfft2(image - image.mean()).astype(np.complex64)
    rfft[0, 0] = 0
    return np.asarray(
        whitening_values(jnp.asarray(rfft), image.shape, Whitening(None, None, True))
    )


def patches(image: np.ndarray, side: int) -> list[np.ndarray]:
    """Squares that overlap by half."""
    rows, columns = (
        np.linspace(0, n - side, max(1, round(2 * n / side) - 1)).astype(int)
        for n in image.shape
    )
    return [image[y : y + side, x : x + side] for y in rows for x in columns]


def tapered(side: int, average: Callable) -> Callable[[np.ndarray], np.ndarray]:
    """The filter from the average spectrum of patches under a Hann window."""
    window = np.hanning(side + 2)[1:-1]
    window = np.outer(window, window)
    bins = side // 2

    def estimate(image: np.ndarray) -> np.ndarray:
        place = (radius((side, side)) / CORNER * (bins - 1)).ravel()
        low = np.clip(place.astype(int), 0, bins - 2)
        up = place - low
        spectra = []
        for patch in patches(image, side):
            rfft = np.fft.rfft2((patch - np.average(patch, weights=window)) * window)
            power = (np.abs(rfft) ** 2).ravel()
            sums, counts = np.zeros(bins), np.zeros(bins)
            for at, weight in ((low, 1 - up), (low + 1, up)):
                sums += np.bincount(at, power * weight, bins)
                counts += np.bincount(at, weight, bins)
            spectra.append(sums / counts)
        amplitude = np.sqrt(average(spectra, axis=0))
        return 1 / amplitude

    return estimate


def edges_tapered(image: np.ndarray) -> np.ndarray:
    """The filter from one periodogram, with the image tapered in its outer sixteenths."""
    ramps = [
        np.clip(np.minimum(np.arange(n) + 0.5, n - 0.5 - np.arange(n)) * 16 / n, 0, 1)
        for n in image.shape
    ]
    return whole((image - image.mean()) * np.outer(*(np.sin(np.pi / 2 * r) for r in ramps)))


def made_periodic(image: np.ndarray) -> np.ndarray:
    """The filter from the whole image, made periodic."""
    return whole(periodic_part(image))


def without_objects(image: np.ndarray) -> np.ndarray:
    """The same with strong objects filled, as in the program."""
    periodic = periodic_part(image)
    return whole(fill_defects(periodic, find_objects(periodic)))


def corrected(image: np.ndarray, change: np.ndarray) -> np.ndarray:
    """The filter from the whole image, times a factor given at fewer frequencies."""
    values = whole(image)
    k = np.linspace(0, CORNER, len(values))
    return values * np.interp(k, np.linspace(0, CORNER, len(change))[2:], change[2:])


def robust_whole(image: np.ndarray) -> np.ndarray:
    """One periodogram, corrected by the ratio of median and mean over patches."""
    side = 256
    return corrected(image, tapered(side, np.median)(image) / tapered(side, np.mean)(image))


def spoilt(image: np.ndarray) -> dict[str, np.ndarray]:
    """The image with realistic artefacts added."""
    rng = np.random.default_rng(1)
    contamination, gold = (rng.uniform(0, image.shape, (n, 2)) for n in (5, 20))
    radius_px = image.shape[0] / 40
    return {
        "as it is": image,
        "gradient of 5 σ": artefacts.with_slope(image, 5),
        "gradient of 40 σ": artefacts.with_slope(image, 40),
        "carbon edge of 2 σ": artefacts.with_carbon(image, 0.4, 2, 1, rng),
        "contamination of 5 σ": artefacts.with_spots(image, contamination, radius_px, -5),
        "contamination of 20 σ": artefacts.with_spots(image, contamination, radius_px, 20),
        "gold of 5 σ": artefacts.with_spots(image, gold, 12, -5),
        "gold of 20 σ": artefacts.with_spots(image, gold, 12, -20),
    }


def z_reached(image: np.ndarray, values: np.ndarray, particles: list[np.ndarray]) -> float:
    """Mean z of particles in the centre of a window, in arbitrary but equal units."""
    shape = image.shape
    k = radius(shape)
    filter_ = np.interp(k, np.linspace(0, CORNER, len(values)), values)
    taper = np.outer(*(np.hanning(n + 2)[1:-1] ** 0.25 for n in shape))
    filtered = np.fft.rfft2((image - image.mean()) * taper) * filter_
    filtered[0, 0] = 0
    quarter = tuple(slice(n // 4, n - n // 4) for n in shape)
    z = []
    for particle in particles:
        template = particle * filter_
        template[0, 0] = 0
        signal = np.sum(np.fft.irfft2(template, s=shape) ** 2)
        correlation = np.fft.irfft2(filtered * template.conj(), s=shape)
        z.append(signal / correlation[quarter].std())
    return float(np.mean(z))


def read(path: Path) -> tuple[np.ndarray, float]:
    """Image and pixel size in Å."""
    with mrcfile.open(path, permissive=True) as file:
        return np.squeeze(np.asarray(file.data, np.float64)), float(file.voxel_size.x)


def projections(pixel_size: float, rng: np.random.Generator) -> list[np.ndarray]:
    """rfft2 of particles at the origin of a window."""
    atoms = sim.load_antibody().blurred(60.0)
    return [
        sim.particle_rfft(
            atoms,
            sim.SimulatedParticle(turn, (0.0, 0.0), (10500.0, 10300.0), 0.0),
            (WINDOW, WINDOW),
            pixel_size,
            sim.Microscope(),
        )
        for turn in sim.random_rotations(ORIENTATIONS, rng)
    ]


BOX = 128
GLOBAL = {
    "whole image, one periodogram": whole,
    "whole image, tapered at the edges": edges_tapered,
    "whole image, made periodic": made_periodic,
    "whole image, made periodic, less strong objects": without_objects,
    "whole image, corrected to the median of patches": robust_whole,
    **{
        f"patches of {side} px, tapered, {average.__name__}": tapered(side, average)
        for side in (256, 512)
        for average in (np.mean, np.median)
    },
}
ROBUST = [*list(GLOBAL)[:4], "patches of 512 px, tapered, median"]


def main() -> None:
    """Print a table for each image: z of each estimate, relative to that of the first."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("paths", nargs="+", type=Path)
    given = parser.parse_args().paths
    files = [f for p in given for f in (sorted(p.glob("*.mrc")) if p.is_dir() else [p])]
    for path in files:
        image, pixel_size = read(path)
        if image.ndim != 2 or min(image.shape) < WINDOW:
            continue
        particles = projections(pixel_size, np.random.default_rng(0))
        rows, columns = (
            np.linspace(0, n - WINDOW, PLACES).astype(int) for n in image.shape
        )
        windows = [image[y : y + WINDOW, x : x + WINDOW] for y in rows for x in columns]
        z = {}
        for name, make in GLOBAL.items():
            values = make(image)
            z[name] = np.array([z_reached(w, values, particles) for w in windows])
        for side in (128, 256):
            local, everywhere = tapered(side, np.mean), tapered(side, np.mean)(image)
            z[f"around the particle, patches of {side} px"] = np.array(
                [z_reached(w, local(w), particles) for w in windows]
            )
            z[f"whole image, corrected around the particle, {side} px"] = np.array(
                [
                    z_reached(w, corrected(image, local(w) / everywhere), particles)
                    for w in windows
                ]
            )
        inner = slice((WINDOW - BOX) // 2, (WINDOW + BOX) // 2)
        z[f"the box of {BOX} px alone"] = np.array(
            [z_reached(w, whole(w[inner, inner]), particles) for w in windows]
        )
        print(f"\n{path.name}, {image.shape}, {pixel_size:.3f} Å")
        first = z[next(iter(GLOBAL))]
        for name, values in z.items():
            change = 100 * (values / first - 1)
            print(
                f"| {name} | {change.mean():+.2f} % | {change.min():+.2f} to "
                f"{change.max():+.2f} % |"
            )
        print("\nthe filter of a spoilt image, on the image as it is")
        for what, changed in spoilt(image).items():
            cells = []
            for name in ROBUST:
                values = GLOBAL[name](changed)
                reached = np.array([z_reached(w, values, particles) for w in windows])
                cells.append(f"{100 * (reached / first - 1).mean():+.2f} %")
            print(f"| {what} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
