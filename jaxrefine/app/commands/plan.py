"""`jaxrefine plan CONFIG.yaml`: what a run would do, and how long it would take."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from jaxrefine.app.console.exit_codes import EXIT_WRITTEN
from jaxrefine.app.console.option_types import add_path_map
from jaxrefine.app.console.output import say

if TYPE_CHECKING:
    from jaxrefine.app.config import Config

HELP = "report what a run would do, and how long it would take"

_DESCRIPTION = """\
Makes the same checks as a run, and reports what it would do: particles, correlations,
devices, memory, output, and whether an interrupted run would be resumed. Some particles are
scored at their starting values, as by `jaxrefine check`, and one batch is refined twice to
estimate the time. Nothing is written.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command line."""
    parser.description = _DESCRIPTION
    parser.add_argument("config", type=Path, metavar="CONFIG.yaml")
    parser.add_argument("--output", type=Path, metavar="FILE.csv", help="as for a run")
    add_path_map(parser)
    parser.add_argument("--fresh", action="store_true", help="as for a run")
    parser.add_argument(
        "--no-timing",
        action="store_true",
        help="estimate no time and score nothing: only check the files",
    )


def run(options: argparse.Namespace) -> int:
    """Print what a run would do."""
    from jaxrefine.app.config import Config
    from jaxrefine.app.run.devices import use_cpu_cores
    from jaxrefine.app.run.several import output_of, outputs_of
    from jaxrefine.compilation import use_compilation_cache

    use_cpu_cores()
    config = Config.load(options.config, path_map=tuple(options.map_path))
    use_compilation_cache(config.computational_config.compilation_cache)
    if not config.references:
        _plan(options, config, options.output, timed=not options.no_timing)
        return EXIT_WRITTEN
    outputs = outputs_of(config, options.output)
    for number, (name, one) in enumerate(config.of_references().items()):
        say(f"reference {name}:")
        _plan(options, one, outputs[name], timed=not (number or options.no_timing))
    say(
        f"{len(outputs)} references: each takes this time; the comparison then polishes "
        "every particle twice with each reference"
    )
    say(f"compared in: {output_of(config, options.output)}")
    return EXIT_WRITTEN


def _plan(
    options: argparse.Namespace, config: "Config", output: Path | None, *, timed: bool
) -> None:
    """Print what a run with one template would do."""
    from jaxrefine.app.run.checkpoint import Checkpoint
    from jaxrefine.app.run.convention_check import (
        check_conventions,
        format_check,
        format_problems,
    )
    from jaxrefine.app.run.estimate import (
        calibrate,
        format_memory,
        format_output,
        format_work,
        particles_left,
    )
    from jaxrefine.app.run.inputs import describe, load_run
    from jaxrefine.app.run.particles import read_and_prepare
    from jaxrefine.app.run.pipeline import envelope_of
    from jaxrefine.app.run.results import Results

    inputs = load_run(config, output)
    checkpoint, results = Checkpoint(inputs), Results(inputs)
    if not options.fresh and checkpoint.left_behind():
        results.load(checkpoint, range(len(inputs.groups)))
    say("\n".join(describe(inputs)))
    say(
        "\n".join(format_output(inputs, checkpoint, results, fresh=options.fresh)),
    )
    if timed:
        if inputs.constraint is None:
            found = check_conventions(inputs, read_and_prepare)
            say("\n".join([*format_check(found), *format_problems(found)]))
        envelope = envelope_of(inputs)
        say("\n".join(filter(None, (envelope.text, envelope.expected))))
        say("refining one batch to measure its time (--no-timing skips this)")
    measured = calibrate(inputs) if timed else None
    say("\n".join(format_work(inputs, particles_left(results), measured)))
    say("\n".join(format_memory(inputs)))
