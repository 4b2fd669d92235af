"""All measurements on an accelerator, in one command.

    python benchmarks/gpu.py > gpu.md

Prints Markdown for docs/benchmarks.md: whether the device computes correctly (`jaxrefine
selftest`), milliseconds per particle on the documented grid with float16 and float32
products and whether both find the same poses, the same on more devices, and whole runs on
the demo data set. `gpu_prediction.py` prints the times expected on H100 and H200. It also
runs on a CPU; use `--sizes 64/72 --coarse` there.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import correlation  # beside this file
import jax
import numpy as np

import jaxrefine as jr
from jaxrefine.app.run.devices import free_bytes
from jaxrefine.refine.layout import Layout, plan_layout
from jaxrefine.refine.sharding import device_mesh, replicate, select_devices


def program(*arguments: str) -> tuple[float, str]:
    """Seconds of `python -m jaxrefine`, and its output."""
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "jaxrefine", *arguments], capture_output=True, text=True
    )
    if done.returncode and arguments[0] != "selftest":  # whose failures are printed
        raise SystemExit(done.stdout + done.stderr)
    return time.perf_counter() - began, done.stdout + done.stderr


def search(
    particles: jr.Particles, template, grid, score: jr.Score, devices, layout: Layout
) -> tuple[float, float, jr.Refined]:
    """Seconds of the first batch, seconds per particle of later ones, and the results."""
    batch = len(devices) * layout.particles
    many = jax.tree.map(lambda leaf: np.repeat(leaf, batch, axis=0), particles)
    mesh = device_mesh(devices)
    template = replicate(template, mesh)

    def once() -> tuple[float, jr.Refined]:
        began = time.perf_counter()
        found = jr.refine_particles(many, template, grid, score, mesh=mesh, layout=layout)
        return time.perf_counter() - began, jax.block_until_ready(found)

    first, _ = once()
    rest = [once() for _ in range(5)]
    return first, statistics.median(seconds for seconds, _ in rest) / batch, rest[0][1]


def searches(sizes: list[str], grid: jr.SearchGrid, devices) -> None:
    """A table: sizes, numbers of devices, and precisions of the products."""
    names = ["template/box", "side searched", "devices", "particles at once", "products"]
    names += ["compiling, s", "ms a particle", "same pose", "z off by", "peak memory, MiB"]
    print("| " + " | ".join(names) + " |\n" + "|---" * len(names) + "|")
    counts = sorted({1, len(devices)})
    for size in sizes:
        side, box = map(int, size.split("/"))
        particles, template, score = correlation.one_particle(
            side, box, "image_ctf", "trilinear", 0.8
        )
        exact = None
        for count in counts:
            for precision in ("float32", "float16"):
                layout = plan_layout(
                    grid,
                    score,
                    template,
                    voltage_kv=300.0,
                    pixel_size_angstrom=correlation.PIXEL_SIZE_ANGSTROM,
                    free_bytes=min(free_bytes(device) for device in devices),
                    accelerator=True,
                    precision=precision,
                )
                first, each, found = search(
                    particles, template, grid, score, devices[:count], layout
                )
                exact = found if exact is None else exact
                same = np.array_equal(found.grid_index[0], exact.grid_index[0])
                off = abs(float(found.z_score[0] - exact.z_score[0]))
                stats = devices[0].memory_stats() or {}
                peak = stats.get("peak_bytes_in_use", float("nan")) / 2**20
                cells = [size, str(score.side), str(count), str(layout.particles)]
                cells += [precision, f"{first:.1f}", f"{1e3 * each:.2f}"]
                cells += ["yes" if same else "NO", f"{off:.1g}", f"{peak:.0f}"]
                print("| " + " | ".join(cells) + " |", flush=True)


def whole_runs() -> None:
    """The demo data set, twice: with compilation, and with the compilation cache."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name, "demo")
        program("demo", str(folder))
        config, cache = folder / "config.yaml", Path(name, "cache")
        text = (
            config.read_text() + f"\ncomputational_config:\n  compilation_cache: {cache}\n"
        )
        config.write_text(text)
        for which in ("nothing compiled before", "again"):
            seconds, said = program(str(config), "--fresh")
            print(f"- the demonstration data set, {which}: {seconds:.1f} s")
        print("\n```\n" + "\n".join(said.strip().splitlines()[-12:]) + "\n```")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--sizes", nargs="+", default=["64/72", "128/136", "256/264", "512/528"]
    )
    parser.add_argument("--coarse", action="store_true", help="of angles, to try it out")
    options = parser.parse_args()
    devices = select_devices("auto")
    print(f"jax {jax.__version__}, {len(devices)} x {devices[0].device_kind}, ", end="")
    print(time.strftime("%Y-%m-%d") + "\n")
    seconds, said = program("selftest")
    print("```\n" + said.strip() + f"\n```\n\nThe selftest took {seconds:.1f} s.\n")
    steps = (0.5, 1.0) if options.coarse else (0.1, 0.25)
    grid = jr.local_grid(
        jr.uniform_orientations(
            psi_coarse=1.5, psi_fine=steps[0], theta_coarse=2.5, theta_fine=steps[1]
        ),
        correlation.DEFOCUS_OFFSETS,
    )
    searches(options.sizes, grid, devices)
    print()
    whole_runs()


if __name__ == "__main__":
    main()
