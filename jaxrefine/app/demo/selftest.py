"""Self-test: comparison of the results of a device with known answers.

References are float64 sums in numpy, which share no code with the package, and a plain
search, which scores every pose by Fourier transforms on the same device.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import get_args

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from jaxrefine import simulate as sim
from jaxrefine.app.demo import reference_problem as problem
from jaxrefine.app.demo.reference_problem import PIXEL_SIZE_ANGSTROM, SIDE, World
from jaxrefine.data import Particles, SearchGrid
from jaxrefine.physics.ctf import contrast_transfer
from jaxrefine.physics.slices import Sampling, make_template, sample_slice
from jaxrefine.refine.layout import Layout, Precision, plan_layout
from jaxrefine.refine.norms import measure_norms
from jaxrefine.refine.product import approximate_best_z
from jaxrefine.refine.refine import refine_particles
from jaxrefine.refine.search import pose_rotations, z_scores
from jaxrefine.refine.sharding import Device

# Limits of rounding errors: several times those on a CPU (docs/decisions.md).
_SLICE_BOUND, _CTF_BOUND, _Z_BOUND = 1e-5, 5e-5, 1e-5
# Limit of the effect of interpolated slices on a score.
_SCORE_BOUND = 1e-2
# Limits of the effect of rounded inputs of a product on a z-score, relative to |z| + 1.
_PRODUCT_BOUND: dict[Precision, float] = {
    "float32": 2e-5,
    "float16": 4e-4,
    "bfloat16": 5e-3,
}
# So few that the search needs all of its steps: nodes, products, transforms.
_CANDIDATES = 256


@dataclass(frozen=True)
class Check:
    """One comparison.

    Attributes:
        name: What was compared.
        deviation: Difference from the known answer.
        bound: Tolerance.
    """

    name: str
    deviation: float
    bound: float

    @property
    def passed(self) -> bool:
        """Whether the deviation is within the bound; NaN is not."""
        return self.deviation <= self.bound


def run_checks(device: Device) -> Iterator[Check]:
    """Run the checks on a device, one after the other."""
    with jax.default_device(device):
        atoms = problem.some_atoms()
        for sampling in ("padded", "cubic"):
            yield _central_slice(atoms, sampling)
        yield _ctf()
        world = problem.make_problem(atoms)
        z = _plain_scores(world)
        yield _score(world, atoms, z)
        lost = (_best(z) != world.truth).any(axis=-1).sum()
        yield Check("plain search: particles not at their true positions", int(lost), 0)
        for precision in get_args(Precision):
            yield _products(world, precision, z)
            yield from _search(world, precision, z)


def _central_slice(atoms: sim.Atoms, sampling: Sampling) -> Check:
    """Samples of a slice, compared with sums over all voxels.

    Interpolation between samples of a transform equals a sum over voxels with interpolated
    waves, so that only rounding errors remain.
    """
    rng = np.random.default_rng(2)
    volume = sim.potential_volume(atoms, SIDE, PIXEL_SIZE_ANGSTROM)
    # Set the cube's faces to 0, since their mean would be subtracted as background.
    volume *= np.pad(np.ones((SIDE - 2,) * 3, np.float32), 1)
    rotation = sim.random_rotations(1, rng)[0]
    kx, ky = rng.uniform(-0.34, 0.34, (2, 1000))
    template = make_template(volume, sampling)
    real, imaginary = jax.jit(sample_slice)(
        template, *(jnp.asarray(x, jnp.float32) for x in (rotation, kx, ky))
    )

    padded, order = 2 * SIDE, template.order
    voxel = np.arange(SIDE) - SIDE // 2
    low, share = np.divmod(np.stack([kx, ky], axis=-1) @ rotation[:, :2].T * padded, 1)
    taps = np.arange(2) if order == 1 else np.arange(-1, 3)
    weights = _spline(share[..., None] - taps, order)
    waves = np.exp(-2j * np.pi / padded * np.multiply.outer(low[..., None] + taps, voxel))
    # Compensation for the loss by interpolation far from the centre.
    window = np.sinc(voxel / padded) ** (order + 1)
    x, y, z = np.moveaxis(np.einsum("fat,fatv->fav", weights, waves) / window, 1, 0)
    exact = np.einsum("zyx,fz,fy,fx->f", volume.astype(float), z, y, x, optimize=True)

    deviation = np.abs(np.asarray(real) + 1j * np.asarray(imaginary) - exact).max()
    name = f"central slice, {sampling}: against a sum over voxels"
    return Check(name, float(deviation / np.abs(exact).max()), _SLICE_BOUND)


def _spline(distance: NDArray[np.float64], order: int) -> NDArray[np.float64]:
    """The linear or cubic B-spline."""
    d = np.abs(distance)
    if order == 1:
        return 1 - d
    return np.where(d < 1, 2 / 3 - d**2 + d**3 / 2, (2 - d) ** 3 / 6)


def _ctf() -> Check:
    shape = (256, 240)
    defocus_and_angle = problem.DEFOCUS_ANGSTROM, problem.ASTIGMATISM_DEG
    exact = sim.ctf_rfft(shape, PIXEL_SIZE_ANGSTROM, *defocus_and_angle, problem.MICROSCOPE)
    ours = jax.jit(contrast_transfer, static_argnums=0)(
        shape, PIXEL_SIZE_ANGSTROM, *map(jnp.asarray, defocus_and_angle), problem.optics()
    )
    deviation = np.abs(np.asarray(ours) - exact).max()
    return Check("CTF: against the formula in float64", float(deviation), _CTF_BOUND)


@eqx.filter_jit
def _plain_scores_of(world: World) -> jax.Array:
    score, template, grid = world.score, world.template, world.grid

    def of_one(particle: Particles) -> jax.Array:
        prepared = score.prepare(particle, grid)

        def at(pose: jax.Array) -> jax.Array:
            return z_scores(score.correlate(prepared, template, pose), particle)

        poses = pose_rotations(particle, grid.rotation, grid)
        return jax.lax.map(at, poses, batch_size=8)

    return jax.lax.map(of_one, world.particles)


def _plain_scores(world: World) -> NDArray[np.float32]:
    """z of every particle at every pixel size, defocus, orientation and position."""
    return np.moveaxis(np.asarray(_plain_scores_of(world)), 1, 3)


def _score(world: World, atoms: sim.Atoms, z: NDArray[np.float32]) -> Check:
    """z at the true poses, compared with the matched filter in float64.

    The projections of the latter are exact, those from slices are interpolated.
    """
    ours, exact = [], []
    for number, (turn, index) in enumerate(zip(world.rotation, world.truth, strict=True)):
        particle = jax.tree.map(lambda leaf, i=number: leaf[i], world.particles)
        exact.append(_matched_filter(world, particle, atoms, turn, index))
        ours.append(z[number][tuple(index)])
    name = "score: against a matched filter in float64"
    return Check(name, _z_deviation(np.asarray(ours), np.asarray(exact)), _SCORE_BOUND)


def _matched_filter(
    world: World,
    particle: Particles,
    atoms: sim.Atoms,
    rotation: NDArray[np.float64],
    index: NDArray[np.int64],
) -> float:
    """Correlation of the padded box with the filtered, CTF-convolved projection of the
    atoms."""
    score = world.score
    u, v = problem.DEFOCUS_ANGSTROM
    offset = float(world.grid.defocus_angstrom[index[1]])

    def through_optics(image: NDArray, filter_: jax.Array) -> NDArray:
        ctf = sim.ctf_rfft(
            image.shape,
            PIXEL_SIZE_ANGSTROM,
            (u + offset, v + offset),
            problem.ASTIGMATISM_DEG,
            problem.MICROSCOPE,
        )
        transfer = np.asarray(filter_, np.float64) * ctf
        return np.fft.irfft2(np.fft.rfft2(image) * transfer, s=image.shape)

    middle = (SIDE // 2, SIDE // 2)
    rfft = sim.exact_projection_rfft(
        atoms, rotation, (SIDE, SIDE), PIXEL_SIZE_ANGSTROM, middle
    )
    dark = -np.fft.irfft2(rfft, s=(SIDE, SIDE))
    border = np.ones((SIDE, SIDE), bool)
    border[1:-1, 1:-1] = False
    dark -= dark[border].mean()

    wide = np.zeros(score.filter_grid)
    wide[:SIDE, :SIDE] = dark
    norm = np.sqrt((through_optics(wide, particle.filter_template) ** 2).sum())
    seen = through_optics(np.asarray(particle.image, np.float64), particle.filter_image)
    top, left = (
        (cut - box) // 2 + int(at)
        for cut, box, at in zip(score.padded_box, score.box, index[3:], strict=True)
    )
    return float((dark * seen[top : top + SIDE, left : left + SIDE]).sum() / norm)


def _search(world: World, precision: Precision, z: NDArray[np.float32]) -> Iterator[Check]:
    """The search of a run, compared with the best of the plain search."""
    layout = replace(_layout(world, world.grid, precision), candidates=_CANDIDATES)
    found = refine_particles(
        world.particles, world.template, world.grid, world.score, layout=layout
    )
    other = (np.asarray(found.grid_index) != _best(z)).any(axis=-1).sum()
    yield Check(f"search in {precision}: grid points unlike the plain", int(other), 0)
    name = f"search in {precision}: z-score"
    yield Check(name, _z_deviation(found.z_score, z.max(axis=(1, 2, 3, 4, 5))), _Z_BOUND)


def _products(world: World, precision: Precision, z: NDArray[np.float32]) -> Check:
    """z of a few orientations by the matrix product, compared with Fourier transforms.

    The norm of each is measured, so that only rounding errors remain.
    """
    few = np.linspace(0, z.shape[3] - 1, 16).astype(int)
    rotation, at_edge = world.grid.rotation[few], world.grid.rotation_at_edge[few]
    grid = replace(world.grid, rotation=rotation, rotation_at_edge=at_edge)
    layout = _layout(world, grid, precision)

    @eqx.filter_jit
    def approximate_scores(world: World, grid: SearchGrid) -> jax.Array:
        score, template = world.score, world.template

        def of_one(particle: Particles) -> jax.Array:
            poses = pose_rotations(particle, grid.rotation, grid)
            prepared = score.prepare(particle, grid)
            fixed = (score, particle, template, grid)

            def of_pose(number: jax.Array) -> jax.Array:
                one = (prepared, template, poses[number][None], grid)
                norms, _ = measure_norms(score, particle, *one)
                return approximate_best_z(*fixed, norms, layout, poses)[number]

            return jax.lax.map(of_pose, jnp.arange(len(few)))

        return jax.lax.map(of_one, world.particles)

    exact = z[:, :, :, few].max(axis=(1, 2, 4, 5))
    deviation = _z_deviation(approximate_scores(world, grid), exact)
    return Check(f"products in {precision}: z-score", deviation, _PRODUCT_BOUND[precision])


def _layout(world: World, grid: SearchGrid, precision: Precision) -> Layout:
    device = next(iter(world.template.real.devices()))
    return plan_layout(
        grid,
        world.score,
        world.template,
        voltage_kv=problem.MICROSCOPE.voltage_kv,
        pixel_size_angstrom=PIXEL_SIZE_ANGSTROM,
        accelerator=device.platform != "cpu",
        precision=precision,
    )


def _best(z: NDArray[np.float32]) -> NDArray[np.int64]:
    """(n, 5): index of the first of each particle's highest z-scores."""
    flat = z.reshape(len(z), -1).argmax(axis=-1)
    return np.stack(np.unravel_index(flat, z.shape[1:]), axis=-1)


def _z_deviation(ours: jax.Array | NDArray, exact: NDArray) -> float:
    """The largest difference, relative to |z| + 1."""
    return float((np.abs(np.asarray(ours) - exact) / (np.abs(exact) + 1)).max())
