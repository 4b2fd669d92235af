"""The configuration: all keys with default, unit, meaning and rules.

`Config.load` reads a YAML file, `Config.from_dict` plain data. Both check types and rules
and report all errors in one `InputError`. Constructors check only the rules.
"""

import dataclasses
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import equinox as eqx

from jaxrefine.app.config.calibrate import CalibrateConfig
from jaxrefine.app.config.computing import ComputationalConfig
from jaxrefine.app.config.constrained import (
    ConstrainedConfig,
    is_constrained,
    with_our_keys,
)
from jaxrefine.app.config.filters import PreprocessingFiltersConfig
from jaxrefine.app.config.laser import LaserPhasePlateConfig
from jaxrefine.app.config.movie import MovieConfig
from jaxrefine.app.config.particle_stack import ParticleStackConfig, with_df_path
from jaxrefine.app.config.polish import PolishConfig
from jaxrefine.app.config.references import NamedReference, split_references
from jaxrefine.app.config.reproduce import IMPLIED, with_implied
from jaxrefine.app.config.schema import ConfigError, Rule, Section, structure
from jaxrefine.app.config.search import (
    LARGEST_B_ANGSTROM2,
    DefocusRefinementConfig,
    OrientationRefinementConfig,
    PixelSizeRefinementConfig,
    symmetry_rule,
)
from jaxrefine.app.config.yaml_reader import read_yaml
from jaxrefine.data import InputError
from jaxrefine.io.paths import PathMap

_ENVELOPE_WORDS = (
    "auto, none, a B in Å² within ±5000, or the path of a CSV file (.csv) of spatial "
    "frequency and amplitude factor"
)
_PRIORS_WORDS = "equal, estimated, or a list with a number larger than 0 for each template"


