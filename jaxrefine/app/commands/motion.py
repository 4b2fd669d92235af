"""The command `motion`: fit the motion of refined particles in their movies."""

import argparse
import logging
from pathlib import Path

from jaxrefine.app.console.exit_codes import EXIT_WRITTEN
from jaxrefine.app.console.interrupts import Stop, stop_on_signals
from jaxrefine.app.console.option_types import add_path_map, positive
from jaxrefine.app.console.output import say

HELP = "fit the motion of refined particles in their movies"

_DESCRIPTION = """\
Fit the shift of each frame at each particle so that the particles of a movie together score
highest, with a prior on velocities and accelerations (the model of RELION's Bayesian
polishing). The particles keep their refined poses. Refine again with the new file as
movie_config.particle_shifts_path.
"""

log = logging.getLogger("jaxrefine")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command line."""
    parser.description = _DESCRIPTION
    parser.add_argument(
        "config", type=Path, metavar="CONFIG.yaml", help="of the refinement"
    )
    parser.add_argument("refined", type=Path, metavar="REFINED.csv", help="its table")
    parser.add_argument(
        "--output",
        type=Path,
        required=True,
        metavar="SHIFTS.csv",
        help="file for particle_index, frame, y_shift, x_shift",
    )
    parser.add_argument(
        "--velocity",
        type=positive,
        default=0.5,
        metavar="SIGMA",
        help="of velocities, in Å per electron/Å² (default 0.5)",
    )
    parser.add_argument(
        "--divergence",
        type=positive,
        default=5000.0,
        metavar="SIGMA",
        help="distance over which velocities are similar, in Å (default 5000)",
    )
    parser.add_argument(
        "--acceleration",
        type=positive,
        default=2.0,
        metavar="SIGMA",
        help="of changes of velocity, in Å per electron/Å² (default 2)",
    )
    parser.add_argument(
        "--reach",
        type=int,
        choices=range(1, 33),
        default=6,
        metavar="PX",
        help="largest change of a shift along y and x, 1 to 32 px (default 6)",
    )
    add_path_map(parser)


def run(options: argparse.Namespace) -> int:
    """Fit, write the shifts, and say what was gained."""
    from jaxrefine.app.config import Config
    from jaxrefine.app.run.devices import use_cpu_cores
    from jaxrefine.app.run.motion_fit import MotionSettings, fit_movies
    from jaxrefine.compilation import use_compilation_cache

    use_cpu_cores()
    config = Config.load(options.config, path_map=tuple(options.map_path))
    use_compilation_cache(config.computational_config.compilation_cache)
    settings = MotionSettings(
        options.velocity, options.divergence, options.acceleration, options.reach
    )
    stop = Stop()
    with stop_on_signals(stop, quiet=options.json_progress):
        for found in fit_movies(config, options.refined, options.output, settings, stop):
            fit = found.fit
            if not fit.converged:
                log.warning("%s: not converged after %d steps", found.path, fit.steps)
            if not options.quiet:
                say(
                    f"{found.path.name}: mean score of {len(found.rows)} particles "
                    f"{fit.correlation_before.mean():.2f}, with the new shifts "
                    f"{fit.correlation_after.mean():.2f}"
                )
    if not options.quiet:
        say(f"written: {options.output}")
    return EXIT_WRITTEN
