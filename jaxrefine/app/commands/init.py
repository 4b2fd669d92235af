"""`jaxrefine init TABLE.csv`: write a first configuration."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from jaxrefine.app.console.exit_codes import EXIT_WRITTEN
from jaxrefine.app.console.output import say
from jaxrefine.data import InputError

if TYPE_CHECKING:
    from jaxrefine.app.config import Config
    from jaxrefine.app.config.starter import ExpectedErrors

HELP = "write a configuration for a particle table"

_DESCRIPTION = """\
Writes a commented configuration for a particle table. From Leopard-EM's match_template
YAML it takes the filters, the search ranges and the template. The steps follow from the
standard errors to expect for the table's best particles; --default-steps uses the
documented defaults, and reads no images.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command line."""
    parser.description = _DESCRIPTION
    parser.add_argument(
        "source",
        type=Path,
        metavar="TABLE.csv | MATCH.yaml",
        help="the particle table; or the match_template YAML that it comes from, together "
        "with the table as --particles",
    )
    parser.add_argument("--particles", type=Path, metavar="TABLE.csv")
    parser.add_argument(
        "--template",
        type=Path,
        metavar="FILE.mrc",
        help="the template; default: the one that the match or the table names",
    )
    parser.add_argument(
        "--default-steps",
        action="store_true",
        help="use the documented steps, and read no images",
    )
    parser.add_argument(
        "--output", type=Path, default=Path("config.yaml"), metavar="FILE.yaml"
    )


def run(options: argparse.Namespace) -> int:
    """Write the configuration, and print what to do next."""
    from jaxrefine.app.config.starter import make_config

    match = None
    particles = options.source
    if options.source.suffix.lower() in (".yaml", ".yml"):
        match, particles = options.source, options.particles
        if particles is None:
            raise InputError(
                f"{match}: a match does not name its particle table; give it with "
                "--particles"
            )
    elif options.particles is not None:
        raise InputError(f"{particles}: is the particle table already; omit --particles")
    lines = make_config(
        options.output,
        particles=particles,
        template=options.template,
        match=match,
        measure=None if options.default_steps else _expected_errors,
    )
    say("\n".join([*lines, f"written: {options.output}"]))
    say(f"next: python -m jaxrefine plan {options.output}")
    return EXIT_WRITTEN


def _expected_errors(config: "Config") -> "ExpectedErrors | None":
    """Expected errors of the table's particles; None if its files cannot be used."""
    from jaxrefine.app.run.devices import use_cpu_cores
    from jaxrefine.app.run.expected_errors import expected_errors
    from jaxrefine.app.run.inputs import load_inputs
    from jaxrefine.compilation import use_compilation_cache

    use_cpu_cores()
    use_compilation_cache(config.computational_config.compilation_cache)
    try:
        return expected_errors(load_inputs(config))
    except InputError as error:
        say(f"the documented steps are used, because of these errors:\n{error}")
        return None