class Config(Section):
    """All settings of a run.

    Choices that `reproduce` implies are already in the other fields. Paths are as in the
    file: see `folder` and `resolve_path`.

    Attributes:
        template_volume_path: The template, an MRC volume: cubic, of even side.
        particle_stack: The particles and the sizes of box and template.
        defocus_refinement_config: The defocus search.
        orientation_refinement_config: The orientation search.
        pixel_size_refinement_config: The pixel size search.
        polish: Optimisation from the best grid point, with standard errors.
        preprocessing_filters: Filters of the micrograph.
        computational_config: Devices, memory and threads.
        apply_global_filtering: True filters the whole micrograph; false each box.
        fill_defects: Fill defective pixels (bands and blocks of one value, NaN, hot and
            dead pixels), remove slopes across the micrograph, and measure the noise without
            defects and strong objects; false: use the image as it is.
        movie_config: Movies, from whose frames particles are summed.
        output_path: The refined table; null: beside the particle CSV, as
            `<stem>_refined.csv`.
        scoring: `image_ctf` applies filter and CTF to the image; `template_ctf` to the
            template's projection, in the template's own box, as Leopard-EM does.
        ewald: `flat`, or `curved`: the defocus of a particle's parts differs by their
            height, so that slices follow the Ewald sphere, at twice the work.
        ewald_sign: 1: larger z in the image frame means less defocus; -1: more. It
            depends on microscope and programs: the right one scores higher.
        laser_phase_plate: A laser phase plate.
        template_sampling: Sampling of slices: `padded`, from a padded and compensated
            volume; `cubic`, the same with cubic splines, which is smoother but slower;
            `trilinear`, from the original volume, as Leopard-EM does.
        search: `exhaustive` continues until no remaining pose can exceed the best;
            `adaptive` evaluates only the most promising ones, which nearly always finds the
            same best, with much less work for large templates.
        statistics: What the correlation_variance maps and column hold: `variance`,
            `standard_deviation`, or `auto`, decided from the table.
        reproduce: `leopard_em` applies Leopard-EM's choices together, for comparison:
            scoring template_ctf, template_sampling trilinear, base_grid_method
            leopard_em, template_envelope none, fill_defects false, and choices without a
            key.
        invert_contrast: Invert the contrast of the images: for micrographs in which
            particles are bright, or templates with negative density.
        symmetry: The template's point group: C1, Cn, Dn, T, O, I (I2) or I1, with its axes
            as in RELION. Refined angles are the equivalent ones nearest to the identity.
        template_pixel_size: Å per voxel of the template; null: each row's pixel_size.
        ignore_aberrations: Refine without the table's beam tilt, Zernike coefficients and
            magnification matrix; they are kept in the table.
        template_envelope: Additional decay of the particles' signal relative to the
            template and the table's ctf_B_factor: a B factor in Å², added to the table's;
            `auto`, estimated from the best particles, and used if they fit better with it
            in data to which they were not fitted; a CSV file of spatial frequency in 1/Å
            and factor on the amplitude; or `none`.
        significance: Also write how often noise alone would score as high: a p-value of
            each particle's search, and a bound on false positives.
        reference_priors: If template_volume_path names several references: the prior
            probability of each. `equal`; `estimated`, the shares of the data set; or a
            number for each, in their order.
        calibrate: The parameters that `jaxrefine calibrate` fits.
        references: The references; empty if there is one template.
        source: Name of the configuration in messages: the path of its file.
        path_map: Folders that have moved, as given by `--map-path`; see `resolve_path`.
        constraint: Settings of a constrained search, in which the partner is refined from
            the pose that the reference's particles predict; None otherwise.
    """

    template_volume_path: Annotated[str, "the path of the template volume, an MRC file"]
    particle_stack: ParticleStackConfig
    defocus_refinement_config: DefocusRefinementConfig = DefocusRefinementConfig()
    orientation_refinement_config: OrientationRefinementConfig = (
        OrientationRefinementConfig()
    )
    pixel_size_refinement_config: PixelSizeRefinementConfig = PixelSizeRefinementConfig()
    polish: PolishConfig = PolishConfig()
    preprocessing_filters: PreprocessingFiltersConfig = PreprocessingFiltersConfig()
    computational_config: ComputationalConfig = ComputationalConfig()
    apply_global_filtering: bool = True
    fill_defects: bool = True
    movie_config: MovieConfig = MovieConfig()
    output_path: str | None = None
    scoring: Literal["image_ctf", "template_ctf"] = "image_ctf"
    ewald: Literal["flat", "curved"] = "flat"
    ewald_sign: int = 1
    laser_phase_plate: LaserPhasePlateConfig = LaserPhasePlateConfig()
    template_sampling: Literal["padded", "cubic", "trilinear"] = "padded"
    search: Literal["exhaustive", "adaptive"] = "exhaustive"
    statistics: Literal["auto", "variance", "standard_deviation"] = "auto"
    reproduce: Literal["leopard_em"] | None = None
    invert_contrast: bool = False
    symmetry: str = "C1"
    template_pixel_size: float | None = None
    ignore_aberrations: bool = False
    template_envelope: Annotated[float | str, _ENVELOPE_WORDS] = "auto"
    significance: bool = False
    reference_priors: Annotated[
        Literal["equal", "estimated"] | tuple[float, ...], _PRIORS_WORDS
    ] = "equal"
    calibrate: CalibrateConfig = CalibrateConfig()
    references: tuple[NamedReference, ...] = eqx.field(
        default=(), static=True, metadata={"key": False}
    )
    source: str = eqx.field(default="config", static=True, metadata={"key": False})
    path_map: PathMap = eqx.field(default=(), static=True, metadata={"key": False})
    constraint: ConstrainedConfig | None = eqx.field(default=None, metadata={"key": False})

    rules: ClassVar = (
        Rule(
            "template_volume_path",
            lambda c: c.template_volume_path,
            "must be the path of the template volume, an MRC file",
        ),
        Rule(
            "output_path",
            lambda c: c.output_path != "",
            "must be a path, or null for <stem>_refined.csv beside the particle CSV",
        ),
        symmetry_rule,
        Rule(
            "template_pixel_size",
            lambda c: c.template_pixel_size is None or c.template_pixel_size > 0,
            "must be larger than 0 Å per voxel, or null for each row's pixel_size",
        ),
        Rule(
            "template_pixel_size",
            lambda c: c.template_pixel_size is None or c.reproduce is None,
            "contradicts reproduce: leopard_em, which never rescales the template; "
            "remove one of the two",
        ),
        Rule("ewald_sign", lambda c: c.ewald_sign in (1, -1), "must be 1 or -1"),
        Rule(
            "ewald",
            lambda c: c.ewald == "flat" or c.reproduce is None,
            "contradicts reproduce: leopard_em, whose slices are flat; remove one of them",
        ),
        Rule(
            "significance",
            lambda c: not c.significance or c.reproduce is None,
            "contradicts reproduce: leopard_em, whose z-scores are not in units of the "
            "noise; remove one of the two",
        ),
        Rule(
            "template_envelope",
            lambda c: (
                abs(c.template_envelope) <= LARGEST_B_ANGSTROM2
                if not isinstance(c.template_envelope, str)
                else c.template_envelope in ("auto", "none") or c.envelope_file
            ),
            f"must be {_ENVELOPE_WORDS}",
        ),
        Rule(
            "reference_priors",
            lambda c: (
                isinstance(c.reference_priors, str)
                or all(prior > 0 for prior in c.reference_priors)
            ),
            f"must be {_PRIORS_WORDS}",
        ),
        *(implied.rule for implied in IMPLIED),
    )

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, path_map: PathMap = ()) -> "Config":
        """Read a YAML file.

        Args:
            path: The file.
            path_map: Folders that have moved: (OLD, NEW).

        Raises:
            InputError: With all errors of the file.
        """
        data, errors = read_yaml(path)
        if isinstance(data, dict) and "match_template_result" in data:
            raise InputError(
                f"{path}: configures match_template; `jaxrefine init {path} --particles "
                "TABLE.csv` makes a configuration to refine its particles"
            )
        if isinstance(data, dict) and "pixel_size_coarse_search" in data:
            raise InputError(
                f"{path}: configures optimize_template; `jaxrefine calibrate {path}` runs "
                "it"
            )
        config = _build(data, os.fspath(path), errors)
        return dataclasses.replace(config, path_map=tuple(path_map))

    @classmethod
    def from_dict(cls, data: Any, source: str = "config") -> "Config":
        """Make a configuration from plain data, nested like the YAML file.

        Args:
            data: Mappings, lists and scalars.
            source: Name of the data in messages; if it is a path, `folder` is its folder.

        Raises:
            InputError: With all errors of the data.
        """
        return _build(data, source)

    @property
    def envelope_file(self) -> str | None:
        """The file of the template's envelope, as named in the configuration."""
        named = self.template_envelope
        is_file = isinstance(named, str) and named.lower().endswith(".csv")
        return str(named) if is_file else None

    @property
    def folder(self) -> Path:
        """The folder of the YAML file, to which relative paths may refer."""
        return Path(self.source).absolute().parent

    def of_references(self) -> "dict[str, Config]":
        """The configuration of each reference, as if it were the only template."""
        return {
            each.name: dataclasses.replace(
                self,
                template_volume_path=each.template_volume_path,
                template_pixel_size=each.template_pixel_size,
                references=(),
            )
            for each in self.references
        }

    def output_file(self, table: Path) -> Path:
        """Path of the refined table.

        Args:
            table: The resolved path of the particle table.

        Returns:
            `output_path`, relative to the current directory; by default
            `<stem>_refined.csv` beside the particle table (`<stem>_constrained.csv` for a
            constrained search).
        """
        if self.output_path is None:
            done = "refined" if self.constraint is None else "constrained"
            return table.with_name(f"{table.stem}_{done}.csv")
        return Path(os.path.expandvars(os.path.expanduser(self.output_path)))

    @property
    def stack_key(self) -> str:
        """Name in the file of the section with `particle_stack`'s sizes."""
        return "particle_stack" if self.constraint is None else self.constraint.stack_key


