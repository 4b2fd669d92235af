"""Errors of a microscope, estimated from the particles by `jaxrefine calibrate`.

Two simulated micrographs with a stage tilt of 20°, an anisotropic magnification of 1 %, and
a beam tilt of 0.7 mrad, none of which the table contains.

pip install '.[report]'
python examples/calibrate.py DIR [FIGURE.png]
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

SIDE, SIZE, SPACING, PIXEL_SIZE = 24, 304, 72, 2.0
PLACES = np.indices((4, 4)).reshape(2, -1).T * SPACING + 32
TRUE_PIXEL_SIZE, STRETCH, BEAM_TILT, STAGE_TILT_DEG = 2.01, 0.005, (0.6, -0.36), 20.0
TRUTH = {
    "pixel_size": TRUE_PIXEL_SIZE,
    "magnification_yy": STRETCH,
    "magnification_yx": 0.0,
    "beam_tilt_x": BEAM_TILT[0],
    "beam_tilt_y": BEAM_TILT[1],
}
folder = Path(sys.argv[1])
folder.mkdir(parents=True, exist_ok=True)
rng = np.random.default_rng(5)

# The true microscope.
atoms = sim.random_globule(150, 18.0, rng).blurred(30.0)
microscope = sim.Microscope(
    beam_tilt_mrad=BEAM_TILT, mag_matrix=((1 + STRETCH, 0.0), (0.0, 1 - STRETCH))
)
slope = np.tan(np.deg2rad(STAGE_TILT_DEG))  # of the defocus, along y
rows = []
for number in range(2):
    particles = []
    for place in PLACES:
        rotation = sim.random_rotations(1, rng)[0]
        centre = place + SIDE // 2 + rng.uniform(-0.4, 0.4, 2)
        defocus = 4000.0 + 60 * number + slope * (centre[0] - SIZE / 2) * PIXEL_SIZE
        defocus += rng.normal(0, 30)  # in ice of some thickness
        one = sim.SimulatedParticle(rotation, tuple(centre), (defocus, defocus), 0.0, 16.0)
        particles.append(one)
        # As from a match: nearly the right pose.
        phi, theta, psi = sim.euler_from_matrix(
            sim.perturbed_rotation(rotation, rng, 1.5, 1.0)
        )
        rows.append(
            {
                "particle_index": len(rows),
                **{"pos_x": place[1], "pos_y": place[0]},
                **{"phi": phi, "theta": theta, "psi": psi},
                **{"relative_defocus": 0.0, "defocus_u": 4000.0, "defocus_v": 4000.0},
                **{"astigmatism_angle": 0.0, "pixel_size": PIXEL_SIZE, "voltage": 300.0},
                **{"spherical_aberration": 2.7, "amplitude_contrast_ratio": 0.07},
                **{"phase_shift": 0.0, "ctf_B_factor": 0.0},
                "micrograph_path": f"micrograph_{number}.mrc",
                "correlation_average_path": "mean.mrc",
                "correlation_variance_path": "deviation.mrc",
            }
        )
    made = sim.simulate_micrograph(
        atoms, particles, (SIZE, SIZE), TRUE_PIXEL_SIZE, microscope, rng
    )
    write_image(folder / f"micrograph_{number}.mrc", made.image, PIXEL_SIZE)
pd.DataFrame(rows).to_csv(folder / "picks.csv", index=False)
maps = np.zeros((SIZE - SIDE + 1,) * 2, np.float32)
write_image(folder / "mean.mrc", maps, PIXEL_SIZE)
write_image(folder / "deviation.mrc", maps + 1, PIXEL_SIZE)
volume = sim.potential_volume(atoms, SIDE, PIXEL_SIZE)
write_volume(folder / "template.mrc", volume, PIXEL_SIZE)
config = {
    "template_volume_path": "template.mrc",
    "particle_stack": {
        "df_path": "picks.csv",
        "extracted_box_size": [SIDE + 8, SIDE + 8],
        "original_template_size": [SIDE, SIDE],
    },
    "statistics": "standard_deviation",
    "calibrate": {"defocus_sigma": 50.0},
}
(folder / "config.yaml").write_text(yaml.safe_dump(config))

# Fit all parameters.
if main(["calibrate", str(folder / "config.yaml")]):
    sys.exit("calibrate has failed")
found = yaml.safe_load((folder / "picks_calibration.yaml").read_text())

figure, axes = panels(3, height=4.0)
labels, errors = [], []
for entry in found["parameters"]:
    for label, value in entry["values"].items():
        if label in TRUTH and "value" in value:
            labels.append(label)
            sigma = value["standard_error"]
            errors.append([(value[w] - TRUTH[label]) / sigma for w in ("value", "start")])
after, before = np.array(errors).T
axes[0].axvspan(-2, 2, color="0.9", label="± 2 standard errors")
axes[0].plot(before, labels, "C1o", fillstyle="none", label="the table's")
axes[0].plot(after, labels, "C0o", label="calibrated")
axes[0].set(xlabel="error / standard error")

planes = [e for e in found["parameters"] if e["parameter"] == "defocus_plane"]
tilts = [(p["tilt_deg"], p["tilt_standard_error_deg"]) for p in planes]
for number, (tilt, sigma) in enumerate(tilts):
    axes[1].errorbar(number, tilt, sigma, fmt="C0o")
axes[1].axhline(STAGE_TILT_DEG, color="C1", linestyle="--")
axes[1].set(xlabel="micrograph", ylabel="stage tilt (°)", xticks=range(len(tilts)))
axes[1].set(xlim=(-0.5, len(tilts) - 0.5), ylim=(0, 40))

table = pd.read_csv(folder / "picks_calibrated.csv")
table["height"] = table.refined_relative_defocus + (table.defocus_u + table.defocus_v) / 2
edge = np.array([0, SIZE])
for number, (_, some) in enumerate(table.groupby("micrograph_path")):
    color, label = f"C{number}", f"micrograph {number}"
    axes[2].plot(some.pos_y + SIDE // 2, some.height, f"{color}o", label=label)
    plane = 4000 + 60 * number + slope * (edge - SIZE / 2) * PIXEL_SIZE
    axes[2].plot(edge, plane, f"{color}--", label="its true plane")
axes[2].set(xlabel="y (px)", ylabel="defocus of particles (Å)")
axes[2].legend(fontsize="small")
figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper left", ncols=3)
save(figure, folder / "calibrate.png", *sys.argv[2:])
