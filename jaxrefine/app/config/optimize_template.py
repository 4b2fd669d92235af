"""Leopard-EM's optimize_template, run as a calibration of the pixel size.

Its keys are accepted unchanged; `calibrate` and `statistics` are additional.
"""

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from jaxrefine.app.config.calibrate import CalibrateConfig
from jaxrefine.app.config.computing import ComputationalConfig
from jaxrefine.app.config.config import Config
from jaxrefine.app.config.filters import PreprocessingFiltersConfig
from jaxrefine.app.config.particle_stack import ParticleStackConfig, with_df_path
from jaxrefine.app.config.schema import Rule, Section, structure
from jaxrefine.app.config.yaml_reader import read_yaml
from jaxrefine.data import InputError
from jaxrefine.io.paths import PathMap

_OWN_KEYS = {"pixel_size_coarse_search", "pixel_size_fine_search", "simulator"}


class PixelSizeSearchConfig(Section):
    """A search of the pixel size, whose range becomes that of the calibration's scan.

    Attributes:
        enabled: Scan; false omits it.
        pixel_size_min: Smallest offset in Å.
        pixel_size_max: Largest offset in Å.
        pixel_size_step: Step in Å; not used by the fit.
        skip_enforce_zero: No effect.
    """

    enabled: bool = False
    pixel_size_min: float = 0.0
    pixel_size_max: float = 0.0
    pixel_size_step: float = 0.0
    skip_enforce_zero: bool = False

    @property
    def reach_angstrom(self) -> float:
        """Range of the search to either side."""
        return max(abs(self.pixel_size_min), abs(self.pixel_size_max)) * self.enabled


class SimulatorSettings(Section):
    """Settings for making the template from its model.

    Attributes:
        voltage: Acceleration voltage in kV.
        apply_dose_weighting: Attenuate the template as radiation damage does.
        crit_exposure_bfactor: Only -1: critical exposures of Grant & Grigorieff.
        dose_filter_modify_signal: Only None.
        dose_start: Exposure before the first frame, in e/Å².
        dose_end: Exposure after the last frame, in e/Å².
        apply_dqe: The detector's envelope: not applied, with a warning.
        mtf_reference: File of the detector's envelope; no effect.
    """

    voltage: float = 300.0
    apply_dose_weighting: bool = True
    crit_exposure_bfactor: float = -1.0
    dose_filter_modify_signal: Literal["None", "sqrt", "rel_diff"] = "None"
    dose_start: float = 0.0
    dose_end: float = 30.0
    apply_dqe: bool = True
    mtf_reference: str = ""

    ignored: ClassVar = ("upsampling", "store_volume", "atom_batch_size")
    rules: ClassVar = (
        Rule("voltage", lambda c: c.voltage > 0, "must be larger than 0 kV"),
        Rule(
            "crit_exposure_bfactor",
            lambda c: c.crit_exposure_bfactor == -1,
            "must be -1 here: the critical exposures of Grant & Grigorieff",
        ),
        Rule(
            "dose_filter_modify_signal",
            lambda c: c.dose_filter_modify_signal == "None",
            "must be None here; make the template yourself, and name it as "
            "template_volume_path in a configuration of refine_template",
        ),
        Rule(
            "dose_end",
            lambda c: 0 <= c.dose_start < c.dose_end,
            "must be larger than dose_start, {dose_start}, which is 0 or more",
        ),
    )


class SimulatorConfig(Section):
    """The model from which the template is made.

    Attributes:
        pdb_filepath: PDB or mmCIF file.
        pixel_spacing: Voxel size in Å.
        volume_shape: Voxels along z, y and x, equal and even.
        center_atoms: Only true: the model's mean position is the volume's centre.
        b_factor_scaling: Factor on the model's B factors.
        additional_b_factor: Value added to them afterwards, in Å².
        simulator_config: The other settings.
    """

    pdb_filepath: Annotated[str, "the path of the atomic model"]
    pixel_spacing: float = 1.0
    volume_shape: Annotated[tuple[int, int, int], "three whole numbers"] = (400, 400, 400)
    center_atoms: bool = True
    b_factor_scaling: float = 1.0
    additional_b_factor: float = 0.0
    simulator_config: SimulatorSettings = SimulatorSettings()

    ignored: ClassVar = ("remove_hydrogens",)
    rules: ClassVar = (
        Rule("pixel_spacing", lambda c: c.pixel_spacing > 0, "must be larger than 0 Å"),
        Rule(
            "volume_shape",
            lambda c: len(set(c.volume_shape)) == 1 and c.volume_shape[0] % 2 == 0,
            "must be three equal, even numbers",
        ),
        Rule(
            "center_atoms",
            lambda c: c.center_atoms,
            "must be true here: the model is centred",
        ),
    )


