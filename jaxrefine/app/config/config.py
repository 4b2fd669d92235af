"""The configuration: every key, its default, unit and meaning, and what it must be.

`Config.load` reads a YAML file, `Config.from_dict` plain data; both check types and
rules and report all errors in one `InputError`. Constructors check the rules only.
"""

import dataclasses
import os
from collections.abc import Iterable, Mapping
from operator import attrgetter
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

import equinox as eqx

from jaxrefine.app.config.computing import ComputationalConfig
from jaxrefine.app.config.filters import PreprocessingFiltersConfig
from jaxrefine.app.config.movie import MovieConfig
from jaxrefine.app.config.polish import PolishConfig
from jaxrefine.app.config.schema import ConfigError, Rule, Section, structure
from jaxrefine.app.config.search import (
    DefocusRefinementConfig,
    OrientationRefinementConfig,
    PixelSizeRefinementConfig,
    symmetry_rule,
)
from jaxrefine.app.config.yaml_reader import read_yaml
from jaxrefine.data import InputError
from jaxrefine.io.paths import PathMap

_LARGEST_BOX_PX = 8192


class ParticleStackConfig(Section):
    """The particles, and the sizes they are compared at.

    Attributes:
        df_path: The particle table, a CSV file or a particle stack of Leopard-EM 1.3
            (HDF5), which calls it `hdf5_path`.
        extracted_box_size: Height and width in px of the box cut around each particle;
            even, no smaller than the template (4 to 24 px more is usual). The difference
            is how far a particle's position is searched: without one it is fixed.
        original_template_size: Height and width in px of the template, equal and even;
            the side of the template volume.
    """

    df_path: Annotated[str, "the path of the particle CSV"]
    extracted_box_size: Annotated[
        tuple[int, int], "the box as [height, width] in px, two whole numbers"
    ]
    original_template_size: Annotated[
        tuple[int, int], "the template as [height, width] in px, two whole numbers"
    ]

    # Boxes are cut from the micrographs anew, whatever was done to those of a stack.
    ignored: ClassVar = (
        "leopard_em_version",
        "global_whitening_applied",
        "local_whitening_applied",
        "global_normalization_applied",
        "local_normalization_applied",
        "allow_file_overwrite",
        "image_stack_stored",
        "local_stats_stored",
    )
    rules: ClassVar = (
        Rule("df_path", lambda c: c.df_path, "must be the path of the particle CSV"),
        Rule(
            "original_template_size",
            lambda c: min(c.original_template_size) > 0,
            "both sides must be larger than 0 px",
        ),
        Rule(
            "original_template_size",
            lambda c: all(side % 2 == 0 for side in c.original_template_size),
            "both sides must be even",
        ),
        Rule(
            "original_template_size",
            lambda c: len(set(c.original_template_size)) == 1,
            "must be square: [h, h], h the side of the template volume",
        ),
        Rule(
            "extracted_box_size",
            lambda c: max(c.extracted_box_size) <= _LARGEST_BOX_PX,
            f"both sides must be at most {_LARGEST_BOX_PX} px",
        ),
        Rule(
            "extracted_box_size",
            lambda c: all(side % 2 == 0 for side in c.extracted_box_size),
            "both sides must be even",
        ),
        Rule(
            "extracted_box_size",
            lambda c: all(
                box >= template
                for box, template in zip(
                    c.extracted_box_size, c.original_template_size, strict=True
                )
            ),
            "both sides must be at least the template's, {original_template_size}; 4 to 24 "
            "px more is usual",
        ),
    )


_ENVELOPE_WORDS = "auto, none, or a B in Å² within ±5000"
_LARGEST_B_ANGSTROM2 = 5000.0


class _PresetOverride(NamedTuple):
    """A choice that `reproduce: leopard_em` brings along."""

    key: str
    choice: str | bool
    give_way: tuple[str, ...] = ()  # values that are no choice of the user's own

    @property
    def rule(self) -> Rule:
        return Rule(
            self.key,
            lambda c: c.reproduce is None or attrgetter(self.key)(c) == self.choice,
            f"contradicts reproduce: leopard_em, which needs {str(self.choice).lower()}; "
            "remove one of the two",
        )


_IMPLIED = (
    _PresetOverride("scoring", "template_ctf"),
    _PresetOverride("template_sampling", "trilinear"),
    _PresetOverride("fill_defects", False),
    _PresetOverride("template_envelope", "none", ("auto",)),
    # Leopard-EM calls its own grid uniform.
    _PresetOverride(
        "orientation_refinement_config.base_grid_method", "leopard_em", ("uniform",)
    ),
)


def _with_implied(data: Any) -> Any:
    """The data, with what `reproduce` implies where the user chose nothing else."""
    if not isinstance(data, Mapping) or data.get("reproduce") != "leopard_em":
        return data
    data = dict(data)
    for key, choice, give_way in _IMPLIED:
        parent, _, name = key.rpartition(".")
        section = data
        if parent:
            section = {} if data.get(parent) is None else data[parent]
            if not isinstance(section, Mapping):
                continue
            section = data[parent] = dict(section)
        if name not in section or section[name] in give_way:
            section[name] = choice
    return data


