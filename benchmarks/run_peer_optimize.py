"""Run Leopard-EM's optimize_template in this process, and time it.

Run in an environment with Leopard-EM (see run_peer.py), by hand or by calibrate_peer.py:

    python benchmarks/run_peer_optimize.py FOLDER [--threads 2]

FOLDER holds `optimize.yaml` and becomes the current directory. The last line is JSON.
"""

import argparse
import json
import os
import sys
import time
import types
from contextlib import nullcontext
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    os.environ["LEOPARDEM_DISABLE_TORCH_COMPILATION"] = "1"
    os.environ["TQDM_DISABLE"] = "1"

    import torch

    torch.set_num_threads(args.threads)
    if not torch.cuda.is_available():  # it makes CUDA streams on every device
        torch.cuda.Stream = lambda *a, **k: types.SimpleNamespace(synchronize=lambda: None)
        torch.cuda.stream = lambda stream: nullcontext()
    from leopard_em.pydantic_models.managers import OptimizeTemplateManager

    def run_here(target, kwargs_list):
        results = {}
        for rank, kwargs in enumerate(kwargs_list):
            target(results, rank, **kwargs)
        return results

    sys.modules["leopard_em.backend.core_refine_template"].run_multiprocess_jobs = run_here
    os.chdir(args.folder)
    began = time.perf_counter()
    manager = OptimizeTemplateManager.from_yaml("optimize.yaml")
    best = manager.optimize_pixel_size("all_results.csv")
    seconds = time.perf_counter() - began
    tried = Path("all_results.csv").read_text().count("\n")
    print(json.dumps({"pixel_size": best, "seconds": seconds, "tried": tried}))


if __name__ == "__main__":
    main()
