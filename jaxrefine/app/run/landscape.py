"""Score landscapes: z-scores around refined particles along one parameter at a time."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxrefine.app.config import Config
from jaxrefine.app.run.devices import float32_only
from jaxrefine.app.run.envelope import use_envelope
from jaxrefine.app.run.inputs import RunInputs, load_inputs
from jaxrefine.app.run.pipeline import particles_of
from jaxrefine.data import InputError, Offsets, Particles, Template
from jaxrefine.refine.differentiable import z_score
from jaxrefine.refine.scoring import Score

# The parameters that are varied one at a time, and their range if it was not searched.
LINES = {"tilt about x": 2.0, "tilt about y": 2.0, "in-plane": 1.5, "defocus": 200.0}
_AXIS = {"tilt about x": 0, "tilt about y": 1, "in-plane": 2}
_POINTS = 41  # points on each line; odd, so that the refined value is one of them
_AT_ONCE = 8


@dataclass(frozen=True, eq=False)
class Landscape:
    """z-scores along lines through the refined values of one particle.

    Attributes:
        row: Row of the table.
        offset: Line -> offsets from the refined value, in degrees or Å.
        z: Line -> z-scores at these offsets.
        z_at_best: z-score at the refined values.
    """

    row: int
    offset: dict[str, Float[np.ndarray, " p"]]
    z: dict[str, Float[np.ndarray, " p"]]
    z_at_best: float


@float32_only()
def landscapes(
    config: Config,
    table: Path,
    rows: Sequence[int],
    shift_px: Float[np.ndarray, "n 2"],
) -> list[Landscape]:
    """Score particles around their refined values.

    Args:
        config: Configuration of the run that refined them; its particle table is not used.
        table: The refined table.
        rows: Rows of the particles.
        shift_px: Sub-pixel shifts (y, x) of all rows' positions.

    Raises:
        InputError: With all errors of the configuration's inputs or the table's images.
    """
    inputs = load_refined(config, table)
    reach = _reach(config)
    offsets = {name: np.linspace(-r, r, _POINTS) for name, r in reach.items()}
    found = {
        row: _landscape(one, template, inputs.score, row, shift_px[row], offsets)
        for row, one, template in each_particle(inputs, rows)
    }
    return [found[row] for row in rows]


def load_refined(config: Config, table: Path) -> RunInputs:
    """Inputs of a run whose starting values are the results of another, with its envelope.

    Args:
        config: Configuration of the run that refined it; its particle table is not used.
        table: The refined table.

    Raises:
        InputError: With all errors.
    """
    stack = replace(config.particle_stack, df_path=str(table.absolute()))
    inputs = load_inputs(replace(config, particle_stack=stack))
    extra_b = np.nan_to_num(inputs.table.numbers("template_envelope_b"))
    return use_envelope(inputs, extra_b)


def each_particle(
    inputs: RunInputs, rows: Sequence[int], *, skip_unreadable: bool = False
) -> Iterator[tuple[int, Particles, Template]]:
    """Iterate over row, particle and template of some rows, on one device.

    Args:
        inputs: From `load_refined`.
        rows: Rows of the particles.
        skip_unreadable: Omit particles whose images cannot be read.

    Raises:
        InputError: Images cannot be read, and `skip_unreadable` is False.
    """
    device = inputs.mesh.devices.flat[0]
    template = jax.device_put(scored_with(inputs), device)
    for files, members in inputs.groups.items():
        chosen = np.intersect1d(members, rows)
        if not len(chosen):
            continue
        try:
            particles = jax.device_put(particles_of(inputs, files, chosen), device)
        except InputError:
            if skip_unreadable:
                continue
            raise
        for row, one in zip(chosen.tolist(), particles, strict=True):
            yield row, one, template


def scored_with(inputs: RunInputs) -> Template:
    """The template to which refined z-scores refer: the polish's, if there was one."""
    return inputs.template if inputs.smooth_template is None else inputs.smooth_template


def _reach(config: Config) -> dict[str, float]:
    """Range of each line to either side: the search range."""
    turn, defocus = config.orientation_refinement_config, config.defocus_refinement_config
    reach = dict(LINES)
    if turn.enabled:
        reach["tilt about x"] = reach["tilt about y"] = turn.theta_step_coarse
        reach["in-plane"] = turn.psi_step_coarse
    if defocus.enabled:
        reach["defocus"] = max(abs(defocus.defocus_min), abs(defocus.defocus_max))
    return {name: value or LINES[name] for name, value in reach.items()}


def _landscape(
    particle: Particles,
    template: Template,
    score: Score,
    row: int,
    shift_px: Float[np.ndarray, " 2"],
    offsets: dict[str, np.ndarray],
) -> Landscape:
    base = Offsets.zeros(len(offsets) * _POINTS)
    turn = np.zeros((len(offsets), _POINTS, 3), np.float32)
    defocus = np.zeros((len(offsets), _POINTS, 2), np.float32)
    for i, (name, values) in enumerate(offsets.items()):
        if name == "defocus":
            defocus[i] = values[:, None]
        else:
            turn[i, :, _AXIS[name]] = values
    all_offsets = replace(
        base,
        rotation_deg=jnp.asarray(turn.reshape(-1, 3)),
        defocus_angstrom=jnp.asarray(defocus.reshape(-1, 2)),
        shift_px=base.shift_px + jnp.asarray(shift_px, jnp.float32),
    )
    z = np.asarray(_scored(all_offsets, particle, template, score))
    z = z.reshape(len(offsets), _POINTS)
    return Landscape(
        row=row,
        offset=offsets,
        z=dict(zip(offsets, z, strict=True)),
        z_at_best=float(z[0, _POINTS // 2]),
    )


@eqx.filter_jit
def _scored(
    offsets: Offsets, particle: Particles, template: Template, score: Score
) -> Float[Array, " p"]:
    return jax.lax.map(
        lambda one: z_score(one, particle, template, score), offsets, batch_size=_AT_ONCE
    )
