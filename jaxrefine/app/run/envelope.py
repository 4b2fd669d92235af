"""The template envelope of a run: as configured, or estimated from its best particles.

It is added to the B factor of every row and thus affects search, polish, standard errors
and score landscapes.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import equinox as eqx
import numpy as np
from jaxtyping import Float, Int

from jaxrefine.app.run.devices import float32_only
from jaxrefine.app.run.inputs import RunInputs
from jaxrefine.data import Particles
from jaxrefine.refine.coordinates import parameter_slices
from jaxrefine.refine.envelope import with_extra_b
from jaxrefine.refine.envelope_fit import EnvelopeFit
from jaxrefine.refine.envelope_study import FIRST_B_ANGSTROM2, EnvelopeStudy
from jaxrefine.refine.polish import Polish
from jaxrefine.refine.refine import refine_within_memory

# Rows of the table, and their particles; all batches have the same length.
Batches = Iterator[tuple[Int[np.ndarray, " n"], Particles]]
Extract = Callable[[RunInputs, Int[np.ndarray, " n"]], Batches]

_FEWEST, _MOST = 20, 40
# Added to the description of a configured envelope, which the run does not test.
_UNTESTED = (
    ", as configured: where the particles fall off faster, standard errors are too small "
    "and the z-scores to expect in other data too high (template_envelope: auto tests it)"
)
_SIGMAS = 2.0  # significance that a B, or a gain, must exceed


@dataclass(frozen=True)
class Envelope:
    """The template envelope of a run.

    Attributes:
        extra_b_angstrom2: B factor that is added to the table's; 0 for none.
        text: Description of the envelope and of the reasons for it.
        expected: Description of the standard errors to expect for the particles from which
            it was estimated; empty if it was not estimated.
    """

    extra_b_angstrom2: float
    text: str
    expected: str = ""


@float32_only()
def find_envelope(inputs: RunInputs, extract: Extract) -> Envelope:
    """Determine the envelope that a run uses.

    Args:
        inputs: The run.
        extract: Extracts the particles of some rows, in batches that fit the devices.
    """
    chosen = inputs.template_envelope
    untested = _UNTESTED if inputs.polish is not None else ""
    if chosen == "none":
        return Envelope(0.0, "template envelope: none, only the table's B" + untested)
    curve = inputs.config.envelope_file
    if curve is not None:
        return Envelope(0.0, f"template envelope: the curve in {curve}{untested}")
    if not isinstance(chosen, str):
        return Envelope(
            float(chosen),
            f"template envelope: {chosen:g} Å² in addition to the table's B{untested}",
        )
    best = _best_rows(inputs)
    if len(best) < _FEWEST:
        return _unchanged(f"{len(best)} particles are too few to estimate it")
    study = _study(inputs, extract, best)
    if study.count < _FEWEST:
        return _unchanged(f"{study.count} readable particles are too few to estimate it")
    found, z_with, errors = study.fit()
    decided = _decide(found, z_with, study.scores(0.0))
    said = _expected(errors, study.polish.parameters, float(z_with.mean()))
    return replace(decided, expected=said)


def use_envelope(
    inputs: RunInputs, extra_b_angstrom2: float | Float[np.ndarray, " n"]
) -> RunInputs:
    """The run with a B factor added to the table's: one for all rows, or one for each."""
    optics = inputs.start.optics
    b = optics.b_factor_angstrom2 + extra_b_angstrom2
    optics = eqx.tree_at(lambda o: o.b_factor_angstrom2, optics, b)
    return replace(inputs, start=replace(inputs.start, optics=optics))


def _unchanged(reason: str) -> Envelope:
    return Envelope(0.0, f"template envelope: none, only the table's B ({reason})")


def _best_rows(inputs: RunInputs) -> Int[np.ndarray, " n"]:
    """Rows with the highest z-scores of their micrographs, in the order of the table.

    Micrographs take turns, because their envelopes may differ.
    """
    refined, matched = (
        inputs.table.numbers(name) for name in ("refined_scaled_mip", "scaled_mip")
    )
    z = np.where(np.isfinite(refined), refined, matched)
    z = np.where(np.isfinite(z), z, -np.inf)
    rank = np.full(len(z), len(z))  # within the micrograph
    for rows in inputs.groups.values():
        rank[rows[np.argsort(-z[rows], kind="stable")]] = np.arange(len(rows))
    return np.sort(np.lexsort((-z, rank))[:_MOST])


def _study(
    inputs: RunInputs, extract: Extract, rows: Int[np.ndarray, " n"]
) -> EnvelopeStudy:
    """Search some particles for an `EnvelopeStudy`."""
    batches, layout = [], inputs.layout
    for _, particles in extract(inputs, rows):
        found, layout = refine_within_memory(
            with_extra_b(particles, FIRST_B_ANGSTROM2),
            inputs.template,
            inputs.grid,
            inputs.score,
            mesh=inputs.mesh,
            layout=layout,
        )
        batches.append((particles, found))
    return EnvelopeStudy(
        batches=batches,
        # Either template gives the same B, and another copy would need more memory.
        template=inputs.smooth_template or inputs.template,
        grid=inputs.grid,
        score=inputs.score,
        polish=inputs.polish or Polish(),
        mesh=inputs.mesh,
    )


def _expected(
    errors: Float[np.ndarray, " p"], parameters: tuple[str, ...], z: float
) -> str:
    """Description of the standard errors to expect, for choosing ranges and steps."""
    at = parameter_slices(parameters)
    words = []
    if "orientation" in at:
        x, y, in_plane = errors[at["orientation"]]
        words += [f"{(x + y) / 2:.2g}° in tilt", f"{in_plane:.2g}° in plane"]
    if "shift" in at:
        words.append(f"{errors[at['shift']].mean():.2g} px in position")
    if "defocus" in at:
        words.append(f"{errors[at['defocus']][0]:.2g} Å in defocus")
    return (
        f"standard errors to expect at z = {z:.1f}: {', '.join(words)}; steps of about one "
        "and ranges of at least two of them, or of a step of the match, fit"
    )


def _decide(
    found: EnvelopeFit,
    z_with: Float[np.ndarray, " n"],
    z_without: Float[np.ndarray, " n"],
) -> Envelope:
    """Decide whether an estimate is used, and describe why."""
    b, sigma = found.extra_b_angstrom2, found.sigma_angstrom2
    gain = z_with - z_without
    error = float(gain.std(ddof=1) / np.sqrt(len(gain)))
    faster = "faster" if b >= 0 else "more slowly"
    said = (
        f"the particles' signal falls off {faster} than template and table predict, by B ≈ "
        f"{abs(b):.0f} ± {sigma:.0f} Å² (cross-validated z of {len(gain)} particles: "
        f"{z_without.mean():.2f} without, {z_with.mean():.2f} with it)"
    )
    if z_with.mean() < _SIGMAS * z_with.std(ddof=1) / np.sqrt(len(gain)):
        return _unchanged("the best particles have no signal to estimate it from")
    if abs(b) < _SIGMAS * sigma:
        return _unchanged(f"{said}: no clear difference")
    if gain.mean() < _SIGMAS * error:
        return _unchanged(f"{said}: no clear gain")
    return Envelope(round(b), f"template envelope: {said}; used for the refinement")
