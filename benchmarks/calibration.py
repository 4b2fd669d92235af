"""Are the polish's standard errors true? Simulated particles, searched and polished.

Each particle is the exact projection of its atoms, at a random pose, a fraction of a pixel
off, in coloured noise whose spectrum must be estimated. A search over a coarse grid starts
from a perturbed pose; the polish follows, without bounds. Its errors, divided by the
standard errors that it reports, should have a standard deviation of 1. They are also
compared with the Cramér-Rao bound: the covariance that no unbiased method can beat, from
the Fisher information at the true pose and strength.

    python benchmarks/calibration.py --per-case 25
"""

import argparse
import math
import time
from dataclasses import dataclass
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

import jaxrefine as jr
from jaxrefine.app import simulate as sim
from jaxrefine.physics.ctf import ctf_spread_px
from jaxrefine.refine import coordinates
from jaxrefine.refine import polish as polishing

DEFOCI_ANGSTROM = (3000.0, 6000.0, 10000.0, 20000.0)
SNR_RANGE = (7.0, 20.0)
MICROSCOPE = sim.Microscope(b_factor_angstrom2=20.0)
ASTIGMATISM_ANGSTROM, ASTIGMATISM_DEG = 300.0, 25.0
# The start: uniform within these, and then a grid that is as coarse.
TILT_DEG, IN_PLANE_DEG, DEFOCUS_ANGSTROM = 2.0, 1.5, 100.0


@dataclass(frozen=True)
class Structure:
    """What is looked for, and on which grid. One score serves all its micrographs."""

    name: str
    atoms: sim.Atoms
    side: int
    pixel_size: float

    @property
    def score(self) -> jr.ImageCTF:
        return jr.ImageCTF.for_particles(
            (self.side + 8, self.side + 8),
            self.side,
            max_defocus_angstrom=max(DEFOCI_ANGSTROM) + 2 * DEFOCUS_ANGSTROM,
            voltage_kv=MICROSCOPE.voltage_kv,
            spherical_aberration_mm=MICROSCOPE.spherical_aberration_mm,
            pixel_size_angstrom=self.pixel_size,
        )

    def spread_px(self, defocus: float) -> int:
        """How far the CTF spreads signal of 4 Å."""
        return round(
            ctf_spread_px(
                defocus,
                MICROSCOPE.voltage_kv,
                MICROSCOPE.spherical_aberration_mm,
                self.pixel_size,
                max(4.0, 2 * self.pixel_size),
            )
        )


def structures() -> list[Structure]:
    rng = np.random.default_rng(11)

    def globule(side: int, pixel_size: float, fill: float) -> sim.Atoms:
        radius = fill * side * pixel_size / 2
        atoms = round(0.035 * radius**3 / 8)
        return sim.random_globule(atoms, radius, rng).blurred(20.0)

    antibody = sim.load_antibody().blurred(20.0)
    return [
        Structure("globule, 64 px of 1.5 Å", globule(64, 1.5, 0.75), 64, 1.5),
        Structure("globule, 80 px of 1.0 Å", globule(80, 1.0, 0.85), 80, 1.0),
        Structure("antibody 1IGY, 96 px of 2.0 Å", antibody, 96, 2.0),
    ]


@dataclass(frozen=True)
class Case:
    """A micrograph's particles, and where they truly are."""

    particles: jr.Particles
    truth: jr.Particles
    shift_px: np.ndarray
    snr: np.ndarray


