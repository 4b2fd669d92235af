"""The known confusions of conventions, and their effect on a data set.

Each entry states how to change a table, image or template that was made with another
convention so that it becomes right, and what to tell the user if this helps. Scoring is in
`convention_check`, which tries one confusion at a time.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from jaxrefine.data import Template
from jaxrefine.io.table import StartingValues
from jaxrefine.refine.prepare import Micrograph

_BINNINGS = (2.0, 3.0, 4.0)
# Pixel sizes are tried up to this fraction to both sides.
_PIXEL_SIZE_REACH = 0.12
# Limits of the defocus in electron microscopy of proteins.
_LARGEST_DEFOCUS_ANGSTROM = 100_000.0
_SMALLEST_DEFOCUS_ANGSTROM = 500.0
# The largest extent of a sample along the beam.
_LARGEST_RELATIVE_DEFOCUS_ANGSTROM = 5_000.0


@dataclass(frozen=True, eq=False)
class Sample:
    """Some particles of one micrograph, with everything that their scores depend on.

    Attributes:
        start: Starting values of these particles.
        micrograph: The filtered micrograph, with its maps.
        template: The template.
        template_pixel_size_angstrom: Voxel size of the template, per particle.
        template_follows: Whether that is the pixel size of the table.
    """

    start: StartingValues
    micrograph: Micrograph
    template: Template
    template_pixel_size_angstrom: np.ndarray
    template_follows: bool


@dataclass(frozen=True, eq=False)
class Confusion:
    """One thing that may have been mistaken for another.

    Attributes:
        name: Completes "… z is 11.0 in place of 3.3": "with the contrast inverted".
        remedy: What is wrong in this case, and what to set or change.
        undo: Returns the sample without the confusion; None if it does not apply.
    """

    name: str
    remedy: str
    undo: Callable[[Sample], Sample | None]


def known_confusions(sample: Sample, inverted: bool) -> Iterator[Confusion]:
    """All confusions to try on a sample, except pixel sizes.

    Those that do not apply return None.

    Args:
        sample: The sample as configured.
        inverted: Whether the configuration inverts the contrast.
    """
    yield _contrast(inverted)
    yield from _defocus()
    yield from _optics()
    yield from _positions(sample.micrograph.template_side)
    yield from _angles()


def _contrast(inverted: bool) -> Confusion:
    key = f"invert_contrast: {'false' if inverted else 'true'}"
    return Confusion(
        "with the contrast inverted",
        f"the contrast of template or micrographs is inverted; set `{key}`",
        lambda s: replace(s, micrograph=replace(s.micrograph, image=-s.micrograph.image)),
    )


def _with(change: Callable[[StartingValues], dict[str, Any] | None]):
    """Make an `undo` from a change of the starting values."""

    def undo(sample: Sample) -> Sample | None:
        values = change(sample.start)
        if values is None:
            return None
        return replace(sample, start=replace(sample.start, **values))

    return undo


def _defocus() -> Iterator[Confusion]:
    def times(factor: float, *, relative_too: bool):
        def change(start: StartingValues):
            relative = start.relative_defocus_angstrom[:, None]
            new = relative * factor if relative_too else relative
            changed = (start.defocus_angstrom - relative) * factor + new
            size = np.abs(changed).max(axis=-1)
            sensible = np.median(size) >= _SMALLEST_DEFOCUS_ANGSTROM
            sensible &= size.max() <= _LARGEST_DEFOCUS_ANGSTROM
            if relative_too:  # otherwise it is the same, or already in Å
                largest = np.abs(new).max()
                sensible &= 0 < largest <= _LARGEST_RELATIVE_DEFOCUS_ANGSTROM
            return {"defocus_angstrom": changed} if sensible else None

        return _with(change)

    columns = "defocus_u and defocus_v"
    yield Confusion(
        "with the defocus of the other sign",
        f"underfocus must be positive; change the sign of {columns}",
        _with(lambda s: {"defocus_angstrom": -s.defocus_angstrom}),
    )
    for factor, unit in ((1e4, "µm"), (10.0, "nm")):
        both = f"{columns}, and relative_defocus,"
        for which, too in ((columns, False), (both, True)):
            yield Confusion(
                f"with {'every' if too else 'the'} defocus taken as {unit}",
                f"{which} are in {unit} instead of Å; multiply them by {factor:,.0f}",
                times(factor, relative_too=too),
            )
    yield Confusion(
        "with the relative defocus of the other sign",
        "change the sign of relative_defocus: it is added to defocus_u and defocus_v",
        _with(
            lambda s: (
                {
                    "defocus_angstrom": s.defocus_angstrom
                    - 2 * s.relative_defocus_angstrom[:, None]
                }
                if np.any(s.relative_defocus_angstrom)
                else None
            )
        ),
    )

    def astigmatic(change: Callable[[np.ndarray], np.ndarray]):
        def other(start: StartingValues):
            if np.all(start.defocus_angstrom[:, 0] == start.defocus_angstrom[:, 1]):
                return None
            return {"astigmatism_deg": change(start.astigmatism_deg)}

        return _with(other)

    yield Confusion(
        "with the astigmatism rotated by 90°",
        "exchange defocus_u and defocus_v: astigmatism_angle is the direction of u",
        astigmatic(lambda angle: angle + 90),
    )
    yield Confusion(
        "with the astigmatism's angle of the other sign",
        "change the sign of astigmatism_angle: it is measured from x towards y",
        astigmatic(lambda angle: -angle),
    )


def _optics() -> Iterator[Confusion]:
    def other(name: str, change: Callable[[np.ndarray], np.ndarray | None]):
        def changed(start: StartingValues):
            values = change(np.asarray(getattr(start.optics, name)))
            if values is None:
                return None
            return {"optics": replace(start.optics, **{name: values})}

        return _with(changed)

    yield Confusion(
        "without a phase shift",
        "the images have none; set phase_shift to 0",
        other("phase_shift_deg", lambda x: np.zeros_like(x) if np.any(x) else None),
    )
    yield Confusion(
        "with the phase shift taken as radians",
        "phase_shift is in radians instead of degrees; multiply it by 57.3",
        other(
            "phase_shift_deg",
            lambda x: np.rad2deg(x) if 0 < np.abs(x).max() <= 2 * np.pi else None,
        ),
    )
    yield Confusion(
        "with a phase shift of 90°",
        "the images were taken with a phase plate; set phase_shift to its value in degrees",
        other("phase_shift_deg", lambda x: None if np.any(x) else np.full_like(x, 90.0)),
    )
    for voltage in (300.0, 200.0, 100.0):
        yield Confusion(
            f"with a voltage of {voltage:g} kV",
            f"set voltage to {voltage:g}",
            other(
                "voltage_kv",
                lambda x, v=voltage: None if np.all(x == v) else np.full_like(x, v),
            ),
        )


def _positions(side: int) -> Iterator[Confusion]:
    def moved(change: Callable[[np.ndarray], np.ndarray]):
        return _with(lambda s: {"position_px": np.rint(change(s.position_px))})

    half = side // 2
    yield Confusion(
        "with the positions taken as centres",
        f"pos_x and pos_y are centres; subtract half the template's side from both, {half}",
        moved(lambda p: p - half),
    )
    yield Confusion(
        "with x and y of the positions exchanged",
        "exchange pos_x and pos_y",
        moved(lambda p: p[:, ::-1]),
    )

    def upside_down(sample: Sample) -> Sample:
        y, x = sample.start.position_px.T
        last = sample.micrograph.image.shape[0] - side
        moved = np.stack([last - y, x], axis=-1)
        return replace(sample, start=replace(sample.start, position_px=moved))

    yield Confusion(
        "with y of the positions counted from the other end",
        "y of the positions is counted from the last line of the image, not from its first",
        upside_down,
    )
    for binning in _BINNINGS:
        for factor, verb in ((binning, "multiply"), (1 / binning, "divide")):
            where = "coarser" if factor > 1 else "finer"
            name = f"with the positions of a {binning:g} times {where} binning"
            yield Confusion(
                name,
                f"{verb} pos_x and pos_y by {binning:g}",
                moved(lambda p, f=factor: p * f),
            )
            yield Confusion(
                f"{name}, and as centres",
                f"{verb} pos_x and pos_y by {binning:g}, then subtract half the "
                f"template's side, {half}",
                moved(lambda p, f=factor: p * f - half),
            )
            yield Confusion(
                f"{name}, about their centres",
                f"the centres, pos + {half}, are of another binning: {verb} them by "
                f"{binning:g}, then subtract {half}",
                moved(lambda p, f=factor: (p + half) * f - half),
            )


def _angles() -> Iterator[Confusion]:
    def turned(change: Callable[..., list[np.ndarray]]):
        return _with(lambda s: {"euler_deg": np.stack(change(*s.euler_deg.T), axis=-1)})

    ours = "angles must be intrinsic ZYZ of the rotation from image to volume"
    rewritten: list[tuple[str, str, Callable[..., list[np.ndarray]]]] = [
        (
            "with the rotations transposed",
            "phi, theta, psi = -psi, -theta, -phi",
            lambda a, b, c: [-c, -b, -a],
        ),
        (
            "with phi and psi exchanged",
            "phi, theta, psi = psi, theta, phi",
            lambda a, b, c: [c, b, a],
        ),
        (
            "with the angles taken as ZXZ",
            "phi, theta, psi = phi - 90, theta, psi + 90",
            lambda a, b, c: [a - 90, b, c + 90],
        ),
        (
            "with the angles taken as ZXZ and the rotations transposed",
            "phi, theta, psi = -psi - 90, -theta, 90 - phi",
            lambda a, b, c: [-c - 90, -b, 90 - a],
        ),
        (
            "with psi of the other sign",
            "phi, theta, psi = phi, theta, -psi",
            lambda a, b, c: [a, b, -c],
        ),
        *(
            (
                f"with psi rotated by {turn}°",
                f"phi, theta, psi = phi, theta, psi + {turn}",
                lambda a, b, c, turn=turn: [a, b, c + turn],
            )
            for turn in (90, 180, 270)
        ),
    ]
    for name, formula, change in rewritten:
        yield Confusion(name, f"{ours}; rewrite them: {formula}", turned(change))
    yield Confusion(
        "with the angles taken as radians",
        "phi, theta, psi are in radians instead of degrees; multiply them by 57.3",
        _with(
            lambda s: (
                {"euler_deg": np.rad2deg(s.euler_deg)}
                if np.abs(s.euler_deg).max() <= 2 * np.pi + 0.01
                else None
            )
        ),
    )
    yield Confusion(
        "with the template's mirror image",
        "the template has the other hand (mirror it), or theta has the other sign "
        "(rewrite theta = -theta)",
        turned(lambda a, b, c: [a, -b, c]),
    )


def pixel_sizes(side: int) -> Iterator[Confusion]:
    """Other pixel sizes of the images, and of a template with this side."""
    # At half the radius of the template, a step is half a voxel.
    step = min(0.01, 2 / side)
    count = round(_PIXEL_SIZE_REACH / step)
    near = [1 + step * i for i in range(-count, count + 1) if i]
    for factor in (*(1 / b for b in reversed(_BINNINGS)), *near, *_BINNINGS):

        def of_images(sample: Sample, factor: float = factor) -> Sample:
            start = sample.start
            size = start.pixel_size_angstrom * factor
            voxels = sample.template_pixel_size_angstrom
            return replace(
                sample,
                start=replace(start, pixel_size_angstrom=size),
                template_pixel_size_angstrom=voxels * factor
                if sample.template_follows
                else voxels,
            )

        def of_template(sample: Sample, factor: float = factor) -> Sample:
            voxels = sample.template_pixel_size_angstrom * factor
            return replace(sample, template_pixel_size_angstrom=voxels)

        yield Confusion(
            f"with {factor:.4g} times the pixel size",
            f"pixel_size (and refined_pixel_size) should be about {factor:.4g} times the "
            "table's value",
            of_images,
        )
        yield Confusion(
            f"with template voxels {factor:.4g} times as large",
            "set `template_pixel_size` to the true voxel size of the template: about "
            f"{factor:.4g} times the assumed one",
            of_template,
        )