class OptimizeTemplateConfig(Section):
    """An optimize_template file of Leopard-EM.

    Attributes:
        particle_stack: As in a refinement.
        pixel_size_coarse_search: The range of the scan before the fit.
        pixel_size_fine_search: The same, if the coarse one is not enabled.
        simulator: The template.
        preprocessing_filters: As in a refinement.
        computational_config: As in a refinement.
        apply_global_filtering: As in a refinement.
        calibrate: Additional key; by default only the pixel size is fitted.
        statistics: Additional key, as in a refinement.
    """

    particle_stack: ParticleStackConfig
    simulator: SimulatorConfig
    pixel_size_coarse_search: PixelSizeSearchConfig = PixelSizeSearchConfig()
    pixel_size_fine_search: PixelSizeSearchConfig = PixelSizeSearchConfig()
    preprocessing_filters: PreprocessingFiltersConfig = PreprocessingFiltersConfig()
    computational_config: ComputationalConfig = ComputationalConfig()
    apply_global_filtering: bool = True
    calibrate: CalibrateConfig = CalibrateConfig(parameters=("pixel_size",))
    statistics: Literal["auto", "variance", "standard_deviation"] = "auto"

    rules: ClassVar = (
        Rule(
            "simulator.volume_shape",
            lambda c: (
                c.simulator.volume_shape[0] == c.particle_stack.original_template_size[0]
            ),
            "must be as particle_stack.original_template_size says",
        ),
    )


def is_optimize_template(path: str | os.PathLike[str]) -> bool:
    """Whether a file is one of optimize_template, by its keys."""
    data, _ = read_yaml(path)
    return isinstance(data, Mapping) and bool(_OWN_KEYS & set(data))


def load_optimize_template(
    path: str | os.PathLike[str], template: Path, *, path_map: PathMap = ()
) -> tuple[Config, SimulatorConfig]:
    """Load an optimize_template file as the equivalent calibration.

    Args:
        path: The file.
        template: Path of the template that will be made.
        path_map: Folders that have moved: (OLD, NEW).

    Returns:
        The configuration, and the settings for making its template.

    Raises:
        InputError: With all errors of the file.
    """
    data, errors = read_yaml(path)
    source = os.fspath(path)
    found = structure(OptimizeTemplateConfig, with_df_path(data), source, errors)
    search, simulator = found.pixel_size_coarse_search, found.simulator
    reach = search.reach_angstrom or found.pixel_size_fine_search.reach_angstrom
    given = data.get("calibrate") or {}
    calibrate: dict[str, Any] = {"parameters": ["pixel_size"], **given}
    calibrate.setdefault("pixel_size_range", reach / simulator.pixel_spacing)
    shared = ("particle_stack", "preprocessing_filters", "computational_config")
    plain = {name: with_df_path(data)[name] for name in shared if name in data}
    most = simulator.pixel_spacing / 5
    if reach > most:
        raise InputError(
            f"{source}: pixel_size_coarse_search: reaches {reach:g} Å — offsets are from "
            f"the pixel size of the table, and at most {most:g} Å here"
        )
    config = Config.from_dict(
        {
            **plain,
            "template_volume_path": str(template),
            "template_pixel_size": simulator.pixel_spacing,
            "apply_global_filtering": found.apply_global_filtering,
            "statistics": found.statistics,
            "calibrate": calibrate,
        },
        source=source,
    )
    return dataclasses.replace(config, path_map=tuple(path_map)), simulator
