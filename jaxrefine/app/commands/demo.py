"""`jaxrefine demo DIR`: a small data set with known truth."""

import argparse
import logging
import sys
from pathlib import Path

from jaxrefine.app.console.exit_codes import EXIT_WRITTEN
from jaxrefine.app.console.interrupts import Stop, stop_on_signals
from jaxrefine.app.console.logs import keep_warnings
from jaxrefine.app.console.option_types import count
from jaxrefine.app.console.output import say

HELP = "simulate a small data set with known truth"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command line."""
    parser.add_argument("folder", type=Path, metavar="DIR")
    parser.add_argument(
        "--run", action="store_true", help="refine it and compare with truth"
    )
    parser.add_argument(
        "--seed", type=count, default=0, help="seed of the random numbers (0)"
    )


def run(options: argparse.Namespace) -> int:
    """Make the data set; with `--run` also refine it."""
    from jaxrefine.app.cluster.process_group import ProcessGroup
    from jaxrefine.app.config import Config
    from jaxrefine.app.console.summary import format_summary, print_summary
    from jaxrefine.app.demo.dataset import compare_with_truth, make_demo
    from jaxrefine.app.run.devices import use_cpu_cores
    from jaxrefine.app.run.pipeline import run as refine
    from jaxrefine.app.run.record import write_record
    from jaxrefine.compilation import use_compilation_cache

    use_cpu_cores()
    log = logging.getLogger("jaxrefine")
    log.info("writing the demo data set to %s", options.folder)
    make_demo(options.folder, options.seed)
    config_path = options.folder / "config.yaml"
    if not options.run:
        say("made the demo; refine it with:")
        say(f"  {sys.executable} -m jaxrefine {config_path}")
        return EXIT_WRITTEN
    config = Config.load(config_path)
    use_compilation_cache(config.computational_config.compilation_cache)
    with keep_warnings() as warnings, stop_on_signals(stop := Stop()):
        # The files are new, so the checkpoint of an interrupted demo is invalid.
        summary = refine(
            config,
            quiet=options.quiet,
            json_progress=options.json_progress,
            fresh=True,
            processes=ProcessGroup(stop),
        )
    if summary is not None:
        print_summary(summary, quiet=False, json_progress=options.json_progress)
        write_record(summary.output, config, format_summary(summary), warnings)
        say(f"{compare_with_truth(options.folder, summary.output)}")
    return EXIT_WRITTEN
