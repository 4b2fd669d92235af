"""The sections of the search: defocus, pixel size and orientation."""

import re
from typing import Annotated, Any, ClassVar, Literal

from jaxrefine.app.config.schema import Rule, Section

# Larger grids are typing errors: no machine could hold or finish them.
_MOST_OFFSETS = 10_000
_MOST_STEPS = 1_000
MOST_ORIENTATIONS = 10_000_000
# Limit of a template's envelope, beyond which no signal, or only noise, would remain.
LARGEST_B_ANGSTROM2 = 5000.0


_POINT_GROUP = re.compile(r"[CD][1-9][0-9]{0,2}|T|O|I[12]?")

symmetry_rule = Rule(
    "symmetry",
    lambda c: _POINT_GROUP.fullmatch(c.symmetry) is not None,
    "must be a point group: C1, Cn or Dn with n below 1000, T, O, I, I1 or I2",
)


def _range_rules(quantity: str, largest: float) -> tuple[Rule, ...]:
    """A search from `_min` to `_max` in steps of `_step`, in Å, within ±largest."""
    low, high, step = f"{quantity}_min", f"{quantity}_max", f"{quantity}_step"
    return (
        *(
            Rule(
                end,
                lambda c, end=end: abs(getattr(c, end)) <= largest,
                f"must be within ±{largest:g} Å",
            )
            for end in (low, high)
        ),
        Rule(step, lambda c: getattr(c, step) > 0, "must be larger than 0 Å"),
        Rule(
            step,
            lambda c: (
                getattr(c, step) <= 0
                or (getattr(c, high) - getattr(c, low)) / getattr(c, step) <= _MOST_OFFSETS
            ),
            f"makes more than {_MOST_OFFSETS} offsets; must be larger",
        ),
        Rule(
            low,
            lambda c: getattr(c, low) <= getattr(c, high),
            f"must not be larger than {high}, {{{high}}}",
        ),
    )


class DefocusRefinementConfig(Section):
    """The defocus search: offsets from each particle's starting defocus.

    Attributes:
        enabled: Search; false keeps each particle's defocus.
        defocus_min: Smallest offset in Å.
        defocus_max: Largest offset in Å.
        defocus_step: Step in Å, larger than 0.
        skip_enforce_zero: True omits the offset 0 if the steps miss it; false inserts it.
    """

    enabled: bool = True
    defocus_min: float = -100.0
    defocus_max: float = 100.0
    defocus_step: float = 20.0
    skip_enforce_zero: bool = False

    rules: ClassVar = _range_rules("defocus", 1e6)


class PixelSizeRefinementConfig(Section):
    """The pixel size search: offsets from each particle's pixel size.

    Attributes:
        enabled: Search; false keeps each particle's pixel size.
        pixel_size_min: Smallest offset in Å.
        pixel_size_max: Largest offset in Å.
        pixel_size_step: Step in Å, larger than 0.
        skip_enforce_zero: True omits the offset 0 if the steps miss it; false inserts it.
    """

    enabled: bool = False
    pixel_size_min: float = -0.005
    pixel_size_max: float = 0.005
    pixel_size_step: float = 0.001
    skip_enforce_zero: bool = False

    rules: ClassVar = _range_rules("pixel_size", 100.0)


def _axis_rules(axis: str) -> tuple[Rule, ...]:
    coarse, fine = f"{axis}_step_coarse", f"{axis}_step_fine"
    return (
        Rule(
            coarse,
            lambda c: getattr(c, coarse) >= 0,
            "must be larger than 0 degrees, or 0 for an axis that is not searched",
        ),
        Rule(
            fine,
            lambda c: getattr(c, fine) > 0,
            "must be larger than 0 degrees",
        ),
        Rule(
            fine,
            lambda c: (
                getattr(c, fine) <= 0
                or getattr(c, coarse) / getattr(c, fine) <= _MOST_STEPS
            ),
            f"makes more than {_MOST_STEPS} steps to either side; must be larger",
        ),
    )


class OrientationRefinementConfig(Section):
    """The orientation search: a local grid around each particle's orientation.

    The search range of each axis is one coarse step to either side, in whole fine steps (a
    fine step larger than the coarse one leaves only the offset 0); a coarse step of 0 skips
    the axis. All steps are in degrees.

    Attributes:
        enabled: Search; false keeps each particle's orientation.
        psi_step_coarse: Search range of the in-plane rotation.
        psi_step_fine: Step of the in-plane rotation, larger than 0.
        theta_step_coarse: Search range of the tilt; for `uniform` the radius of the disk of
            tilts, in every direction.
        theta_step_fine: Step of the tilt, larger than 0.
        phi_step_coarse: Search range of phi; only `cartesian` has this axis.
        phi_step_fine: Step of phi, larger than 0; only `cartesian` has this axis.
        base_grid_method: `uniform`: a disk of tilts with each in-plane rotation, all
            three axes. `cartesian`: independent phi, theta and psi. `leopard_em`:
            Leopard-EM's own grid, which lacks one tilt axis.
    """

    enabled: bool = True
    psi_step_coarse: float = 1.5
    psi_step_fine: float = 0.1
    theta_step_coarse: float = 2.5
    theta_step_fine: float = 0.25
    phi_step_coarse: float = 2.5
    phi_step_fine: float = 0.25
    base_grid_method: Annotated[
        Literal["uniform", "cartesian", "leopard_em"],
        "uniform (which covers the full three-axis neighbourhood), cartesian or "
        "leopard_em; Leopard-EM's healpix and basic are not available",
    ] = "uniform"

    rules: ClassVar = (
        *_axis_rules("psi"),
        *_axis_rules("theta"),
        *_axis_rules("phi"),
        Rule(
            "psi_step_fine",
            lambda c: _orientations_about(c) <= MOST_ORIENTATIONS,
            f"with the other steps makes more than {MOST_ORIENTATIONS:,} orientations; "
            "some of the fine steps must be larger",
        ),
    )


def _orientations_about(c: Any) -> float:
    """Number of orientations of a search, within a factor of two."""

    def steps(axis: str) -> float:
        fine = getattr(c, f"{axis}_step_fine")
        return (
            2 * max(getattr(c, f"{axis}_step_coarse"), 0.0) / fine + 1 if fine > 0 else 1.0
        )

    second_tilt = "phi" if c.base_grid_method == "cartesian" else "theta"
    return steps("psi") * steps("theta") * steps(second_tilt)
