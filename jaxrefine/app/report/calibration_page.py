"""The page of a calibration: values with errors, correlations, scores, defocus planes."""

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxrefine.app.config.calibrate import OF_MICROGRAPHS
from jaxrefine.app.config.schema import show
from jaxrefine.app.console.calibration_summary import (
    SIGNIFICANT,
    format_with_error,
    has_gained,
    p_value_of,
)
from jaxrefine.app.report.calibration_figures import (
    correlation_figure,
    micrograph_figure,
    plane_figure,
    score_figure,
    value_figure,
)
from jaxrefine.app.report.figures import RenderedFigure
from jaxrefine.app.report.page_files import PAGE, make_folder, render_page, write_files
from jaxrefine.app.run.calibration import Calibration
from jaxrefine.app.run.record import versions

# Names of all figures that a page may have.
_PICTURES = ("values", "correlation", "scores", "micrographs", "plane_[0-9][0-9][0-9]")
_MOST_PLANES, _MOST_ROWS, _FEWEST_OF_A_PLANE = 6, 200, 3


class ValueRow(NamedTuple):
    """A row of a table of values."""

    name: str
    group: str
    particles: str
    start: str
    value: str
    gain: str = ""
    chance: str = ""


def default_folder(table: Path) -> Path:
    """Folder of the page, beside the table `<stem>_calibrated.csv`."""
    stem = table.stem.removesuffix("_calibrated")
    return table.with_name(f"{stem}_calibration_report")


def write_calibration_page(made: Calibration, found: Mapping[str, Any]) -> Path:
    """Write the page of a calibration, replacing an older one.

    Args:
        made: The calibration.
        found: `calibration_data` of it.

    Returns:
        Path of the page, which needs no other file.

    Raises:
        InputError: The folder cannot be written.
    """
    folder = default_folder(made.inputs.output)
    make_folder(folder)
    of_optics = [e for e in found["parameters"] if e["parameter"] not in OF_MICROGRAPHS]
    of_micrographs = [e for e in found["parameters"] if e["parameter"] in OF_MICROGRAPHS]
    held_out = made.held_out
    sections = {
        "values": value_figure(of_optics),
        "correlation": correlation_figure(found["correlation"]),
        "scores": [
            score_figure(
                made.before.z,
                made.fit.z,
                made.fit.weight,
                None if held_out is None else held_out.gain,
            )
        ],
        "micrographs": micrograph_figure(_of_micrographs(of_micrographs)),
        "planes": _planes(made),
    }
    config = made.inputs.run.config
    page = render_page(
        "calibration.html",
        title=made.inputs.run.table.path.name,
        table=str(made.inputs.output.absolute()),
        made=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        tiles=_tiles(found),
        warnings=_warnings(found),
        sections=sections,
        optics=_rows(of_optics),
        micrographs=_rows(of_micrographs)[:_MOST_ROWS],
        n_micrographs=len(_rows(of_micrographs)),
        held_out=_check(found["held_out"]),
        significant=f"{SIGNIFICANT:g}",
        settings=_settings(made),
        source=config.source,
        versions=versions("jax", "numpy", "matplotlib"),
    )
    pictures = [picture for some in sections.values() for picture in some]
    write_files(folder, page, pictures, _PICTURES)
    return folder / PAGE