class Config(Section):
    """Everything that a run is told.

    What `reproduce` implies is already in the other fields. Paths are as the file has
    them: see `folder` and `resolve_path`.

    Attributes:
        template_volume_path: The template, an MRC volume: cubic, of even side.
        particle_stack: The particles and the sizes of box and template.
        defocus_refinement_config: The defocus search.
        orientation_refinement_config: The orientation search.
        pixel_size_refinement_config: The pixel size search.
        polish: From the grid's best to the continuous optimum, with standard errors.
        preprocessing_filters: Filters of the micrograph.
        computational_config: What computes.
        apply_global_filtering: True filters the whole micrograph; false each box.
        fill_defects: Pixels that are no image (bands and blocks of one value, NaN, hot and
            dead pixels) are filled, and the noise is measured without them, without
            slopes over the micrograph and strong objects; false: the image as it is.
        movie_config: Refinement against movie frames; not built yet.
        output_path: The refined table; null: beside the particle CSV, as
            `<stem>_refined.csv`.
        scoring: `image_ctf` applies filter and CTF to the image; `template_ctf` to the
            template's projection, in the template's own box, as Leopard-EM does.
        template_sampling: How slices are taken: `padded`, from a padded and
            compensated volume; `cubic`, the same by cubic splines: smoother, and slower;
            `trilinear`, from the volume as it is, as Leopard-EM does.
        search: `exhaustive` goes on until no pose that is left can win; `adaptive` looks
            closely at the most promising alone: nearly always the same best, by far less
            work where templates are large.
        statistics: What the correlation_variance maps and column hold: `variance`,
            `standard_deviation`, or `auto`, decided from the table.
        reproduce: `leopard_em` turns Leopard-EM's choices on together, for comparison:
            scoring template_ctf, template_sampling trilinear, base_grid_method
            leopard_em, template_envelope none, fill_defects false, and what has no key of
            its own.
        invert_contrast: Take the images' contrast the other way round: for micrographs in
            which particles are bright, or templates that are negative inside.
        symmetry: The template's point group: C1, Cn, Dn, T, O, I (I2) or I1, with its axes
            as in RELION. Refined angles are those of the copy nearest the identity.
        template_pixel_size: Å per voxel of the template; null: each row's pixel_size.
        ignore_aberrations: Refine a table that holds beam tilt, Zernike coefficients or
            a magnification matrix, though no score applies them: they are carried along.
        template_envelope: How much faster the particles' signal falls off than the template
            and the table's ctf_B_factor say: a B in Å², added to the table's; `auto`,
            estimated from the best particles, and used where they fit better with it in
            data to which they were not fitted; or `none`.
        source: What messages call the configuration: the path of its file.
        path_map: Folders that have moved, as `--map-path` gives them; see `resolve_path`.
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
    template_sampling: Literal["padded", "cubic", "trilinear"] = "padded"
    search: Literal["exhaustive", "adaptive"] = "exhaustive"
    statistics: Literal["auto", "variance", "standard_deviation"] = "auto"
    reproduce: Literal["leopard_em"] | None = None
    invert_contrast: bool = False
    symmetry: str = "C1"
    template_pixel_size: float | None = None
    ignore_aberrations: bool = False
    template_envelope: Annotated[float | str, _ENVELOPE_WORDS] = "auto"
    source: str = eqx.field(default="config", static=True, metadata={"key": False})
    path_map: PathMap = eqx.field(default=(), static=True, metadata={"key": False})

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
        Rule(
            "template_envelope",
            lambda c: (
                c.template_envelope in ("auto", "none")
                or (
                    not isinstance(c.template_envelope, str)
                    and abs(c.template_envelope) <= _LARGEST_B_ANGSTROM2
                )
            ),
            f"must be {_ENVELOPE_WORDS}",
        ),
        *(implied.rule for implied in _IMPLIED),
    )

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, path_map: PathMap = ()) -> "Config":
        """Reads a YAML file.

        Args:
            path: The file.
            path_map: Folders that have moved: (OLD, NEW).

        Raises:
            InputError: With every error of the file.
        """
        data, errors = read_yaml(path)
        if isinstance(data, dict) and "match_template_result" in data:
            raise InputError(
                f"{path}: configures match_template; `jaxrefine init {path} --particles "
                "TABLE.csv` makes a configuration to refine its particles"
            )
        config = _build(data, os.fspath(path), errors)
        return dataclasses.replace(config, path_map=tuple(path_map))

    @classmethod
    def from_dict(cls, data: Any, source: str = "config") -> "Config":
        """Makes a configuration from plain data, nested like the YAML file.

        Args:
            data: Mappings, lists and scalars.
            source: What messages call the data; a path's folder becomes `folder`.

        Raises:
            InputError: With every error of the data.
        """
        return _build(data, source)

    @property
    def folder(self) -> Path:
        """The folder of the YAML file, beside which its relative paths may lie."""
        return Path(self.source).absolute().parent

    def output_file(self, table: Path) -> Path:
        """Where the refined table goes.

        Args:
            table: The particle CSV, found.

        Returns:
            `output_path`, from the current directory if it is relative; without one
            `<stem>_refined.csv` beside the particle CSV.
        """
        if self.output_path is None:
            return table.with_name(f"{table.stem}_refined.csv")
        return Path(os.path.expandvars(os.path.expanduser(self.output_path)))


def _with_df_path(data: Any) -> Any:
    """The data, with Leopard-EM 1.3's `hdf5_path` as the `df_path` that it stands for."""
    stack = data.get("particle_stack") if isinstance(data, Mapping) else None
    if not isinstance(stack, Mapping) or "df_path" in stack or "hdf5_path" not in stack:
        return data
    renamed = {"df_path" if k == "hdf5_path" else k: v for k, v in stack.items()}
    return {**data, "particle_stack": renamed}


def _build(data: Any, source: str, earlier: Iterable[ConfigError] = ()) -> Config:
    config = structure(Config, _with_implied(_with_df_path(data)), source, earlier)
    return dataclasses.replace(config, source=source)
