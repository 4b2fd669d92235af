"""A run for each of several references, and their comparison."""

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
    """The table of the comparison."""
    return output or config.output_file(table_path(config))


def outputs_of(config: Config, output: Path | None) -> dict[str, Path]:
    """The refined table of each reference: the comparison's name, and the reference's."""
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

    Each run keeps its results beside its own table until the comparison is written, so
    that what is interrupted goes on where it was.

    Args:
        config: Which names several references.
        output: Overrides the configuration's output path.
        quiet: Show no progress.
        json_progress: Log it as events.
        fresh: Delete what an earlier run left, and start over.
        processes: That share the work; the comparison is the first one's.
        said: Is given the name and the summary of each run, in the first process.

    Returns:
        What was found; None in all processes but the first.

    Raises:
        InputError: Before any long work, with every error of all references.
        Stopped: Asked to stop, or a process was lost; what is finished is kept.
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
    """All that each run will check, before the first of them begins."""
    errors = ErrorCollector()
    inputs = []
    for name, one in config.of_references().items():
        with errors, add_error_context(before=f"reference {name}: "):
            inputs += load_run(one, outputs[name]).inputs
    errors.raise_any()
    check_output(whole, [*inputs, *outputs.values()], config.source)
