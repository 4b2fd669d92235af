"""Two conformations of one structure in one micrograph: assign each particle to one.

Simulates a data set with known truth, writes a configuration with both templates, runs the
program, and compares its result with the truth.

pip install '.[report]'
python examples/two_states.py DIR [FIGURE.png]
"""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import yaml
from figure import panels, save

from jaxrefine import simulate as sim
from jaxrefine.app.cli import main
from jaxrefine.io.mrc import write_image, write_volume

SIDE, PIXEL_SIZE, DEFOCUS, SPACING = 32, 2.0, 6000.0, 48
rng = np.random.default_rng(4)
folder = Path(sys.argv[1])
folder.mkdir(exist_ok=True)

# A structure, and the same with a quarter of it rotated by 25 degrees about a hinge.
closed = sim.random_globule(200, 25.0, rng).blurred(30.0)
xyz = closed.positions_angstrom
arm = xyz[:, 0] > np.quantile(xyz[:, 0], 0.75)
hinge = xyz[arm][xyz[arm, 0].argmin()]
turn = sim.matrix_from_euler(0.0, 25.0, 0.0)
moved = np.where(arm[:, None], (xyz - hinge) @ turn.T + hinge, xyz)
opened = sim.Atoms(moved, closed.weights, closed.b_factor_angstrom2)
states = {"closed": closed, "open": opened}
for name, atoms in states.items():
    volume = sim.potential_volume(atoms, SIDE, PIXEL_SIZE)
    write_volume(folder / f"{name}.mrc", volume, PIXEL_SIZE)

# 36 particles, a third of them open, with realistic strengths.
truth = np.where(np.arange(36) % 3 == 0, "open", "closed")
corners = np.stack(np.divmod(np.arange(36), 6), axis=-1) * SPACING + 8
rotations = sim.random_rotations(36, rng)
shape = (6 * SPACING, 6 * SPACING)
microscope = sim.Microscope()


def micrograph(name, rng):
    some = np.flatnonzero(truth == name)
    particles = [
        sim.SimulatedParticle(
            rotations[i],
            tuple((corners[i] + SIDE // 2 + rng.uniform(-0.5, 0.5, 2)).tolist()),
            (DEFOCUS, DEFOCUS),
            0.0,
            rng.uniform(9, 14),
        )
        for i in some
    ]
    return sim.simulate_micrograph(
        states[name], particles, shape, PIXEL_SIZE, microscope, rng
    )


image = micrograph("closed", rng).image + micrograph("open", rng).signal
write_image(folder / "micrograph.mrc", image.astype(np.float32), PIXEL_SIZE)
maps = (shape[0] - SIDE + 1,) * 2
write_image(folder / "mean.mrc", np.zeros(maps, np.float32), PIXEL_SIZE)
write_image(folder / "deviation.mrc", np.ones(maps, np.float32), PIXEL_SIZE)

# Poses as from a match with one of the two: near the truth, but not exact.
near = np.stack([sim.perturbed_rotation(r, rng, 2.0, 1.5) for r in rotations])
phi, theta, psi = np.stack([sim.euler_from_matrix(r) for r in near]).T
table = pd.DataFrame(
    {
        "pos_x": corners[:, 1] + rng.integers(-1, 2, 36),
        "pos_y": corners[:, 0] + rng.integers(-1, 2, 36),
        **{"phi": phi, "theta": theta, "psi": psi},
        **{"relative_defocus": 0.0, "defocus_u": DEFOCUS, "defocus_v": DEFOCUS},
        **{"astigmatism_angle": 0.0, "pixel_size": PIXEL_SIZE, "phase_shift": 0.0},
        "voltage": microscope.voltage_kv,
        "spherical_aberration": microscope.spherical_aberration_mm,
        "amplitude_contrast_ratio": microscope.amplitude_contrast,
        "ctf_B_factor": microscope.b_factor_angstrom2,
        "micrograph_path": "micrograph.mrc",
        "correlation_average_path": "mean.mrc",
        "correlation_variance_path": "deviation.mrc",
    }
)
table.to_csv(folder / "match_results.csv", index=False)

# The configuration: two templates instead of one.
config = {
    "template_volume_path": {"closed": "closed.mrc", "open": "open.mrc"},
    "particle_stack": {
        "df_path": "match_results.csv",
        "extracted_box_size": [SIDE + 8, SIDE + 8],
        "original_template_size": [SIDE, SIDE],
    },
    "orientation_refinement_config": {
        **{"psi_step_coarse": 2.0, "psi_step_fine": 1.0},
        **{"theta_step_coarse": 3.0, "theta_step_fine": 1.5},
    },
    "defocus_refinement_config": {"enabled": False},
    "template_envelope": "none",
    "statistics": "standard_deviation",
}
(folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))

output = folder / "refined.csv"
if main([str(folder / "config.yaml"), "--output", str(output)]):
    sys.exit("the program found something wrong")
refined = pd.read_csv(output)
right = refined.best_reference == truth
sure = refined.reference_probability >= 0.9
print(f"truth: {np.sum(truth == 'closed')} closed, {np.sum(truth == 'open')} open")
print(
    f"right: {right.sum()} of {len(right)}; of the {sure.sum()} decided {right[sure].sum()}"
)

figure, (left, right_) = panels(2)
for name, marker in (("closed", "C0o"), ("open", "C1s")):
    some = truth == name
    left.plot(
        refined.refined_scaled_mip_closed[some],
        refined.refined_scaled_mip_open[some],
        marker,
        label=f"{name}, in truth",
    )
    right_.hist(
        refined.probability_open[some],
        np.linspace(0, 1, 21),
        color=marker[:2],
        alpha=0.8,
        label=f"{name}, in truth",
    )
lowest, highest = left.get_xlim()
left.plot([lowest, highest], [lowest, highest], "k:", linewidth=0.8)
left.set(xlabel="z-score with closed.mrc", ylabel="z-score with open.mrc")
right_.set(xlabel="probability of open", ylabel="particles")
for axes in (left, right_):
    axes.legend()
save(figure, folder / "two_states.png", *sys.argv[2:])
