"""Cost of estimating the template's envelope, relative to a run of 300 particles.

    python benchmarks/envelope_cost.py FOLDER [--particles 128]

The folder holds the real match of `real_data.py`. Processor times of whole runs with a
polish, with compiled programs: without the estimate, and with it. The difference does not
depend on the number of particles.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pandas as pd
import yaml

TABLE, OF = "particles.csv", 300


def processor_seconds(folder: Path, config: dict[str, object], envelope: str) -> float:
    """Of one run, including the start of the program."""
    config = config | {"template_envelope": envelope, "polish": {"enabled": True}}
    (folder / "run.yaml").write_text(yaml.safe_dump(config))
    before = os.times()
    command = [sys.executable, "-m", "jaxrefine", "run.yaml", "--fresh", "-q"]
    subprocess.run(command, cwd=folder, check=True)
    after = os.times()
    return sum(after[2:4]) - sum(before[2:4])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path, help="the match, its template and its maps")
    parser.add_argument("--particles", type=int, default=128)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(shutil.copytree(options.folder, Path(scratch) / "run"))
        config = yaml.safe_load((folder / "bgal_config.yaml").read_text())
        table = pd.read_csv(folder / config["particle_stack"]["df_path"])
        config["particle_stack"]["df_path"] = TABLE
        table.head(24).to_csv(folder / TABLE, index=False)
        start = processor_seconds(folder, config, "auto")  # compiles
        start = processor_seconds(folder, config, "none")
        table.head(options.particles).to_csv(folder / TABLE, index=False)
        without = processor_seconds(folder, config, "none")
        with_it = processor_seconds(folder, config, "auto")
    particle = (without - start) / (options.particles - 24)
    whole = start + (OF - 24) * particle
    print(
        f"a particle: {particle:.2f} s; the estimate: {with_it - without:.0f} s, "
        f"{(with_it - without) / whole:.0%} of a run of {OF} particles ({whole:.0f} s)"
    )


if __name__ == "__main__":
    main()
