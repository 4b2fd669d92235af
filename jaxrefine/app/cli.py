"""The command line."""

import argparse
import sys
from collections.abc import Sequence

import jaxrefine
from jaxrefine.app.commands import demo, refine, selftest
from jaxrefine.app.exit_codes import EXIT_BROKEN_OFF, EXIT_FAULTY_INPUT, EXIT_INTERRUPTED
from jaxrefine.app.logs import printable, set_up_logging
from jaxrefine.app.stop import Stopped
from jaxrefine.data import InputError

_COMMANDS = {"refine": refine, "demo": demo, "selftest": selftest}

_DESCRIPTION = """\
Refine 2D template matching (2DTM) particles: search a fine local grid of orientation,
defocus and pixel size around each particle and write the refined particle table.
"""
_EPILOG = """\
examples:
  jaxrefine config.yaml                  refine; the config names all inputs
  jaxrefine config.yaml --output out.csv the same, into another file
  jaxrefine config.yaml --fresh          delete what an interrupted run left, start over
  srun jaxrefine config.yaml             many machines: each task takes its share
  jaxrefine demo DIR                     make a small data set with known truth
  jaxrefine demo DIR --run               make it, refine it, compare with the truth
  jaxrefine selftest                     does this machine's device compute what it should?

A run that was interrupted, or killed, continues where it was when it is started again:
results are kept in a folder beside the output, OUTPUT.parts, until the table is written.

exit codes: 0 the table was written; 1 out of memory, a process of several died, or a check
of selftest failed; 2 faulty input (every fault is printed, no table was written); 3 with
--strict, the table was written but some particles were not refined; 130 interrupted.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program.

    Args:
        arguments: Command line without the program's name; None takes the real one.

    Returns:
        The exit code.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if not arguments:
        _parser().print_help(sys.stderr)
        return EXIT_FAULTY_INPUT
    options = _parser().parse_args(_command_first(arguments))
    set_up_logging(quiet=options.quiet)
    try:
        return options.run(options)
    except InputError as error:
        for fault in error.faults:
            print(f"error: {printable(fault)}", file=sys.stderr)
        return EXIT_FAULTY_INPUT
    except (MemoryError, RuntimeError) as error:
        # XLA's own error for too little memory is a RuntimeError with that word.
        if isinstance(error, RuntimeError) and "RESOURCE_EXHAUSTED" not in str(error):
            raise
        print(f"error: out of memory: {error}", file=sys.stderr)
        print("a smaller box, or fewer offsets, need less", file=sys.stderr)
        return EXIT_BROKEN_OFF
    except Stopped as stopped:
        if str(stopped):
            print(stopped, file=sys.stderr)
        return stopped.exit_code
    except KeyboardInterrupt:
        print("interrupted: nothing was written", file=sys.stderr)
        return EXIT_INTERRUPTED


def _command_first(arguments: list[str]) -> list[str]:
    """A first word that is no command is a configuration: `jaxrefine -q config.yaml`."""
    words = [word for word in arguments if not word.startswith("-")]
    if not words:
        return arguments
    if words[0] not in _COMMANDS:
        return ["refine", *arguments]
    arguments.remove(words[0])
    return [words[0], *arguments]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="jaxrefine",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--version", action="version", version=f"jaxrefine {jaxrefine.__version__}"
    )
    commands = parser.add_subparsers(metavar="CONFIG.yaml | COMMAND", required=True)
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "-q", "--quiet", action="store_true", help="print warnings and errors only"
    )
    for name, command in _COMMANDS.items():
        added = commands.add_parser(name, parents=[common], help=command.HELP)
        command.add_arguments(added)
        added.set_defaults(run=command.run)
    return parser
