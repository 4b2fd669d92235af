"""The inputs of a run: everything except the micrographs, checked and in memory.

There are three passes: read what the configuration names, check everything together, and
build the objects of the core. Later code does not use the configuration's search settings.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import jax
import numpy as np

from jaxrefine.app.config import Config
from jaxrefine.app.run.build import (
    build_filters,
    build_polish,
    build_score,
    trims_template,
)
from jaxrefine.app.run.checks import CheckedInputs, Files, Groups, check_together
from jaxrefine.app.run.constrained import Constraint, build_constraint, side_files
from jaxrefine.app.run.devices import float32_only, free_bytes
from jaxrefine.app.run.movies import MovieReader
from jaxrefine.app.run.output import check_output
from jaxrefine.app.run.read import (
    NamedInputs,
    envelope_path,
    maps_table_path,
    read_named,
    reference_path,
    table_path,
    template_path,
)
from jaxrefine.app.run.reference_density import ReferenceDensity, reference_density
from jaxrefine.data import ErrorCollector, SearchGrid, Template
from jaxrefine.io.table import ParticleTable, StartingValues
from jaxrefine.physics.envelope import apply_envelope
from jaxrefine.physics.filters import Filters
from jaxrefine.physics.slices import make_template
from jaxrefine.physics.support import trim_template
from jaxrefine.physics.symmetry import point_group
from jaxrefine.refine.layout import Layout, plan_layout
from jaxrefine.refine.polish import Polish
from jaxrefine.refine.scoring import Score
from jaxrefine.refine.sharding import PARTICLES, Device, device_mesh, replicate

# Largest number of orientations of a constrained search that are all scored exactly.
_MOST_EXACT = 1024


@dataclass(frozen=True, eq=False)
class RunInputs:
    """Everything that a run needs.

    Attributes:
        config: The configuration.
        table: The particle table.
        start: Starting values of its rows, as they are scored.
        groups: Rows of the table by the images that they use.
        maps_hold_variance: Whether the maps hold variances, not standard deviations.
        template_path: File of the template.
        template: The template, or the trimmed template, on every device.
        smooth_template: The same with cubic slices, for the polish; None without polish.
        template_pixel_size_angstrom: Voxel size of the template, per row.
        filters: Filters of the micrograph.
        global_filtering: Whether they are applied to the whole micrograph.
        grid: The search grid, on every device.
        score: The score.
        layout: Layout of the search, for the memory of the devices.
        polish: Settings of the polish; None without polish.
        template_envelope: B factor in addition to the table's, or how to find it. An
            envelope from a file is already applied to the template.
        contrast_is_inverted: Whether the contrast of the images is inverted.
        point_group: Rotations that leave the template unchanged, the identity first.
        mesh: The devices.
        threads: Number of threads that read and prepare micrographs.
        output: The refined table, if it is written.
        constraint: Criteria of a constrained search; None for a refinement.
        movies: Sums particles from movie frames; None if boxes are cut from micrographs.
        reference: Density to remove from the images in a constrained search; or None.
    """

    config: Config
    table: ParticleTable
    start: StartingValues
    groups: Groups
    maps_hold_variance: bool
    template_path: Path
    template: Template
    smooth_template: Template | None
    template_pixel_size_angstrom: np.ndarray
    filters: Filters
    global_filtering: bool
    grid: SearchGrid
    score: Score
    layout: Layout
    polish: Polish | None
    template_envelope: float | str
    contrast_is_inverted: bool
    point_group: np.ndarray
    mesh: jax.sharding.Mesh
    threads: int
    output: Path
    constraint: Constraint | None = None
    movies: MovieReader | None = None
    reference: ReferenceDensity | None = None

    @property
    def poses(self) -> int:
        """Number of correlations per particle."""
        return int(np.prod(self.grid.shape))

    @property
    def particles_at_once(self) -> int:
        """Number of particles in a batch, over all devices."""
        return self.mesh.shape[PARTICLES] * self.layout.particles

    @property
    def scores_all_exactly(self) -> bool:
        """Whether no orientation is discarded by its approximate score."""
        return self.layout.rescored >= self.grid.shape[2]

    @property
    def template_side(self) -> int:
        """Side of the template in its file; the score's template may be trimmed."""
        return self.config.particle_stack.original_template_size[0]

    @property
    def inputs(self) -> list[Path]:
        """All files that the run reads, except its configuration."""
        images = (path for files in self.groups for path in self.sources(files))
        curve = filter(None, [envelope_path(self.config), reference_path(self.config)])
        shared = [] if self.movies is None else self.movies.movies.shared.values()
        return [self.table.path, self.template_path, *curve, *shared, *images]

    def sources(self, files: Files) -> tuple[Path, ...]:
        """All files that the particles of a micrograph are made of."""
        if self.movies is None:
            return files
        return (*files, *self.movies.movies.of_micrograph[files].sources)

    @property
    def reproduces_leopard_em(self) -> bool:
        """Whether Leopard-EM's choices were requested."""
        return self.config.reproduce == "leopard_em"


