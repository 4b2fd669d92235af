"""Change of z-scores if only the centre of the template is searched.

    python benchmarks/trimmed_template.py

Globules in a volume of 128 px, in noise, at 64 poses around their own: root mean square and
largest difference from the z-scores with the whole template, in standard deviations of the
noise. With `of_middle` the padded box is unchanged; "smaller cut" is the score that would
be made for the centre alone.
"""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np

import jaxrefine as jr
from jaxrefine import simulate as sim

SIDE, MARGIN, DEFOCUS_ANGSTROM, SNR = 128, 8, 8000.0, 15.0
DIAMETERS, B_ANGSTROM2 = (0.4, 0.58, 0.8), (20.0, 80.0)


def score_of(side: int) -> jr.ImageCTF:
    return jr.ImageCTF.for_particles(
        (side + MARGIN,) * 2,
        side,
        max_defocus_angstrom=DEFOCUS_ANGSTROM + 100,
        voltage_kv=300.0,
        spherical_aberration_mm=2.7,
        pixel_size_angstrom=1.0,
    )


class World:
    """One particle in a micrograph, and its template."""

    def __init__(self, diameter: float, b_angstrom2: float, rng: np.random.Generator):
        atoms = sim.random_globule(800, diameter / 2 * SIDE, rng).blurred(b_angstrom2)
        self.volume = np.asarray(sim.potential_volume(atoms, SIDE, 1.0))
        self.rotation = jr.euler_to_matrix(np.array([30.0, 60.0, 40.0]))
        self.ny = max(score_of(SIDE).padded_box) + SIDE
        particle = sim.SimulatedParticle(
            self.rotation, (self.ny / 2,) * 2, (DEFOCUS_ANGSTROM,) * 2, snr_ideal=SNR
        )
        size = (self.ny, self.ny)
        made = sim.simulate_micrograph(atoms, [particle], size, 1.0, sim.Microscope(), rng)
        maps = (self.ny - SIDE + 1,) * 2
        self.micrograph = jr.prepare_micrograph(
            jnp.asarray(made.image), jnp.zeros(maps), jnp.ones(maps), jr.Filters()
        )

    def z_scores(self, volume: np.ndarray, score: jr.ImageCTF, sampling: str) -> np.ndarray:
        def one(value: float) -> jax.Array:
            return jnp.full(1, value, jnp.float32)

        particles = jr.cut_particles(
            self.micrograph,
            jr.Alignment(
                rotation=jnp.asarray(self.rotation[None], jnp.float32),
                position_px=jnp.full((1, 2), float(self.ny // 2 - SIDE // 2)),
                defocus_angstrom=jnp.full((1, 2), DEFOCUS_ANGSTROM),
                astigmatism_deg=one(0.0),
                pixel_size_angstrom=one(1.0),
            ),
            jr.Optics(one(300.0), one(2.7), one(0.07), one(0.0), one(0.0)),
            one(1.0),
            score,
        )
        particle = jax.tree.map(lambda leaf: leaf[0], particles)
        template = jr.make_template(volume, sampling)
        turns = np.random.default_rng(5).normal(0, 1.5, (64, 3)).astype(np.float32)

        def z(turn: jax.Array) -> jax.Array:
            offsets = replace(jr.Offsets.zeros(), rotation_deg=turn)
            return jr.z_score(offsets, particle, template, score)

        return np.asarray(jax.jit(lambda all: jax.lax.map(z, all))(jnp.asarray(turns)))


def main() -> None:
    rng = np.random.default_rng(1)
    print("| diameter/side | B (Å²) | middle (px) | sampling | cut | rms | largest |")
    print("|---|---|---|---|---|---|---|")
    for diameter in DIAMETERS:
        for b_angstrom2 in B_ANGSTROM2:
            world = World(diameter, b_angstrom2, rng)
            middle = jr.trim_template(world.volume, 1.0)
            side = len(middle)
            cuts = {
                "the same": score_of(SIDE).of_middle(side),
                "smaller": score_of(side),
            }
            for sampling in ("padded", "cubic"):
                whole = world.z_scores(world.volume, score_of(SIDE), sampling)
                for cut, score in cuts.items():
                    apart = world.z_scores(middle, score, sampling) - whole
                    rms, most = np.sqrt(np.mean(apart**2)), np.abs(apart).max()
                    print(
                        f"| {diameter} | {b_angstrom2:g} | {side} | {sampling} | {cut} "
                        f"| {rms:.4f} | {most:.3f} |",
                        flush=True,
                    )


if __name__ == "__main__":
    main()