def make_case(
    structure: Structure, defocus: float, count: int, rng: np.random.Generator
) -> Case:
    """One micrograph; particles stand on a grid, all their signal inside the image."""
    s, n, score = structure, structure.side, structure.score
    columns = int(np.ceil(np.sqrt(count)))
    spread = s.spread_px(defocus)
    spacing, edge = n + spread // 2, n // 2 + spread + 8
    places = np.stack(np.divmod(np.arange(count), columns), axis=-1) * spacing + edge
    size = (columns - 1) * spacing + 2 * edge
    size += size % 2
    centre = places + rng.uniform(-0.5, 0.5, (count, 2))
    relative = rng.uniform(-1, 1, count) * DEFOCUS_ANGSTROM
    u_v = defocus + relative[:, None] + ASTIGMATISM_ANGSTROM / 2 * np.array([1, -1])
    rotation = sim.random_rotations(count, rng)
    snr = rng.uniform(*SNR_RANGE, count)
    planted = [
        sim.Planted(r, tuple(c), tuple(d), ASTIGMATISM_DEG, a)
        for r, c, d, a in zip(rotation, centre.tolist(), u_v.tolist(), snr, strict=True)
    ]
    made = sim.simulate_micrograph(
        s.atoms, planted, (size, size), s.pixel_size, MICROSCOPE, rng, margin_px=32
    )
    maps = (size - n + 1,) * 2
    micrograph = jr.prepare_micrograph(
        jnp.asarray(made.image), jnp.zeros(maps), jnp.ones(maps), jr.Filters()
    )

    def single(values) -> jax.Array:
        return jnp.asarray(values, jnp.float32)

    def cut(rotation, u_v, corner) -> jr.Particles:
        alignment = jr.Alignment(
            rotation=single(rotation),
            position_px=single(corner),
            defocus_angstrom=single(u_v),
            astigmatism_deg=jnp.full(count, ASTIGMATISM_DEG),
            pixel_size_angstrom=jnp.full(count, s.pixel_size),
        )
        optics = jr.Optics(
            jnp.full(count, MICROSCOPE.voltage_kv),
            jnp.full(count, MICROSCOPE.spherical_aberration_mm),
            jnp.full(count, MICROSCOPE.amplitude_contrast),
            jnp.full(count, MICROSCOPE.phase_shift_deg),
            jnp.full(count, MICROSCOPE.b_factor_angstrom2),
        )
        pixel_sizes = jnp.full(count, s.pixel_size)
        return jr.cut_particles(micrograph, alignment, optics, pixel_sizes, score)

    corner = centre - n // 2
    start = [sim.perturbed_rotation(r, rng, TILT_DEG, IN_PLANE_DEG) for r in rotation]
    moved = np.round(corner) + rng.integers(-2, 3, (count, 2))
    mean = u_v - relative[:, None]
    return Case(
        particles=cut(start, mean, moved),
        truth=cut(rotation, u_v, np.round(corner)),
        shift_px=corner - np.round(corner),
        snr=snr,
    )


def rotation_vectors_deg(true: np.ndarray, found: np.ndarray) -> np.ndarray:
    """Rotation vectors in the image frame that lead from the truth to what was found."""
    turn = np.swapaxes(true, 1, 2) @ found
    vector = np.stack(
        [
            turn[:, 2, 1] - turn[:, 1, 2],
            turn[:, 0, 2] - turn[:, 2, 0],
            turn[:, 1, 0] - turn[:, 0, 1],
        ],
        axis=-1,
    )
    return np.rad2deg(vector / 2)  # the sine of the angle, which is small


NAMES = ("tilt about x", "tilt about y", "in-plane angle", "y", "x", "defocus")
UNITS = ("°", "°", "°", "px", "px", "Å")
MORE_NAMES = ("astigmatism along", "astigmatism across", "pixel size")
MORE_UNITS = ("Å", "Å", "Å")
EVERYTHING = ("orientation", "shift", "defocus", "astigmatism", "pixel_size")


def errors_of(polished: jr.Polished, case: Case, pixel_size: float) -> np.ndarray:
    """(n, 9) true errors, in the order of the names."""
    found, true = polished.refined.alignment, case.truth.alignment
    position = np.asarray(true.position_px, np.float64) + case.shift_px
    u_v = np.asarray(found.defocus_angstrom, np.float64)
    true_u_v = np.asarray(true.defocus_angstrom, np.float64)
    turn = 2 * np.deg2rad(np.asarray(found.astigmatism_deg) - ASTIGMATISM_DEG)
    half = (u_v[:, 0] - u_v[:, 1]) / 2
    return np.column_stack(
        [
            rotation_vectors_deg(np.asarray(true.rotation), np.asarray(found.rotation)),
            np.asarray(found.position_px) - position,
            (u_v - true_u_v).mean(axis=1),
            half * np.cos(turn) - ASTIGMATISM_ANGSTROM / 2,
            half * np.sin(turn),
            np.asarray(found.pixel_size_angstrom) - pixel_size,
        ]
    )