def _tiles(found: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """(label, value, note) of the most important numbers."""
    before, after = found["mean_z_poses_refined"], found["mean_z_calibrated"]
    values = [v for e in found["parameters"] for v in e["values"].values()]
    known = sum("value" in value for value in values)
    tiles = [
        ("picks", f"{found['particles']:,}", "scored"),
        ("particles", f"{found['probable_particles']:,.0f}", "sum of their probabilities"),
        ("values", f"{known:,}", f"determined, of {len(values):,}"),
        (
            "mean 2DTM SNR",
            f"{after:.2f}",
            f"{before:.2f} with poses fitted alone",
        ),
    ]
    spread = found["defocus_spread"]
    if spread["standard_error"] is not None:
        note = f"± {spread['standard_error']:.0f} Å; {spread['assumed']:.0f} Å was assumed"
        tiles.append(("spread of the defocus", f"{spread['value']:.0f} Å", note))
    held_out = found["held_out"]
    if held_out is not None and held_out["gain"] is not None:
        gain, error = f"{held_out['gain']:+.3f}", held_out["gain_standard_error"]
        note = f"± {error:.3f}, mean 2DTM SNR"
        tiles.append(("gain where not fitted", _sign(gain), note))
    return tiles


def _warnings(found: Mapping[str, Any]) -> list[str]:
    said = []
    if not found["converged"]:
        said.append(
            f"The fit has not converged after {found['passes']} passes: raise "
            "calibrate.max_passes."
        )
    held = [
        f"{label} of {entry['group']}" if entry["group"] != "all" else label
        for entry in found["parameters"]
        for label, value in entry["values"].items()
        if "value" not in value
    ]
    if held:
        more = f" and {len(held) - 12} more" if len(held) > 12 else ""
        said.append(
            f"Not determined by the data, and held at the starting value: "
            f"{', '.join(held[:12])}{more}. The errors of the other values hold for these."
        )
    held_out = found["held_out"]
    if held_out is not None and held_out["gain"] is not None and not has_gained(held_out):
        said.append(
            "The 2DTM SNR of particles that were not fitted has not risen significantly: "
            "do not use the calibrated table without another reason to trust it."
        )
    return said


def _rows(entries: list[Mapping[str, Any]]) -> list[ValueRow]:
    """One row per value; gain and significance beside the first of a parameter."""
    rows = []
    for entry in entries:
        group, particles = entry["group"], f"{entry['particles']:,}"
        tested = ("", "")
        if "p_value" in entry:
            p_value, freedom = p_value_of(entry) or 0.0, entry["degrees_of_freedom"]
            size = entry.get("likelihood_ratio_gain", entry["log_likelihood_gain"])
            verdict = "not significant" if p_value > SIGNIFICANT else "significant"
            gain = f"{size:.2f} ({freedom})"
            tested = (gain, _sign(f"{p_value:.2g}, {verdict}"))
        for label, value in entry["values"].items():
            text = "not determined"
            if "value" in value:
                text = format_with_error(value["value"], value["standard_error"])
                text = _sign(f"{text} {entry['unit']}".strip())
            start = _sign(f"{value['start']:.6g}")
            rows.append(ValueRow(label, group, particles, start, text, *tested))
            tested = ("", "")
        if "tilt_deg" in entry:
            tilt = format_with_error(entry["tilt_deg"], entry["tilt_standard_error_deg"])
            text = f"({tilt})°, axis at {entry['tilt_axis_deg']:.0f}°"
            rows.append(ValueRow("tilt", group, particles, "", text))
    return rows


def _check(held_out: Mapping[str, Any] | None) -> str:
    """What the check on particles that were not fitted found, in a sentence."""
    if held_out is None or held_out["gain"] is None:
        return ""
    gain = f"{held_out['gain']:+.3f} ± {held_out['gain_standard_error']:.3f}"
    verdict = "significant" if has_gained(held_out) else "not significant"
    return (
        f"The parameters of the optics were also fitted to half of the "
        f"{held_out['halves_of']}. The {held_out['probable_particles']:.0f} particles of "
        f"the other half have a mean 2DTM SNR of "
        f"{held_out['mean_z_with_starting_values']:.3f} with the starting values and "
        f"{held_out['mean_z_with_values_of_the_other_half']:.3f} with the fitted ones: a "
        f"gain of {_sign(gain)}, {verdict}."
    )


def _of_micrographs(entries: list[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The values of each group of defocus or plane, as `micrograph_figure` takes them."""
    found: dict[str, dict[str, Any]] = {}
    for entry in entries:
        row = found.setdefault(entry["group"], {"name": entry["group"]})
        value = entry["values"].get("defocus", {})
        if "value" in value:
            row["defocus_change"] = (value["change"], value["standard_error"])
        if "tilt_deg" in entry:
            row["tilt"] = (entry["tilt_deg"], entry["tilt_standard_error_deg"])
    return list(found.values())


def _planes(made: Calibration) -> list[RenderedFigure]:
    """Figures of the micrographs with most probable particles."""
    inputs, state = made.inputs, made.fit.state
    if "defocus_plane" not in inputs.groups:
        return []
    column = inputs.run.table.micrograph_paths
    at = inputs.design.coordinates(state.own, state.shared)
    coordinate = at[:, inputs.design.local.slices["defocus"]][:, 0]
    defocus = inputs.run.start.defocus_angstrom.mean(axis=1) + coordinate
    likely = np.isfinite(made.fit.z) & (made.fit.weight >= 0.5)
    rows_of: dict[str, list[int]] = {}
    for row in np.flatnonzero(likely).tolist():
        rows_of.setdefault(column[row], []).append(row)
    largest = sorted(rows_of, key=lambda name: -len(rows_of[name]))
    figures = []
    for name in largest[:_MOST_PLANES]:
        rows = np.array(rows_of[name])
        if len(rows) < _FEWEST_OF_A_PLANE:
            continue
        slope = _slope(made, int(rows[0]))
        some = (inputs.place_angstrom[rows], defocus[rows], state.own[rows, 5], slope)
        figures.append(plane_figure(len(figures), name, *some))
    return figures


def _slope(made: Calibration, row: int) -> np.ndarray:
    """Slopes of the plane on which a particle lies."""
    design, shared = made.inputs.design, made.fit.state.shared
    numbers = design.index[row]
    of_plane = [n for n in numbers if design.values[n].parameter == "defocus_plane"]
    return shared[of_plane]


def _settings(made: Calibration) -> list[tuple[str, str]]:
    """The section of the configuration, with the columns that group the particles."""
    section = vars(made.inputs.run.config.calibrate)
    plain = [(key, show(value)) for key, value in section.items() if key != "groups"]
    columns = made.inputs.columns.items()
    return [*plain, *((f"groups.{name}", column) for name, column in columns)]


def _sign(text: str) -> str:
    """A number with typographic minus signs."""
    return text.replace("-", "−")
