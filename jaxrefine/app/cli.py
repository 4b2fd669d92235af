"""The command line."""

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import jaxrefine
from jaxrefine.app.stop import EXIT_INTERRUPTED, Stop, Stopped, stop_on_signals
from jaxrefine.data import STATUS_MEANING, InputError, Status

EXIT_WRITTEN, EXIT_OUT_OF_MEMORY, EXIT_FAULTY_INPUT = 0, 1, 2

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

A run that was interrupted, or killed, continues where it was when it is started again:
results are kept in a folder beside the output, OUTPUT.parts, until the table is written.

exit codes: 0 the table was written; 1 out of memory, or a process of several died; 2 faulty
input (every fault is printed, no table was written); 130 interrupted.
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
    # A first word that is no command is a configuration: `jaxrefine config.yaml`.
    if arguments and arguments[0] not in _COMMANDS and not arguments[0].startswith("-"):
        arguments.insert(0, "refine")
    options = _parser().parse_args(arguments)
    _set_up_logging(quiet=options.quiet)
    try:
        options.command(options)
    except InputError as error:
        for fault in error.faults:
            print(f"error: {fault}", file=sys.stderr)
        return EXIT_FAULTY_INPUT
    except (MemoryError, RuntimeError) as error:
        # XLA's own error for too little memory is a RuntimeError with that word.
        if isinstance(error, RuntimeError) and "RESOURCE_EXHAUSTED" not in str(error):
            raise
        print(f"error: out of memory: {error}", file=sys.stderr)
        print("a smaller box, or fewer offsets, need less", file=sys.stderr)
        return EXIT_OUT_OF_MEMORY
    except Stopped as stopped:
        if str(stopped):
            print(stopped, file=sys.stderr)
        return stopped.exit_code
    except KeyboardInterrupt:
        print("interrupted: nothing was written", file=sys.stderr)
        return EXIT_INTERRUPTED
    return EXIT_WRITTEN


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

    refine = commands.add_parser(
        "refine", parents=[common], help="refine particles (the word may be left out)"
    )
    refine.add_argument("config", type=Path, metavar="CONFIG.yaml")
    refine.add_argument(
        "--output",
        type=Path,
        metavar="FILE.csv",
        help="refined table; default: the config's output_path, else <stem>_refined.csv "
        "beside the particle table",
    )
    refine.add_argument(
        "--fresh",
        action="store_true",
        help="delete what an interrupted run has left for this output, and start over",
    )
    several = refine.add_argument_group(
        "several processes, on one or many machines",
        "Each is started with the same command, but for its number. srun's tasks need none "
        "of these.",
    )
    several.add_argument(
        "--coordinator", metavar="HOST:PORT", help="machine of process 0, and a free port"
    )
    several.add_argument("--num-processes", type=int, metavar="N", help="how many")
    several.add_argument(
        "--process-id", type=int, metavar="I", help="number of this one, 0 … N-1"
    )
    refine.set_defaults(command=_refine)

    demo = commands.add_parser(
        "demo", parents=[common], help="make a small data set with known truth"
    )
    demo.add_argument("folder", type=Path, metavar="DIR")
    demo.add_argument("--run", action="store_true", help="refine it and compare with truth")
    demo.add_argument("--seed", type=int, default=0, help="of everything random (0)")
    demo.set_defaults(command=_demo)
    return parser


def _set_up_logging(*, quiet: bool, prefix: str = "") -> None:
    logging.basicConfig(
        level=logging.WARNING, format="%(levelname)s: %(message)s", stream=sys.stderr
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Plain(prefix))
    logger = logging.getLogger("jaxrefine")
    logger.handlers[:] = [handler]
    logger.setLevel(logging.WARNING if quiet else logging.INFO)
    logger.propagate = False


class _Plain(logging.Formatter):
    """The message alone; its level only where it is a warning or worse."""

    def __init__(self, prefix: str):
        super().__init__()
        self._prefix = prefix

    def format(self, record: logging.LogRecord) -> str:
        text = f"{self._prefix}{record.getMessage()}"
        return text if record.levelno < logging.WARNING else f"warning: {text}"


def _refine(options: argparse.Namespace) -> None:
    # Imported late: `--help` and faults of the command line need no JAX.
    from jaxrefine.app.config import Config
    from jaxrefine.app.distributed import joined
    from jaxrefine.app.pipeline import run
    from jaxrefine.app.places import find_place
    from jaxrefine.app.runtime import use_compilation_cache, use_cpu_cores

    place = find_place(
        options.coordinator, options.num_processes, options.process_id, os.environ
    )
    if place is not None and place.index > 0:
        _set_up_logging(quiet=True, prefix=f"process {place.index}: ")
        options.quiet = True
    use_cpu_cores()
    stop = Stop()
    with joined(place, stop) as team, stop_on_signals(stop, quiet=not team.is_first):
        config = team.agree("config", lambda: Config.load(options.config))
        use_compilation_cache(config.computational_config.compilation_cache)
        summary = run(
            config,
            output=options.output,
            quiet=options.quiet,
            fresh=options.fresh,
            team=team,
        )
    if summary is not None and not options.quiet:
        _print_summary(summary)


def _print_summary(summary) -> None:
    earlier = f" ({summary.continued} of them earlier)" if summary.continued else ""
    print(
        f"refined {summary.refined} of {summary.particles} particles in "
        f"{summary.seconds:.1f} s{earlier}\n"
        f"  mean z-score: {summary.mean_z_before:.2f} before, "
        f"{summary.mean_z_after:.2f} after\n"
        f"  mean refined_snr (correlation over the background's deviation): "
        f"{summary.mean_snr:.2f}"
    )
    for status, count in summary.statuses.items():
        if count and status != Status.CONVERGED:
            print(f"  {count} {status.name.lower()}: {STATUS_MEANING[status]}")
    print(f"written: {summary.output}")


def _demo(options: argparse.Namespace) -> None:
    from jaxrefine.app.config import Config
    from jaxrefine.app.demo import compare_with_truth, make_demo
    from jaxrefine.app.distributed import Team
    from jaxrefine.app.pipeline import run
    from jaxrefine.app.runtime import use_compilation_cache, use_cpu_cores

    use_cpu_cores()
    log = logging.getLogger("jaxrefine")
    log.info("making the demo in %s", options.folder)
    make_demo(options.folder, options.seed)
    config_path = options.folder / "config.yaml"
    if not options.run:
        print("made the demo; refine it with:")
        print(f"  {sys.executable} -m jaxrefine {config_path}")
        return
    config = Config.load(config_path)
    use_compilation_cache(config.computational_config.compilation_cache)
    with stop_on_signals(stop := Stop()):
        # Its files are new: what an interrupted demo has left does not fit them.
        summary = run(config, quiet=options.quiet, fresh=True, team=Team(stop))
    if summary is None:
        return
    _print_summary(summary)
    print(compare_with_truth(options.folder, summary.output))


_COMMANDS = ("refine", "demo")
