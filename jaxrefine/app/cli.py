"""The command line."""

import argparse
import difflib
import logging
import sys
from collections.abc import Collection, Sequence
from pathlib import Path

import jaxrefine
from jaxrefine.app.commands import (
    bias,
    calibrate,
    check,
    compare,
    constrained,
    demo,
    export,
    import_star,
    init,
    join,
    motion,
    plan,
    refine,
    report,
    select,
    selftest,
    template,
)
from jaxrefine.app.console.exit_codes import (
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    EXIT_INVALID_INPUT,
)
from jaxrefine.app.console.interrupts import Stopped
from jaxrefine.app.console.logs import set_up_logging
from jaxrefine.app.console.output import flush_output, use_any_characters
from jaxrefine.data import InputError, is_out_of_memory

log = logging.getLogger("jaxrefine")

_COMMANDS = {
    "refine": refine,
    "constrained": constrained,
    "calibrate": calibrate,
    "init": init,
    "plan": plan,
    "check": check,
    "compare": compare,
    "bias": bias,
    "motion": motion,
    "demo": demo,
    "report": report,
    "select": select,
    "join": join,
    "export": export,
    "import": import_star,
    "template": template,
    "selftest": selftest,
}

_DESCRIPTION = """\
Refine 2D template matching (2DTM) particles: search a fine local grid of orientation,
defocus and pixel size around each particle and write the refined particle table.
"""
_EPILOG = """\
examples:
  jaxrefine config.yaml                  refine; the configuration names all inputs
  jaxrefine config.yaml --output out.csv the same, with another output file
  jaxrefine config.yaml --fresh          delete the checkpoint of an interrupted run first
  srun jaxrefine config.yaml             share a run among the tasks of a SLURM job
  jaxrefine constrained config.yaml      look for a partner beside refined particles
  jaxrefine calibrate config.yaml        fit pixel size, tilts, … to all particles together
  jaxrefine init match_results.csv       write a configuration for a particle table
  jaxrefine plan config.yaml             report what a run would do, and its duration
  jaxrefine check config.yaml            compare the particles' z-scores with the table
  jaxrefine compare a_refined.csv b_refined.csv --config a.yaml b.yaml --output both.csv
                                         assign particles to the most probable reference
  jaxrefine bias full_refined.csv omit_refined.csv --config full.yaml omit.yaml --output DIR
                                         measure template bias with a part left out
  jaxrefine motion config.yaml refined.csv --output shifts.csv
                                         fit the motion of particles in their movies
  jaxrefine demo DIR                     simulate a small data set with known truth
  jaxrefine demo DIR --run               simulate, refine, compare with the truth
  jaxrefine report refined.csv           write an interactive report
  jaxrefine select refined.csv --where "refined_scaled_mip > 8" --output kept.csv
                                         keep some of the particles
  jaxrefine join a.csv b.csv --output all.csv
                                         join tables
  jaxrefine export refined.csv --to relion --output refined.star
                                         write the particles for another program
  jaxrefine template model.cif --pixel-size 1.06 --output template.mrc
                                         make a template from an atomic model
  jaxrefine selftest                     compare the results of a device with known answers

A run that was interrupted or killed is resumed when the same command is started again:
a checkpoint beside the output, OUTPUT.parts, holds its results until the table is written.

exit codes: 0 the table was written; 1 out of memory, one of several processes died, or
`check` or `selftest` found something wrong; 2 invalid input (every error is printed, no
table was written); 3 with --strict, the table was written but some particles were not
refined; 4 the table was written, but no particle was refined; 130 interrupted.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program.

    Args:
        arguments: Command line without the program's name; None takes the real one.

    Returns:
        The exit code.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    use_any_characters()
    if not arguments:
        _parser()[0].print_help(sys.stderr)
        return EXIT_INVALID_INPUT
    try:
        return _run(parse(arguments))
    finally:
        flush_output()


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Parse a command line without the program's name; exits if it is invalid."""
    parser, with_value = _parser()
    return parser.parse_args(_command_first(arguments, parser, with_value))


def _run(options: argparse.Namespace) -> int:
    """Run a command; its errors become messages and exit codes."""
    try:
        set_up_logging(
            quiet=options.quiet,
            json_lines=options.json_progress,
            log_file=options.log_file,
        )
        return options.command.run(options)
    except InputError as error:
        for message in error.errors:
            log.error("%s", message)
        return EXIT_INVALID_INPUT
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        log.error("out of memory: %s", error)
        log.error("a smaller box or fewer offsets need less memory")
        return EXIT_FAILED
    except Stopped as stopped:
        if str(stopped):
            log.critical("%s", stopped)
        return stopped.exit_code
    except KeyboardInterrupt:
        log.critical("interrupted")
        return EXIT_INTERRUPTED


def _command_first(
    arguments: Sequence[str], parser: argparse.ArgumentParser, with_value: Collection[str]
) -> list[str]:
    """Move the command, which users may write after options, to the front.

    The first word that is neither an option nor the value of an option is the command. If
    it is not the name of a command, it is a configuration, and the command is `refine`.
    """
    places = [
        place
        for place, word in enumerate(arguments)
        if not word.startswith("-")
        and (not place or arguments[place - 1] not in with_value)
    ]
    if not places:
        return list(arguments)
    word = arguments[places[0]]
    if word not in _COMMANDS:
        meant = difflib.get_close_matches(word, _COMMANDS, 1)
        if meant and not Path(word).exists():
            parser.error(f"{word}: no such file; did you mean {meant[0]!r}?")
        return ["refine", *arguments]
    return [word, *arguments[: places[0]], *arguments[places[0] + 1 :]]


class _CommandParser(argparse.ArgumentParser):
    """A parser that knows which of its options take a value."""

    @property
    def with_value(self) -> set[str]:
        """Names of the options that take a value."""
        options = self._option_string_actions.items()
        return {name for name, action in options if action.nargs != 0}


def _parser() -> tuple[argparse.ArgumentParser, set[str]]:
    """The parser, and the options of all commands that take a value."""
    parser = argparse.ArgumentParser(
        prog="jaxrefine",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--version", action="version", version=f"jaxrefine {jaxrefine.__version__}"
    )
    commands = parser.add_subparsers(
        metavar="CONFIG.yaml | COMMAND", required=True, parser_class=_CommandParser
    )
    common = _CommandParser(add_help=False)
    common.add_argument(
        "-q", "--quiet", action="store_true", help="print warnings and errors only"
    )
    common.add_argument(
        "--log-file",
        type=Path,
        metavar="FILE",
        help="append all messages with their times to this file, including those that -q "
        "suppresses",
    )
    common.add_argument(
        "--json-progress",
        action="store_true",
        help="write progress and messages to standard error as JSON, one object per line, "
        "for workflow managers",
    )
    with_value: set[str] = set()
    for name, command in _COMMANDS.items():
        added = commands.add_parser(name, parents=[common], help=command.HELP)
        command.add_arguments(added)
        added.set_defaults(command=command)
        with_value |= added.with_value
    return parser, with_value
