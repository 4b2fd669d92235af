"""`jaxrefine check CONFIG.yaml`: check that particles reach the scores of their table."""

import argparse
from pathlib import Path

from jaxrefine.app.console.exit_codes import EXIT_CHECK_FAILED, EXIT_WRITTEN
from jaxrefine.app.console.option_types import add_path_map
from jaxrefine.app.console.output import say
from jaxrefine.data import InputError

HELP = "score particles at their starting values, and name the convention that is wrong"

_DESCRIPTION = """\
Scores some of the best particles at their starting values. If the z-scores differ from
the table's, common confusions (contrast, units and sign of the defocus, pixel size,
positions, angles, maps …) are tried one at a time, and the one that restores the z-scores
is named. If nothing is wrong, the decay of the particles' signal with frequency is compared
with template and table. Nothing is written. The exit code is 1 if something is wrong.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command line."""
    parser.description = _DESCRIPTION
    parser.add_argument("config", type=Path, metavar="CONFIG.yaml")
    add_path_map(parser)


def run(options: argparse.Namespace) -> int:
    """Print the result of the check."""
    from jaxrefine.app.config import Config
    from jaxrefine.app.run.convention_check import (
        check_conventions,
        format_check,
        format_problems,
    )
    from jaxrefine.app.run.devices import use_cpu_cores
    from jaxrefine.app.run.inputs import load_inputs
    from jaxrefine.app.run.particles import read_and_prepare
    from jaxrefine.app.run.pipeline import envelope_of
    from jaxrefine.compilation import use_compilation_cache

    use_cpu_cores()
    config = Config.load(options.config, path_map=tuple(options.map_path))
    if config.constraint is not None:
        raise InputError(
            f"{options.config}: configures a constrained search, whose table has the "
            "scores of the reference: check the reference's own refinement instead"
        )
    use_compilation_cache(config.computational_config.compilation_cache)
    codes = []
    for name, one in (config.of_references() or {"": config}).items():
        if name:
            say(f"reference {name}:")
        inputs = load_inputs(one)
        found = check_conventions(inputs, read_and_prepare)
        say("\n".join([*format_check(found), *format_problems(found)]))
        codes.append(EXIT_WRITTEN if found.sound else EXIT_CHECK_FAILED)
        if found.sound:
            say("the conventions of the table are right")
            envelope = envelope_of(inputs)
            say("\n".join(filter(None, (envelope.text, envelope.expected))))
    return max(codes)
