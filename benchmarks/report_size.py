"""Size of a report with many particles, and the time to write it, also during a run.

    python benchmarks/report_size.py [PARTICLES MICROGRAPHS]

Values are random, the worst case for the size of a page; micrographs are noise. Images of
particles are noise with the low-pass of the report.
"""

import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from jaxrefine.app.report.page import ReportOptions, write_page, write_report
from jaxrefine.app.report.particle_images import FOLDER, _Sheets
from jaxrefine.app.report.table_data import load_report_data
from jaxrefine.app.run.particle_views import ParticleView
from jaxrefine.io.mrc import write_image

_SIDE_PX = 1024


def write_table(path: Path, particles: int, micrographs: int) -> None:
    """A refined table of random particles, with standard errors."""
    rng = np.random.default_rng(0)
    n = particles

    def moved(values: np.ndarray, by: float) -> np.ndarray:
        return values + rng.normal(0, by, n)

    x, y = rng.integers(0, _SIDE_PX - 64, (2, n))
    phi, theta, psi = (rng.uniform(0, end, n) for end in (360, 180, 360))
    defocus, z = rng.normal(0, 300, n), rng.gamma(6, 0.8, n) + 7
    columns = {
        "particle_index": np.arange(n),
        "micrograph_path": [f"m{i % micrographs}.mrc" for i in range(n)],
        **{"correlation_average_path": ["a"] * n, "correlation_variance_path": ["b"] * n},
        **{"pos_x": x, "pos_y": y, "pos_x_img": x + 32, "pos_y_img": y + 32},
        **{"phi": phi, "theta": theta, "psi": psi, "relative_defocus": defocus},
        **{"defocus_u": [9000.0] * n, "defocus_v": [8800.0] * n},
        **{
            "astigmatism_angle": [20.0] * n,
            "pixel_size": [1.0] * n,
            "voltage": [300.0] * n,
        },
        **{"spherical_aberration": [2.7] * n, "amplitude_contrast_ratio": [0.07] * n},
        **{"phase_shift": [0.0] * n, "ctf_B_factor": [60.0] * n, "scaled_mip": z},
        **{"refined_scaled_mip": moved(z, 0.4), "refined_status": ["converged"] * n},
        **{"refined_pos_x": x, "refined_pos_y": y},
        **{"refined_shift_x": moved(0 * z, 0.3), "refined_shift_y": moved(0 * z, 0.3)},
        **{"refined_phi": moved(phi, 0.6), "refined_theta": moved(theta, 0.6)},
        **{"refined_psi": moved(psi, 0.6), "refined_relative_defocus": moved(defocus, 80)},
        "refined_orientation_sigma": rng.gamma(4, 0.1, n),
        "refined_pos_x_sigma": rng.gamma(4, 0.01, n),
        "refined_pos_y_sigma": rng.gamma(4, 0.01, n),
        "refined_relative_defocus_sigma": rng.gamma(4, 10, n),
    }
    with path.open("w") as file:
        print(",".join(columns), file=file)
        for row in zip(*columns.values(), strict=True):
            cells = (f"{v:.3f}" if isinstance(v, float) else str(v) for v in row)
            print(",".join(cells), file=file)


def live(folder: Path) -> None:
    """CPU time of a page during a run, after the first one."""
    for particles, micrographs in ((100, 5), (2000, 50), (20000, 200)):
        table = folder / "live.csv"
        write_table(table, particles, micrographs)
        options = ReportOptions(
            micrographs=0, thumbnails=0, particles=0, going_on=(particles, 2 * particles)
        )
        for _ in range(2):
            started = time.process_time()
            write_page(load_report_data(table), folder / "shown", options)
        took = time.process_time() - started
        print(f"page during a run, {particles} particles: {took:.2f} s of a processor")


def particle_images(folder: Path) -> None:
    """Bytes per particle of the images beside projections."""
    rng = np.random.default_rng(0)
    for side in (64, 128):
        sheets = _Sheets(folder)
        for row in range(400):
            white = np.fft.rfft2(rng.standard_normal((3, side, side)))
            # Three pixels per low-pass resolution, as the report chooses them.
            k = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)) * 3
            images = np.fft.irfft2(white * np.exp2(-(k**2)))
            sheets.add(ParticleView(row, *images, rng.standard_normal((17, 17))))
        sheets.end()
        size = sum(path.stat().st_size for path in (folder / FOLDER).iterdir())
        print(f"images of {side} px: {size / 400 / 1e3:.1f} kB per particle")


def main() -> None:
    particles, micrographs = map(int, sys.argv[1:3] or ("100000", "500"))
    with tempfile.TemporaryDirectory() as name:
        folder, rng = Path(name), np.random.default_rng(0)
        for number in range(micrographs):
            image = rng.standard_normal((_SIDE_PX, _SIDE_PX), dtype=np.float32)
            write_image(folder / f"m{number}.mrc", image)
        live(folder)
        particle_images(folder)
        table = folder / "refined.csv"
        write_table(table, particles, micrographs)
        for thumbnails, other in ((0, None), (micrographs, None), (micrographs, table)):
            started = time.monotonic()
            options = ReportOptions(thumbnails=thumbnails, against=other)
            page = write_report(table, folder / "shown", options)
            took, size = time.monotonic() - started, page.stat().st_size
            print(
                f"{particles} particles, {micrographs} micrographs, {thumbnails} of them "
                f"with image, {'compared' if other else 'alone'}: {size / 1e6:.1f} MB, "
                f"{took:.0f} s"
            )


if __name__ == "__main__":
    main()
