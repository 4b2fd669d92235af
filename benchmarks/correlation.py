"""Time per cross-correlation, ours and Leopard-EM's, side by side in one process.

Ours: the search of one particle over the local grid, as the program runs it, including
preparation and exact rescoring of the best. Leopard-EM's: its own
`do_batched_orientation_cross_correlate_cpu` (or the CUDA version if there is a GPU), with
32 orientations x 11 defocus values per call, slices and CTFs prepared beforehand. The two
alternate; medians are reported.

    python3 -m venv peer
    peer/bin/pip install torch==2.13.0
    peer/bin/pip install leopard-em==1.2 torch-motion-correction==0.0.5
    peer/bin/pip install -e .
    peer/bin/python benchmarks/correlation.py --sizes 64/72 128/136

Without Leopard-EM only our own times are measured, which the output states.
"""

import argparse
import os
import statistics
import time

os.environ.setdefault("LEOPARDEM_DISABLE_TORCH_COMPILATION", "1")

import jax
import jax.numpy as jnp
import numpy as np

import jaxrefine as jr
from jaxrefine import simulate as sim
from jaxrefine.app.run.devices import use_cpu_cores
from jaxrefine.refine.sharding import device_mesh, replicate

PIXEL_SIZE_ANGSTROM, DEFOCUS_ANGSTROM = 1.0, 8000.0
DEFOCUS_OFFSETS = jr.search_offsets(-100.0, 100.0, 20.0)


