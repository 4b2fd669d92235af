"""A run for each of several references, and the comparison of the results."""

import logging
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from jaxrefine.app.cluster.process_group import ProcessGroup
from jaxrefine.app.config import Config
from jaxrefine.app.console.reference_summary import ReferenceSummary
from jaxrefine.app.console.summary import Summary
from jaxrefine.app.run.checkpoint import remove_parts
from jaxrefine.app.run.compare import compare
from jaxrefine.app.run.inputs import load_run
from jaxrefine.app.run.output import check_output
from jaxrefine.app.run.pipeline import run
from jaxrefine.app.run.read import table_path
from jaxrefine.data import ErrorCollector, add_error_context

log = logging.getLogger("jaxrefine")


def output_of(config: Config, output: Path | None) -> Path:
    """Path of the table of the comparison."""
    return output or config.output_file(table_path(config))


def outputs_of(config: Config, output: Path | None) -> dict[str, Path]:
    """Paths of the refined tables, named after the comparison and each reference."""
    whole = output_of(config, output)
    return {
        name: whole.with_name(f"{whole.stem}_{name}{whole.suffix}")
        for name in config.of_references()
    }


def refine_against_references(
    config: Config,
    *,
    output: Path | None = None,
    quiet: bool = False,
    json_progress: bool = False,
    fresh: bool = False,
    processes: ProcessGroup | None = None,
    said: Callable[[str, Summary], None] = lambda name, summary: None,
) -> ReferenceSummary | None:
    """Refine the particles against each reference, then compare.

    Each run keeps its checkpoint until the comparison is written, so that an interrupted
    comparison can be resumed.

    Args:
        config: A configuration with several references.
        output: Overrides the configuration's output path.
        quiet: Show no progress.
        json_progress: Log progress as events.
        fresh: Delete the checkpoints of an earlier run, and start again.
        processes: Processes that share the run; the first one does the comparison.
        said: Called with the name and the summary of each run, in the first process.

    Returns:
        The summary; None in all processes except the first.

    Raises:
        InputError: With all errors of all references, before any long work.
        Stopped: The run was asked to stop, or lost a process; finished results are kept.
    """
    processes = processes or ProcessGroup()
    configs, outputs = config.of_references(), outputs_of(config, output)
    whole = output_of(config, output)
    processes.on_all("references", lambda: _check(config, whole, outputs))
    for number, (name, one) in enumerate(configs.items(), start=1):
        log.info("reference %s, %d of %d", name, number, len(configs))
        summary = run(
            one,
            output=outputs[name],
            quiet=quiet,
            json_progress=json_progress,
            fresh=fresh,
            keep_parts=True,
            processes=processes.for_part(name),
        )
        if summary is not None:
            said(name, summary)
    log.info("comparing %d references", len(configs))
    found = processes.first(
        "compared",
        lambda: {
            **asdict(
                compare(
                    configs,
                    outputs,
                    whole,
                    priors=config.reference_priors,
                    quiet=quiet,
                    json_progress=json_progress,
                    stop=processes.stop,
                )
            ),
            "output": str(whole),
        },
    )
    if not processes.is_first:
        return None
    for path in outputs.values():
        remove_parts(path)
    return ReferenceSummary(**{**found, "output": whole})


def _check(config: Config, whole: Path, outputs: dict[str, Path]) -> None:
    """Do all checks of all runs, before the first of them starts."""
    errors = ErrorCollector()
    inputs = []
    for name, one in config.of_references().items():
        with errors, add_error_context(before=f"reference {name}: "):
            inputs += load_run(one, outputs[name]).inputs
    errors.raise_any()
    check_output(whole, [*inputs, *outputs.values()], config.source)
