"""Objects of the core from a configuration and a table: filters, grid, score, polish.

Only plain numbers are passed on; modules below this one do not use the configuration.
"""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxrefine.app.config import Config
from jaxrefine.app.config.search import (
    DefocusRefinementConfig,
    PixelSizeRefinementConfig,
)
from jaxrefine.app.run.constrained import partner_orientations
from jaxrefine.data import Alignment, InputError, Optics, SearchGrid
from jaxrefine.io.table import StartingValues
from jaxrefine.physics.filters import Bandpass, Curve, Dropout, Filters, Whitening
from jaxrefine.physics.laser import LaserPhasePlate
from jaxrefine.physics.rotations import angle_between_deg, euler_to_matrix
from jaxrefine.physics.symmetry import point_group, smallest_turn_deg
from jaxrefine.refine import grids
from jaxrefine.refine.image_ctf import ImageCTF
from jaxrefine.refine.polish import Polish
from jaxrefine.refine.scoring import Score
from jaxrefine.refine.template_ctf import TemplateCTF


def build_filters(config: Config) -> Filters:
    """The preprocessing filters that are enabled."""
    chosen = config.preprocessing_filters
    whitening, bandpass = chosen.whitening_filter, chosen.bandpass_filter
    curve, randomization = chosen.arbitrary_curve_filter, chosen.phase_randomization_filter
    dropout = chosen.random_fourier_dropout
    high = bandpass.high_freq_cutoff
    return Filters(
        whitening=Whitening(
            whitening.num_freq_bins, whitening.max_freq, whitening.do_power_spectrum
        )
        if whitening.enabled
        else None,
        bandpass=Bandpass(
            bandpass.low_freq_cutoff or 0.0,
            1.0 if high is None else high,
            bandpass.falloff or 0.0,
        )
        if bandpass.enabled
        else None,
        curve=Curve(curve.frequencies or (), curve.amplitudes or ())
        if curve.enabled
        else None,
        randomize_phases_from=randomization.cuton if randomization.enabled else None,
        dropout=Dropout(dropout.dropout_fraction, dropout.seed)
        if dropout.enabled
        else None,
    )


def build_polish(config: Config) -> Polish | None:
    """Settings of the polish; None if it is not enabled."""
    chosen = config.polish
    if not chosen.enabled:
        return None
    return Polish(
        parameters=chosen.parameters,
        bound_to_cell=chosen.bound_to_cell,
        method=chosen.method,
        max_evaluations=chosen.max_steps,
        prior=chosen.prior,
    )


def build_grid(config: Config) -> SearchGrid:
    """The grid of orientation, defocus and pixel size offsets to search.

    Raises:
        InputError: The range of orientations is so large that it holds equivalent poses.
    """
    exact, constraint = config.reproduce == "leopard_em", config.constraint
    grid = grids.local_grid(
        _orientations(config) if constraint is None else partner_orientations(constraint),
        _offsets(config.defocus_refinement_config, "defocus", exact),
        _offsets(config.pixel_size_refinement_config, "pixel_size", exact),
        # A partner rotates within the structure, whatever the structure's orientation.
        frame="image" if constraint is None and not exact else "volume",
    )
    between = smallest_turn_deg(point_group(config.symmetry))
    offsets = np.asarray(grid.rotation)
    unturned = np.broadcast_to(np.eye(3, dtype=offsets.dtype), offsets.shape)
    reach = float(angle_between_deg(offsets, unturned).max())
    if config.symmetry != "C1" and reach > between / 2:
        raise InputError(
            f"{config.source}: orientation_refinement_config: reaches {reach:.4g}° from "
            f"each particle's orientation — with symmetry: {config.symmetry}, whose copies "
            f"are {between:.4g}° apart, it must stay within {between / 2:.4g}°, so that no "
            "copy is searched twice"
        )
    return grid


def _offsets(
    section: DefocusRefinementConfig | PixelSizeRefinementConfig,
    quantity: str,
    past_maximum: bool,
) -> np.ndarray | None:
    """Offsets of a search whose keys begin with the quantity; None if it is disabled."""
    if not section.enabled:
        return None
    minimum, maximum, step = (
        getattr(section, f"{quantity}_{end}") for end in ("min", "max", "step")
    )
    return grids.search_offsets(
        minimum,
        maximum,
        step,
        skip_enforce_zero=section.skip_enforce_zero,
        past_maximum=past_maximum,
    )


