"""Freeze what Leopard-EM 1.2's constrained_search finds, for tests of ours.

Run by hand, in two steps. In jaxrefine's own environment, from the repository:

    python -m tests.oracles.freeze_constrained make FOLDER

writes a small simulated data set and its configurations into
``tests/data/peer/constrained``, and what the peer needs, MRC files and all, into FOLDER.
Then, in an environment that holds the peer (installed as `freeze_peer.py` says):

    python tests/oracles/freeze_constrained.py run FOLDER

runs its ``ConstrainedSearchManager`` on each configuration, and writes its tables beside
the data.
"""

import os
import shutil
import sys
import types
from contextlib import nullcontext
from pathlib import Path

DATA = Path(__file__).resolve().parents[1] / "data" / "peer" / "constrained"
SEED = 7
CASES = ("uniform", "roll", "roll_search", "defocus")
FALSE_POSITIVES = 0.005

_COMMON = """\
template_volume_path: partner.mrc
particle_stack_reference:  # the refined particles beside which the partner is looked for
  df_path: micrograph_references.csv
  extracted_box_size: [72, 72]
  original_template_size: [64, 64]
particle_stack_constrained:  # of a match with the partner's template: its statistic maps
  df_path: micrograph_partners.csv
  extracted_box_size: [72, 72]
  original_template_size: [64, 64]
center_vector: [28.0, -20.0, 31.0]  # Å, from the reference's centre to the partner's
orientation_refinement_config:
  enabled: true
  rotation_axis_euler_angles: [30.0, 40.0, 0.0]
  psi_step: 2.0
  theta_step: 2.0
  phi_min: 0.0
  phi_max: 0.0
  theta_min: -4.0
  theta_max: 4.0
  psi_min: -8.0
  psi_max: 8.0
  {orientations}
defocus_refinement_config:
  {defocus}
preprocessing_filters:
  whitening_filter:
    enabled: true
    num_freq_bins: null
    max_freq: 0.5
    do_power_spectrum: true
  bandpass_filter:
    enabled: false
computational_config:
  gpu_ids: cpu
  num_cpus: 1
"""
_OFF = "enabled: false"
_UNIFORM = "base_grid_method: uniform\n  search_roll_axis: false"
_ROLL = "base_grid_method: roll\n  search_roll_axis: {search}\n  roll_axis: [0.6, 0.8]\n"
_ROLL += "  roll_step: 45.0"
_SETTINGS = {
    "uniform": {"orientations": _UNIFORM, "defocus": _OFF},
    "roll": {"orientations": _ROLL.format(search="false"), "defocus": _OFF},
    "roll_search": {"orientations": _ROLL.format(search="true"), "defocus": _OFF},
    "defocus": {
        "orientations": _UNIFORM,
        "defocus": "enabled: true\n  defocus_min: -60.0\n  defocus_max: 60.0\n"
        "  defocus_step: 60.0",
    },
}
_EXAMPLE = dict(psi_step=1.0, theta_step=1.0, phi_min=0.0, phi_max=0.0)
_EXAMPLE |= dict(theta_min=-8.0, theta_max=2.0, psi_min=-13.0, psi_max=2.0)
_EXAMPLE |= dict(search_roll_axis=False)
# Of its own example, and: steps that do not divide, ranges of phi, single angles, rolls.
GRIDS = [
    _EXAMPLE,
    _EXAMPLE | dict(rotation_axis_euler_angles=[200.0, 70.0, 0.0]),
    _EXAMPLE | dict(psi_step=2.0, psi_max=2.5, theta_step=3.0),
    _EXAMPLE | dict(phi_min=-20.0, phi_max=20.0, theta_step=2.0, theta_max=4.0),
    _EXAMPLE | dict(phi_max=360.0, theta_min=0.0, theta_max=6.0, psi_min=0.0),
    _EXAMPLE | dict(psi_min=3.0, psi_max=3.0, theta_min=0.0, theta_max=0.0),
    *(
        _EXAMPLE | dict(base_grid_method="roll", roll_axis=axis, psi_step=3.0)
        for axis in ([0.0, 1.0], [1.0, 0.0], [0.6, -0.8], [-0.8, 0.6])
    ),
    _EXAMPLE | dict(base_grid_method="roll", search_roll_axis=True, roll_step=30.0),
    dict(enabled=False),
]


def make(folder: Path) -> None:
    """Simulate, in jaxrefine's environment."""
    import numpy as np

    from tests import partners

    rng = np.random.default_rng(SEED)
    pair = partners.make_pair(rng)
    truth = partners.make_set(DATA, pair, rng)
    partners.write_partner(DATA, pair)
    partners.write_truth(DATA / "truth.json", truth)
    for case in CASES:
        text = _COMMON.format(**_SETTINGS[case])
        (DATA / f"{case}.yaml").write_text(text, encoding="utf-8")
    folder.mkdir(parents=True, exist_ok=True)
    for path in (*DATA.glob("*.yaml"), *DATA.glob("micrograph*.csv")):
        shutil.copy(path, folder)
    partners.unpack(DATA, folder)


def run(folder: Path) -> None:
    """Search, in the peer's environment."""
    os.environ["LEOPARDEM_DISABLE_TORCH_COMPILATION"] = "1"
    os.environ["TQDM_DISABLE"] = "1"
    import torch

    # It makes CUDA streams on every device, and a process for each.
    torch.cuda.Stream = lambda *a, **k: types.SimpleNamespace(synchronize=lambda: None)
    torch.cuda.stream = lambda stream: nullcontext()
    from leopard_em.pydantic_models.managers import ConstrainedSearchManager

    def run_here(target, kwargs_list):
        results = {}
        for rank, kwargs in enumerate(kwargs_list):
            target(results, rank, **kwargs)
        return results

    core = sys.modules["leopard_em.backend.core_refine_template"]
    core.run_multiprocess_jobs = run_here
    os.chdir(folder)
    freeze_grids()
    for case in CASES:
        manager = ConstrainedSearchManager.from_yaml(f"{case}.yaml")
        manager.run_constrained_search(f"{case}_peer.csv", FALSE_POSITIVES, 32)
        for path in folder.glob(f"{case}_peer*.csv"):
            shutil.copy(path, DATA)


def freeze_grids() -> None:
    """Its offsets, about the axis and as they are applied."""
    import json

    import numpy as np
    from leopard_em.pydantic_models.config import ConstrainedOrientationConfig

    arrays = {}
    for number, settings in enumerate(GRIDS):
        # It replaces roll_axis by null where it searches one.
        turned, offsets = ConstrainedOrientationConfig(**settings).euler_angles_offsets
        arrays |= {f"turned_{number}": turned.numpy().astype(np.float32)}
        arrays |= {f"offsets_{number}": offsets.numpy().astype(np.float32)}
    np.savez_compressed(DATA / "grids.npz", settings=json.dumps(GRIDS), **arrays)


if __name__ == "__main__":
    {"make": make, "run": run}[sys.argv[1]](Path(sys.argv[2]).resolve())
