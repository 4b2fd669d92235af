"""The command `bias`: measure how much density comes from the template."""

import argparse
from pathlib import Path

from jaxrefine.app.console.exit_codes import EXIT_WRITTEN
from jaxrefine.app.console.option_types import add_path_map
from jaxrefine.app.console.output import say

HELP = "measure template bias in a region that a second template omits"

_DESCRIPTION = """\
Reconstruct a volume at the poses of each of two refined tables of the same particles. The
first was refined against the full template, the second against a template that omits a
part. The bias compares the density of the part in both reconstructions: 0 if it comes from
the images, 1 if it comes from the template alone (Lucas et al., 2023).
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command line."""
    parser.description = _DESCRIPTION
    parser.add_argument("tables", type=Path, nargs=2, metavar="REFINED.csv")
    parser.add_argument(
        "--config",
        type=Path,
        nargs="+",
        required=True,
        metavar="CONFIG.yaml",
        help="of the two runs, the full template's first; or one that names both",
    )
    parser.add_argument(
        "--mask",
        type=Path,
        metavar="MASK.mrc",
        help="volume above 0.5 inside the part; default: where the templates differ",
    )
    parser.add_argument(
        "--output",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder for the reconstructions",
    )
    add_path_map(parser)


def run(options: argparse.Namespace) -> int:
    """Reconstruct and report the bias."""
    from jaxrefine.app.commands.compare import configs_by_name
    from jaxrefine.app.config import Config
    from jaxrefine.app.run.bias import measure_bias
    from jaxrefine.app.run.devices import use_cpu_cores
    from jaxrefine.compilation import use_compilation_cache

    use_cpu_cores()
    path_map = tuple(options.map_path)
    loaded = [Config.load(path, path_map=path_map) for path in options.config]
    configs = configs_by_name(loaded, options.tables)
    use_compilation_cache(loaded[0].computational_config.compilation_cache)
    tables = dict(zip(configs, options.tables, strict=True))
    found = measure_bias(configs, tables, options.output, options.mask)
    say(
        f"template bias: {found.omega:.3f} ± {found.sigma:.3f} over {found.voxels} voxels, "
        f"{found.particles} particles (0: all from the images, 1: all from the template)"
    )
    if not options.quiet:
        for path in found.files:
            say(f"written: {path}")
    return EXIT_WRITTEN