@float32_only()
def load_run(config: Config, output: Path | None = None) -> RunInputs:
    """`load_inputs` for a run that writes a table, whose output is checked as well.

    Raises:
        InputError: With all errors.
    """
    errors = ErrorCollector()
    table = table_path(config)
    output = output or config.output_file(table)
    with errors:
        files = [table, maps_table_path(config)]
        files += [template_path(config), Path(config.source)]
        files += filter(None, [envelope_path(config), reference_path(config)])
        beside = () if config.constraint is None else side_files(output)
        for path in (output, *beside):
            check_output(path, files, config.source)
    with errors:
        named = read_named(config)
    errors.raise_any()
    checked = check_together(config, named)
    images = [path for files in checked.groups for path in files]
    if checked.movies is not None:
        images += checked.movies.files
    check_output(output, images, config.source)
    return _build(config, named, checked, output)


@float32_only()
def load_inputs(
    config: Config, output: Path | None = None, *, smooth: bool = False
) -> RunInputs:
    """Read and check everything except the values of the micrographs.

    Args:
        config: The configuration.
        output: Overrides the configuration's output path; `load_run` checks it.
        smooth: Use the whole template with cubic slices also for the search: for a
            comparison, in which all templates share one score.

    Raises:
        InputError: With all errors.
    """
    named = read_named(config)
    checked = check_together(config, named)
    output = output or config.output_file(named.table.path)
    return _build(config, named, checked, output, smooth)


def _build(
    config: Config,
    named: NamedInputs,
    checked: CheckedInputs,
    output: Path,
    only_smooth: bool = False,
) -> RunInputs:
    """Third pass: build the objects of the core, on the devices."""
    volume = named.volume
    score = checked.score  # for templates that are not trimmed
    with jax.default_device(named.devices[0]):
        voxel_size = float(checked.template_pixel_size_angstrom.min())
        if named.envelope is not None:
            volume = apply_envelope(volume, voxel_size, *named.envelope)
        if trims_template(config) and not only_smooth:
            volume = trim_template(volume, voxel_size)
            trimmed = build_score(config, checked.start, checked.grid, volume.shape[0])
            checked = replace(checked, score=trimmed)
        sampling = "cubic" if only_smooth else config.template_sampling
        template, smooth = make_template(volume, sampling), None
        if config.polish.enabled and not only_smooth:
            smooth = make_template(volume, "cubic")
        reference = reference_density(
            config.constraint, named.reference_volume, named.table, checked.start, score
        )
    templates = (template, smooth)
    devices = _limit_devices_to_memory(named.devices, templates)
    mesh = device_mesh(devices, max(len(rows) for rows in checked.groups.values()))
    template, smooth = replicate(templates, mesh)
    return RunInputs(
        config=config,
        table=named.table,
        start=checked.start,
        groups=checked.groups,
        maps_hold_variance=checked.maps_hold_variance,
        template_path=named.template_path,
        template=template,
        smooth_template=template if only_smooth else smooth,
        template_pixel_size_angstrom=checked.template_pixel_size_angstrom,
        filters=build_filters(config),
        global_filtering=config.apply_global_filtering,
        grid=replicate(checked.grid, mesh),
        score=checked.score,
        layout=_plan(config, checked, template, devices),
        polish=build_polish(config),
        template_envelope=config.template_envelope,
        contrast_is_inverted=config.invert_contrast,
        point_group=point_group(config.symmetry),
        mesh=mesh,
        threads=config.computational_config.num_cpus,
        output=output,
        constraint=build_constraint(config, named.maps_table, checked.grid),
        movies=_movie_reader(config, checked),
        reference=reference,
    )