def sigmas(errors: jr.PoseErrors) -> np.ndarray:
    """(n, 9) standard errors in the same order."""
    return np.column_stack(
        [
            errors.rotation_deg,
            errors.shift_px,
            errors.defocus_angstrom,
            errors.astigmatism_angstrom,
            errors.pixel_size_angstrom,
        ]
    )


@eqx.filter_jit
def bounds(truth, shift_px, snr, template, score, parameters) -> jr.PoseErrors:
    """Cramér-Rao bounds: at the true pose, with the true strength."""

    def one(each):
        particle, shift, snr = each
        at = jnp.zeros(coordinates.count(parameters))
        at = at.at[coordinates.places(parameters)["shift"]].set(shift)
        information = polishing.pose_information(at, particle, template, score, parameters)
        return polishing.errors_at_strength(information, snr**2, parameters)

    return jax.lax.map(one, (truth, shift_px, snr))


@eqx.filter_jit
def from_curvature(particles, refined, template, score, parameters) -> jr.PoseErrors:
    """Standard errors from the score's own curvature at the optimum, noise included."""

    def one(each):
        particle, refined = each
        shift = refined.alignment.position_px - particle.alignment.position_px
        start = eqx.tree_at(lambda p: p.alignment, particle, refined.alignment)

        def z(at):
            offsets = coordinates.offsets_from(at, parameters, start.alignment)
            return jr.z_score(offsets, start, template, score)

        at = jnp.zeros(coordinates.count(parameters))
        at = at.at[coordinates.places(parameters)["shift"]].set(shift)
        tangent = lambda along: jax.jvp(jax.grad(z), (at,), (along,))[1]  # noqa: E731
        curvature = -jax.lax.map(tangent, jnp.eye(len(at)))
        information = (curvature + curvature.T) / 2 / refined.z_score
        return polishing.standard_errors(information, refined.z_score, parameters)

    return jax.lax.map(one, (particles, refined))


@dataclass
class Results:
    """All particles of a setting, rows as in the micrographs."""

    error: np.ndarray
    sigma: np.ndarray
    curvature_sigma: np.ndarray
    bound: np.ndarray
    snr: np.ndarray
    z: np.ndarray
    z_grid: np.ndarray
    evaluations: np.ndarray
    converged: np.ndarray
    case: np.ndarray


def study(per_case: int, seed: int, settings: dict[str, jr.Polish]) -> dict[str, Results]:
    rng = np.random.default_rng(seed)
    grid = jr.local_grid(
        jr.uniform_orientations(
            psi_coarse=IN_PLANE_DEG, psi_fine=0.5, theta_coarse=TILT_DEG, theta_fine=0.5
        ),
        jr.search_offsets(-DEFOCUS_ANGSTROM, DEFOCUS_ANGSTROM, 50.0),
    )
    rows: dict[str, list[tuple]] = {name: [] for name in settings}
    number = 0
    for structure in structures():
        volume = sim.potential_volume(structure.atoms, structure.side, structure.pixel_size)
        template = jr.make_template(volume, "padded")
        smooth = jr.make_template(volume, "cubic")
        score = structure.score
        for defocus in DEFOCI_ANGSTROM:
            began = time.perf_counter()
            case = make_case(structure, defocus, per_case, rng)
            made = time.perf_counter()
            refined = jr.refine_particles(case.particles, template, grid, score)
            shift, snr = (jnp.asarray(v, jnp.float32) for v in (case.shift_px, case.snr))
            for name, polish in settings.items():
                polished = jr.polish_particles(
                    case.particles, refined, smooth, grid, score, polish
                )
                free = polish.parameters
                rows[name].append(
                    (
                        errors_of(polished, case, structure.pixel_size),
                        sigmas(polished.errors),
                        sigmas(
                            from_curvature(
                                case.particles, polished.refined, smooth, score, free
                            )
                        ),
                        sigmas(bounds(case.truth, shift, snr, smooth, score, free)),
                        case.snr,
                        np.asarray(polished.refined.z_score),
                        np.asarray(refined.z_score),
                        np.asarray(polished.evaluations),
                        np.asarray(polished.converged),
                        np.full(per_case, number),
                    )
                )
            number += 1
            done = time.perf_counter()
            print(
                f"{structure.name}, {defocus:.0f} Å: {per_case} particles, made in "
                f"{made - began:.0f} s, refined in {done - made:.0f} s",
                flush=True,
            )
    return {
        name: Results(*(np.concatenate(each) for each in zip(*parts, strict=True)))
        for name, parts in rows.items()
    }


