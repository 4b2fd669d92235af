"""`jaxrefine compare A.csv B.csv …`: assign particles to references."""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from jaxrefine.app.console.exit_codes import EXIT_WRITTEN
from jaxrefine.app.console.interrupts import Stop, stop_on_signals
from jaxrefine.app.console.option_types import add_path_map
from jaxrefine.app.console.output import say
from jaxrefine.data import InputError

if TYPE_CHECKING:
    from jaxrefine.app.config import Config

HELP = "assign each particle to the most probable of several references"

_DESCRIPTION = """\
Takes tables of the same particles, refined against different templates, and writes one: for
each particle the row of its most probable reference, and the results with every reference.
The images are needed because references are compared where they differ. --config names the
configuration of each run, in the order of the tables, or one that names all templates.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command line."""
    parser.description = _DESCRIPTION
    parser.add_argument("tables", type=Path, nargs="+", metavar="REFINED.csv")
    parser.add_argument(
        "--config",
        type=Path,
        nargs="+",
        required=True,
        metavar="CONFIG.yaml",
        help="configurations of the runs, in the order of the tables; or one with several "
        "templates",
    )
    parser.add_argument("--output", type=Path, required=True, metavar="FILE.csv")
    parser.add_argument(
        "--priors",
        type=_priors,
        metavar="PRIORS",
        help="equal, estimated, or a number for each table, with commas; default: the "
        "configuration's reference_priors",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an older file")
    add_path_map(parser)


def _priors(text: str) -> str | tuple[float, ...]:
    if text in ("equal", "estimated"):
        return text
    try:
        found = tuple(float(each) for each in text.split(","))
        if all(0 < each < float("inf") for each in found):
            return found
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(
        f"{text!r}: must be equal, estimated, or numbers larger than 0 such as 0.7,0.3"
    )


def run(options: argparse.Namespace) -> int:
    """Compare, and print the number of particles of each reference."""
    from jaxrefine.app.config import Config
    from jaxrefine.app.console.reference_summary import print_references
    from jaxrefine.app.interchange.export_star import refuse_overwriting
    from jaxrefine.app.run.compare import compare
    from jaxrefine.app.run.devices import use_cpu_cores
    from jaxrefine.compilation import use_compilation_cache

    refuse_overwriting(
        options.output, *options.tables, *options.config, overwrite=options.overwrite
    )
    use_cpu_cores()
    path_map = tuple(options.map_path)
    loaded = [Config.load(path, path_map=path_map) for path in options.config]
    configs = configs_by_name(loaded, options.tables)
    use_compilation_cache(loaded[0].computational_config.compilation_cache)
    priors = options.priors or loaded[0].reference_priors
    if not isinstance(priors, str) and len(priors) != len(configs):
        raise InputError(
            f"--priors: {len(priors)} numbers; there are {len(configs)} references"
        )
    stop = Stop()
    with stop_on_signals(stop, quiet=options.json_progress):
        found = compare(
            configs,
            dict(zip(configs, options.tables, strict=True)),
            options.output,
            priors=priors,
            quiet=options.quiet,
            json_progress=options.json_progress,
            stop=stop,
        )
    if not options.quiet:
        say(f"compared {len(configs)} references in {found.seconds:.1f} s")
    print_references(found, quiet=options.quiet, json_progress=options.json_progress)
    return EXIT_WRITTEN


def configs_by_name(
    configs: Sequence["Config"], tables: Sequence[Path]
) -> Mapping[str, "Config"]:
    """The configuration of each table's reference.

    Raises:
        InputError: The number of configurations is wrong, or two have the same name.
    """
    if len(tables) < 2:
        raise InputError("compare: one table; there must be one for each of the references")
    if len(configs) == 1 and configs[0].references:
        found = configs[0].of_references()
        if len(found) == len(tables):
            return found
        raise InputError(
            f"{configs[0].source}: template_volume_path: names {len(found)} references "
            f"({', '.join(found)}), but there are {len(tables)} tables; name one for each"
        )
    if len(configs) != len(tables) or any(config.references for config in configs):
        raise InputError(
            f"--config: {len(configs)} configurations for {len(tables)} tables; name one "
            "for each, in their order, or one that names all templates"
        )
    stems = [Path(config.template_volume_path).stem for config in configs]
    if len(set(stems)) < len(stems):  # for example template.mrc in two folders
        stems = [table.stem for table in tables]
    if len(set(stems)) < len(stems):
        raise InputError("compare: tables of the same name; give each another")
    return dict(zip(stems, configs, strict=True))
