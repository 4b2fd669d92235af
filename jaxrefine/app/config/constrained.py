"""Constrained search: a partner at a known place beside refined particles.

The keys are those of Leopard-EM's constrained_search, plus some of jaxrefine.
"""

import math
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from jaxrefine.app.config.computing import ComputationalConfig
from jaxrefine.app.config.filters import PreprocessingFiltersConfig
from jaxrefine.app.config.particle_stack import ParticleStackConfig, with_df_path
from jaxrefine.app.config.reproduce import IMPLIED
from jaxrefine.app.config.schema import Rule, Section
from jaxrefine.app.config.search import (
    LARGEST_B_ANGSTROM2,
    MOST_ORIENTATIONS,
    DefocusRefinementConfig,
)

_B_WORDS = "none, or a B in Å² within ±5000"
_FULL_TURN_DEG = 360.0


def _range_rules(axis: str) -> tuple[Rule, ...]:
    low, high, step = f"{axis}_min", f"{axis}_max", f"{axis}_step"
    return (
        *(
            Rule(
                end,
                lambda c, end=end: abs(getattr(c, end)) <= _FULL_TURN_DEG,
                "must be within ±360 degrees",
            )
            for end in (low, high)
        ),
        Rule(
            low,
            lambda c: getattr(c, low) <= getattr(c, high),
            f"must not be larger than {high}, {{{high}}}",
        ),
        Rule(
            step,
            lambda c: getattr(c, step) is None or getattr(c, step) > 0,
            "must be larger than 0 degrees",
        ),
    )


class ConstrainedOrientationConfig(Section):
    """Orientations of the partner, as rotations relative to the reference's.

    In degrees; both ends of a range are searched.

    Attributes:
        enabled: Search; false uses the reference's orientation.
        rotation_axis_euler_angles: Euler angles that rotate the volume's z axis to the axis
            of psi.
        psi_min: First rotation about the axis.
        psi_max: Last rotation about the axis.
        psi_step: Step of psi.
        theta_min: First tilt: a rotation about an axis perpendicular to the first.
        theta_max: Last tilt.
        theta_step: Step of theta.
        phi_min: First direction of the tilt; not for `roll`.
        phi_max: Last direction of the tilt.
        phi_step: Step of phi for `cartesian`; null: 2.5. `uniform` spaces phi like theta.
        base_grid_method: `uniform` and `cartesian`: Euler angles. `roll`: tilts about
            `roll_axis`.
        search_roll_axis: For `roll`: try axes every `roll_step` degrees instead of one.
        roll_axis: x, y of the axis of theta, in the plane perpendicular to the first axis.
        roll_step: Step between the axes that are tried.
    """

    enabled: bool = True
    rotation_axis_euler_angles: Annotated[
        tuple[float, float, float], "three angles, [phi, theta, psi], in degrees"
    ] = (0.0, 0.0, 0.0)
    psi_min: float = 0.0
    psi_max: float = 360.0
    psi_step: float = 1.5
    theta_min: float = 0.0
    theta_max: float = 180.0
    theta_step: float = 2.5
    phi_min: float = 0.0
    phi_max: float = 360.0
    phi_step: float | None = None
    base_grid_method: Annotated[
        Literal["uniform", "cartesian", "roll"],
        "uniform, cartesian or roll; Leopard-EM's healpix and basic do not exist here",
    ] = "uniform"
    search_roll_axis: bool = True
    roll_axis: Annotated[
        tuple[float, float] | None, "an axis as [x, y], two numbers, or null"
    ] = (0.0, 1.0)
    roll_step: float = 2.0

    rules: ClassVar = (
        *_range_rules("psi"),
        *_range_rules("theta"),
        *_range_rules("phi"),
        Rule("roll_step", lambda c: c.roll_step > 0, "must be larger than 0 degrees"),
        Rule(
            "roll_axis",
            lambda c: (
                c.base_grid_method != "roll"
                or c.search_roll_axis
                or (c.roll_axis is not None and any(c.roll_axis))
            ),
            "must be a direction [x, y] other than [0, 0], or search_roll_axis: true",
        ),
        Rule(
            "psi_step",
            lambda c: _orientations_about(c) <= MOST_ORIENTATIONS,
            f"with the other steps makes more than {MOST_ORIENTATIONS:,} orientations; "
            "the ranges must be smaller, or the steps larger",
        ),
    )


