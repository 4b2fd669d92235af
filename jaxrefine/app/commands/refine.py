"""`jaxrefine CONFIG.yaml`: refine particles."""

import argparse
import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from jaxrefine.app.commands.report import need_packages
from jaxrefine.app.commands.shared_run import add_process_options, shared_run
from jaxrefine.app.console.exit_codes import (
    EXIT_NOT_ALL_REFINED,
    EXIT_NOTHING_REFINED,
    EXIT_WRITTEN,
)
from jaxrefine.app.console.logs import keep_warnings
from jaxrefine.app.console.option_types import add_path_map
from jaxrefine.app.console.output import say
from jaxrefine.data import InputError

if TYPE_CHECKING:
    from jaxrefine.app.cluster.process_group import ProcessGroup
    from jaxrefine.app.config import Config
    from jaxrefine.app.run.checkpoint import Checkpoint
    from jaxrefine.app.run.results import Results

log = logging.getLogger("jaxrefine")

HELP = "refine particles (the command may be omitted)"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command line."""
    parser.add_argument("config", type=Path, metavar="CONFIG.yaml")
    parser.add_argument(
        "--output",
        type=Path,
        metavar="FILE.csv",
        help="refined table; default: output_path of the configuration, or "
        "<stem>_refined.csv beside the particle table",
    )
    parser.add_argument(
        "--fresh",
        action="store_true",
        help="delete the checkpoint of an interrupted run of this output first",
    )
    parser.add_argument(
        "--strict",
        action="store_true",
        help="end with code 3 if some particles were not refined (see refined_status); "
        "the table is written in any case",
    )
    parser.add_argument(
        "--report",
        action="store_true",
        help="make an interactive page, <stem>_report/report.html beside the table, and "
        "update it during the run; see `jaxrefine report --help`",
    )
    parser.add_argument(
        "--scores",
        type=Path,
        metavar="FILE.npz",
        help="also write the z-score of every pose that is searched, and what follows for "
        "how well each pose is known; computes much longer than the search",
    )
    parser.add_argument(
        "--scores-particles",
        type=lambda text: [word.strip() for word in text.split(",")],
        metavar="I,J,…",
        help="only of particles with these values of particle_index (all)",
    )
    add_path_map(parser)
    add_process_options(parser)


def run(
    options: argparse.Namespace, prepare: Callable[["Config"], "Config"] | None = None
) -> int:
    """Refine the particles of the configuration, and print a summary.

    Args:
        options: The command line.
        prepare: Converts the configuration to the one that is run.
    """
    from jaxrefine.app.config import Config
    from jaxrefine.app.console.summary import (
        format_fallen,
        format_noise_fitted,
        format_not_refined,
        format_summary,
        print_summary,
    )
    from jaxrefine.app.run.pipeline import run as refine
    from jaxrefine.app.run.record import write_record
    from jaxrefine.app.run.scores import plan_scores, write_scores
    from jaxrefine.compilation import use_compilation_cache

    if options.report:
        need_packages()
    if options.scores_particles is not None and options.scores is None:
        raise InputError("--scores-particles: of what file? name it with --scores")
    with keep_warnings() as warnings, shared_run(options) as processes:

        def load() -> Config:
            config = Config.load(options.config, path_map=tuple(options.map_path))
            if config.constraint is not None and options.report:
                raise InputError("--report: there is no report of a constrained search yet")
            return config if prepare is None else prepare(config)

        config = processes.on_all("config", load)
        use_compilation_cache(config.computational_config.compilation_cache)
        if config.references:
            if options.scores is not None:
                raise InputError(
                    f"--scores: {config.source} names several references; write a "
                    "configuration with the template of the one to be scored"
                )
            return _refine_against_references(options, config, processes, warnings)
        planned = None
        if options.scores is not None:
            planned = processes.on_all(
                "scores",
                lambda: plan_scores(config, options.scores, options.scores_particles),
            )
            log.info("%s", planned.text)
        summary = refine(
            config,
            output=options.output,
            quiet=options.quiet,
            json_progress=options.json_progress,
            fresh=options.fresh,
            processes=processes,
            after_each=_live_page(processes.count) if options.report else None,
        )
        if planned is not None and summary is not None:
            write_scores(planned, summary.output, processes.stop)
    if summary is None:
        return EXIT_WRITTEN
    print_summary(summary, quiet=options.quiet, json_progress=options.json_progress)
    if options.scores is not None and not options.quiet:
        say(f"scores: {options.scores}")
    write_record(summary.output, config, format_summary(summary), warnings)
    if options.report:
        _report(summary.output, config, quiet=options.quiet)
    for line in (
        *format_fallen(summary.fallen),
        *format_noise_fitted(summary.expected),
    ):
        log.warning("%s", line)
    if summary.not_refined:
        log.warning("%s", format_not_refined(summary))
        if not summary.refined:
            return EXIT_NOTHING_REFINED
        if options.strict:
            return EXIT_NOT_ALL_REFINED
    return EXIT_WRITTEN


def _refine_against_references(
    options: argparse.Namespace,
    config: "Config",
    processes: "ProcessGroup",
    warnings: list[str],
) -> int:
    """Run the refinement against each reference, and print their comparison."""
    from jaxrefine.app.console.reference_summary import format_references, print_references
    from jaxrefine.app.console.summary import (
        Summary,
        format_fallen,
        format_not_refined,
        format_summary,
        print_summary,
    )
    from jaxrefine.app.run.record import write_record
    from jaxrefine.app.run.several import refine_against_references

    said: list[str] = []
    quiet, json_progress = options.quiet, options.json_progress

    def print_one(name: str, summary: Summary) -> None:
        said.append(f"reference {name}:")
        said.extend(format_summary(summary))
        if not quiet:
            say(f"reference {name}:")
        print_summary(summary, quiet=quiet, json_progress=json_progress)
        for line in format_fallen(summary.fallen):
            log.warning("reference %s: %s", name, line)
        if summary.not_refined:
            log.warning("reference %s: %s", name, format_not_refined(summary))

    found = refine_against_references(
        config,
        output=options.output,
        quiet=quiet,
        json_progress=json_progress,
        fresh=options.fresh,
        processes=processes,
        said=print_one,
    )
    if found is None:
        return EXIT_WRITTEN
    print_references(found, quiet=quiet, json_progress=json_progress)
    lines = [*said, *format_references(found)]
    write_record(found.output, config, lines, warnings)
    if options.report:
        _report(found.output, config, quiet=quiet)
    if not (sum(found.sure) or found.undecided):
        return EXIT_NOTHING_REFINED
    return EXIT_NOT_ALL_REFINED if found.not_refined and options.strict else EXIT_WRITTEN


def _live_page(processes: int) -> "Callable[[Results, Checkpoint], None]":
    """The function that updates the report during a run."""
    from jaxrefine.app.report.live import LivePage

    return LivePage(shared=processes > 1)


def _report(table: Path, config: "Config", *, quiet: bool) -> None:
    """Write the report of a completed run, and print its path."""
    from jaxrefine.app.report.page import ReportOptions, default_folder, write_report

    options = ReportOptions(config=config, path_map=config.path_map)
    page = write_report(table, default_folder(table), options)
    if not quiet:
        say(f"report: {page}")