SETTINGS = {
    "pose": jr.Polish(bound_to_cell=False),
    "all": jr.Polish(parameters=EVERYTHING, bound_to_cell=False),
}
# A particle is in a wrong optimum where its pose is this far off in any coordinate.
WRONG_SIGMA = 5.0
WEAK_Z = 9.0


def markdown(results: dict[str, Results]) -> str:
    lines = []
    for name, r in results.items():
        count = coordinates.count(SETTINGS[name].parameters)
        t = (r.error / r.sigma)[:, :count]
        right = np.all(np.abs(t) < WRONG_SIGMA, axis=1)
        weak = r.z < WEAK_Z
        lines += [
            f"### Free: {', '.join(SETTINGS[name].parameters)}",
            "",
            f"{len(t)} particles, {np.sum(~right)} in a wrong optimum, "
            f"{np.sum(right & weak)} others with z below {WEAK_Z:g}. Evaluations: median "
            f"{np.median(r.evaluations):.0f}, mean {np.mean(r.evaluations):.1f}, "
            f"{np.mean(r.evaluations < 10):.0%} below 10; converged: "
            f"{np.mean(r.converged):.0%}. z: {r.z_grid.mean():.2f} at the grid's best, "
            f"{r.z.mean():.2f} polished, {r.snr.mean():.2f} ideal at the truth.",
            "",
            "| | mean σ | within 1 σ | within 2 σ | RMS error / σ | mean error / bound "
            "| z < 9: within 1 σ, 2 σ | by true curvature |",
            "|---|---|---|---|---|---|---|---|",
        ]
        by_curvature = (r.error / r.curvature_sigma)[:, :count]
        rows = [*zip(NAMES + MORE_NAMES, UNITS + MORE_UNITS, strict=True)][:count]
        for i, (label, unit) in enumerate([*rows, ("all", "")]):
            column = slice(None) if label == "all" else slice(i, i + 1)

            def within(values, keep, limit, column=column):
                return np.mean(np.abs(values[keep][:, column]) < limit)

            good = right & ~weak
            faint = right & weak
            bound = r.error[good][:, column] / r.bound[good][:, column]
            sigma = "" if label == "all" else f"{r.sigma[good, i].mean():.2g} {unit}"
            lines.append(
                f"| {label} | {sigma} "
                f"| {within(t, good, 1):.2f} | {within(t, good, 2):.2f} "
                f"| {np.sqrt(np.mean(t[good][:, column] ** 2)):.2f} "
                f"| {np.mean(np.abs(bound)) / np.sqrt(2 / np.pi):.2f} "
                f"| {within(t, faint, 1):.2f}, {within(t, faint, 2):.2f} "
                f"| {within(by_curvature, good, 1):.2f}, "
                f"{within(by_curvature, good, 2):.2f} |"
            )
        lines.append("")
        lines.append("| ideal SNR | particles | RMS error / σ | mean error / bound |")
        lines.append("|---|---|---|---|")
        for low, high in ((7, 9), (9, 11), (11, 14), (14, 20)):
            some = right & (r.snr >= low) & (r.snr < high)
            bound = np.abs(r.error / r.bound)[some][:, :count]
            lines.append(
                f"| {low} to {high} | {some.sum()} | {np.sqrt(np.mean(t[some] ** 2)):.2f} "
                f"| {bound.mean() / np.sqrt(2 / np.pi):.2f} |"
            )
        lines.append("")
    return "\n".join(lines)