def _build(data: Any, source: str, earlier: Iterable[ConfigError] = ()) -> Config:
    if is_constrained(data):
        return _build_constrained(data, source, earlier)
    data, references, errors = split_references(data)
    data = with_implied(with_df_path(data))
    config = structure(Config, data, source, [*earlier, *errors])
    priors = config.reference_priors
    if not isinstance(priors, str) and len(priors) != max(len(references), 1):
        raise InputError(
            f"{source}: reference_priors: {list(priors)} — must be {_PRIORS_WORDS}; "
            f"template_volume_path names {len(references) or 'one'}"
        )
    return dataclasses.replace(config, source=source, references=references)


def _build_constrained(
    data: Any, source: str, earlier: Iterable[ConfigError] = ()
) -> Config:
    """The refinement of a partner that is equivalent to a constrained search."""
    data = with_implied(with_our_keys(data), below=False)
    constraint = structure(ConstrainedConfig, data, source, earlier)
    orientations = OrientationRefinementConfig(
        enabled=False,  # `constraint` has its own orientation search
        base_grid_method="uniform" if constraint.reproduce is None else "leopard_em",
    )
    reference = constraint.particle_stack_reference
    own = {"orientation_refinement_config"}
    shared = {field.name for field in dataclasses.fields(ConstrainedConfig)} - own
    shared &= {field.name for field in dataclasses.fields(Config)}
    return Config(
        particle_stack=dataclasses.replace(constraint.stack, df_path=reference.df_path),
        orientation_refinement_config=orientations,
        constraint=constraint,
        source=source,
        **{name: getattr(constraint, name) for name in shared},
    )
