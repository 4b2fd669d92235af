"""Run Leopard-EM's refine_template in this process and time its parts.

For side-by-side timings. The program's own entry point starts a worker process per device,
whose start-up would be included in the search, and does not run on a CPU. Run by hand in an
environment with Leopard-EM:

    pip install torch==2.13.0
    pip install leopard-em==1.2 torch-motion-correction==0.0.5
    python benchmarks/run_peer.py FOLDER [--threads 1]

FOLDER holds one refine YAML (paths in it are relative to the folder) and becomes the
current directory. The refined CSV is written into it, as ``peer_refined.csv`` unless
``--output`` says otherwise.
"""

import argparse
import json
import os
import statistics
import sys
import time
import types
from contextlib import nullcontext
from pathlib import Path


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--yaml", help="file name; needed if the folder holds several")
    parser.add_argument("--output", default="peer_refined.csv")
    parser.add_argument("--device", default="cpu", help="cpu or cuda:N")
    parser.add_argument("--threads", type=int, help="torch threads; default: torch's own")
    parser.add_argument("--batch-size", type=int, default=32, help="the peer's default")
    parser.add_argument("--repeat", type=int, default=1, help="searches; median counts")
    parser.add_argument("--compile", action="store_true", help="let the peer compile")
    parser.add_argument("--progress", action="store_true", help="show its bars")
    return parser.parse_args()


def the_yaml(folder: Path, name: str | None) -> Path:
    found = [folder / name] if name else sorted(folder.glob("*.y*ml"))
    if len(found) != 1 or not found[0].is_file():
        raise SystemExit(f"{folder}: one YAML expected, found {[f.name for f in found]}")
    return found[0].resolve()


def make_arrays_writable() -> None:
    """Let pandas 3 return arrays as pandas 2 did; with movies the peer writes into them."""
    import numpy as np
    import pandas as pd

    for kind in (pd.Series, pd.DataFrame):

        def writable(self, *args, _of=kind.to_numpy, **more):
            return np.array(_of(self, *args, **more))

        kind.to_numpy = writable


def main() -> None:
    args = arguments()
    yaml_path = the_yaml(args.folder, args.yaml)
    if not args.compile:
        os.environ["LEOPARDEM_DISABLE_TORCH_COMPILATION"] = "1"
    if not args.progress:
        os.environ["TQDM_DISABLE"] = "1"

    started = time.perf_counter()
    import torch

    if args.threads:
        torch.set_num_threads(args.threads)
    if not torch.cuda.is_available():
        # refine makes CUDA streams on every device
        torch.cuda.Stream = lambda *a, **k: types.SimpleNamespace(synchronize=lambda: None)
        torch.cuda.stream = lambda stream: nullcontext()

    make_arrays_writable()
    from leopard_em.pydantic_models.managers import RefineTemplateManager

    imported = time.perf_counter()

    def run_here(target, kwargs_list):
        results = {}
        for rank, kwargs in enumerate(kwargs_list):
            target(results, rank, **kwargs)
        return results

    # (the package re-exports a function of the module's own name)
    core = sys.modules["leopard_em.backend.core_refine_template"]
    core.run_multiprocess_jobs = run_here

    def synchronize():
        if torch.cuda.is_available():
            torch.cuda.synchronize()

    os.chdir(yaml_path.parent)
    manager = RefineTemplateManager.from_yaml(yaml_path)
    manager.computational_config.gpu_ids = args.device
    backend_kwargs = manager.make_backend_core_function_kwargs()
    synchronize()
    prepared = time.perf_counter()

    searches = []
    for _ in range(args.repeat):
        begin = time.perf_counter()
        result = manager.get_refine_result(backend_kwargs, args.batch_size)
        synchronize()
        searches.append(time.perf_counter() - begin)
    searched = time.perf_counter()

    manager.refine_result_to_dataframe(args.output, result)
    written = time.perf_counter()

    particles = backend_kwargs["particle_stack_dft"].shape[0]
    grid = [
        len(backend_kwargs[name])
        for name in ("euler_angle_offsets", "defocus_offsets", "pixel_size_offsets")
    ]
    search = statistics.median(searches)
    correlations = particles * grid[0] * grid[1] * grid[2]
    report = {
        "device": args.device,
        "torch_threads": torch.get_num_threads(),
        "particles": particles,
        "grid": grid,
        "import_s": imported - started,
        "preparation_s": prepared - imported,
        "search_s": search,
        "all_searches_s": searches,
        "write_s": written - searched,
        "total_s": prepared - started + search + written - searched,
        "ms_per_correlation": 1e3 * search / correlations,
    }
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
