"""`jaxrefine constrained CONFIG.yaml`: look for a partner beside refined particles."""

import argparse
import dataclasses
from typing import TYPE_CHECKING

from jaxrefine.app.commands import refine
from jaxrefine.data import InputError

if TYPE_CHECKING:
    from jaxrefine.app.config import Config

HELP = "look for a partner at a known place beside refined particles"

_DESCRIPTION = """\
Looks, beside each refined particle of a reference, for a partner at a known place:
Leopard-EM's constrained_search, from its YAML. The table has a row for each reference: the
partner's best pose, its z-score and p-value, and whether it was found. Beside it come, as
Leopard-EM has them, <stem>_above_threshold.csv with the partners that were found, and
<stem>_parameters.csv.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command line: a refinement's, and the false positives."""
    refine.add_arguments(parser)
    parser.description = _DESCRIPTION
    parser.add_argument(
        "--false-positives",
        type=float,
        metavar="N",
        help="expected per particle, which sets the threshold; default: the config's "
        "false_positives, else 0.005",
    )


def run(options: argparse.Namespace) -> int:
    """Search for the partner, and print what was found."""

    def prepare(config: "Config") -> "Config":
        if config.constraint is None:
            raise InputError(
                f"{options.config}: configures no constrained search: "
                "particle_stack_reference and particle_stack_constrained are missing"
            )
        if options.false_positives is None:
            return config
        try:
            constraint = dataclasses.replace(
                config.constraint, false_positives=options.false_positives
            )
        except InputError as error:
            raise InputError(f"--{each}" for each in error.errors) from None
        return dataclasses.replace(config, constraint=constraint)

    return refine.run(options, prepare)
