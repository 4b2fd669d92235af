"""A run that has passed every check, with all but the micrographs in memory."""

from dataclasses import dataclass, replace
from pathlib import Path

import jax
import numpy as np

from jaxrefine.app.config import Config
from jaxrefine.app.run.build import build_filters, build_grid, build_polish, build_score
from jaxrefine.app.run.checks import (
    add_error_context,
    check_exists,
    check_images,
    check_output,
    read_template,
    warn_of_voxel_size,
)
from jaxrefine.app.run.costs import warn_of_box, warn_of_defocus
from jaxrefine.app.run.devices import free_bytes
from jaxrefine.data import ErrorCollector, SearchGrid, Template
from jaxrefine.io.paths import resolve_path
from jaxrefine.io.table import (
    ParticleTable,
    StartingValues,
    decide_statistics,
    read_particle_table,
)
from jaxrefine.physics.filters import Filters
from jaxrefine.physics.slices import make_template
from jaxrefine.refine.layout import Layout, plan_layout
from jaxrefine.refine.polish import Polish
from jaxrefine.refine.scoring import Score
from jaxrefine.refine.sharding import Device, device_mesh, replicate, select_devices

# A micrograph, the map of the correlation's mean, and the map of its spread.
Files = tuple[Path, Path, Path]


@dataclass(frozen=True, eq=False)
class RunInputs:
    """All that a run needs.

    Attributes:
        config: The configuration.
        table: The particle table.
        start: Starting values of its rows, as they are scored.
        groups: Files -> rows of the table, in order of appearance.
        maps_hold_variance: Otherwise they hold the standard deviation.
        template_path: File of the template.
        template: The template, on every device.
        smooth_template: The same for the polish, with cubic slices; None without polish.
        template_pixel_size_angstrom: Voxel size that it is taken to have, per row.
        filters: Filters of the micrograph.
        grid: Offsets that are searched, on every device.
        score: How to correlate.
        layout: Of the search, for the memory of the devices.
        polish: How the grid's best are polished; None where they are not.
        mesh: The devices.
        output: Where the refined table goes.
    """

    config: Config
    table: ParticleTable
    start: StartingValues
    groups: dict[Files, np.ndarray]
    maps_hold_variance: bool
    template_path: Path
    template: Template
    smooth_template: Template | None
    template_pixel_size_angstrom: np.ndarray
    filters: Filters
    grid: SearchGrid
    score: Score
    layout: Layout
    polish: Polish | None
    mesh: jax.sharding.Mesh
    output: Path

    @property
    def poses(self) -> int:
        """Correlations per particle."""
        return int(np.prod(self.grid.shape))

    @property
    def inputs(self) -> list[Path]:
        """All files that the run reads, but for its configuration."""
        images = (path for files in self.groups for path in files)
        return [self.table.path, self.template_path, *images]

    @property
    def reproduces_leopard_em(self) -> bool:
        """Whether Leopard-EM's choices were asked for."""
        return self.config.reproduce == "leopard_em"


def load_inputs(config: Config, output: Path | None = None) -> RunInputs:
    """Read and check everything but the micrographs' values.

    Args:
        config: What to do.
        output: Overrides the configuration's output path.

    Raises:
        InputError: With every error found.
    """
    errors = ErrorCollector()
    table_path = resolve_path(config.particle_stack.df_path, beside=config.folder)
    template_path = resolve_path(config.template_volume_path, beside=config.folder)
    output = output or config.output_file(table_path)
    with errors, add_error_context(before=f"{config.source}: "):
        devices = select_devices(config.computational_config.devices)
    with errors:
        text = config.template_volume_path
        check_exists(template_path, text, "template_volume_path", config.source)
        volume, voxel_size = read_template(template_path, config)
    with errors:
        text = config.particle_stack.df_path
        check_exists(table_path, text, "particle_stack.df_path", config.source)
        table = read_particle_table(table_path)
    with errors:
        check_output(
            output, [table_path, template_path, Path(config.source)], config.source
        )
    errors.raise_any()

    start = table.start()
    if config.reproduce == "leopard_em":
        start = _as_leopard_em_reads(start)
    grid = build_grid(config)
    groups = _group_rows(table)
    statistics = config.statistics
    with errors:
        if statistics == "auto":
            statistics = decide_statistics(table)
    with errors:
        score = build_score(config, start, grid, table.lines)
    with errors:
        check_images(groups, table.lines, volume.shape[0])
    with errors:
        images = (path for files in groups for path in files)
        check_output(output, images, config.source)
    errors.raise_any()

    voxels = config.template_pixel_size
    template_pixel_size = (
        start.nominal_pixel_size_angstrom if voxels is None else np.full(len(table), voxels)
    )
    warn_of_voxel_size(voxel_size, template_pixel_size)
    warn_of_box(config)
    warn_of_defocus(config, start, table.lines, grid, score)
    with jax.default_device(devices[0]):
        template = make_template(volume, config.template_sampling)
        smooth = make_template(volume, "cubic") if config.polish.enabled else None
    templates = (template, smooth)
    devices = _limit_devices_to_memory(devices, templates)
    mesh = device_mesh(devices, max(len(rows) for rows in groups.values()))
    template, smooth = replicate(templates, mesh)
    return RunInputs(
        config=config,
        table=table,
        start=start,
        groups=groups,
        maps_hold_variance=statistics == "variance",
        template=template,
        smooth_template=smooth,
        template_path=template_path,
        template_pixel_size_angstrom=template_pixel_size,
        filters=build_filters(config),
        grid=replicate(grid, mesh),
        score=score,
        layout=_plan(config, grid, score, start, devices),
        polish=build_polish(config),
        mesh=mesh,
        output=output,
    )


