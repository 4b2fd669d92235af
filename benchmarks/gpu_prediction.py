"""Prediction of the time of a search on GPUs, to be tested by measurement.

The layout of the search on an accelerator determines the number of samples of slices,
products and interpolations per particle; data sheets give the speed of devices. `gpu.py`
measures the same on a device.

    python benchmarks/gpu_prediction.py --sizes 64/72 128/136 256/264 512/528
"""

import argparse
import math
from dataclasses import dataclass

import numpy as np

import jaxrefine as jr
from jaxrefine import simulate as sim
from jaxrefine.refine.layout import plan_layout

# Fraction of the peak that a large product reaches (cuBLAS, float16 in, float32 out).
PRODUCT_SHARE = 0.5
# Time to launch a kernel in a stream, and number of kernels around the products, counted in
# the lowered program as operations that XLA cannot fuse.
LAUNCH_S, KERNELS_PER_CHUNK, OTHER_KERNELS = 4e-6, 6, 500
SECTOR_BYTES = 32  # smallest read of a GPU
ROWS_PER_SAMPLE = 8  # four rows of two neighbours, of a real and an imaginary volume


@dataclass(frozen=True)
class Device:
    """Peaks of NVIDIA's data sheets (H100 SXM5, 2023; H200 SXM, 2024), dense.

    Data sheets do not state the bandwidth of the level-2 cache; Chips and Cheese measured
    5.5 TB/s on an H100 ("Nvidia's H100: Funny L2, and Tons of Bandwidth", 2023).
    """

    name: str
    half_flops: float
    single_flops: float
    memory_bytes_per_s: float
    free_bytes: float
    cache_bytes: float = 50e6
    cache_bytes_per_s: float = 5.5e12


DEVICES = (
    Device("H100", 989e12, 67e12, 3.35e12, 75e9),
    Device("H200", 989e12, 67e12, 4.8e12, 135e9),
)


def predict(
    device: Device, template: jr.Template, box: int, grid: jr.SearchGrid
) -> list[str]:
    """A row: milliseconds of each part for one particle."""
    side = template.side
    score = jr.TemplateCTF((box, box), side)
    optics = {"voltage_kv": 300.0, "pixel_size_angstrom": 1.0}
    layout = plan_layout(
        grid, score, template, **optics, accelerator=True, free_bytes=device.free_bytes
    )
    sampled = orientations = grid.shape[2]
    if layout.nodes_pay(orientations):
        sampled = layout.first_products(orientations)
    nodes = sampled - layout.candidates
    half_plane = side * (side // 2 + 1)
    columns = layout.defocus_nodes * math.prod(score.positions)

    cached = 8 * (side + 1) ** 2 * (side // 2 + 1) < device.cache_bytes
    bandwidth = device.cache_bytes_per_s if cached else device.memory_bytes_per_s
    # Between neighbours that share all bytes that are read, and neighbours that share none.
    fewest, most = 8, SECTOR_BYTES * ROWS_PER_SAMPLE
    slices = [sampled * half_plane * each / bandwidth for each in (fewest, most)]
    products = 4 * sampled * half_plane * columns / (PRODUCT_SHARE * device.half_flops)
    interpolation = 2 * orientations * nodes * columns / device.single_flops
    chunks = math.ceil(half_plane / layout.frequencies)
    chunks *= math.ceil(columns * 8 * half_plane / layout.column_bytes)
    kernels = OTHER_KERNELS + KERNELS_PER_CHUNK * chunks
    launches = kernels * LAUNCH_S / layout.particles
    low, high = (1e3 * (some + products + interpolation + launches) for some in slices)
    parts = [*slices, products, interpolation, launches]
    return [
        f"{side}/{box}",
        device.name,
        str(layout.particles),
        *(f"{1e3 * part:.2f}" for part in parts),
        f"{low:.1f} to {high:.1f}",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--sizes", nargs="+", default=["64/72", "128/136", "256/264", "512/528"]
    )
    options = parser.parse_args()
    grid = jr.local_grid(
        jr.uniform_orientations(
            psi_coarse=1.5, psi_fine=0.1, theta_coarse=2.5, theta_fine=0.25
        ),
        np.arange(-100.0, 101.0, 20.0),
    )
    names = ["template/box", "device", "particles at once", "slices, least", "most"]
    names += ["products", "interpolation", "launches", "ms a particle"]
    print("| " + " | ".join(names) + " |\n" + "|---" * len(names) + "|")
    for size in options.sizes:
        side, box = map(int, size.split("/"))
        atoms = sim.random_globule(500, 0.4 * side, np.random.default_rng(0))
        volume = sim.potential_volume(atoms.blurred(20.0), side, 1.0)
        template = jr.make_template(volume, "trilinear")
        for device in DEVICES:
            print("| " + " | ".join(predict(device, template, box, grid)) + " |")


if __name__ == "__main__":
    main()
