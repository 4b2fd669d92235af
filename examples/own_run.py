"""A run step by step: search, polish, examine the results, and write the table.

pip install '.[report]'
python -m jaxrefine demo DIR
python examples/own_run.py DIR [FIGURE.png]
"""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import yaml
from figure import panels, save

import jaxrefine as jr
from jaxrefine.app.config import Config
from jaxrefine.app.refinement import Refinement

folder = Path(sys.argv[1])

# The demo's configuration with a polish, and a fast search.
path = folder / "config.yaml"
config = yaml.safe_load(path.read_text())
config["polish"] = {"enabled": True}
config["defocus_refinement_config"] |= {"defocus_step": 100.0}
config["orientation_refinement_config"] |= {"psi_step_fine": 0.5, "theta_step_fine": 1.0}
run = Refinement(Config.from_dict(config, str(path)), output=folder / "own_run.csv")

z_before = np.full(len(run), np.nan)
# One particle at a time: micrographs have different numbers of particles, and each number
# would be compiled.
for rows, particles in run.particles(at_once=1):
    z_before[rows], _ = jr.score_particles(particles, run.template, run.score)
    refined = jr.refine_particles(particles, run.template, run.grid, run.score)
    polished = jr.polish_particles(
        particles, refined, run.smooth_template, run.grid, run.score, run.polish
    )
    run.store(rows, refined, polished)
print(f"written: {run.write()}")
table = run.to_pandas()
z = pd.DataFrame(
    {
        "before": z_before,
        "searched": table.grid_scaled_mip,
        "polished": table.refined_scaled_mip,
    }
)
print(z.describe().round(2))

# The truth of each row is the nearest simulated particle.
truth = pd.read_csv(folder / "truth.csv")
both = table.merge(truth, on="micrograph_path", suffixes=("", "_true"))
both = both[np.hypot(both.pos_x - both.pos_x_true, both.pos_y - both.pos_y_true) < 20]

figure, (left, right) = panels(2)
for name, marker in {"before": "ko", "searched": "C1s", "polished": "C0D"}.items():
    left.plot(table.particle_index, z[name], marker, label=name)
left.set(xlabel="particle", ylabel="z-score")
right.plot(both.particle_index, both.relative_defocus_true, "kx", label="truth")
defocus, sigma = both.refined_relative_defocus, both.refined_relative_defocus_sigma
right.errorbar(
    both.particle_index, defocus, sigma, fmt="C0D", capsize=3, label="polished, ± 1 σ"
)
right.set(xlabel="particle", ylabel="relative defocus (Å)")
for axes in (left, right):
    axes.legend()
save(figure, folder / "own_run.png", *sys.argv[2:])