def _orientations(config: Config):
    o = config.orientation_refinement_config
    if not o.enabled:
        return None
    axes = {
        "psi_coarse": o.psi_step_coarse,
        "psi_fine": o.psi_step_fine,
        "theta_coarse": o.theta_step_coarse,
        "theta_fine": o.theta_step_fine,
    }
    if o.base_grid_method == "cartesian":
        return grids.cartesian_orientations(
            **axes, phi_coarse=o.phi_step_coarse, phi_fine=o.phi_step_fine
        )
    if o.base_grid_method == "leopard_em":
        return grids.leopard_em_orientations(**axes)
    return grids.uniform_orientations(**axes)


def build_score(
    config: Config,
    start: StartingValues,
    grid: SearchGrid,
    trimmed_side: int | None = None,
) -> Score:
    """The score, on grids that are large enough for every particle of the table.

    Args:
        config: The configuration.
        start: Starting values of all rows.
        grid: The search grid.
        trimmed_side: Side of the trimmed template, if it is used.

    Raises:
        InputError: Phase shifts of a laser phase plate and of the table would both count;
            or the CTF would spread a particle over thousands of pixels.
    """
    height, width = config.particle_stack.extracted_box_size
    side = config.particle_stack.original_template_size[0]
    ewald_sign = config.ewald_sign if config.ewald == "curved" else 0
    laser = _laser(config, start)
    if config.scoring == "template_ctf":
        return TemplateCTF(
            (height, width),
            side,
            pixel_size_changes_cs=config.reproduce is not None,
            ewald_sign=ewald_sign,
            laser=laser,
        )
    defocus = np.abs(start.defocus_angstrom).max()
    score = ImageCTF.for_particles(
        (height, width),
        side,
        max_defocus_angstrom=float(defocus + np.abs(grid.defocus_angstrom).max()),
        voltage_kv=float(start.optics.voltage_kv.min()),
        spherical_aberration_mm=float(start.optics.spherical_aberration_mm.max()),
        pixel_size_angstrom=smallest_pixel_angstrom(start, grid),
        ewald_sign=ewald_sign,
    )
    score = replace(score, laser=laser)
    return score if trimmed_side is None else score.of_middle(trimmed_side)


def _laser(config: Config, start: StartingValues) -> LaserPhasePlate | None:
    """The laser phase plate, if it is enabled.

    Raises:
        InputError: The table has phase shifts, too.
    """
    chosen = config.laser_phase_plate
    if not chosen.enabled:
        return None
    if np.any(np.asarray(start.optics.phase_shift_deg) != 0):
        raise InputError(
            f"{config.source}: laser_phase_plate.enabled: true — the column phase_shift of "
            "the particle table is not 0 everywhere, and its phase shifts would be added; "
            "set it to 0, or enabled to false"
        )
    return LaserPhasePlate(
        numerical_aperture=chosen.NA,
        wavelength_angstrom=chosen.laser_wavelength_angstrom,
        focal_length_angstrom=chosen.focal_length_angstrom,
        angle_deg=chosen.laser_xy_angle_deg,
        tilt_deg=chosen.laser_xz_angle_deg,
        polarization_deg=chosen.laser_polarization_angle_deg,
        peak_phase_deg=chosen.peak_phase_deg,
        dual=chosen.dual_laser,
    )


def trims_template(config: Config) -> bool:
    """Whether a trimmed template can replace the template.

    It cannot if its side is that of the CTF's grid, or if filters are measured on the box,
    which becomes smaller with the template.
    """
    return config.scoring == "image_ctf" and config.apply_global_filtering


def smallest_pixel_angstrom(start: StartingValues, grid: SearchGrid) -> float:
    """The smallest pixel size of the search."""
    return float(start.pixel_size_angstrom.min()) + float(np.min(grid.pixel_size_angstrom))


def starting_alignment(start: StartingValues, rows: Int[np.ndarray, " n"]) -> Alignment:
    """Starting alignment of some rows of a table."""
    return Alignment(
        rotation=_float32(euler_to_matrix(start.euler_deg[rows])),
        position_px=_float32(start.position_px[rows]),
        defocus_angstrom=_float32(start.defocus_angstrom[rows]),
        astigmatism_deg=_float32(start.astigmatism_deg[rows]),
        pixel_size_angstrom=_float32(start.pixel_size_angstrom[rows]),
    )


def particle_optics(start: StartingValues, rows: Int[np.ndarray, " n"]) -> Optics:
    """Optics of some rows of a table."""
    return jax.tree.map(lambda values: _float32(values[rows]), start.optics)


def _float32(values: Float[np.ndarray, "..."]) -> Float[Array, "..."]:
    return jnp.asarray(np.asarray(values, np.float32))  # converted without a program
