"""First pass over a run's inputs: read what the configuration names."""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from jaxrefine.app.config import Config
from jaxrefine.app.run.constrained import predicted_table
from jaxrefine.data import ErrorCollector, InputError, add_error_context
from jaxrefine.io.envelope import EnvelopeCurve, read_envelope
from jaxrefine.io.mrc import read_volume, volume_shape
from jaxrefine.io.paths import resolve_path
from jaxrefine.io.table import ParticleTable, read_particle_table
from jaxrefine.refine.sharding import Device, select_devices


@dataclass(frozen=True, eq=False)
class NamedInputs:
    """The inputs that a configuration names, each checked by itself.

    Attributes:
        table: The particle table.
        maps_table: Table of the match that made the statistic maps. It is `table`, except
            in a constrained search.
        template_path: File of the template.
        volume: The template: a cube of even side.
        voxel_size_angstrom: Voxel size in its header; None if there is none.
        devices: The devices for the run.
        envelope: The template's envelope, if the configuration names a file of it.
        reference_volume: The reference of a constrained search, if it is named.
    """

    table: ParticleTable
    maps_table: ParticleTable
    template_path: Path
    volume: Float[np.ndarray, "n n n"]
    voxel_size_angstrom: float | None
    devices: list[Device]
    envelope: EnvelopeCurve | None
    reference_volume: Float[np.ndarray, "n n n"] | None = None


def table_path(config: Config) -> Path:
    """Path of the particle table."""
    return _resolved(config.particle_stack.df_path, config)


def maps_table_path(config: Config) -> Path:
    """Path of the table whose match made the statistic maps."""
    if config.constraint is None:
        return table_path(config)
    return _resolved(config.constraint.particle_stack_constrained.df_path, config)


def template_path(config: Config) -> Path:
    """Path of the template.

    Raises:
        InputError: There are several templates.
    """
    if config.references:
        names = ", ".join(each.name for each in config.references)
        raise InputError(
            f"{config.source}: template_volume_path: names several references ({names}), "
            "but one template is needed here; name only one (in Python, `of_references()` "
            "of the Config returns the configuration of each)"
        )
    return _resolved(config.template_volume_path, config)


def envelope_path(config: Config) -> Path | None:
    """Path of the template's envelope; None if it is not a file."""
    named = config.envelope_file
    return None if named is None else _resolved(named, config)


def reference_path(config: Config) -> Path | None:
    """Path of the reference's volume in a constrained search; None if it is not named."""
    named = config.constraint and config.constraint.reference_template_volume_path
    return _resolved(named, config) if named else None


def _resolved(text: str, config: Config) -> Path:
    return resolve_path(text, beside=config.folder, path_map=config.path_map)


def read_named(config: Config) -> NamedInputs:
    """Read the table and the template, and find the devices.

    Raises:
        InputError: With all errors.
    """
    errors = ErrorCollector()
    with errors, add_error_context(before=f"{config.source}: "):
        devices = select_devices(config.computational_config.devices)
    template = template_path(config)
    with errors:
        text = config.template_volume_path
        _check_exists(template, text, "template_volume_path", config.source)
        volume, voxel_size = _read_template(template, config, "template_volume_path")
    envelope = None
    curve = envelope_path(config)
    with errors:
        if curve is not None:
            text = config.envelope_file or ""
            _check_exists(curve, text, "template_envelope", config.source)
            envelope = read_envelope(curve)
    constraint, reference_volume = config.constraint, None
    reference = reference_path(config)
    with errors:
        if constraint is not None and reference is not None:
            key = "reference_template_volume_path"
            text = constraint.reference_template_volume_path or ""
            _check_exists(reference, text, key, config.source)
            reference_volume, _ = _read_template(reference, config, key)
    of_reference = "particle_stack" if constraint is None else "particle_stack_reference"
    with errors:
        table = _read_table(config, config.particle_stack.df_path, of_reference)
        maps_table = table
    if constraint is not None:
        with errors:
            text = constraint.particle_stack_constrained.df_path
            maps_table = _read_table(config, text, "particle_stack_constrained")
    errors.raise_any()
    if constraint is not None:
        table = predicted_table(config, constraint, table, maps_table)
    return NamedInputs(
        table=table,
        maps_table=maps_table,
        template_path=template,
        volume=volume,
        voxel_size_angstrom=voxel_size,
        devices=devices,
        envelope=envelope,
        reference_volume=reference_volume,
    )


def _read_table(config: Config, text: str, section: str) -> ParticleTable:
    """Read the particle table that a section names."""
    path = _resolved(text, config)
    _check_exists(path, text, f"{section}.df_path", config.source)
    return read_particle_table(path, ignore_aberrations=config.ignore_aberrations)


def _check_exists(path: Path, text: str, key: str, source: str) -> None:
    """Refuse a missing file of the configuration.

    Args:
        path: The last path tried by `resolve_path`.
        text: The path in the configuration.
        key: Its key.
        source: The configuration.

    Raises:
        InputError: The file does not exist.
    """
    if not os.path.exists(path):
        raise InputError(
            f"{source}: {key}: {text} — no such file in the current folder or beside "
            "the configuration"
        )


def _read_template(path: Path, config: Config, key: str) -> tuple[np.ndarray, float | None]:
    """The volume that a key names and the voxel size in its header in Å, checked.

    Raises:
        InputError: It is not a cube of the configured even side, not finite, or constant.
    """
    shape = volume_shape(path)  # before its values take memory
    side = config.particle_stack.original_template_size[0]
    key = f"{config.source}: {key}: {path}"
    if len(set(shape)) != 1:
        raise InputError(f"{key} — has shape {shape}; it must be a cube")
    if shape[0] != side:
        raise InputError(
            f"{key} — has side {shape[0]} px, but {config.stack_key}.original_"
            f"template_size says {side}; the two must be equal (and even)"
        )
    volume, voxel_size = read_volume(path)
    if not np.isfinite(volume).all():
        count = int((~np.isfinite(volume)).sum())
        raise InputError(f"{key} — {count} voxels are NaN or infinite; all must be finite")
    if volume.min() == volume.max():
        raise InputError(f"{key} — is constant ({volume.min():g}); it holds no structure")
    return volume, voxel_size