def plot(results: dict[str, Results], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    expected = np.linspace(0, 3, 200)
    normal = np.array([math.erf(x / math.sqrt(2)) for x in expected])
    r = results["all"]
    t = np.abs(r.error / r.sigma)
    right = np.all(t < WRONG_SIGMA, axis=1)
    for i, name in enumerate(NAMES + MORE_NAMES):
        share = np.mean(t[right, i, None] < expected, axis=0)
        axes[0].plot(normal, share, lw=1, label=name)
    axes[0].plot([0, 1], [0, 1], "k:", lw=1)
    axes[0].set(xlabel="expected share", ylabel="share of |error| < x σ")
    axes[0].legend(fontsize=6)
    r = results["pose"]
    for i, name in ((0, "tilt"), (2, "in-plane angle"), (4, "x"), (5, "defocus")):
        scale = r.bound[:, i].mean()
        axes[1].plot(r.sigma[:, i] / scale, np.abs(r.error[:, i]) / scale, ".", ms=3)
        axes[1].plot([], [], "o", color=axes[1].lines[-1].get_color(), label=name)
    top = 3.5
    axes[1].plot([0, top], [0, top], "k:", lw=1)
    axes[1].plot([0, top], [0, 2 * top], "k:", lw=1)
    axes[1].set(xlim=(0, top), ylim=(0, 2 * top), xlabel="σ / mean bound")
    axes[1].set(ylabel="|error| / mean bound")
    axes[1].legend(fontsize=6)
    figure.savefig(path, dpi=110)


def cell_study(count: int, seed: int) -> str:
    """After the search of the default grid: what half a cell leaves to be gained."""
    structure = structures()[0]
    case = make_case(structure, 6000.0, count, np.random.default_rng(seed))
    volume = sim.potential_volume(structure.atoms, structure.side, structure.pixel_size)
    grid = jr.local_grid(
        jr.uniform_orientations(
            psi_coarse=1.5, psi_fine=0.1, theta_coarse=2.5, theta_fine=0.25
        ),
        jr.search_offsets(-100.0, 100.0, 20.0),
    )
    score = structure.score
    padded, smooth = (jr.make_template(volume, name) for name in ("padded", "cubic"))
    refined = jr.refine_particles(case.particles, padded, grid, score)
    lines = [
        "| | mean z | at a limit | RMS angle | RMS defocus | RMS shift |",
        "|---|---|---|---|---|---|",
    ]

    def line(name: str, result: jr.Polished, at_limit: str) -> str:
        error = errors_of(result, case, structure.pixel_size)
        angle, shift = (
            np.sqrt(np.mean(np.sum(error[:, part] ** 2, axis=1)))
            for part in (slice(0, 3), slice(3, 5))
        )
        defocus = np.sqrt(np.mean(error[:, 5] ** 2))
        z = np.mean(result.refined.z_score)
        errors = f"{angle:.2f}° | {defocus:.0f} Å | {shift:.3f} px"
        return f"| {name} | {z:.2f} | {at_limit} | {errors} |"

    for name, bound in (("within the cell", True), ("free", False)):
        polish = jr.Polish(bound_to_cell=bound)
        result = jr.polish_particles(case.particles, refined, smooth, grid, score, polish)
        if bound:
            unpolished = eqx.tree_at(lambda p: p.refined, result, refined)
            lines.append(line("the grid's best", unpolished, ""))
        lines.append(line(name, result, f"{np.mean(result.at_limit):.0%}"))
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--per-case", type=int, default=27, help="particles of 12 cases")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--table", type=Path, help="write the tables here as well")
    parser.add_argument("--plot", type=Path)
    options = parser.parse_args()
    cells = cell_study(options.per_case, options.seed)
    print(cells, flush=True)
    results = study(options.per_case, options.seed, SETTINGS)
    text = markdown(results) + "\n### Bound to the cell\n\n" + cells + "\n"
    print(text)
    if options.table:
        options.table.write_text(text, encoding="utf-8")
    if options.plot:
        plot(results, options.plot)


if __name__ == "__main__":
    main()