def one_particle(
    side: int, box: int, score_name: str, sampling: str, diameter: float
) -> tuple[jr.Particles, jr.Template, jr.Score]:
    """A batch of one simulated particle, its template, and the score.

    The diameter is a fraction of the template's side. Only the part of the template that
    holds its signal is searched, as in the program.
    """
    rng = np.random.default_rng(0)
    if score_name == "image_ctf":
        score = jr.ImageCTF.for_particles(
            (box, box),
            side,
            max_defocus_angstrom=DEFOCUS_ANGSTROM + 100,
            voltage_kv=300.0,
            spherical_aberration_mm=2.7,
            pixel_size_angstrom=PIXEL_SIZE_ANGSTROM,
        )
    else:
        score = jr.TemplateCTF((box, box), side)
    # Planted slightly off the starting values.
    radius = diameter / 2 * side * PIXEL_SIZE_ANGSTROM
    atoms = sim.random_globule(500, radius, rng).blurred(20.0)
    volume = np.asarray(sim.potential_volume(atoms, side, PIXEL_SIZE_ANGSTROM))
    if score_name == "image_ctf":
        volume = jr.trim_template(volume, PIXEL_SIZE_ANGSTROM)
        score = score.of_middle(len(volume))
    template = jr.make_template(volume, sampling)
    start = jr.euler_to_matrix(np.array([30.0, 60.0, 40.0]))
    ny = max(score.padded_box) + side
    simulated = sim.SimulatedParticle(
        sim.perturbed_rotation(start, rng),
        (ny / 2 + 0.3, ny / 2 - 0.2),
        (DEFOCUS_ANGSTROM + 30,) * 2,
        snr_ideal=15.0,
    )
    made = sim.simulate_micrograph(
        atoms, [simulated], (ny, ny), PIXEL_SIZE_ANGSTROM, sim.Microscope(), rng
    )
    micrograph = jr.prepare_micrograph(
        jnp.asarray(made.image),
        jnp.zeros((ny - side + 1,) * 2),
        jnp.ones((ny - side + 1,) * 2),
        jr.Filters(),
    )

    def one(value: float) -> jax.Array:
        return jnp.full(1, value, jnp.float32)

    particles = jr.cut_particles(
        micrograph,
        jr.Alignment(
            rotation=jnp.asarray(start[None], jnp.float32),
            position_px=jnp.full((1, 2), float(ny // 2 - side // 2)),
            defocus_angstrom=jnp.full((1, 2), DEFOCUS_ANGSTROM),
            astigmatism_deg=one(0.0),
            pixel_size_angstrom=one(PIXEL_SIZE_ANGSTROM),
        ),
        jr.Optics(one(300.0), one(2.7), one(0.07), one(0.0), one(0.0)),
        one(PIXEL_SIZE_ANGSTROM),
        score,
    )
    return particles, template, score


def our_search(particles, template, grid: jr.SearchGrid, score: jr.Score):
    """A function without arguments that searches one particle."""
    # One particle on all devices, which share its orientations, as in the program.
    mesh = device_mesh(jax.devices(), 1)
    template = replicate(template, mesh)
    return lambda: jax.block_until_ready(
        jr.refine_particles(particles, template, grid, score, mesh=mesh)
    )


def peer_batch(side: int, box: int, orientations: int, threads: int):
    """A function that correlates one batch with Leopard-EM, or None without it.

    On some machines torch is much slower with several threads: try `--peer-threads`.
    """
    try:
        import torch
        from leopard_em.backend import cross_correlation as peer
    except ImportError:
        return None
    torch.set_num_threads(threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    correlate = (
        peer.do_batched_orientation_cross_correlate
        if device.type == "cuda"
        else peer.do_batched_orientation_cross_correlate_cpu
    )
    generator = torch.Generator().manual_seed(0)
    image = torch.fft.rfftn(torch.randn(box, box, generator=generator)).to(device)
    volume = torch.fft.fftshift(torch.randn(side, side, side, generator=generator))
    template = torch.fft.fftshift(torch.fft.rfftn(volume), dim=(0, 1)).to(device)
    filters = torch.randn(1, len(DEFOCUS_OFFSETS), side, side // 2 + 1).to(device)
    rotations = torch.tensor(
        jr.euler_to_matrix(np.random.default_rng(0).uniform(0, 180, (orientations, 3)))
    )
    rotations = rotations.to(torch.float32).to(device)

    def run():
        correlate(
            image_dft=image,
            template_dft=template,
            rotation_matrices=rotations,
            projective_filters=filters,
        )
        if device.type == "cuda":
            torch.cuda.synchronize()

    return run


def seconds(function) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--sizes", nargs="+", default=["64/72", "128/136"])
    parser.add_argument(
        "--score", default="image_ctf", choices=["image_ctf", "template_ctf"]
    )
    parser.add_argument("--sampling", default="padded", choices=["padded", "trilinear"])
    parser.add_argument("--psi-fine", type=float, default=0.1)
    parser.add_argument("--theta-fine", type=float, default=0.25)
    parser.add_argument(
        "--diameter", type=float, default=0.8, help="the particle's, in template sides"
    )
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--peer-threads", type=int, default=1)
    options = parser.parse_args()
    use_cpu_cores()
    grid = jr.local_grid(
        jr.uniform_orientations(
            psi_coarse=1.5,
            psi_fine=options.psi_fine,
            theta_coarse=2.5,
            theta_fine=options.theta_fine,
        ),
        DEFOCUS_OFFSETS,
    )
    poses = int(np.prod(grid.shape))
    devices = jax.devices()
    print(f"jax {jax.__version__}, {len(devices)} x {devices[0].device_kind}")
    print(
        f"{grid.shape[2]} orientations x {grid.shape[1]} defoci, {options.score}, ", end=""
    )
    print(f"{options.sampling} sampling, medians of {options.repeats} alternating runs")
    for size in options.sizes:
        side, box = map(int, size.split("/"))
        particles, template, score = one_particle(
            side, box, options.score, options.sampling, options.diameter
        )
        ours = our_search(particles, template, grid, score)
        batch = 32
        theirs = peer_batch(side, box, batch, options.peer_threads)
        compiling = seconds(ours)
        if theirs:
            theirs()
        our_times, their_times = [], []
        for _ in range(options.repeats):
            our_times.append(seconds(ours) / poses)
            if theirs:
                their_times.append(seconds(theirs) / (batch * len(DEFOCUS_OFFSETS)))
        our_time = statistics.median(our_times)
        line = f"{size}: ours {1e6 * our_time:.2f} us per correlation"
        line += f" ({our_time * poses:.2f} s a particle, first call {compiling:.1f} s)"
        if theirs:
            their_time = statistics.median(their_times)
            line += f", Leopard-EM {1e6 * their_time:.1f} us: {their_time / our_time:.1f} x"
        else:
            line += "; Leopard-EM is not installed: no comparison"
        print(line, flush=True)


if __name__ == "__main__":
    main()