def _limit_devices_to_memory(
    devices: list[Device], templates: tuple[Template, Template | None]
) -> list[Device]:
    """Of CPU devices, which share one memory, as many as it has copies of the templates."""
    if devices[0].platform != "cpu":
        return devices
    copy = sum(leaf.nbytes for leaf in jax.tree.leaves(templates))
    # One copy is there already. A quarter of the memory, as searching needs some too.
    return devices[: 1 + int(free_bytes(devices[0]) / 4 / copy)]


def _plan(
    config: Config,
    grid: SearchGrid,
    score: Score,
    start: StartingValues,
    devices: list[Device],
) -> Layout:
    """A layout for every particle of the run and the fullest of its devices."""
    wanted = config.computational_config
    on_cpu = devices[0].platform == "cpu"
    free = min(free_bytes(device) for device in devices)
    return plan_layout(
        grid,
        score,
        voltage_kv=float(start.voltage_kv.min()),
        pixel_size_angstrom=float(start.pixel_size_angstrom.min()),
        free_bytes=free / len(devices) if on_cpu else free,
        accelerator=not on_cpu,
        orientations=None if wanted.batch_size == "auto" else int(wanted.batch_size),
        precision=None if wanted.precision == "auto" else wanted.precision,
        thorough=config.search == "exhaustive",
    )


def _group_rows(table: ParticleTable) -> dict[Files, np.ndarray]:
    """Rows by the files that they need; relative paths as `resolve_path` finds them."""
    groups: dict[Files, list[int]] = {}
    columns = zip(
        table.micrograph_paths,
        table.correlation_mean_paths,
        table.correlation_variance_paths,
        strict=True,
    )
    folder = table.path.absolute().parent
    for row, texts in enumerate(columns):
        image, mean, spread = (resolve_path(text, beside=folder) for text in texts)
        groups.setdefault((image, mean, spread), []).append(row)
    return {files: np.asarray(rows) for files, rows in groups.items()}


def _as_leopard_em_reads(start: StartingValues) -> StartingValues:
    """One mean pixel size for every CTF, and u the larger defocus whatever the angle."""
    mean = np.full_like(start.pixel_size_angstrom, start.pixel_size_angstrom.mean())
    larger_first = -np.sort(-start.defocus_angstrom, axis=-1)
    return replace(start, pixel_size_angstrom=mean, defocus_angstrom=larger_first)


def _kind(device: Device) -> str:
    """What a device is called; of CPUs that is "cpu", and they are called so, too."""
    kind, platform = device.device_kind, device.platform
    return kind if kind.lower() == platform else f"{kind} ({platform})"


def describe(inputs: RunInputs) -> list[str]:
    """What a run is about to do, a line each."""
    pixel_sizes, defoci, orientations = inputs.grid.shape
    height, width = inputs.score.box
    device = inputs.mesh.devices.flat[0]
    held = "variances" if inputs.maps_hold_variance else "standard deviations"
    origin = (
        "as configured" if inputs.config.statistics != "auto" else "by the table's z-scores"
    )
    micrographs = "micrograph" if len(inputs.groups) == 1 else "micrographs"
    lines = [
        f"{len(inputs.table)} particles in {len(inputs.groups)} {micrographs}, "
        f"{int(inputs.start.from_refined.sum())} of them refined before",
        f"{orientations:,} orientations x {defoci} defoci x {pixel_sizes} pixel sizes = "
        f"{inputs.poses:,} correlations per particle ({inputs.config.search})",
        f"template {inputs.score.side} px ({inputs.config.template_sampling}), box "
        f"{height} x {width} px, score {inputs.config.scoring}",
        f"correlation_variance maps hold {held} ({origin})",
        f"{inputs.mesh.size} x {_kind(device)}, "
        f"{inputs.layout.orientations} orientations at once in {inputs.layout.precision}",
    ]
    if inputs.start.n_rounded_positions:
        lines.append(
            f"{inputs.start.n_rounded_positions} positions rounded to whole pixels"
        )
    if inputs.polish is not None:
        free = ", ".join(inputs.polish.parameters)
        lines.append(f"the best are polished in {free}, with standard errors")
    if inputs.reproduces_leopard_em:
        lines.append("reproducing Leopard-EM: for comparison, not for results")
    return lines