def _orientations_about(c: Any) -> float:
    """Number of orientations of a search, within a factor of two."""

    def steps(axis: str, step: float) -> float:
        low, high = getattr(c, f"{axis}_min"), getattr(c, f"{axis}_max")
        return max(high - low, 0.0) / step + 1 if step > 0 else 1.0

    both = steps("psi", c.psi_step) * steps("theta", c.theta_step)
    if c.base_grid_method == "roll":
        rolled = c.search_roll_axis and c.roll_step > 0
        return both * (180.0 / c.roll_step if rolled else 1.0)
    phi_step = c.theta_step if c.base_grid_method == "uniform" else c.phi_step or 2.5
    return both * steps("phi", phi_step)


class ConstrainedConfig(Section):
    """All settings of a constrained search.

    Attributes:
        template_volume_path: The partner, an MRC volume: cubic, of even side.
        particle_stack_reference: The refined particles beside which it is searched.
        particle_stack_constrained: Particles of a match with the partner's template, whose
            statistic maps are used for z-scores.
        center_vector: From the reference's centre to the partner's, x, y, z in Å, in the
            frame of the reference volume.
        reference_template_volume_path: The reference, an MRC volume in the same frame,
            whose density is projected out of the images; null: it stays.
        template_frame: Position of the partner in its volume: `reference`, at its place
            beside the reference, as in Leopard-EM; or `partner`, in the centre.
        defocus_hand: 1: larger z in the image frame means less defocus, as in Leopard-EM;
            -1: more. It depends on the microscope.
        false_positives: Expected false positives per particle, which set the threshold.
        orientation_refinement_config: The orientation search.
        defocus_refinement_config: The defocus search, around the defocus that center_vector
            predicts; Leopard-EM's example calls it `defocus_search_config`.
        preprocessing_filters: Filters of the micrograph.
        computational_config: Devices, memory and threads.
        apply_global_filtering: This and the following keys are as for a refinement.
        fill_defects: Fill defective pixels.
        output_path: The table; null: beside the reference's, as `<stem>_constrained.csv`.
        scoring: `image_ctf` or `template_ctf`.
        ewald: `flat` or `curved`.
        ewald_sign: 1 or -1, as `defocus_hand`.
        template_sampling: `padded`, `cubic` or `trilinear`.
        search: `exhaustive` or `adaptive`.
        statistics: `auto`, `variance` or `standard_deviation`.
        reproduce: `leopard_em`: Leopard-EM's choices and errors, for comparison.
        invert_contrast: Invert the contrast of the images.
        template_pixel_size: Å per voxel of the template; null: each row's pixel_size.
        ignore_aberrations: Search although the tables contain aberrations.
        template_envelope: `none`, or a B factor in Å², added to the table's.
    """

    template_volume_path: Annotated[str, "the path of the partner's volume, an MRC file"]
    particle_stack_reference: ParticleStackConfig
    particle_stack_constrained: ParticleStackConfig
    center_vector: Annotated[
        tuple[float, float, float], "a vector [x, y, z] in Å, three numbers"
    ] = (0.0, 0.0, 0.0)
    reference_template_volume_path: str | None = None
    template_frame: Literal["reference", "partner"] = "reference"
    defocus_hand: int = 1
    false_positives: float = 0.005
    orientation_refinement_config: ConstrainedOrientationConfig = (
        ConstrainedOrientationConfig()
    )
    defocus_refinement_config: DefocusRefinementConfig = DefocusRefinementConfig(
        enabled=False
    )
    preprocessing_filters: PreprocessingFiltersConfig = PreprocessingFiltersConfig()
    computational_config: ComputationalConfig = ComputationalConfig()
    apply_global_filtering: bool = True
    fill_defects: bool = True
    output_path: str | None = None
    scoring: Literal["image_ctf", "template_ctf"] = "image_ctf"
    ewald: Literal["flat", "curved"] = "flat"
    ewald_sign: int = 1
    template_sampling: Literal["padded", "cubic", "trilinear"] = "padded"
    search: Literal["exhaustive", "adaptive"] = "exhaustive"
    statistics: Literal["auto", "variance", "standard_deviation"] = "auto"
    reproduce: Literal["leopard_em"] | None = None
    invert_contrast: bool = False
    template_pixel_size: float | None = None
    ignore_aberrations: bool = False
    template_envelope: Annotated[float | str, _B_WORDS] = "none"

    rules: ClassVar = (
        Rule(
            "template_volume_path",
            lambda c: c.template_volume_path,
            "must be the path of the partner's volume, an MRC file",
        ),
        Rule(
            "output_path",
            lambda c: c.output_path != "",
            "must be a path, or null for <stem>_constrained.csv beside the reference's CSV",
        ),
        Rule(
            "center_vector",
            lambda c: math.hypot(*c.center_vector) <= 10_000,
            "must be at most 10,000 Å long",
        ),
        Rule(
            "reference_template_volume_path",
            lambda c: c.reference_template_volume_path != "",
            "must be the path of the reference's volume, an MRC file, or null",
        ),
        Rule(
            "reference_template_volume_path",
            lambda c: (
                c.reference_template_volume_path is None
                or (c.template_frame == "reference" and c.scoring == "image_ctf")
            ),
            "needs template_frame: reference and scoring: image_ctf",
        ),
        Rule("ewald_sign", lambda c: c.ewald_sign in (1, -1), "must be 1 or -1"),
        Rule("defocus_hand", lambda c: c.defocus_hand in (1, -1), "must be 1 or -1"),
        Rule(
            "false_positives",
            lambda c: 0 < c.false_positives <= 1,
            "must be above 0 and at most 1: false positives expected per particle",
        ),
        Rule(
            "template_pixel_size",
            lambda c: c.template_pixel_size is None or c.template_pixel_size > 0,
            "must be larger than 0 Å per voxel, or null for each row's pixel_size",
        ),
        Rule(
            "template_envelope",
            lambda c: (
                c.template_envelope == "none"
                or (
                    not isinstance(c.template_envelope, str)
                    and abs(c.template_envelope) <= LARGEST_B_ANGSTROM2
                )
            ),
            f"must be {_B_WORDS}",
        ),
        Rule(
            "particle_stack_constrained.original_template_size",
            lambda c: (
                c.template_frame == "partner"
                or c.particle_stack_constrained.original_template_size
                == c.particle_stack_reference.original_template_size
            ),
            "must be the reference's, as the partner's volume lies in the reference's "
            "frame; if the partner is in its middle, set template_frame: partner",
        ),
        Rule(
            "template_frame",
            lambda c: c.template_frame == "reference" or c.reproduce is None,
            "contradicts reproduce: leopard_em, which knows none but reference; "
            "remove one of the two",
        ),
        *(implied.rule for implied in IMPLIED if "." not in implied.key),
    )

    @property
    def stack_key(self) -> str:
        """Key of the sizes at which the partner is searched."""
        of_partner = self.template_frame == "partner"
        return f"particle_stack_{'constrained' if of_partner else 'reference'}"

    @property
    def stack(self) -> ParticleStackConfig:
        """The sizes at which the partner is searched."""
        return getattr(self, self.stack_key)


_STACKS = ("particle_stack_reference", "particle_stack_constrained")


def is_constrained(data: Any) -> bool:
    """Whether plain data configure a constrained search, by keys that only it has."""
    return isinstance(data, Mapping) and any(key in data for key in _STACKS)


def with_our_keys(data: Mapping[str, Any]) -> dict[str, Any]:
    """The data, with Leopard-EM's alternative keys replaced by ours.

    Its example has another name for the defocus search; version 1.3 has particle stacks.
    """
    for section in _STACKS:
        data = with_df_path(data, section)
    theirs, ours = "defocus_search_config", "defocus_refinement_config"
    if ours in data:
        return dict(data)
    return {ours if key == theirs else key: value for key, value in data.items()}