def _movie_reader(config: Config, checked: CheckedInputs) -> MovieReader | None:
    if checked.movies is None:
        return None
    return MovieReader(
        checked.movies,
        config.movie_config,
        checked.start,
        checked.score,
        config.particle_stack.original_template_size[0],
        config.fill_defects,
    )


def _limit_devices_to_memory(
    devices: list[Device], templates: tuple[Template, Template | None]
) -> list[Device]:
    """Of CPU devices, which share one memory, as many as it can hold templates for."""
    if devices[0].platform != "cpu":
        return devices
    copy = sum(leaf.nbytes for leaf in jax.tree.leaves(templates))
    # One copy exists already. A quarter of the memory, since the search needs some too.
    return devices[: 1 + int(free_bytes(devices[0]) / 4 / copy)]


def _plan(
    config: Config, checked: CheckedInputs, template: Template, devices: list[Device]
) -> Layout:
    """A layout for all particles of the run and the device with the least free memory."""
    wanted, start = config.computational_config, checked.start
    count = checked.grid.shape[2]
    # There are few orientations around a partner: all are scored exactly.
    all_exactly = config.constraint is not None and count <= _MOST_EXACT
    on_cpu = devices[0].platform == "cpu"
    free = min(free_bytes(device) for device in devices)
    layout = plan_layout(
        checked.grid,
        checked.score,
        template,
        voltage_kv=float(start.optics.voltage_kv.min()),
        pixel_size_angstrom=float(start.pixel_size_angstrom.min()),
        free_bytes=free / len(devices) if on_cpu else free,
        accelerator=not on_cpu,
        orientations=None if wanted.batch_size == "auto" else int(wanted.batch_size),
        precision=None if wanted.precision == "auto" else wanted.precision,
        thorough=config.search == "exhaustive",
    )
    return replace(layout, rescored=count) if all_exactly else layout


def _kind(device: Device) -> str:
    """Name of a device; CPUs are all named "cpu"."""
    kind, platform = device.device_kind, device.platform
    return kind if kind.lower() == platform else f"{kind} ({platform})"


def describe(inputs: RunInputs) -> list[str]:
    """Description of what a run is about to do, one line each."""
    pixel_sizes, defoci, orientations = inputs.grid.shape
    device = inputs.mesh.devices.flat[0]
    held = "variances" if inputs.maps_hold_variance else "standard deviations"
    origin = (
        "as configured"
        if inputs.config.statistics != "auto"
        else "judged by the table's z-scores"
    )
    micrographs = "micrograph" if len(inputs.groups) == 1 else "micrographs"
    box_height, box_width = inputs.config.particle_stack.extracted_box_size
    side, middle = inputs.template_side, inputs.score.side
    trimmed = f", its signal within {middle} px" if middle < side else ""
    lines = [
        f"{len(inputs.table)} particles in {len(inputs.groups)} {micrographs}, "
        f"{int(inputs.start.from_refined.sum())} of them already refined",
        f"{orientations:,} orientations x {defoci} defocus values x {pixel_sizes} pixel "
        f"{'size' if pixel_sizes == 1 else 'sizes'} = {inputs.poses:,} correlations per "
        f"particle ({inputs.config.search})",
        f"template {side} px{trimmed} ({inputs.config.template_sampling}), box "
        f"{box_height} x {box_width} px, score {inputs.config.scoring}",
        f"correlation_variance maps hold {held} ({origin})",
        f"{inputs.mesh.size} x {_kind(device)}, "
        f"{inputs.layout.orientations} orientations at once in {inputs.layout.precision}",
    ]
    if inputs.constraint is not None:
        lines[0] = f"a partner of each of {len(inputs.table)} particles in "
        lines[0] += f"{len(inputs.groups)} {micrographs}"
        lines += inputs.constraint.describe()
    if inputs.reference is not None:
        lines.append("the density of the references is projected out of the images")
    if inputs.start.n_rounded_positions:
        lines.append(
            f"{inputs.start.n_rounded_positions} positions rounded to whole pixels"
        )
    if inputs.polish is not None:
        free = ", ".join(inputs.polish.parameters)
        lines.append(f"polish of {free}, with standard errors")
    if inputs.movies is not None:
        lines.append("particles are summed from the frames of movies")
    if inputs.reproduces_leopard_em:
        lines.append("reproducing Leopard-EM: for comparison, not for results")
    return lines
