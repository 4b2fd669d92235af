"""`jaxrefine template MODEL.cif`: a template volume from an atomic model."""

import argparse
import logging
from pathlib import Path

from jaxrefine.app.console.exit_codes import EXIT_WRITTEN
from jaxrefine.app.console.interrupts import interrupts_unwind
from jaxrefine.app.console.option_types import even, finite, pixel_size
from jaxrefine.app.console.output import say

HELP = "make a template volume from an atomic model (PDB or mmCIF)"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command line."""
    parser.add_argument("model", type=Path, metavar="MODEL.cif")
    parser.add_argument("--pixel-size", required=True, type=pixel_size, metavar="Å")
    parser.add_argument(
        "--side",
        type=even,
        metavar="PX",
        help="side of the volume, even; default: 1.5 times the model's diameter",
    )
    parser.add_argument("--output", required=True, type=Path, metavar="FILE.mrc")
    parser.add_argument(
        "--b-factor-scale", type=finite, default=1.0, metavar="FACTOR", help="on all B"
    )
    parser.add_argument(
        "--b-factor-add",
        type=finite,
        default=0.0,
        metavar="Å2",
        help="added to all B factors, after scaling",
    )
    parser.add_argument(
        "--exposure",
        type=finite,
        nargs=2,
        metavar=("BEFORE", "AFTER"),
        help="mean radiation damage between two exposures in e/Å2 (Grant & Grigorieff)",
    )
    parser.add_argument("--voltage", type=finite, default=300.0, metavar="KV")
    parser.add_argument(
        "--solvent",
        type=finite,
        default=0.0,
        metavar="VOLT",
        help="potential of the displaced solvent, 3.6 for vitreous ice; default: 0, vacuum",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an older file")


def run(options: argparse.Namespace) -> int:
    """Write the template."""
    from jaxrefine.app.interchange.model_template import make_model_template
    from jaxrefine.compilation import use_compilation_cache

    use_compilation_cache("auto")
    with interrupts_unwind():
        made = make_model_template(
            options.model,
            options.output,
            options.pixel_size,
            options.side,
            b_factor_scale=options.b_factor_scale,
            b_factor_add_angstrom2=options.b_factor_add,
            exposure_e_per_angstrom2=tuple(options.exposure) if options.exposure else None,
            voltage_kv=options.voltage,
            solvent_potential_volt=options.solvent,
            overwrite=options.overwrite,
        )
    for warning in made.warnings:
        logging.getLogger("jaxrefine").warning("%s", warning)
    if not options.quiet:
        waters = f", {made.model.waters} atoms of water left out" * bool(made.model.waters)
        say(
            f"written: {options.output}: {made.side} px at {options.pixel_size:g} Å, of "
            f"{len(made.model.elements)} atoms{waters}"
        )
    return EXIT_WRITTEN
