"""Signal that flat slices lose, and that slices on the Ewald sphere keep.

Particles whose parts are imaged at the defocus of their own height, without noise, are
scored at their true poses with slices that are flat, curved, and curved the wrong way. The
scores are in units of the ideal matched filter's signal-to-noise ratio in white noise.

    python benchmarks/ewald.py
"""

from dataclasses import replace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from simulated import MICROSCOPE, Structure, large_structure, structures

import jaxrefine as jr
from jaxrefine import simulate as sim

DEFOCUS_ANGSTROM, POSES = 6000.0, 3
SIGNS = {"flat": 0, "curved": 1, "wrong sign": -1}
# Voltage in kV, and B of the particles in addition to their atoms' 20 Å².
IMAGED = ((300.0, 40.0), (300.0, 0.0), (200.0, 40.0), (200.0, 0.0))


def score_of(structure: Structure, voltage_kv: float) -> jr.ImageCTF:
    box = (structure.side + 8, structure.side + 8)
    return jr.ImageCTF.for_particles(
        box,
        structure.side,
        max_defocus_angstrom=DEFOCUS_ANGSTROM,
        voltage_kv=voltage_kv,
        spherical_aberration_mm=MICROSCOPE.spherical_aberration_mm,
        pixel_size_angstrom=structure.pixel_size,
    )


def particle(structure, score, microscope, rotation) -> jr.Particles:
    """A particle without noise, in a box that holds all of its signal."""
    side, shape = max(score.padded_box), score.padded_box
    centre = tuple(
        float((cut - box) // 2 + margin + structure.side // 2)
        for cut, box, margin in zip(shape, score.box, score.margin, strict=True)
    )
    true = sim.SimulatedParticle(rotation, centre, (DEFOCUS_ANGSTROM,) * 2)
    rfft = sim.particle_rfft(structure.atoms, true, shape, structure.pixel_size, microscope)
    ideal = sim.ideal_snr(rfft, np.full(rfft.shape, float(shape[0] * shape[1])), side)

    def single(value):
        return jnp.asarray(value, jnp.float32)

    maps = single(np.zeros(score.positions))
    names = "voltage_kv", "spherical_aberration_mm", "amplitude_contrast"
    names += "phase_shift_deg", "b_factor_angstrom2"
    return jr.Particles(
        alignment=jr.Alignment(
            rotation=single(rotation),
            position_px=single([100.0, 100.0]),
            defocus_angstrom=single([DEFOCUS_ANGSTROM] * 2),
            astigmatism_deg=single(0.0),
            pixel_size_angstrom=single(structure.pixel_size),
        ),
        optics=jr.Optics(*(single(getattr(microscope, name)) for name in names)),
        template_pixel_size_angstrom=single(structure.pixel_size),
        image=single(np.fft.irfft2(rfft / ideal, s=shape)),
        filter_image=jnp.ones((shape[0], shape[1] // 2 + 1)),
        filter_template=jnp.ones((score.norm_side, score.norm_side // 2 + 1)),
        corr_mean=maps,
        corr_std=maps + 1,
        background_mean=single(0.0),
        background_std=single(1.0),
        noise_std=single(1.0),
        mean_peaks=jnp.asarray(False),
        valid=jnp.asarray(True),
    )


def main() -> None:
    print(f"| structure | imaged at | {' | '.join(SIGNS)} |")
    print("|---|---|" + "---|" * len(SIGNS))
    z_at = eqx.filter_jit(jr.z_score)
    for structure in (structures()[1], structures()[3], large_structure()):
        side, pixel = structure.side, structure.pixel_size
        volume = sim.potential_volume(structure.atoms, side, pixel)
        template = jr.make_template(volume, "padded")
        for voltage_kv, b in IMAGED:
            microscope = replace(
                MICROSCOPE, voltage_kv=voltage_kv, b_factor_angstrom2=b, ewald_sign=1
            )
            score, found = score_of(structure, voltage_kv), {sign: [] for sign in SIGNS}
            for rotation in sim.random_rotations(POSES, np.random.default_rng(5)):
                one = particle(structure, score, microscope, rotation)
                for name, sign in SIGNS.items():
                    signed = replace(score, ewald_sign=sign)
                    found[name].append(z_at(jr.Offsets.zeros(), one, template, signed))
            cells = " | ".join(f"{np.mean(z):.3f}" for z in found.values())
            print(
                f"| {structure.name} | {voltage_kv:.0f} kV, B {b:.0f} Å² | {cells} |",
                flush=True,
            )
        jax.clear_caches()


if __name__ == "__main__":
    main()
